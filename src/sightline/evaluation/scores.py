"""From predictions to the numbers that people quote, each with its interval or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sightline.errors import DataError, unknown
from sightline.evaluation.curves import auc, equal_error_rate, expected_calibration_error
from sightline.evaluation.intervals import auc_interval, macro_auc_interval, wilson
from sightline.records import Predictions


def rarer_class(predictions: Predictions) -> str:
    """The class with the fewest labelled images; of equals the last in order.

    Example:
        >>> rarer_class(Predictions(("1.jpg", "2.jpg"), ("cat", "dog"), np.array([0, 0]), np.eye(2)))
        'dog'
    """
    k, known = len(predictions.classes), predictions.y_true[predictions.y_true >= 0]
    counts = np.bincount(known, minlength=k)
    return predictions.classes[k - 1 - int(np.argmin(counts[::-1]))]


def score(predictions: Predictions, *, positive: str | None = None) -> dict[str, Any]:
    """Every number about one set of predictions, as plain JSON.

    Images without a label are counted in `unlabelled` and files without an answer in `undecodable`; neither is in `n`.

    Args:
        predictions: What a classifier said of images.
        positive: For two classes, the one whose probability the ROC curve ranks by; else the rarer one.

    Returns:
        `n`, `accuracy` with `accuracy_low` and `accuracy_high` (Wilson, 95 %), `balanced_accuracy` (mean recall of the classes
        that are there), `macro_f1` (mean over the classes that are there or were answered), `log_loss` (natural logarithm),
        `ece` (15 equal-width bins of the top probability), `roc_auc` with `roc_auc_low` and `roc_auc_high` (two classes: of
        `positive`, DeLong; more: mean of one against the rest), `eer` (two classes), `per_class`, `confusion` (rows the label,
        columns the answer), `classes`, `positive`, `inverted` (a sentence or None), `unlabelled`, `undecodable`, and
        `reasons`: for each None, and each mean over fewer than all classes, why.

    Raises:
        RequestError: `positive` is no class.
        DataError: A probability is not a number.
    """
    classes = predictions.classes
    if positive is not None and positive not in classes:
        raise unknown("class", positive, classes)
    labelled = predictions.y_true >= 0
    y, probs = predictions.y_true[labelled], predictions.probs[labelled]
    _check_finite(predictions)
    if positive is None and len(classes) == 2:
        positive = rarer_class(predictions)
    y_pred = predictions.y_pred[labelled]
    confusion = np.bincount(y * len(classes) + y_pred, minlength=len(classes) ** 2).reshape(len(classes), -1)
    reasons: dict[str, str] = {}
    result: dict[str, Any] = {"n": len(y), "classes": list(classes), "positive": positive}
    result |= _accuracy(y, y_pred, reasons)
    result["per_class"] = _per_class(confusion, classes, reasons)
    result |= _class_means(result["per_class"], reasons)
    result |= _probability_scores(y, y_pred, probs, classes, reasons)
    result |= _ranking(y, probs, classes, positive, result["per_class"], reasons)
    result["inverted"] = inversion(result, classes)
    result["confusion"] = [[int(v) for v in row] for row in confusion]
    result["unlabelled"] = int((~labelled).sum())
    result["undecodable"] = len(predictions.errors)
    result["reasons"] = reasons
    return result


def inversion(scores: Mapping[str, Any], classes: Sequence[str]) -> str | None:
    """What to tell the user where the area under the ROC curve lies wholly, interval included, under one half; else None."""
    area, low, high = scores.get("roc_auc"), scores.get("roc_auc_low"), scores.get("roc_auc_high")
    if area is None or low is None or high is None or high >= 0.5:
        return None
    start = f"The ROC AUC is {area:.3f} (95 % interval {low:.3f} to {high:.3f}), wholly under 0.5: the scores look inverted"
    if len(classes) != 2:
        return f"{start}. Most often the probability columns stand in another order than the class names."
    other = next(c for c in classes if c != scores.get("positive"))
    return (
        f"{start}, as when images are ranked by the probability of '{other}' while '{scores.get('positive')}' counts as "
        f"positive. {area:.3f} and {1 - area:.3f} are one curve, seen from both classes: swapping the class whose "
        f"probability is ranked mirrors it. Check the order of the probability columns and the positive class."
    )


def _check_finite(predictions: Predictions) -> None:
    """Refuse probabilities that are not numbers, naming the first image."""
    bad = np.flatnonzero(~np.isfinite(predictions.probs).all(axis=1))
    if bad.size:
        where = predictions.paths[int(bad[0])]
        hint = "the classifier's weights or its inputs hold values that are not numbers"
        raise DataError(f"{bad.size} images have probabilities that are not numbers, {where} the first", hint)


def _accuracy(y: np.ndarray, y_pred: np.ndarray, reasons: dict[str, str]) -> dict[str, Any]:
    """The share of right answers and its interval."""
    if not len(y):
        reasons["accuracy"] = "there are no labelled images"
        return {"accuracy": None, "accuracy_low": None, "accuracy_high": None}
    right = int((y == y_pred).sum())
    low, high = wilson(right, len(y))
    return {"accuracy": right / len(y), "accuracy_low": low, "accuracy_high": high}


def _per_class(confusion: np.ndarray, classes: Sequence[str], reasons: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Images, answers, precision, recall with its interval, and F1 of each class."""
    table: dict[str, dict[str, Any]] = {}
    for c, name in enumerate(classes):
        hit, n, answered = int(confusion[c, c]), int(confusion[c].sum()), int(confusion[:, c].sum())
        low, high = wilson(hit, n) if n else (None, None)
        table[name] = {
            "n": n,
            "answered": answered,
            "precision": hit / answered if answered else None,
            "recall": hit / n if n else None,
            "recall_low": low,
            "recall_high": high,
            "f1": 2 * hit / (n + answered) if n + answered else None,
        }
        if not n:
            reasons[f"per_class.{name}.recall"] = f"no image is labelled '{name}'"
        if not answered:
            reasons[f"per_class.{name}.precision"] = f"no image was answered '{name}'"
        if not n + answered:
            reasons[f"per_class.{name}.f1"] = f"no image is labelled or was answered '{name}'"
    return table


