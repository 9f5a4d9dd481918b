"""Confidence intervals: Wilson's for proportions, DeLong's for ROC AUC, and intervals from the spread of bootstrap samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from sightline.evaluation.clusters import effective_sample_size, intraclass_correlation
from sightline.evaluation.curves import placements


def _z(confidence: float) -> float:
    """Return the number of standard deviations of a two-sided normal interval of this confidence."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


FEW, ENOUGH = 3.0, 9.0
"""Up to FEW misordered images, DeLong's interval is too narrow; from ENOUGH on it is not."""


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion, without continuity correction; (0, 1) if n is 0.

    Numbers may be fractional: dependent images count as an effective number of independent ones.

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


def auc_interval(
    y: np.ndarray, score: np.ndarray, confidence: float = 0.95, unit: np.ndarray | None = None
) -> tuple[float, float] | None:
    """Return DeLong's interval for the area under a ROC curve.

    If its variance is zero (the two kinds are separated perfectly, or one kind has a single image), its width would be zero.
    Newcombe's interval, which depends on the area and the counts alone, is returned instead.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher means more likely positive.
        confidence: Confidence level, 0–1.
        unit: int (n,), equal for images that belong together; None if all images are independent.

    Returns:
        (low, high) in 0–1, or None if all images are positive or all are negative.

    Source: DeLong, DeLong and Clarke-Pearson 1988, equations 4–6, with placements from ranks as in Sun and Xu 2014; for
    clustered images Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data"; Newcombe 2006, part 2, method 5.
    """
    y = np.asarray(y, dtype=bool)
    return auc_intervals(y.astype(np.int64), np.asarray(score, dtype=np.float64)[:, None], confidence, unit, first=1).each[0]


def macro_auc_interval(
    y_true: np.ndarray, scores: np.ndarray, confidence: float = 0.95, unit: np.ndarray | None = None
) -> tuple[float, float] | None:
    """Return the interval of the mean one-vs-rest ROC AUC, over the classes that have both kinds of images.

    This extends DeLong's method to the mean of several areas: every image adds its placements to one sum, whose variance is
    computed within each class. For two classes it equals DeLong's interval. If the variance is zero, Newcombe's intervals of
    the classes are combined, whose errors average out in the mean.

    Args:
        y_true: int (n,), class indices.
        scores: float (n, k), higher means more likely of the class.
        unit: int (n,), equal for images that belong together; None if all images are independent.

    Returns:
        (low, high) in 0–1, or None if no class has both kinds.
    """
    return auc_intervals(y_true, scores, confidence, unit).mean


@dataclass(frozen=True, slots=True)
class Areas:
    """Intervals of areas under ROC curves.

    Args:
        each: Interval of each class against the rest; None without images of both kinds.
        mean: Interval of the mean over the classes that have one.
        widened: Degree of widening of each interval from DeLong's to Newcombe's, 0–1.
        mean_widened: Degree of widening of the mean's interval.
    """

    each: list[tuple[float, float] | None]
    mean: tuple[float, float] | None
    widened: list[float]
    mean_widened: float


def auc_intervals(
    y_true: np.ndarray,
    scores: np.ndarray,
    confidence: float = 0.95,
    unit: np.ndarray | None = None,
    *,
    first: int = 0,
    widened: bool = False,
) -> Areas:
    """Return the intervals of `auc_interval` for every class against the rest, and of `macro_auc_interval` for their mean.

    If few images are misordered, DeLong's variance estimate rests on those few, and its interval covers the true value in only
    65 to 90 of 100 simulations. The number of misordered images is estimated as the number of images of the rarer kind times
    the distance of the area from 1 (or from 0). For the mean over classes these numbers add up, and the interval is widened by
    the sum, as of variances, of what each class's Newcombe interval has beyond its DeLong interval.

    Args:
        y_true: int (n,), class indices.
        scores: float (n, k), higher means more likely of the class.
        confidence: Confidence level, 0–1.
        unit: int (n,), equal for images that belong together; None if all images are independent.
        first: Class of the first column.
        widened: Whether to widen DeLong's interval to Newcombe's if that is wider: fully up to `FEW` misordered images, not at
            all from `ENOUGH` on, linearly in between.
    """
    n, of, z = len(y_true), range(first, first + scores.shape[1]), _z(confidence)
    counts = np.bincount(y_true, minlength=of.stop)
    each: list[tuple[float, float] | None] = [None] * len(of)
    far, total, rows = [0.0] * len(of), np.zeros(n), []
    for i, c in enumerate(of):
        if not 0 < counts[c] < n:
            continue
        y = y_true == c
        positive, negative = placements(y, scores[:, i])
        area, share = float(positive.mean()), np.empty(n)
        share[y], share[~y] = positive / len(positive), negative / len(negative)
        total += share
        sizes = _effective_counts(y, positive, negative, unit)
        low, high = newcombe(area, *sizes, confidence)
        spread, misordered = variance(share, y.astype(np.int64), unit), min(sizes) * min(area, 1 - area)
        far[i] = 1.0 if spread <= 1e-18 else _fading(misordered) if widened else 0.0
        half_width = z * math.sqrt(spread)
        each[i] = _between(area, half_width, max(half_width, area - low), max(half_width, high - area), far[i])
        rows.append((area, half_width, area - low, high - area, misordered))
    if not rows:
        return Areas(each, None, far, 0.0)
    area, below, above, misordered = _averaged(np.array(rows))
    spread = variance(total, y_true, unit) / len(rows) ** 2
    half_width, mean_far = z * math.sqrt(spread), 1.0 if spread <= 1e-18 else _fading(misordered) if widened else 0.0
    return Areas(
        each, _between(area, half_width, math.hypot(half_width, below), math.hypot(half_width, above), mean_far), far, mean_far
    )


