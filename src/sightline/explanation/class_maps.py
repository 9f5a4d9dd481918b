"""Average heatmaps of classes, their most important channels, and an alarm for borders and corners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import heads
from sightline.evaluation import holm
from sightline.explanation.checks.measures import blocks, log_odds
from sightline.explanation.checks.verdict import p_better
from sightline.explanation.score import coefficients
from sightline.records import Explanation, Head

CENTRE = 0.6
"""Share of either side that counts as the centre; a uniform heatmap has 1 - 0.6² = 64 % outside of it."""
STRIP, CORNER = 1 / 7, 2 / 7
"""Width of a border and side of a corner, as shares of a side: one and two cells of the most common map of 7 × 7."""
REGIONS: Mapping[str, tuple[float, float, float, float]] = {
    # top, left, bottom, right as shares of the network's input
    "upper border": (0, 0, STRIP, 1),
    "lower border": (1 - STRIP, 0, 1, 1),
    "left border": (0, 0, 1, STRIP),
    "right border": (0, 1 - STRIP, 1, 1),
    "upper left corner": (0, 0, CORNER, CORNER),
    "upper right corner": (0, 1 - CORNER, CORNER, 1),
    "lower left corner": (1 - CORNER, 0, 1, CORNER),
    "lower right corner": (1 - CORNER, 1 - CORNER, 1, 1),
}
TIMES = 2.0
"""The alarm: the median image has at least this multiple of the region's area share of its heatmap there, and"""
LEVEL = 0.01
"""the p-value (Holm, over regions and classes) of more than 1.5 times the area share is below this, and"""
DROP, DROP_LEVEL = 0.5, 0.05
"""blurring the region lowers the mean log odds of the class by at least `DROP`, with a one-sided p below `DROP_LEVEL`."""
_OVER = 1.5
FEWEST = 8
"""Minimum number of images of a class for an alarm."""
MOST_CHANNELS = 5


@dataclass(frozen=True, slots=True)
class ClassView:
    """The image regions and channels that a class relies on.

    Args:
        name: The class.
        n: Number of images with this prediction.
        mean: float64 (a, b), the mean of the heatmaps, each of sum 1; at most 14 cells per side.
        outside: Mean share of the heatmap outside the central 60 % of either side.
        shares: Region → float64 (n,), the share of each image's heatmap in it.
        channels: As returned by `channels_of`; empty where the head is not linear.
    """

    name: str
    n: int
    mean: np.ndarray
    outside: float
    shares: Mapping[str, np.ndarray]
    channels: tuple[tuple[int, float], ...] = ()


def view(name: str, explanations: Sequence[Explanation], channels: tuple[tuple[int, float], ...] = ()) -> ClassView | None:
    """Summarise the heatmaps of one class; None where no heatmap has any evidence.

    Args:
        name: The class of all explanations.
        explanations: Explanations by one method; empty heatmaps are ignored.
        channels: As returned by `channels_of`.
    """
    parts = [part for part in map(positive, explanations) if part is not None]
    if not parts:
        return None
    maps = [blocks(part) for part in parts]
    mean = np.mean([m / m.sum() for m in maps], axis=0)
    inside = ((1 - CENTRE) / 2, (1 - CENTRE) / 2, (1 + CENTRE) / 2, (1 + CENTRE) / 2)
    outside = float(np.mean([1 - share_in(part, inside) for part in parts]))
    shares = {region: np.array([share_in(part, where) for part in parts]) for region, where in REGIONS.items()}
    return ClassView(name, len(parts), mean, outside, shares, channels)


def positive(explanation: Explanation) -> np.ndarray | None:
    """Return the evidence for the target, scaled to sum 1, float64 (h, w); None where there is none."""
    heatmap = np.maximum(explanation.heat.astype(np.float64) - explanation.neutral, 0)
    total = float(heatmap.sum())
    return heatmap / total if total > 0 and not explanation.flat else None


def share_in(heatmap: np.ndarray, where: tuple[float, float, float, float]) -> float:
    """Return the share of a heatmap (h, w) of sum 1 in a box given as shares of the sides; cells on its edge count partially.

    Example:
        >>> share_in(np.full((4, 4), 1 / 16), (0.5, 0.0, 1.0, 1.0))
        0.5
    """
    top, left, bottom, right = where
    return float(_inside(heatmap.shape[0], top, bottom) @ heatmap @ _inside(heatmap.shape[1], left, right))