def _class_means(per_class: Mapping[str, Mapping[str, Any]], reasons: dict[str, str]) -> dict[str, float | None]:
    """Balanced accuracy and macro F1, over the classes for which they are defined."""
    result: dict[str, float | None] = {}
    for key, part in (("balanced_accuracy", "recall"), ("macro_f1", "f1")):
        values = [row[part] for row in per_class.values() if row[part] is not None]
        result[key] = float(np.mean(values)) if values else None
        if not values:
            reasons[key] = "there are no labelled images"
        elif len(values) < len(per_class):
            reasons[key] = f"the mean over {len(values)} of {len(per_class)} classes; the others have no images here"
    return result


def _probability_scores(
    y: np.ndarray, y_pred: np.ndarray, probs: np.ndarray, classes: Sequence[str], reasons: dict[str, str]
) -> dict[str, float | None]:
    """Log loss and calibration error."""
    if not len(y) or len(classes) < 2:
        why = "there are no labelled images" if not len(y) else "there is one class only"
        reasons.update(log_loss=why, ece=why)
        return {"log_loss": None, "ece": None}
    tiny = np.finfo(np.float64).eps  # scikit-learn's bound: a wrong answer of certainty 1 costs 36, not infinity
    rows = np.arange(len(y))
    log_loss = -float(np.log(np.clip(probs[rows, y], tiny, 1 - tiny)).mean())
    return {"log_loss": log_loss, "ece": expected_calibration_error(y == y_pred, probs[rows, y_pred])}


def _ranking(
    y: np.ndarray,
    probs: np.ndarray,
    classes: Sequence[str],
    positive: str | None,
    per_class: Mapping[str, dict[str, Any]],
    reasons: dict[str, str],
) -> dict[str, float | None]:
    """ROC AUC with its interval and the equal error rate; writes each class's own area into `per_class`."""
    result: dict[str, float | None] = dict.fromkeys(("roc_auc", "roc_auc_low", "roc_auc_high", "eer"))
    for c, name in enumerate(classes):
        per_class[name]["roc_auc"] = auc(y == c, probs[:, c])
    defined = [row["roc_auc"] for row in per_class.values() if row["roc_auc"] is not None]
    if not defined or len(classes) < 2:
        why = "the images are all of one class" if len(y) else "there are no labelled images"
        reasons.update(roc_auc=why, roc_auc_low=why, roc_auc_high=why, eer=why)
        return result
    if len(classes) == 2 and positive is not None:
        truth, ranked = y == classes.index(positive), probs[:, classes.index(positive)]
        interval = auc_interval(truth, ranked)
        result["roc_auc"], result["eer"] = auc(truth, ranked), equal_error_rate(truth, ranked)
    else:
        interval = macro_auc_interval(y, probs)
        result["roc_auc"] = float(np.mean(defined))
        reasons["eer"] = f"it is defined for two classes, here are {len(classes)}"
        if len(defined) < len(classes):
            reasons["roc_auc"] = f"the mean over {len(defined)} of {len(classes)} classes; the others have no images here"
    if interval is not None:
        result["roc_auc_low"], result["roc_auc_high"] = interval
    return result
