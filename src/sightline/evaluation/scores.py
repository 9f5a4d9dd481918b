"""Scores of predictions: every metric with its 95 % interval, or the reason why it has none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sightline.errors import RequestError
from sightline.evaluation.bootstrap_counts import tally
from sightline.evaluation.metrics import METRICS, TOP, undefined_reason
from sightline.evaluation.ranking import rankings
from sightline.evaluation.resampling import Estimate, estimates
from sightline.evaluation.sample import Sample, sampled
from sightline.records import Predictions


def metric_of(name: str, y: np.ndarray, probs: np.ndarray) -> float:
    """Return one metric of `METRICS` without its interval; NaN where it is undefined.

    Args:
        name: Name in `METRICS`.
        y: int (n,), class indices.
        probs: float (n, k), probabilities. With two classes, the second is the positive class.

    Example:
        >>> metric_of("balanced_accuracy", np.array([0, 0, 0, 1]), np.array([[0.9, 0.1]] * 4))
        0.5
    """
    k = probs.shape[1]
    classes = tuple(f"{i:06d}" for i in range(k))
    sample = sampled(Predictions(tuple(map(str, range(len(y)))), classes, y.astype(np.int64), probs), positive=classes[-1])
    ranked = rankings(sample) if METRICS[name].from_ranking else []
    return float(METRICS[name].formula(tally(sample, TOP, ranked), sample)[0])


def score(
    predictions: Predictions,
    *,
    positive: str | None = None,
    groups: np.ndarray | None = None,
    top: int = TOP,
    seed: int = 0,
) -> dict[str, Any]:
    """Return all metrics of one set of predictions, as plain JSON.

    Images without a label are counted in `unlabelled`, files without a prediction in `undecodable`; neither is in `n`.

    Args:
        predictions: Predicted probabilities of images.
        positive: Positive class for two classes; the rarer one by default.
        groups: (n,), equal values for images that belong together (duplicates, one patient, one scene). They carry less
            information than independent images, which makes the intervals wider. None if all images are independent.
        top: Number of most probable classes in which `top_5` looks for the true class; the metric is named after it.
        seed: Random seed of the bootstrap. The intervals don't depend on the order of the images.

    Returns:
        `n`, `classes`, `positive`; every metric of `METRICS` under its name with the ends of its 95 % interval, `NAME_low` and
        `NAME_high`; `per_class` with `n`, `answered` (the number of predictions of the class) and every metric of
        `CLASS_METRICS` with its interval; `intervals`, the method of each interval; `clusters`, the number of independent
        groups of images; `confusion` (rows: true class, columns: predicted class), `inverted` (a warning or None),
        `unlabelled`, `undecodable`, and `reasons`: why a value is None, or why a mean leaves out some classes.

    Raises:
        RequestError: If `positive` is no class, or `top` is below 1.
        DataError: If a probability is NaN or infinite, or `groups` does not hold one value per image.
    """
    if top < 1:
        raise RequestError(f"top must be at least 1, not {top}", "leave it out for the five most probable classes")
    sample = sampled(predictions, positive, groups)
    classes, k = sample.classes, len(sample.classes)
    whole, each = estimates(sample, top=top, seed=seed)
    whole = {f"top_{top}" if name == "top_5" else name: e for name, e in whole.items()}
    confusion = np.bincount(sample.y * k + sample.y_pred, minlength=k**2).reshape(k, k)
    reasons: dict[str, str] = {}
    result: dict[str, Any] = {"n": len(sample), "classes": list(classes), "positive": sample.positive}
    for name, estimate in whole.items():
        result |= _with_interval(name, estimate, 0, reasons, name, undefined_reason(estimate.metric, sample))
    _explain_partial_means(result, whole, each, reasons)
    result["per_class"] = _per_class(sample, confusion, each, reasons)
    result["intervals"] = {name: e.how for name, e in whole.items() if result[f"{name}_low"] is not None}
    result["intervals"] |= {f"per_class.{name}": e.how for name, e in each.items() if any(e.ends)}
    result["clusters"] = len(sample.stratum)
    result["inverted"] = inversion(result, classes)
    result["confusion"] = [[int(v) for v in row] for row in confusion]
    result["unlabelled"] = len(predictions) - len(sample)
    result["undecodable"] = len(predictions.errors)
    result["reasons"] = reasons
    return result


def _with_interval(
    name: str, estimate: Estimate, i: int, reasons: dict[str, str], key: str, why: str
) -> dict[str, float | None]:
    """Return one value with its interval as numbers; add the reason for a missing one to `reasons` under `key`."""
    value, ends = float(estimate.values[i]), estimate.ends[i]
    if math.isnan(value):
        reasons |= {key: why, f"{key}_low": why, f"{key}_high": why}
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    if ends is None:
        why = "it is the same in all bootstrap samples, or undefined in most of them"
        reasons |= {f"{key}_low": why, f"{key}_high": why}
        return {name: value, f"{name}_low": None, f"{name}_high": None}
    return {name: value, f"{name}_low": min(ends[0], value), f"{name}_high": max(ends[1], value)}


def _explain_partial_means(
    result: Mapping[str, Any], whole: Mapping[str, Estimate], each: Mapping[str, Estimate], reasons: dict[str, str]
) -> None:
    """Add a reason for each mean over classes that leaves some classes out."""
    for name, estimate in whole.items():
        part = estimate.metric.mean_of
        if part is None or result[name] is None:
            continue
        defined = int((~np.isnan(each[part].values)).sum())
        if defined < len(each[part].values):
            reasons[name] = f"the mean over {defined} of {len(each[part].values)} classes; {each[part].metric.left_out}"


def _per_class(
    sample: Sample, confusion: np.ndarray, each: Mapping[str, Estimate], reasons: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Return the number of images, the number of predictions and the metrics of each class."""
    table: dict[str, dict[str, Any]] = {}
    for c, name in enumerate(sample.classes):
        table[name] = {"n": int(confusion[c].sum()), "answered": int(confusion[:, c].sum())}
        for metric, estimate in each.items():
            why = undefined_reason(estimate.metric, sample, name)
            table[name] |= _with_interval(metric, estimate, c, reasons, f"per_class.{name}.{metric}", why)
    return table


def inversion(scores: Mapping[str, Any], classes: Sequence[str]) -> str | None:
    """Return a warning if the whole interval of the ROC AUC lies below 0.5, else None."""
    area, low, high = scores.get("roc_auc"), scores.get("roc_auc_low"), scores.get("roc_auc_high")
    if area is None or low is None or high is None or high >= 0.5:
        return None
    start = f"The ROC AUC is {area:.3f} (95 % interval {low:.3f} to {high:.3f}), entirely below 0.5: the scores look inverted"
    if len(classes) != 2:
        return f"{start}. The most frequent cause is that the probability columns are in another order than the class names."
    other = next(c for c in classes if c != scores.get("positive"))
    return (
        f"{start}, as if images were ranked by the probability of '{other}' while '{scores.get('positive')}' is the positive "
        f"class. With the classes swapped, the same curve has the area {1 - area:.3f}. "
        f"Check the order of the probability columns and the positive class."
    )
