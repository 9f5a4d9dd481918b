"""One class against the rest by its probability: average precision and equal error rate of many drawn sets at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline.evaluation.sample import Sample

MOST_EXACT = 20_000
"""Sets of more images are resampled by bins of the score."""
BINS = 2_000
"""Of equal weight, all positives weighing as much as all others, so that rare ones keep their order."""
MOST_DRAWN = 200_000
"""Images times classes above which the average precisions of more than two classes are linearised, not drawn."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The images in falling order of one class's probability, those of equal probability (or of one bin) as one level.

    Args:
        order: int64 (n,).
        start: int64 (levels,), where in `order` each level begins.
        positive: bool (n,), of that class, in the order of the sample.
    """

    order: np.ndarray
    start: np.ndarray
    positive: np.ndarray

    def levels(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float64 (b, levels) each: positives and others from the highest probability down to each level."""
        laid = weights[:, self.order]
        found = np.add.reduceat(laid * self.positive[self.order], self.start, axis=1)
        every = np.add.reduceat(laid, self.start, axis=1)
        return np.cumsum(found, axis=1), np.cumsum(every - found, axis=1)

    def scores(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float64 (b,) each: average precision, equal error rate and area under the ROC curve of sets of these images.

        All are NaN where a set is of one kind only.

        Args:
            weights: float64 (b, n), how often each set has each image.
        """
        if not len(self.order):
            nothing = np.full(len(weights), np.nan)
            return nothing, nothing, nothing
        found, others = self.levels(weights)
        positives, negatives = found[:, -1], others[:, -1]
        both = (positives > 0) & (negatives > 0)
        step = np.diff(found, axis=1, prepend=0.0)
        precision = (step * found / np.maximum(found + others, 1)).sum(axis=1) / np.maximum(positives, 1)
        below = negatives[:, None] - others + np.diff(others, axis=1, prepend=0.0) / 2  # ties count half
        area = (step * below).sum(axis=1) / np.maximum(positives * negatives, 1)
        missed = 1 - found / np.maximum(positives, 1)[:, None]
        passed = others / np.maximum(negatives, 1)[:, None]
        crossing = _crossing(passed, missed)
        return np.where(both, precision, np.nan), np.where(both, crossing, np.nan), np.where(both, area, np.nan)


def _crossing(passed: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Where two error rates are equal, along the straight line between the neighbouring levels; float64 (b,)."""
    rows = np.arange(len(passed))
    right = np.argmax(passed - missed >= 0, axis=1)
    x1, y1 = passed[rows, right], missed[rows, right]
    x0 = np.where(right, passed[rows, right - 1], 0.0)
    y0 = np.where(right, missed[rows, right - 1], 1.0)
    gap0, gap1 = x0 - y0, x1 - y1
    share = -gap0 / np.where(gap1 > gap0, gap1 - gap0, 1.0)
    return np.asarray(x0 + share * (x1 - x0))


def ranking(positive: np.ndarray, score: np.ndarray, bins: int | None = None) -> Ranking:
    """Images ranked by a score.

    Args:
        positive: bool (n,).
        score: float (n,), higher speaks for the positive class.
        bins: About so many levels at most, of equal weight, all positives weighing as much as all others. Of positives
            that are no more than half as many as bins each ends a level, so that their precision is exact. None for one
            level per distinct score.
    """
    order = np.argsort(-score, kind="stable")
    laid = score[order]
    new = np.r_[True, laid[1:] != laid[:-1]] if len(laid) else np.zeros(0, dtype=bool)
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
    a probability that is 1.0 to the last digit keeps no order, while the other one, near 0, still does. So both classes have
    one ranking, seen from its two ends. For more classes the scores are the probabilities.

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
    known = probs[order[new]]
    levels = len(known)
    return np.stack([levels - 1 - rank, rank], axis=1).astype(np.float64), np.stack([known[::-1, 0], known[:, 1]], axis=1)


def rankings(sample: Sample, bins: int | None = None) -> list[Ranking]:
    """Of every class against the rest."""
    scores, _ = rank_scores(sample.probs)
    return [ranking(sample.y == c, scores[:, c], bins) for c in range(len(sample.classes))]


def average_precision(y: np.ndarray, score: np.ndarray) -> float | None:
    """The mean over the positive images of the precision at their score: the area under the precision–recall steps.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher speaks for the positive class.

    Returns:
        0–1, or None where one of the two kinds is absent.

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
    """By how much each image moves the average precision, per unit of its weight; float64 (n,), in the sample's order.

    The derivative of the average precision with respect to how often an image is in the set. Its sum over the images is 0.

    Source: the infinitesimal jackknife, Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 6.
    """
    n = len(ranked.order)
    out = np.zeros(n)
    (found,), (others,) = ranked.levels(np.ones((1, n)))
    if not n or not found[-1]:
        return out
    step = np.diff(found, prepend=0.0)
    every = found + others
    precision = found / every
    # An image at a level changes the precision at its own level and at all below it.
    gain = np.cumsum((step * others / every**2)[::-1])[::-1]
    cost = np.cumsum((step * found / every**2)[::-1])[::-1]
    area = float((step * precision).sum() / found[-1])
    level = np.repeat(np.arange(len(ranked.start)), np.diff(np.r_[ranked.start, n]))
    positive = ranked.positive[ranked.order]
    out[ranked.order] = np.where(positive, precision[level] + gain[level] - area, -cost[level]) / found[-1]
    return out