def _fading(misordered: float) -> float:
    """Return the degree to which DeLong's interval is widened, 0–1."""
    return min(1.0, max(0.0, (ENOUGH - misordered) / (ENOUGH - FEW)))


def _between(area: float, half_width: float, below: float, above: float, far: float) -> tuple[float, float]:
    """Interpolate between DeLong's interval (far = 0, half width `half_width`) and a wider one (far = 1), clipped to 0–1."""
    return max(0.0, area - half_width - far * (below - half_width)), min(1.0, area + half_width + far * (above - half_width))


def _averaged(rows: np.ndarray) -> tuple[float, float, float, float]:
    """Return the mean area, the missing half width below and above it, and the mean's number of misordered images.

    Two classes share one curve, so that nothing averages out; with many classes the curves are nearly independent: hence
    k / (k - 1). The classes' numbers of misordered images are weighted by their contributions to the variance.

    Args:
        rows: float (k, 5): area, DeLong's half width, Newcombe's below and above, number of misordered images.
    """
    k = len(rows)
    area, half_width, below, above, misordered = rows.T
    shared = k / (k - 1) if k > 1 else 1.0
    lacking = [math.sqrt(shared * np.maximum(side**2 - half_width**2, 0.0).sum()) / k for side in (below, above)]
    weight = (below + above) ** 2
    count = float((weight * misordered).sum() * weight.sum() / (weight**2).sum()) / shared
    return float(area.mean()), lacking[0], lacking[1], count


def _effective_counts(
    y: np.ndarray, positive: np.ndarray, negative: np.ndarray, unit: np.ndarray | None
) -> tuple[float, float]:
    """Return the effective numbers of positives and negatives, given the correlation of placements within clusters."""
    if unit is None:
        return len(positive), len(negative)
    counts = []
    for clusters, placed in ((unit[y], positive), (unit[~y], negative)):
        counts.append(effective_sample_size(np.ones(len(placed)), clusters, intraclass_correlation(placed, clusters)))
    return counts[0], counts[1]


def variance(influence: np.ndarray, stratum: np.ndarray, unit: np.ndarray | None = None) -> float:
    """Return the variance of a sum of per-image influences under stratified sampling; 0 if a stratum has a single image.

    Args:
        influence: float (n,), contribution of each image to the sum.
        stratum: int (n,), class of each image.
        unit: int (n,), equal for images that belong together; None if all images are independent.
    """
    counts = np.bincount(stratum, minlength=1)
    if counts[counts > 0].min(initial=2) < 2:
        return 0.0
    centred = influence - (np.bincount(stratum, influence) / np.maximum(counts, 1))[stratum]
    if unit is None:
        return float((np.bincount(stratum, centred**2) * counts / np.maximum(counts - 1, 1)).sum())
    sums = np.bincount(unit, centred)
    units = len(np.unique(unit))
    return float((sums**2).sum()) * units / max(units - 1, 1)


