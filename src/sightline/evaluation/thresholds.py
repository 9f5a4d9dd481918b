"""Decision thresholds for two classes: choose the probability at which the positive class is predicted."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from sightline.errors import DataError, RequestError, unknown
from sightline.records import Predictions

HALF = "half"
"""Default criterion: the threshold 0.5, at which the more probable class is predicted."""
_NUMBERS = re.compile(r"^(?P<name>[a-z][a-z0-9]*)(=(?P<first>[0-9.eE+-]+)(:(?P<second>[0-9.eE+-]+))?)?$")


def threshold(predictions: Predictions, positive: str, criterion: str) -> float:
    """Return the decision threshold for the positive class that is optimal by a criterion.

    It lies halfway between two neighbouring probabilities of these images. Choose it on images outside the test split; the
    scores of the images that it is chosen on are slightly optimistic.

    Args:
        predictions: Predictions of two classes; images without a label are left out.
        positive: Class whose probability is compared with the threshold.
        criterion: `half`: 0.5; `youden`: maximise true positive rate minus false positive rate; `eer`: make false positive and
            false negative rate as equal as possible; `f1`: maximise F1 of the positive class; `cost=5:1`: minimise the cost,
            with 5 for a missed positive and 1 for a false alarm; `fpr=0.01`: maximise recall with at most this false positive
            rate.

    Returns:
        Threshold in 0–1, or just above 1 if no image should be predicted positive.

    Raises:
        RequestError: If the criterion is unknown, or its numbers are invalid.
        DataError: If there are not two classes, or all images are of one class.
    """
    name, rule = _rule(criterion)
    if len(predictions.classes) != 2:
        raise DataError(f"a threshold needs two classes, here are {len(predictions.classes)}", "leave out --threshold")
    if positive not in predictions.classes:
        raise unknown("class", positive, predictions.classes)
    if name == HALF:
        return 0.5
    labelled = predictions.y_true >= 0
    index = predictions.classes.index(positive)
    y, score = predictions.y_true[labelled] == index, predictions.probs[labelled, index]
    if y.all() or not y.any():
        raise DataError(f"the threshold by {criterion} needs held-out images of both classes", "leave out --threshold")
    # Every distinct probability is a candidate; above the last one no image is predicted positive.
    levels = np.unique(score)
    above = len(score) - np.searchsorted(np.sort(score), levels, "left")
    hits = y.sum() - np.searchsorted(np.sort(score[y]), levels, "left")
    found_positives, alarms = np.r_[hits, 0].astype(np.float64), np.r_[above - hits, 0].astype(np.float64)
    gain = rule(found_positives, alarms, float(y.sum()), float((~y).sum()))
    # Of equally good thresholds take the one nearest to 0.5, which depends least on calibration.
    edges = np.r_[levels[0] / 2, (levels[1:] + levels[:-1]) / 2, (levels[-1] + 1) / 2 if levels[-1] < 1 else np.nextafter(1, 2)]
    best = np.flatnonzero(gain >= gain.max() - 1e-12)
    return float(edges[best[np.argmin(np.abs(edges[best] - 0.5))]])


_Rule = Callable[[np.ndarray, np.ndarray, float, float], np.ndarray]


def _rule(criterion: str) -> tuple[str, _Rule]:
    """Return a criterion's name and its objective to maximise: a function of hits, false alarms, positives and negatives.

    Raises:
        RequestError: If the criterion is unknown, or its numbers are invalid.
    """
    parts = _NUMBERS.match(criterion.strip().lower())
    name = parts["name"] if parts else criterion
    if parts is None or name not in CRITERIA:
        raise unknown("criterion for a threshold", name, CRITERIA)
    try:
        numbers = [float(parts[k]) for k in ("first", "second") if parts[k] is not None]
    except ValueError:
        numbers = [-1.0]
    expected = {"cost": 2, "fpr": 1}.get(name, 0)
    valid = len(numbers) == expected and all(np.isfinite(n) and n >= 0 for n in numbers)
    if name == "cost":
        valid = valid and sum(numbers) > 0
    if name == "fpr":
        valid = valid and numbers[0] <= 1
    if not valid:
        raise RequestError(f"the threshold criterion {criterion!r} is not valid", f"write it as {CRITERIA[name]}")
    if name == "cost":
        missed, alarm = numbers
        return name, lambda hits, alarms, p, n: -(missed * (p - hits) + alarm * alarms)
    if name == "fpr":
        limit = numbers[0]
        return name, lambda hits, alarms, p, n: np.where(alarms <= limit * n + 1e-9, hits - 1e-6 * alarms, -np.inf)
    if name == "eer":
        return name, lambda hits, alarms, p, n: -np.abs(alarms / n - (p - hits) / p)
    if name == "f1":
        return name, lambda hits, alarms, p, n: 2 * hits / (p + hits + alarms)
    return name, lambda hits, alarms, p, n: hits / p - alarms / n


def check_criterion(criterion: str) -> str:
    """Return the criterion if it is valid.

    Raises:
        RequestError: If it is unknown, or its numbers are invalid.
    """
    _rule(criterion)
    return criterion


def costs(criterion: str) -> tuple[float, float]:
    """Return the costs of a missed positive and of a false alarm by a criterion; 1 each unless it names them.

    Example:
        >>> costs("cost=5:1"), costs("youden")
        ((5.0, 1.0), (1.0, 1.0))
    """
    parts = _NUMBERS.match(criterion.strip().lower())
    if parts is None or parts["name"] != "cost":
        return 1.0, 1.0
    return float(parts["first"]), float(parts["second"])


CRITERIA: dict[str, str] = {
    HALF: "half",
    "youden": "youden",
    "eer": "eer",
    "f1": "f1",
    "cost": "cost=5:1 (a missed positive costs 5, a false alarm 1)",
    "fpr": "fpr=0.01 (a share from 0 to 1)",
}
