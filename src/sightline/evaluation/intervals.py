"""How far a score may be from the truth: Wilson's interval for shares, DeLong's for areas under ROC curves, resampling's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from sightline.evaluation.clusters import likeness, worth
from sightline.evaluation.curves import placements


def _z(confidence: float) -> float:
    """How many standard deviations a two-sided interval of this confidence reaches."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


FEW, ENOUGH = 3.0, 9.0
"""Of so many images' worth of misordering at most, DeLong's interval is too narrow; of so many it is not."""


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share, without continuity correction; (0, 1) where n is 0.

    Numbers that are not whole stand for images that depend on each other: as many independent ones as tell as much.

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
    """DeLong's interval for the area under a ROC curve.

    Where it degenerates (a spread of zero, as when the two kinds are told apart perfectly, or a kind with one image only)
    it would claim certainty: Newcombe's interval, which depends on the area and the counts alone, is given instead.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher speaks for the positive class.
        confidence: The share of such intervals that hold the truth.
        unit: int (n,), equal for images that belong together; None where each is on its own.

    Returns:
        (low, high) in 0–1, or None where one of the two kinds is absent.

    Source: DeLong, DeLong and Clarke-Pearson 1988, equations 4–6, with placements from ranks as in Sun and Xu 2014; for what
    belongs together Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data"; Newcombe 2006, part 2, method 5.
    """
    y = np.asarray(y, dtype=bool)
    return auc_intervals(y.astype(np.int64), np.asarray(score, dtype=np.float64)[:, None], confidence, unit, first=1).each[0]


def macro_auc_interval(
    y_true: np.ndarray, scores: np.ndarray, confidence: float = 0.95, unit: np.ndarray | None = None
) -> tuple[float, float] | None:
    """The interval of the mean one-versus-rest area, over the classes that have both kinds of images.

    DeLong's argument for the mean of several areas: every image adds its placements to one sum, and the variance is taken
    within each class. For two classes it is DeLong's own interval. Where it degenerates: Newcombe's of the classes, whose
    errors average out in the mean.

    Args:
        y_true: int (n,), class indices.
        scores: float (n, k), higher speaks for the class.
        unit: int (n,), equal for images that belong together; None where each is on its own.

    Returns:
        (low, high) in 0–1, or None where no class has both kinds.
    """
    return auc_intervals(y_true, scores, confidence, unit).mean


@dataclass(frozen=True, slots=True)
class Areas:
    """Intervals of areas under ROC curves.

    Args:
        each: Of every class against the rest; None where one of the two kinds is absent.
        mean: Of the mean over the classes that have one.
        widened: How far each interval is widened from DeLong's to Newcombe's, 0–1.
        mean_widened: The same of the mean's.
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
    """The intervals of `auc_interval` for every class against the rest, and of `macro_auc_interval` for their mean.

    Where few images are misordered, DeLong's interval knows their spread from those few and holds the truth in 65 to 90 of
    100 draws. How many they are is counted in images of the rarer kind: those there are times the distance of the area from
    1 (or from 0). In the mean over classes they add up, and what widens it is what each class's Newcombe interval has beyond
    its DeLong interval, added up as variances are.

    Args:
        y_true: int (n,), class indices.
        scores: float (n, k), higher speaks for the class.
        first: The class of the first column.
        widened: Up to `FEW` misordered images DeLong's interval is widened to Newcombe's, where that reaches farther; from
            there to `ENOUGH` ever less.
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
        apart = _apart(y, positive, negative, unit)
        low, high = newcombe(area, *apart, confidence)
        spread, misordered = variance(share, y.astype(np.int64), unit), min(apart) * min(area, 1 - area)
        far[i] = 1.0 if spread <= 1e-18 else _fading(misordered) if widened else 0.0
        own = z * math.sqrt(spread)
        each[i] = _between(area, own, max(own, area - low), max(own, high - area), far[i])
        rows.append((area, own, area - low, high - area, misordered))
    if not rows:
        return Areas(each, None, far, 0.0)
    area, below, above, misordered = _averaged(np.array(rows))
    spread = variance(total, y_true, unit) / len(rows) ** 2
    own, mean_far = z * math.sqrt(spread), 1.0 if spread <= 1e-18 else _fading(misordered) if widened else 0.0
    return Areas(each, _between(area, own, math.hypot(own, below), math.hypot(own, above), mean_far), far, mean_far)


def _fading(misordered: float) -> float:
    """How far DeLong's interval is widened, 0–1."""
    return min(1.0, max(0.0, (ENOUGH - misordered) / (ENOUGH - FEW)))


def _between(area: float, own: float, below: float, above: float, far: float) -> tuple[float, float]:
    """From DeLong's interval, `own` to either side, `far` of the way to one that reaches `below` and `above`; cut to 0–1."""
    return max(0.0, area - own - far * (below - own)), min(1.0, area + own + far * (above - own))


