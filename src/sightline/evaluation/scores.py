"""From predictions to the numbers that people quote, each with its interval or the reason why there is none."""

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
    """One metric of `METRICS` alone, without its interval; NaN where it is undefined.

    Args:
        name: Its name.
        y: int (n,), class indices.
        probs: float (n, k), probabilities. For two classes curves rank by those of the second.

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
    """Every number about one set of predictions, as plain JSON.

    Images without a label are counted in `unlabelled` and files without an answer in `undecodable`; neither is in `n`.

    Args:
        predictions: What a classifier said of images.
        positive: For two classes, the one whose probability the curves rank by; else the rarer one.
        groups: (n,) equal values for images that belong together (duplicates, one patient, one scene): they count less
            than as many images of their own, and intervals are wider for it. None where each is on its own.
        top: How many answers count for `top_5`, which is called after it.
        seed: The drawn sets behind the intervals are a function of it and of the answers, whatever their order.

    Returns:
        `n`, `classes`, `positive`; every metric of `METRICS` under its name with `NAME_low` and `NAME_high`, the ends of its
        95 % interval; `per_class` with `n`, `answered` and every metric of `CLASS_METRICS` in the same way for each class;
        `intervals`, where each interval comes from, in words; `clusters`, how many images there are if those that belong
        together count once; `confusion` (rows the label, columns the answer), `inverted` (a sentence or None),
        `unlabelled`, `undecodable`, and `reasons`: for each None, and each mean over fewer than all classes, why.

    Raises:
        RequestError: `positive` is no class, or `top` is below 1.
        DataError: A probability is not a number, or `groups` does not hold one value per image.
    """
    if top < 1:
        raise RequestError(f"top must be at least 1, not {top}", "leave it out for the five likeliest classes")
    sample = sampled(predictions, positive, groups)
    classes, k = sample.classes, len(sample.classes)
    whole, each = estimates(sample, top=top, seed=seed)
    whole = {f"top_{top}" if name == "top_5" else name: e for name, e in whole.items()}
    confusion = np.bincount(sample.y * k + sample.y_pred, minlength=k**2).reshape(k, k)
    reasons: dict[str, str] = {}
    result: dict[str, Any] = {"n": len(sample), "classes": list(classes), "positive": sample.positive}
    for name, estimate in whole.items():
        result |= _told(name, estimate, 0, reasons, name, undefined_reason(estimate.metric, sample))
    _say_partial_means(result, whole, each, reasons)
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


def _told(name: str, estimate: Estimate, i: int, reasons: dict[str, str], key: str, why: str) -> dict[str, float | None]:
    """One value with its interval, as plain numbers; what is missing gets its reason under `key`."""
    value, ends = float(estimate.values[i]), estimate.ends[i]
    if math.isnan(value):
        reasons |= {key: why, f"{key}_low": why, f"{key}_high": why}
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    if ends is None:
        why = "the drawn sets of images are all alike in it, or leave it undefined"
        reasons |= {f"{key}_low": why, f"{key}_high": why}
        return {name: value, f"{name}_low": None, f"{name}_high": None}
    return {name: value, f"{name}_low": min(ends[0], value), f"{name}_high": max(ends[1], value)}


def _say_partial_means(
    result: Mapping[str, Any], whole: Mapping[str, Estimate], each: Mapping[str, Estimate], reasons: dict[str, str]
) -> None:
    """A reason beside each mean over the classes that leaves some out."""
    for name, estimate in whole.items():
        part = estimate.metric.mean_of
        if part is None or result[name] is None:
            continue
        known = int((~np.isnan(each[part].values)).sum())
        if known < len(each[part].values):
            reasons[name] = f"the mean over {known} of {len(each[part].values)} classes; {each[part].metric.left_out}"


def _per_class(
    sample: Sample, confusion: np.ndarray, each: Mapping[str, Estimate], reasons: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Images, answers and the metrics of each class."""
    table: dict[str, dict[str, Any]] = {}
    for c, name in enumerate(sample.classes):
        table[name] = {"n": int(confusion[c].sum()), "answered": int(confusion[:, c].sum())}
        for metric, estimate in each.items():
            why = undefined_reason(estimate.metric, sample, name)
            table[name] |= _told(metric, estimate, c, reasons, f"per_class.{name}.{metric}", why)
    return table


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
