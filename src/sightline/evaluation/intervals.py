"""How far a score may be from the truth: Wilson's interval for shares, DeLong's for areas under ROC curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from sightline.evaluation.curves import placements


def _z(confidence: float) -> float:
    """How many standard deviations a two-sided interval of this confidence reaches."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share, without continuity correction; (0, 1) where n is 0.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Example:
        >>> low, high = wilson(9, 10)
        >>> round(low, 3), round(high, 3)
        (0.596, 0.982)
    """
    if n == 0:
        return 0.0, 1.0
    z, p = _z(confidence), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def auc_interval(y: np.ndarray, score: np.ndarray, confidence: float = 0.95) -> tuple[float, float] | None:
    """DeLong's interval for the area under a ROC curve.

    Where it degenerates (a spread of zero, as when the two kinds are told apart perfectly, or a kind with one image only)
    it would claim certainty: Newcombe's interval, which depends on the area and the counts alone, is given instead.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher speaks for the positive class.
        confidence: The share of such intervals that hold the truth.

    Returns:
        (low, high) in 0–1, or None where one of the two kinds is absent.

    Source: DeLong, DeLong and Clarke-Pearson 1988, equations 4–6; Newcombe 2006, part 2, method 5.
    """
    y = np.asarray(y, dtype=bool)
    if y.all() or not y.any():
        return None
    positive, negative = placements(y, np.asarray(score, dtype=np.float64))
    area, m, n = float(positive.mean()), len(positive), len(negative)
    if m > 1 and n > 1:
        variance = float(positive.var(ddof=1)) / m + float(negative.var(ddof=1)) / n
        if variance > 1e-18:
            return _around(area, variance, confidence)
    return newcombe(area, m, n, confidence)


def macro_auc_interval(y_true: np.ndarray, scores: np.ndarray, confidence: float = 0.95) -> tuple[float, float] | None:
    """The interval of the mean one-versus-rest area, over the classes that have both kinds of images.

    DeLong's argument for the mean of several areas: every image adds its placements to one sum, and the variance is taken
    within each class. For two classes it is DeLong's own interval. Where it degenerates: the mean of Newcombe's.

    Args:
        y_true: int (n,), class indices.
        scores: float (n, k), higher speaks for the class.

    Returns:
        (low, high) in 0–1, or None where no class has both kinds.
    """
    n, counts = len(y_true), np.bincount(y_true, minlength=scores.shape[1])
    usable = [c for c in range(scores.shape[1]) if 0 < counts[c] < n]
    if not usable:
        return None
    areas, influence = [], np.zeros(n)
    for c in usable:
        y = y_true == c
        positive, negative = placements(y, scores[:, c])
        areas.append(float(positive.mean()))
        influence[y] += positive / len(positive)
        influence[~y] += negative / len(negative)
    variance = 0.0
    if counts[counts > 0].min() > 1:
        groups = [influence[y_true == c] for c in np.flatnonzero(counts)]
        variance = sum(len(g) * float(g.var(ddof=1)) for g in groups) / len(usable) ** 2
    if variance > 1e-18:
        return _around(float(np.mean(areas)), variance, confidence)
    each = [newcombe(a, int(counts[c]), int(n - counts[c]), confidence) for a, c in zip(areas, usable, strict=True)]
    return float(np.mean([low for low, _ in each])), float(np.mean([high for _, high in each]))


def newcombe(area: float, positives: int, negatives: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval for an area under a ROC curve from the area and the counts alone, never empty and never beyond 0–1.

    The ends are the areas that would put the observed one `z` standard errors away (as Wilson's interval does for shares).

    Source: Newcombe 2006, "Confidence intervals for an effect size measure based on the Mann–Whitney statistic. Part 2",
    method 5, with the variance of Hanley and McNeil 1982 under exponential scores.
    """
    z, extra = _z(confidence), (positives + negatives) / 2 - 1

    def error(t: float) -> float:
        spread = 1 + extra * (1 - t) / (2 - t) + extra * t / (1 + t)
        return z * math.sqrt(max(t * (1 - t) * spread, 0.0) / (positives * negatives))

    low = 0.0 if area <= 0 else _root(lambda t: area - t - error(t), 0.0, area)
    high = 1.0 if area >= 1 else _root(lambda t: t - area - error(t), 1.0, area)
    return low, high


def _root(sign: Callable[[float], float], outside: float, inside: float) -> float:
    """Where `sign` changes, by bisection: it is positive at `outside` and not at `inside`."""
    for _ in range(60):
        middle = (outside + inside) / 2
        if sign(middle) > 0:
            outside = middle
        else:
            inside = middle
    return (outside + inside) / 2


def _around(area: float, variance: float, confidence: float) -> tuple[float, float]:
    """area ± z standard errors, cut to 0–1."""
    half = _z(confidence) * math.sqrt(variance)
    return max(0.0, area - half), min(1.0, area + half)