def _averaged(rows: np.ndarray) -> tuple[float, float, float, float]:
    """The mean area, what each side's variance lacks (as a distance), and of how many misordered images the mean knows.

    Two classes have one curve between them, so that nothing averages out; of many classes each has nearly its own: hence
    k / (k - 1). A class counts among the misordered by what it adds to the variance.

    Args:
        rows: float (k, 5): area, DeLong's reach, Newcombe's below and above, misordered images.
    """
    k = len(rows)
    area, own, below, above, misordered = rows.T
    shared = k / (k - 1) if k > 1 else 1.0
    lacking = [math.sqrt(shared * np.maximum(side**2 - own**2, 0.0).sum()) / k for side in (below, above)]
    weight = (below + above) ** 2
    known = float((weight * misordered).sum() * weight.sum() / (weight**2).sum()) / shared
    return float(area.mean()), lacking[0], lacking[1], known


def _apart(y: np.ndarray, positive: np.ndarray, negative: np.ndarray, unit: np.ndarray | None) -> tuple[float, float]:
    """As how many independent images either kind counts, by how alike placements are of what belongs together."""
    if unit is None:
        return len(positive), len(negative)
    counts = []
    for some, placed in ((unit[y], positive), (unit[~y], negative)):
        counts.append(worth(np.ones(len(placed)), some, likeness(placed, some)))
    return counts[0], counts[1]


def variance(influence: np.ndarray, stratum: np.ndarray, unit: np.ndarray | None = None) -> float:
    """The variance of a sum of what each image adds, when images are drawn within strata; 0 where a stratum has one image.

    Args:
        influence: float (n,), what each image adds.
        stratum: int (n,), the classes.
        unit: int (n,), equal for images that are drawn together; None where each is on its own.
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


def log_scale(value: float, error: float, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a positive value that is even on a logarithmic scale: z relative standard errors to either side."""
    factor = math.exp(min(_z(confidence) * error / value, 700.0))
    return value / factor, value * factor


def with_one_mistake(
    value: float, drawn: np.ndarray, mistake: float, count: float, inflation: float = 1.0
) -> tuple[float, float] | None:
    """The interval of a mean loss from its spread over drawn sets, with and without one more image that is answered wrongly.

    A mean loss hangs on few mistakes. Where the set has hardly any, drawn sets know neither how frequent mistakes are nor
    what they cost, and an interval from their spread holds the truth in 40 to 85 of 100 draws. One pseudo-observation, as in
    Agresti and Coull's interval for a share, brings both; the interval reaches over that of the images alone.

    Args:
        value: The mean loss, above 0.
        drawn: float (b,), the same of drawn sets.
        mistake: What one more mistake would cost.
        count: Of how many independent images the value is the mean.
        inflation: By what the drawn sets' variance falls short.

    Returns:
        (low, high), or None where neither images nor the mistake show any spread.

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
    """value ± z standard errors, cut to 0–1."""
    half = _z(confidence) * math.sqrt(variance)
    return max(0.0, value - half), min(1.0, value + half)


def effective(value: float, drawn: np.ndarray, least: float, inflation: float = 1.0) -> float:
    """Of how many independent images a share would spread as much as `drawn` does; `least` where that tells nothing.

    Args:
        value: The share, 0–1.
        drawn: float (b,), the shares of drawn sets; NaN where undefined.
        least: What is taken where no drawn set differs, as when every image is answered rightly.
        inflation: By what the drawn sets' variance falls short.
    """
    known = drawn[np.isfinite(drawn)]
    spread = float(known.var()) * inflation if len(known) else 0.0
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
    """The interval of a number from its spread over drawn sets, laid out so that it stays within the number's limits.

    Between two limits it is Wilson's, of as many images as would spread a share so much; above one limit it is even on a
    logarithmic scale. Quantiles of the drawn values would be too narrow near a limit, and empty at it: of a classifier that
    is right on all of 30 images every drawn set is right too, which does not make it perfect.

    Args:
        value: The number.
        drawn: float (b,), the same of drawn sets; NaN where undefined.
        limits: The least and the greatest value that it can take; the latter may be infinite.
        least: As how many images the set counts where no drawn value differs.
        inflation: By what the drawn sets' variance falls short.
        most: As how many images the set counts at most where drawn values differ.

    Returns:
        (low, high) around the value, or None where it is undefined in most of the drawn sets, or never differs.
    """
    known = drawn[np.isfinite(drawn)]
    if math.isnan(value) or len(known) * 2 < len(drawn):
        return None
    bottom, top = limits
    if math.isinf(top):
        error = math.sqrt(float(known.var()) * inflation)
        if error < 1e-12 or value <= bottom:
            return None
        low, high = log_scale(value - bottom, error)
        return bottom + low, bottom + high
    share, shares = (value - bottom) / (top - bottom), (known - bottom) / (top - bottom)
    n = effective(share, shares, math.nan, inflation)
    n = least if math.isnan(n) else min(n, most)
    if n <= 0:
        return None
    low, high = wilson(share * n, n)
    return min(bottom + low * (top - bottom), value), max(bottom + high * (top - bottom), value)
