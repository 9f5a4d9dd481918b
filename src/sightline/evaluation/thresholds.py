"""For two classes: from which probability on an image is answered with the positive class, by a named criterion."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from sightline.errors import DataError, RequestError, unknown
from sightline.records import Predictions

HALF = "half"
"""One half: the likelier class is the answer. What is done where nobody names a criterion."""
_NUMBERS = re.compile(r"^(?P<name>[a-z][a-z0-9]*)(=(?P<first>[0-9.eE+-]+)(:(?P<second>[0-9.eE+-]+))?)?$")


def threshold(predictions: Predictions, positive: str, criterion: str) -> float:
    """The probability of the positive class from which on it is the answer.

    It lies halfway between two neighbouring probabilities, so that it says the same of these images and leaves both the
    same room. Choose it on images that are not in the test split; the scores of these very images are then a little too good.

    Args:
        predictions: Of two classes, labelled; images without a label are left out.
        positive: The class whose probability is compared.
        criterion: `half`; `youden` (true positive rate minus false positive rate is greatest); `eer` (both error rates are
            equal, as nearly as images allow); `f1` (of the positive class, greatest); `cost=5:1` (a missed positive costs 5,
            a false alarm 1; the sum is least); `fpr=0.01` (the most positives found with at most this share of negatives
            let through).

    Returns:
        In 0–1, and just above 1 where no image should be answered with the positive class.

    Raises:
        RequestError: The criterion is not known, or its numbers are wrong.
        DataError: There are not two classes, or images of one only.
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
    # Every distinct probability is a candidate: from it on the answer is positive; the last one answers no image so.
    levels = np.unique(score)
    above = len(score) - np.searchsorted(np.sort(score), levels, "left")
    hits = y.sum() - np.searchsorted(np.sort(score[y]), levels, "left")
    found, alarms = np.r_[hits, 0].astype(np.float64), np.r_[above - hits, 0].astype(np.float64)
    gain = rule(found, alarms, float(y.sum()), float((~y).sum()))
    # Of equals the one nearest to a half: it asks least of the calibration.
    edges = np.r_[levels[0] / 2, (levels[1:] + levels[:-1]) / 2, (levels[-1] + 1) / 2 if levels[-1] < 1 else np.nextafter(1, 2)]
    best = np.flatnonzero(gain >= gain.max() - 1e-12)
    return float(edges[best[np.argmin(np.abs(edges[best] - 0.5))]])


_Rule = Callable[[np.ndarray, np.ndarray, float, float], np.ndarray]


def _rule(criterion: str) -> tuple[str, _Rule]:
    """What is to be greatest, as a function of positives found, false alarms, positives and negatives.

    Raises:
        RequestError: There is no such criterion.
    """
    parts = _NUMBERS.match(criterion.strip().lower())
    name = parts["name"] if parts else criterion
    if parts is None or name not in CRITERIA:
        raise unknown("criterion for a threshold", name, CRITERIA)
    try:
        numbers = [float(parts[k]) for k in ("first", "second") if parts[k] is not None]
    except ValueError:
        numbers = [-1.0]
    wanted = {"cost": 2, "fpr": 1}.get(name, 0)
    right = len(numbers) == wanted and all(np.isfinite(n) and n >= 0 for n in numbers)
    if name == "cost":
        right = right and sum(numbers) > 0
    if name == "fpr":
        right = right and numbers[0] <= 1
    if not right:
        raise RequestError(f"the threshold {criterion!r} cannot be read", f"write it as {CRITERIA[name]}")
    if name == "cost":
        missed, alarm = numbers
        return name, lambda found, alarms, p, n: -(missed * (p - found) + alarm * alarms)
    if name == "fpr":
        limit = numbers[0]
        return name, lambda found, alarms, p, n: np.where(alarms <= limit * n + 1e-9, found - 1e-6 * alarms, -np.inf)
    if name == "eer":
        return name, lambda found, alarms, p, n: -np.abs(alarms / n - (p - found) / p)
    if name == "f1":
        return name, lambda found, alarms, p, n: 2 * found / (p + found + alarms)
    return name, lambda found, alarms, p, n: found / p - alarms / n


def check_criterion(criterion: str) -> str:
    """A criterion as it was given, if it is one.

    Raises:
        RequestError: It is none.
    """
    _rule(criterion)
    return criterion


def costs(criterion: str) -> tuple[float, float]:
    """What a missed positive and a false alarm cost by a criterion; one each where it names no prices.

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
