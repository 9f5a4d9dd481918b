"""Trade-off curves: precision–recall, DET, accuracy–coverage, and metrics by decision threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.evaluation.curves import calibration_curve, roc_curve
from sightline.evaluation.ranking import rank_scores
from sightline.evaluation.thresholds import costs
from sightline.records import Predictions

MOST_POINTS = 1_000
"""Maximum number of points of a curve in a table."""
MOST_CLASSES = 100
"""Maximum number of classes in a table of curves: those with the smallest ROC AUC."""


def precision_recall_curve(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the precision–recall curve.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher means more likely positive.

    Returns:
        Precision and recall, float64 (m + 1,) each, ending with (1, 0), and the m distinct scores in rising order. Recall is
        NaN without positive images.

    Source: the definition of scikit-learn's `precision_recall_curve`, to the last point.
    """
    y, score = np.asarray(y, dtype=bool), np.asarray(score, dtype=np.float64)
    levels, hits, predicted = _from_each(y, score)
    recall = hits / y.sum() if y.any() else np.full(len(hits), np.nan)
    return np.r_[hits / predicted, 1.0], np.r_[recall, 0.0], levels


def det_curve(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the detection error tradeoff (DET) curve: the points of `roc_curve` as false positive and false negative rates.

    Returns:
        False positive rate, false negative rate and threshold, float64 (m,) each.

    Source: Martin et al. 1997, "The DET curve in assessment of detection task performance".
    """
    fpr, tpr, levels = roc_curve(y, score)
    return fpr, 1.0 - tpr, levels


def accuracy_coverage(correct: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the accuracy–coverage curve: accuracy if predictions below a confidence threshold are withheld.

    Args:
        correct: bool (n,), whether each prediction is correct.
        confidence: float (n,), probability of the predicted class.

    Returns:
        Coverage (share of images with a prediction, rising to 1), accuracy on these, and confidence threshold, float64 (m,)
        each.

    Source: Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks", section 2: one minus
    the selective risk.
    """
    correct, confidence = np.asarray(correct, dtype=bool), np.asarray(confidence, dtype=np.float64)
    levels, right, covered = _from_each(correct, confidence)
    return (covered / max(len(correct), 1))[::-1], (right / covered)[::-1], levels[::-1]


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """Precision, recall and cost by decision threshold; float64 (m,) each.

    Args:
        threshold: Rising, each halfway between two neighbouring probabilities.
        precision: Precision of the positive class; NaN if no image is predicted positive.
        recall: Recall of the positive class.
        cost: Mean cost of missed positives and false alarms over all images.
        missed, alarm: Cost of one missed positive and of one false alarm.
    """

    threshold: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    cost: np.ndarray
    missed: float
    alarm: float


def threshold_curve(y: np.ndarray, score: np.ndarray, missed: float = 1.0, alarm: float = 1.0) -> ThresholdCurve:
    """Return precision, recall and cost by decision threshold.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), probability of the positive class.
        missed, alarm: Cost of a missed positive and of a false alarm; with 1 and 1 the cost is the error rate.
    """
    y, score = np.asarray(y, dtype=bool), np.asarray(score, dtype=np.float64)
    levels, hits, predicted = _from_each(y, score)
    if len(levels):
        levels = np.r_[levels[0] / 2, (levels[1:] + levels[:-1]) / 2, (levels[-1] + 1) / 2]
        hits, predicted = np.r_[hits, 0.0], np.r_[predicted, 0.0]
    positives = float(y.sum())
    precision = np.divide(hits, predicted, out=np.full(len(hits), np.nan), where=predicted > 0)
    recall = hits / positives if positives else np.full(len(hits), np.nan)
    cost = (missed * (positives - hits) + alarm * (predicted - hits)) / max(len(y), 1)
    return ThresholdCurve(levels, precision, recall, cost, missed, alarm)


def _from_each(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct scores in rising order, and the numbers of positives and of images at or above each; float64 (m,)."""
    levels, which = np.unique(score, return_inverse=True)
    total = np.bincount(which.ravel(), minlength=len(levels))
    hits = np.bincount(which.ravel(), weights=positive, minlength=len(levels))
    return levels, np.cumsum(hits[::-1])[::-1], np.cumsum(total[::-1])[::-1].astype(np.float64)


def thinned(length: int, most: int = MOST_POINTS) -> np.ndarray:
    """Return at most `most` evenly spaced indices of a curve with `length` points, including its ends; int64."""
    return (
        np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(np.int64)) if length else np.zeros(0, np.int64)
    )


def curve_tables(
    predictions: Predictions, scores: Mapping[str, Any], criterion: str = "half"
) -> dict[str, list[dict[str, str | float | int]]]:
    """Return the points of every curve, as tables.

    Args:
        predictions: Predicted probabilities; images without a label are left out.
        scores: Result of `score` for these predictions.
        criterion: Criterion of the decision threshold; the curve by threshold uses its costs.

    Returns:
        `roc`, `det` and `precision_recall` of each class against the rest (at most the 100 hardest classes), `calibration`,
        `accuracy_coverage`, and for two classes `thresholds` of the positive one. An undefined curve is left out; a curve with
        more than 1,000 points is thinned evenly.
    """
    labelled = predictions.select(predictions.y_true >= 0)
    if not len(labelled) or len(labelled.classes) < 2:
        return {}
    tables: dict[str, list[dict[str, str | float | int]]] = {}
    areas = {c: row.get("roc_auc") for c, row in scores["per_class"].items()}
    ranked, levels_of = rank_scores(labelled.probs)

    def at(scores: np.ndarray, k: int) -> np.ndarray:
        """Return the probabilities at scores of `ranked`, infinity at infinite ones."""
        if not len(levels_of):
            return scores
        finite = np.isfinite(scores)
        return np.where(finite, levels_of[np.where(finite, scores, 0).astype(np.int64), k], scores)

    hardest = sorted((c for c in labelled.classes if areas.get(c) is not None), key=lambda c: areas[c])[:MOST_CLASSES]
    for name in (c for c in labelled.classes if c in set(hardest)):
        k = labelled.classes.index(name)
        y, p = labelled.y_true == k, ranked[:, k]
        fpr, tpr, thresholds = roc_curve(y, p)
        _add(tables, "roc", name, ("false_positive_rate", "true_positive_rate", "threshold"), (fpr, tpr, at(thresholds, k)))
        _add(
            tables, "det", name, ("false_positive_rate", "false_negative_rate", "threshold"), (fpr, 1 - tpr, at(thresholds, k))
        )
        precision, recall, levels = precision_recall_curve(y, p)
        names = ("precision", "recall", "threshold")
        _add(tables, "precision_recall", name, names, (precision, recall, at(np.r_[levels, np.inf], k)))
    correct = labelled.y_pred == labelled.y_true
    confidence = labelled.probs[np.arange(len(labelled)), labelled.y_pred]
    tables["calibration"] = [
        {"low": b.low, "high": b.high, "n": b.n, "certainty": b.confidence, "accuracy": b.accuracy}
        for b in calibration_curve(correct, confidence)
    ]
    _add(tables, "accuracy_coverage", None, ("coverage", "accuracy", "certainty"), accuracy_coverage(correct, confidence))
    positive = scores.get("positive")
    if len(labelled.classes) == 2 and positive in hardest:
        k, (missed, alarm) = labelled.classes.index(positive), costs(criterion)
        c = threshold_curve(labelled.y_true == k, labelled.probs[:, k], missed, alarm)
        four = ("threshold", "precision", "recall", "cost")
        _add(tables, "thresholds", positive, four, (c.threshold, c.precision, c.recall, c.cost))
    return tables


def _add(
    tables: dict[str, list[dict[str, str | float | int]]],
    table: str,
    name: str | None,
    columns: tuple[str, ...],
    values: tuple[np.ndarray, ...],
) -> None:
    """Append one curve's points to a table, with the class if there is one; a non-finite value becomes an empty cell."""
    rows = tables.setdefault(table, [])
    for i in thinned(len(values[0])).tolist():
        numbers = {c: float(v[i]) if np.isfinite(v[i]) else "" for c, v in zip(columns, values, strict=True)}
        rows.append(numbers if name is None else {"class": name, **numbers})