def _inside(cells: int, start: float, end: float) -> np.ndarray:
    """Return the share of each cell of a side between two positions, float64 (cells,)."""
    edges = np.arange(cells + 1) / cells
    return np.asarray(np.maximum(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0) * cells)


def channels_of(head: Head, target: int, features: np.ndarray) -> tuple[tuple[int, float], ...]:
    """Return the channels that are evidence for a class: weight × (mean feature − mean of the training images), above 0.

    A channel is evidence by its presence (positive weight, activation above average) or by its absence (negative weight,
    activation below average). For two classes, presence for one is absence for the other, so that both rely on much the same
    channels.

    Args:
        head: A linear head; for any other the result is empty.
        target: The class index.
        features: float32 (n, d), of images with this prediction.

    Returns:
        (channel, share of all evidence for the class), the strongest first; the share is negative for evidence by absence.
    """
    linear, mean = heads.linear(head), head.arrays.get("feature_mean")
    if linear is None or mean is None or not len(features):
        return ()
    direction = coefficients(head.classes, target) @ linear[0].astype(np.float64)
    more = features.mean(axis=0, dtype=np.float64) - mean
    evidence = np.maximum(direction * more, 0)
    order = np.argsort(-evidence, kind="stable")[:MOST_CHANNELS]
    total = float(evidence.sum())
    return tuple((int(i), float(np.copysign(evidence[i] / total, more[i]))) for i in order if evidence[i] > 0)


def regions(views: Sequence[ClassView]) -> list[dict[str, Any]]:
    """Return the share of each class's heatmap on each border (a caption, a frame) and in each corner (a watermark, a date).

    Objects are usually near the centre, so a heatmap that stays at one edge over many images seldom shows the object.

    Returns:
        A record per region and class of `FEWEST` images or more, the highest first: class, region, n, share (median), area, p.
    """
    from scipy.stats import wilcoxon

    cases = [(v, region) for v in views if v.n >= FEWEST for region in REGIONS]
    tests = []
    for v, region in cases:
        over = v.shares[region] - _OVER * area(region)
        tests.append(float(wilcoxon(over, alternative="greater").pvalue) if over.any() else 1.0)
    records = [
        {"class": v.name, "region": r, "n": v.n, "share": float(np.median(v.shares[r])), "area": area(r), "p": p}
        for (v, r), p in zip(cases, holm(tests), strict=True)
    ]
    return sorted(records, key=lambda a: -a["share"] / a["area"])


def concentrated(region: Mapping[str, Any]) -> bool:
    """Return whether a record of `regions` shows that the class's heatmap is concentrated in that region."""
    return bool(region["p"] < LEVEL and region["share"] >= TIMES * region["area"])


def lowers(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Return the effect of blurring a region on the probability of the class, and whether it clearly lowers it.

    Args:
        before, after: float64 (n,), the probability for each image as it is, and with the region blurred.

    Returns:
        `before` and `after` (means), `drop` (mean decrease of the log odds), `drop_p` (one-sided) and `lowers`.
    """
    falls = log_odds(before) - log_odds(after)
    drop, p = float(falls.mean()), p_better(falls)
    effect = {"before": float(before.mean()), "after": float(after.mean()), "drop": drop, "drop_p": p, "blurred": len(falls)}
    return {**effect, "lowers": drop >= DROP and p < DROP_LEVEL}


def area(region: str) -> float:
    """Return the share of the network's input that a region covers."""
    top, left, bottom, right = REGIONS[region]
    return (bottom - top) * (right - left)


def as_data(views: Sequence[ClassView]) -> list[dict[str, Any]]:
    """Return views as JSON."""
    return [
        {
            "class": v.name,
            "n": v.n,
            "map": np.round(v.mean, 5).tolist(),
            "outside": v.outside,
            "regions": {region: float(np.median(shares)) for region, shares in v.shares.items()},
            "channels": [{"channel": c, "share": abs(s), "by": "presence" if s > 0 else "absence"} for c, s in v.channels],
        }
        for v in views
    ]