def newcombe(area: float, positives: float, negatives: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Newcombe's interval for the ROC AUC from the area and the counts alone; its width is never 0.

    The ends are the areas from which the observed one lies `z` standard errors away (as in Wilson's interval for proportions).

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
    """Return the zero of `sign` by bisection; it is positive at `outside` and not positive at `inside`."""
    for _ in range(60):
        middle = (outside + inside) / 2
        if sign(middle) > 0:
            outside = middle
        else:
            inside = middle
    return (outside + inside) / 2


def log_scale(value: float, error: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a positive value that is symmetric on a logarithmic scale, ± z relative standard errors."""
    factor = math.exp(min(_z(confidence) * error / value, 700.0))
    return value / factor, value * factor


def with_one_mistake(
    value: float, drawn: np.ndarray, mistake: float, count: float, inflation: float = 1.0
) -> tuple[float, float] | None:
    """Return the interval of a mean loss: the union of its bootstrap intervals with and without one more misclassified image.

    A mean loss depends on few mistakes. With hardly any in the sample, bootstrap samples show neither the frequency nor the
    cost of mistakes, and an interval from their spread covers the true value in only 40 to 85 of 100 simulations. One
    pseudo-observation, as in Agresti and Coull's interval for a proportion, adds both.

    Args:
        value: Mean loss, above 0.
        drawn: float (b,), mean losses of bootstrap samples.
        mistake: Loss of the pseudo-observation.
        count: Effective number of independent images.
        inflation: Factor by which the bootstrap variance is too small.

    Returns:
        (low, high), or None if neither the images nor the mistake show any spread.

    Source: Agresti and Coull 1998, "Approximate is better than 'exact' for interval estimation of binomial proportions", for
    the idea; `tests/evaluation/test_intervals.py` simulates its coverage.
    """
    spread = float(drawn.var()) * inflation  # of the mean
    more = (count * value + mistake) / (count + 1)
    further = (count**2 * spread + (mistake - value) ** 2 * count / (count + 1)) / (count + 1) ** 2
    if not value > 0 or max(spread, further) < 1e-24:
        return None
    pairs = [log_scale(value, math.sqrt(spread)), log_scale(more, math.sqrt(further))]
    return min(low for low, _ in pairs), max(high for _, high in pairs)


def normal(value: float, variance: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return value ± z standard errors, clipped to 0–1."""
    half = _z(confidence) * math.sqrt(variance)
    return max(0.0, value - half), min(1.0, value + half)


def effective_trials(value: float, drawn: np.ndarray, least: float, inflation: float = 1.0) -> float:
    """Return the number of independent images for which a proportion would have the variance of `drawn`; `least` if that is 0.

    Args:
        value: Proportion, 0–1.
        drawn: float (b,), proportions in bootstrap samples; NaN where undefined.
        least: Result if all bootstrap samples agree, as when every prediction is correct.
        inflation: Factor by which the bootstrap variance is too small.
    """
    finite = drawn[np.isfinite(drawn)]
    spread = float(finite.var()) * inflation if len(finite) else 0.0
    return value * (1 - value) / spread if spread > 1e-18 and 0 < value < 1 else least


def bootstrap(
    value: float,
    drawn: np.ndarray,
    limits: tuple[float, float],
    least: float,
    inflation: float = 1.0,
    *,
    most: float = math.inf,
) -> tuple[float, float] | None:
    """Return the interval of a metric from its bootstrap variance, in a form that stays within the metric's limits.

    Between two limits it is Wilson's interval for the number of images at which a proportion would have this variance; with a
    lower limit alone it is symmetric on a logarithmic scale. Quantiles of the bootstrap values would be too narrow near a
    limit,
    and of width 0 at it: if all of 30 predictions are correct, so are those of every bootstrap sample, which doesn't make the
    classifier perfect.

    Args:
        value: Value of the metric.
        drawn: float (b,), its values in bootstrap samples; NaN where undefined.
        limits: Smallest and largest possible value; the latter may be infinite.
        least: Effective number of images if all bootstrap values agree.
        inflation: Factor by which the bootstrap variance is too small.
        most: Upper bound of the effective number of images if bootstrap values differ.

    Returns:
        (low, high) around the value, or None if it is undefined in most bootstrap samples, or is the same in all.
    """
    finite = drawn[np.isfinite(drawn)]
    if math.isnan(value) or len(finite) * 2 < len(drawn):
        return None
    bottom, top = limits
    if math.isinf(top):
        error = math.sqrt(float(finite.var()) * inflation)
        if error < 1e-12 or value <= bottom:
            return None
        low, high = log_scale(value - bottom, error)
        return bottom + low, bottom + high
    share, shares = (value - bottom) / (top - bottom), (finite - bottom) / (top - bottom)
    n = effective_trials(share, shares, math.nan, inflation)
    n = least if math.isnan(n) else min(n, most)
    if n <= 0:
        return None
    low, high = wilson(share * n, n)
    return min(bottom + low * (top - bottom), value), max(bottom + high * (top - bottom), value)
