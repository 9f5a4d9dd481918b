"""Split-conformal prediction sets: the classes that an answer leaves open, with a promise of how often the right one is in.

A class is in the set of an image unless its probability is lower than that of the right class was for nearly all held-out
images (LAC, the least ambiguous sets). Of all sets that keep the promise on average over images these are the smallest, and
they need no random draw; adaptive sets (APS) without one hold the right class more often than they promise, at the price of
larger sets. A set may be empty: then no class is as likely as the right one usually is.

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

COVERAGE = 0.95
"""What sets promise where nobody says otherwise."""
_Z = 1.2816  # the normal distribution's 90 % quantile
_EXACT = 1e-9  # (n + 1) · coverage may be a whole number that floats put just above


@dataclass(frozen=True, slots=True)
class UncertaintyFit:
    """What answers leave open.

    Args:
        coverage: How often the right class is promised to be in the set.
        sets: bool (n, k), which classes are in it.
        unsure: bool (n,), which answers are unsure.
    """

    coverage: float
    sets: np.ndarray
    unsure: np.ndarray


def check_coverage(coverage: float) -> float:
    """A promise as it was given, if it can be one.

    Raises:
        RequestError: It is not between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise RequestError(f"sets cannot promise {coverage:g}", "name a share between 0 and 1, such as 0.9")
    return coverage


def needed(coverage: float) -> int:
    """How many held-out images a promise needs at least: α⁻¹ - 1 for the share α that it leaves.

    Example:
        >>> needed(0.9), needed(0.95), needed(0.99)
        (9, 19, 99)
    """
    return math.ceil(1 / (1 - check_coverage(coverage)) - 1 - _EXACT)


def nonconformity(probs: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    """How little each label conforms to its answer: float64 (n,), one minus the probability of the right class."""
    return np.asarray(1 - probs[np.arange(len(y_true)), y_true], dtype=np.float64)


def quantile(scores: np.ndarray, coverage: float) -> float:
    """The ⌈(n + 1) · coverage⌉-th smallest score; infinite where there are too few to promise anything.

    The score of another such image is at most this with a chance of at least `coverage`, and of less than
    `coverage` + 1 / (n + 1) where no scores are equal.

    Args:
        scores: float (n,), of images that the classifier was not fitted on.
        coverage: In 0–1.

    Example:
        >>> quantile(np.arange(1, 20) / 20, 0.95), quantile(np.arange(1, 19) / 20, 0.95)
        (0.95, inf)
    """
    rank = math.ceil((len(scores) + 1) * check_coverage(coverage) - _EXACT)
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else math.inf


def quantiles(scores: np.ndarray, labels: np.ndarray, classes: int, coverage: float, *, by_class: bool = False) -> np.ndarray:
    """The bar of every class, float64 (k,): one for all, or each class's own.

    Args:
        scores: float (n,), as `nonconformity` gives them.
        labels: int (n,), the right classes.
        classes: k.
        coverage: What is promised: over all images, or with `by_class` for the images of each class.
        by_class: For classes of very unlike sizes, where a common bar may keep its promise at the cost of a rare class.
    """
    if not by_class:
        return np.full(classes, quantile(scores, coverage))
    return np.array([quantile(scores[labels == c], coverage) for c in range(classes)])


def fit(probs: np.ndarray, y_true: np.ndarray, coverage: float, *, by_class: bool = False) -> np.ndarray:
    """The bars of all classes, float64 (k,), from held-out answers; infinite where these are too few.

    Args:
        probs: float (n, k), calibrated, of images that the classifier was not fitted on.
        y_true: int (n,), class indices.
        coverage, by_class: As of `quantiles`.

    Raises:
        DataError: An image has no label, or there are not as many labels as answers.
    """
    if len(probs) != len(y_true) or (len(y_true) and y_true.min() < 0):
        raise DataError(f"sets cannot be fitted on {len(probs)} answers and {int((y_true >= 0).sum())} labels")
    return quantiles(nonconformity(probs, y_true), y_true, probs.shape[1], coverage, by_class=by_class)


def sets(probs: np.ndarray, bars: np.ndarray | float) -> np.ndarray:
    """bool (n, k): which classes are in the set of each image.

    Args:
        probs: float (n, k).
        bars: What `fit` gave.

    Example:
        >>> sets(np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]]), 0.7).tolist()
        [[True, False, False], [True, True, False]]
    """
    return np.asarray(1 - np.asarray(probs, dtype=np.float64) <= bars)


def answered_bar(likely: np.ndarray, right: np.ndarray, wish: float) -> float:
    """The probability from which on answers are right often enough, as far as held-out ones can tell.

    Often enough: Wilson's upper bound (one-sided, 90 %) of the share of wrong ones is at most 1 - wish. A plain share would be
    too good, since the bar is where it happens to be.

    Args:
        likely: float (n,), the probabilities of answers to images that the classifier was not fitted on.
        right: bool (n,), whether they are right.
        wish: The share of right ones, in 0–1.

    Returns:
        The lowest such probability; 0 where all answers together are right often enough, infinite where none are.

    Example:
        >>> likely, right = np.linspace(1, 0.5, 60), np.arange(60) < 40
        >>> round(answered_bar(likely, right, 0.9), 3), answered_bar(likely, right, 0.5), answered_bar(likely, right, 0.99)
        (0.661, 0.0, inf)
    """
    order = np.argsort(-likely, kind="stable")
    n = np.arange(1, len(order) + 1)
    wrong = np.cumsum(~np.asarray(right, dtype=bool)[order])
    last = np.r_[likely[order][1:] < likely[order][:-1], True][: len(order)]  # equal ones are taken together
    share, z = wrong / n, _Z
    upper = (share + z * z / (2 * n) + z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    good = np.flatnonzero(last & (upper <= 1 - check_coverage(wish) + _EXACT))
    if not good.size:
        return math.inf
    return 0.0 if good[-1] == len(order) - 1 else float(likely[order][good[-1]])


def unsure(
    probs: np.ndarray, y_pred: np.ndarray, chosen: np.ndarray, bar: float = 0.0, coverage: float = COVERAGE
) -> np.ndarray:
    """bool (n,): which answers are unsure: not the only class of their set, or less likely than the bar of answers.

    What is as likely as the promise is never unsure: a classifier that is nearly always right would call its own usual answers
    so, since its sets may ask for 0.999.

    Args:
        probs: float (n, k), calibrated.
        y_pred: int (n,), the answers.
        chosen: bool (n, k), their sets.
        bar: Of `answered_bar`.
        coverage: What the sets promise.
    """
    rows = np.arange(len(y_pred))
    likely = probs[rows, y_pred]
    alone = chosen[rows, y_pred] & (chosen.sum(axis=1) == 1)
    return np.asarray(~(alone & (likely >= bar)) & (likely < coverage))


def measured(chosen: np.ndarray, y_true: np.ndarray) -> dict[str, Any]:
    """How sets did on labelled images.

    Args:
        chosen: bool (n, k).
        y_true: int (n,), class indices.

    Returns:
        `n`, `covered` (the share of sets that hold the right class) with `covered_low` and `covered_high` (Wilson, 95 %),
        `mean_size`, `single` and `empty` (shares of sets with one class and with none), `per_class` (the share covered of each
        class, None for a class without images).
    """
    n = len(y_true)
    hit = chosen[np.arange(n), y_true]
    low, high = wilson(int(hit.sum()), n)
    size = chosen.sum(axis=1)
    per_class = [float(hit[y_true == c].mean()) if (y_true == c).any() else None for c in range(chosen.shape[1])]

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
