"""Split-conformal prediction sets: sets of classes that contain the true class with a guaranteed frequency.

A class is in the set of an image unless its probability is lower than that of the true class was for nearly all held-out images
(LAC, least ambiguous set-valued classifiers). Of all sets with the same average coverage these are the smallest, and they
need no randomisation; adaptive sets (APS) without randomisation have more coverage than promised, at the price of larger sets.
A
set may be empty: then no class is as probable as the true class usually is.

Source: Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World", section 4.5; Sadinle, Lei and Wasserman 2019,
"Least ambiguous set-valued classifiers with bounded error levels", sections 2 and 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.errors import DataError, RequestError
from sightline.evaluation.intervals import wilson
from sightline.records import Predictions

COVERAGE = 0.95
"""Default coverage of prediction sets."""
_Z = 1.2816  # the normal distribution's 90 % quantile
_EXACT = 1e-9  # (n + 1) · coverage may be a whole number that floats put just above


@dataclass(frozen=True, slots=True)
class UncertaintyFit:
    """Prediction sets of images, and which predictions are unsure.

    Args:
        coverage: Guaranteed frequency with which the set contains the true class, 0–1.
        sets: bool (n, k), which classes are in each set.
        unsure: bool (n,), which predictions are unsure.
    """

    coverage: float
    sets: np.ndarray
    unsure: np.ndarray


@dataclass(frozen=True, slots=True)
class UncertaintyLimits:
    """Thresholds from which prediction sets and unsure predictions follow.

    Args:
        coverage: Guaranteed frequency with which a set contains the true class, 0–1.
        thresholds: Score threshold of every class, float64 (k,).
        confidence: Confidence threshold, from `confidence_threshold`.
    """

    coverage: float
    thresholds: np.ndarray
    confidence: float

    def of(self, predictions: Predictions) -> UncertaintyFit:
        """Return the prediction sets of predictions, and which predictions are unsure."""
        members = sets(predictions.probs, self.thresholds)
        doubtful = unsure(predictions.probs, predictions.y_pred, members, self.confidence, self.coverage)
        return UncertaintyFit(self.coverage, members, doubtful)


def check_coverage(coverage: float) -> float:
    """Return the coverage if it is valid.

    Raises:
        RequestError: If it is not between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise RequestError(
            f"the coverage of prediction sets cannot be {coverage:g}", "use a number between 0 and 1, such as --sets 0.9"
        )
    return coverage


def needed(coverage: float) -> int:
    """Return the minimum number of held-out images for a coverage of 1 - α: 1 / α - 1.

    Example:
        >>> needed(0.9), needed(0.95), needed(0.99)
        (9, 19, 99)
    """
    return math.ceil(1 / (1 - check_coverage(coverage)) - 1 - _EXACT)


