"""One-vs-rest rankings: average precision, equal error rate and ROC AUC of many bootstrap samples at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline.evaluation.sample import Sample

MOST_EXACT = 20_000
"""Samples with more images are bootstrapped with binned scores."""
BINS = 2_000
"""Number of score bins of equal weight; positives and negatives have equal total weight, so that rare ones keep their order."""
MOST_DRAWN = 200_000
"""Images times classes above which average precision for more than two classes is linearised instead of bootstrapped."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Images sorted by falling probability of one class; images of equal probability (or of one bin) form one level.

    Args:
        order: int64 (n,), image indices.
        start: int64 (levels,), position in `order` at which each level begins.
        positive: bool (n,), whether each image is of that class, in the order of the sample.
    """

    order: np.ndarray
    start: np.ndarray
    positive: np.ndarray

    def levels(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cumulative counts of positives and negatives down to each level, float64 (b, levels) each."""
        ordered = weights[:, self.order]
        hits = np.add.reduceat(ordered * self.positive[self.order], self.start, axis=1)
        total = np.add.reduceat(ordered, self.start, axis=1)
        return np.cumsum(hits, axis=1), np.cumsum(total - hits, axis=1)

    def scores(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return average precision, equal error rate and ROC AUC of b samples, float64 (b,) each.

        All are NaN for a sample without positives or without negatives.

        Args:
            weights: float64 (b, n), number of times that each sample contains each image.
        """
        if not len(self.order):
            undefined = np.full(len(weights), np.nan)
            return undefined, undefined, undefined
        hits, alarms = self.levels(weights)
        positives, negatives = hits[:, -1], alarms[:, -1]
        both = (positives > 0) & (negatives > 0)
        step = np.diff(hits, axis=1, prepend=0.0)
        precision = (step * hits / np.maximum(hits + alarms, 1)).sum(axis=1) / np.maximum(positives, 1)
        below = negatives[:, None] - alarms + np.diff(alarms, axis=1, prepend=0.0) / 2  # ties count half
        area = (step * below).sum(axis=1) / np.maximum(positives * negatives, 1)
        missed = 1 - hits / np.maximum(positives, 1)[:, None]
        passed = alarms / np.maximum(negatives, 1)[:, None]
        crossing = _crossing(passed, missed)
        return np.where(both, precision, np.nan), np.where(both, crossing, np.nan), np.where(both, area, np.nan)


def _crossing(passed: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Return the value at which two error rates are equal, interpolated linearly between levels; float64 (b,)."""
    rows = np.arange(len(passed))
    right = np.argmax(passed - missed >= 0, axis=1)
    x1, y1 = passed[rows, right], missed[rows, right]
    x0 = np.where(right, passed[rows, right - 1], 0.0)
    y0 = np.where(right, missed[rows, right - 1], 1.0)
    gap0, gap1 = x0 - y0, x1 - y1
    share = -gap0 / np.where(gap1 > gap0, gap1 - gap0, 1.0)
    return np.asarray(x0 + share * (x1 - x0))


def ranking(positive: np.ndarray, score: np.ndarray, bins: int | None = None) -> Ranking:
    """Return images ranked by a score.

    Args:
        positive: bool (n,), True for the positive class.
        score: float (n,), higher means more likely positive.
        bins: Approximate maximum number of levels, of equal weight; all positives together weigh as much as all negatives. If
            there are at most half as many positives as bins, each positive ends a level, so that its precision is exact. None
            for one level per distinct score.
    """
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    new = np.r_[True, ordered[1:] != ordered[:-1]] if len(ordered) else np.zeros(0, dtype=bool)
    start = np.flatnonzero(new)
    positive = np.asarray(positive, dtype=bool)
    if bins is not None and len(start) > bins:  # equal scores stay together
        kind = positive[order]
        weight = np.where(kind, 0.5 / max(int(kind.sum()), 1), 0.5 / max(int((~kind).sum()), 1))
        before = np.r_[0.0, np.cumsum(weight)][start]
        cell = (before * bins + 1e-6).astype(np.int64)
        start = start[np.diff(cell, prepend=-1) > 0]
    return Ranking(order, start, positive)


def rank_scores(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores that rank images for each class, and each score's probability.

    For two classes the scores are ranks by the difference of both probabilities and, where that is equal, by their log odds:
    probabilities rounded to 1.0 can't be ordered, while those of the other class, near 0, still can. So the ranking of one
    class is the reverse of the other's. For more classes the scores are the probabilities.

    Args:
        probs: float64 (n, k), rows that sum to 1.

    Returns:
        float64 (n, k); and for two classes float64 (levels, 2), the probability of each class at its score 0, 1, …; else an
        empty array.
    """
    if probs.shape[1] != 2:
        return probs, np.zeros((0, probs.shape[1]))
    with np.errstate(divide="ignore"):
        odds = np.log(probs[:, 1]) - np.log(probs[:, 0])
    gap = probs[:, 1] - probs[:, 0]
    order = np.lexsort((odds, gap))
    new = np.ones(len(probs), dtype=bool)
    new[1:] = (gap[order][1:] != gap[order][:-1]) | (odds[order][1:] != odds[order][:-1])
    rank = np.empty(len(probs), dtype=np.int64)
    rank[order] = np.cumsum(new) - 1
    distinct = probs[order[new]]
    levels = len(distinct)
    return np.stack([levels - 1 - rank, rank], axis=1).astype(np.float64), np.stack([distinct[::-1, 0], distinct[:, 1]], axis=1)


def rankings(sample: Sample, bins: int | None = None) -> list[Ranking]:
    """Return the ranking of each class against the rest."""
    scores, _ = rank_scores(sample.probs)
    return [ranking(sample.y == c, scores[:, c], bins) for c in range(len(sample.classes))]


def average_precision(y: np.ndarray, score: np.ndarray) -> float | None:
    """Return average precision: the mean over positive images of the precision at their score.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher means more likely positive.

    Returns:
        0–1, or None if all images are positive or all are negative.

    Source: scikit-learn's `average_precision_score`: no interpolation between points, which would be too optimistic (Davis
    and Goadrich 2006).

    Example:
        >>> round(average_precision(np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8])), 4)
        0.8333
    """
    y = np.asarray(y, dtype=bool)
    if y.all() or not y.any():
        return None
    return float(ranking(y, np.asarray(score, dtype=np.float64)).scores(np.ones((1, len(y))))[0][0])


def influence(ranked: Ranking) -> np.ndarray:
    """Return the influence of each image on average precision, float64 (n,), in the order of the sample.

    It is the derivative of average precision with respect to the weight of the image. The influences sum to 0.

    Source: the infinitesimal jackknife, Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 6.
    """
    n = len(ranked.order)
    out = np.zeros(n)
    (hits,), (alarms,) = ranked.levels(np.ones((1, n)))
    if not n or not hits[-1]:
        return out
    step = np.diff(hits, prepend=0.0)
    predicted = hits + alarms
    precision = hits / predicted
    # An image at a level changes the precision at its own level and at all below it.
    gain = np.cumsum((step * alarms / predicted**2)[::-1])[::-1]
    cost = np.cumsum((step * hits / predicted**2)[::-1])[::-1]
    area = float((step * precision).sum() / hits[-1])
    level = np.repeat(np.arange(len(ranked.start)), np.diff(np.r_[ranked.start, n]))
    positive = ranked.positive[ranked.order]
    out[ranked.order] = np.where(positive, precision[level] + gain[level] - area, -cost[level]) / hits[-1]
    return out