def nonconformity(probs: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    """Return nonconformity scores, one minus the probability of the true class, float64 (n,)."""
    return np.asarray(1 - probs[np.arange(len(y_true)), y_true], dtype=np.float64)


def quantile(scores: np.ndarray, coverage: float) -> float:
    """Return the ⌈(n + 1) · coverage⌉-th smallest score; infinity if there are too few scores for this coverage.

    The score of another image of the same kind is at most this with a probability of at least `coverage`, and of less than
    `coverage` + 1 / (n + 1) without ties.

    Args:
        scores: float (n,), scores of images that the classifier was not fitted on.
        coverage: 0–1.

    Example:
        >>> quantile(np.arange(1, 20) / 20, 0.95), quantile(np.arange(1, 19) / 20, 0.95)
        (0.95, inf)
    """
    rank = math.ceil((len(scores) + 1) * check_coverage(coverage) - _EXACT)
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else math.inf


def quantiles(scores: np.ndarray, labels: np.ndarray, classes: int, coverage: float, *, by_class: bool = False) -> np.ndarray:
    """Return the score threshold of every class, float64 (k,): one for all, or one for each class.

    Args:
        scores: float (n,), nonconformity scores.
        labels: int (n,), true class indices.
        classes: Number of classes k.
        coverage: Coverage over all images, or with `by_class` for the images of each class, 0–1.
        by_class: Whether each class has its own threshold: for imbalanced classes, where a common threshold may leave a rare
            class with low coverage.
    """
    if not by_class:
        return np.full(classes, quantile(scores, coverage))
    return np.array([quantile(scores[labels == c], coverage) for c in range(classes)])


def fit(probs: np.ndarray, y_true: np.ndarray, coverage: float, *, by_class: bool = False) -> np.ndarray:
    """Return the score thresholds of all classes from held-out predictions, float64 (k,); infinity with too few of them.

    Args:
        probs: float (n, k), calibrated probabilities of images that the classifier was not fitted on.
        y_true: int (n,), class indices.
        coverage, by_class: As for `quantiles`.

    Raises:
        DataError: If an image has no label, or the numbers of labels and predictions differ.
    """
    if len(probs) != len(y_true) or (len(y_true) and y_true.min() < 0):
        message = f"prediction sets cannot be fitted on {len(probs)} predictions and {int((y_true >= 0).sum())} labels"
        raise DataError(message, "label every held-out image")
    return quantiles(nonconformity(probs, y_true), y_true, probs.shape[1], coverage, by_class=by_class)


def sets(probs: np.ndarray, thresholds: np.ndarray | float) -> np.ndarray:
    """Return which classes are in the prediction set of each image, bool (n, k).

    Args:
        probs: float (n, k), calibrated probabilities.
        thresholds: Score thresholds from `fit`, float (k,) or one for all.

    Example:
        >>> sets(np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]]), 0.7).tolist()
        [[True, False, False], [True, True, False]]
    """
    return np.asarray(1 - np.asarray(probs, dtype=np.float64) <= thresholds)


def confidence_threshold(confidence: np.ndarray, correct: np.ndarray, target: float) -> float:
    """Return the lowest confidence at and above which predictions reach the target accuracy, estimated on held-out images.

    The target is reached if Wilson's upper bound (one-sided, 90 %) of the error rate is at most 1 - target. The error rate
    itself would be too optimistic, since the threshold is chosen on the same images.

    Args:
        confidence: float (n,), probabilities of predictions for images that the classifier was not fitted on.
        correct: bool (n,), whether each prediction is correct.
        target: Target accuracy, 0–1.

    Returns:
        The threshold; 0 if all predictions together reach the target, infinity if none do.

    Example:
        >>> p, correct = np.linspace(1, 0.5, 60), np.arange(60) < 40
        >>> round(confidence_threshold(p, correct, 0.9), 3), confidence_threshold(p, correct, 0.5)
        (0.661, 0.0)
        >>> confidence_threshold(p, correct, 0.99)
        inf
    """
    order = np.argsort(-confidence, kind="stable")
    n = np.arange(1, len(order) + 1)
    wrong = np.cumsum(~np.asarray(correct, dtype=bool)[order])
    last = np.r_[confidence[order][1:] < confidence[order][:-1], True][: len(order)]  # equal values are taken together
    share, z = wrong / n, _Z
    upper = (share + z * z / (2 * n) + z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    good = np.flatnonzero(last & (upper <= 1 - check_coverage(target) + _EXACT))
    if not good.size:
        return math.inf
    return 0.0 if good[-1] == len(order) - 1 else float(confidence[order][good[-1]])


def unsure(
    probs: np.ndarray, y_pred: np.ndarray, members: np.ndarray, threshold: float = 0.0, coverage: float = COVERAGE
) -> np.ndarray:
    """Return which predictions are unsure: not the only class of their set, or below the confidence threshold; bool (n,).

    A prediction whose probability is at least the coverage is never unsure: otherwise a classifier that is nearly always right
    would mark its usual predictions, since its sets may need a probability of 0.999.

    Args:
        probs: float (n, k), calibrated probabilities.
        y_pred: int (n,), predicted class indices.
        members: bool (n, k), which classes are in each prediction set.
        threshold: From `confidence_threshold`.
        coverage: Coverage of the sets, 0–1.
    """
    rows = np.arange(len(y_pred))
    confidence = probs[rows, y_pred]
    alone = members[rows, y_pred] & (members.sum(axis=1) == 1)
    return np.asarray(~(alone & (confidence >= threshold)) & (confidence < coverage))


def measured(members: np.ndarray, y_true: np.ndarray) -> dict[str, Any]:
    """Return the measured coverage and sizes of prediction sets on labelled images.

    Args:
        members: bool (n, k), which classes are in each prediction set.
        y_true: int (n,), class indices.

    Returns:
        `n`, `covered` (the share of sets that contain the true class) with `covered_low` and `covered_high` (Wilson, 95 %),
        `mean_size`, `single` and `empty` (shares of sets with one class and with none), `per_class` (coverage of each class,
        None for a class without images).
    """
    n = len(y_true)
    hit = members[np.arange(n), y_true]
    low, high = wilson(int(hit.sum()), n)
    size = members.sum(axis=1)
    per_class = [float(hit[y_true == c].mean()) if (y_true == c).any() else None for c in range(members.shape[1])]

    def share(values: np.ndarray) -> float | None:
        return float(values.mean()) if n else None

    return {
        "n": n,
        "covered": share(hit),
        "covered_low": low,
        "covered_high": high,
        "mean_size": share(size),
        "single": share(size == 1),
        "empty": share(size == 0),
        "per_class": per_class,
    }
