"""What a class relies on over many images: its average map, its channels, and an alarm for borders and corners."""

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
"""The centre is so much of either side; heat that lies evenly puts 1 - 0.6² = 64 % of itself outside."""
STRIP, CORNER = 1 / 7, 2 / 7
"""A border is so much of a side wide, a cell of the commonest map; a corner is a square of two."""
REGIONS: Mapping[str, tuple[float, float, float, float]] = {
    # top, left, bottom, right as shares of what the network sees
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
"""The alarm: half of the images put at least so many times the region's share of the area into it, and"""
LEVEL = 0.01
"""the p (Holm's, over regions and classes) that they put more than 1.5 times it there is below this; and"""
DROP, DROP_LEVEL = 0.5, 0.05
"""blurring the region lowers the log odds of the class by so much on average, one-sided p below the level."""
_OVER = 1.5
FEWEST = 8
"""With fewer images of a class there is no alarm, and it is said."""
MOST_CHANNELS = 5


@dataclass(frozen=True, slots=True)
class ClassView:
    """What one class relies on.

    Args:
        name: The class.
        n: Over so many images that were given this answer.
        mean: float64 (a, b), the mean of the maps, each of sum 1; at most 14 cells a side.
        outside: The mean share of heat outside the central 60 % of either side.
        shares: Region → float64 (n,), the share of each image's heat in it.
        channels: As `channels_of` gives them; empty where the head is not linear.
    """

    name: str
    n: int
    mean: np.ndarray
    outside: float
    shares: Mapping[str, np.ndarray]
    channels: tuple[tuple[int, float], ...] = ()


def view(name: str, found: Sequence[Explanation], channels: tuple[tuple[int, float], ...] = ()) -> ClassView | None:
    """One class over its images; None where no map has any evidence.

    Args:
        name: The class, which all are about.
        found: Explanations by one method; empty maps are left out.
        channels: As `channels_of` gives them.
    """
    parts = [part for part in map(positive, found) if part is not None]
    if not parts:
        return None
    maps = [blocks(part) for part in parts]
    mean = np.mean([m / m.sum() for m in maps], axis=0)
    inside = ((1 - CENTRE) / 2, (1 - CENTRE) / 2, (1 + CENTRE) / 2, (1 + CENTRE) / 2)
    outside = float(np.mean([1 - share_in(part, inside) for part in parts]))
    shares = {region: np.array([share_in(part, where) for part in parts]) for region, where in REGIONS.items()}
    return ClassView(name, len(parts), mean, outside, shares, channels)


def positive(found: Explanation) -> np.ndarray | None:
    """The heat that speaks for the target, scaled to sum 1, float64 (h, w); None where there is none."""
    heat = np.maximum(found.heat.astype(np.float64) - found.neutral, 0)
    total = float(heat.sum())
    return heat / total if total > 0 and not found.flat else None


def share_in(heat: np.ndarray, where: tuple[float, float, float, float]) -> float:
    """The share of heat (h, w) of sum 1 in a box given as shares of the sides; cells on its edge count by their part in it.

    Example:
        >>> share_in(np.full((4, 4), 1 / 16), (0.5, 0.0, 1.0, 1.0))
        0.5
    """
    top, left, bottom, right = where
    return float(_inside(heat.shape[0], top, bottom) @ heat @ _inside(heat.shape[1], left, right))


def _inside(cells: int, start: float, end: float) -> np.ndarray:
    """float64 (cells,): the part of each cell of a side between two places."""
    edges = np.arange(cells + 1) / cells
    return np.asarray(np.maximum(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0) * cells)


def channels_of(head: Head, target: int, features: np.ndarray) -> tuple[tuple[int, float], ...]:
    """The channels that speak for a class on its images: weight × (mean feature − that of the training images), above 0.

    A channel speaks for a class by its presence (its weight is above 0, and it answers more than on average) or by its absence
    (its weight is below 0, and it answers less). Of two classes one's presence is the other's absence, so that both hang on
    much the same channels.

    Args:
        head: Of one linear layer; any other gives nothing.
        target: The class index.
        features: float32 (n, d), of images that were given this answer.

    Returns:
        (channel, share of all that speaks for the class), the strongest first; the share of one that speaks by its absence is
        below 0.
    """
    found, mean = heads.linear(head), head.arrays.get("feature_mean")
    if found is None or mean is None or not len(features):
        return ()
    direction = coefficients(head.classes, target) @ found[0].astype(np.float64)
    more = features.mean(axis=0, dtype=np.float64) - mean
    speaks = np.maximum(direction * more, 0)
    order = np.argsort(-speaks, kind="stable")[:MOST_CHANNELS]
    total = float(speaks.sum())
    return tuple((int(i), float(np.copysign(speaks[i] / total, more[i]))) for i in order if speaks[i] > 0)


def regions(views: Sequence[ClassView]) -> list[dict[str, Any]]:
    """How much of each class's heat sits on each border (a caption, a frame) and in each corner (a watermark, a date).

    Objects are photographed in the middle, so heat that keeps to one edge over many images is seldom the object.

    Returns:
        A record per region and class of `FEWEST` images or more, the highest first: class, region, n, share (median), area, p.
    """
    from scipy.stats import wilcoxon

    asked = [(v, region) for v in views if v.n >= FEWEST for region in REGIONS]
    tests = []
    for v, region in asked:
        over = v.shares[region] - _OVER * area(region)
        tests.append(float(wilcoxon(over, alternative="greater").pvalue) if over.any() else 1.0)
    found = [
        {"class": v.name, "region": r, "n": v.n, "share": float(np.median(v.shares[r])), "area": area(r), "p": p}
        for (v, r), p in zip(asked, holm(tests), strict=True)
    ]
    return sorted(found, key=lambda a: -a["share"] / a["area"])


def concentrated(region: Mapping[str, Any]) -> bool:
    """Return whether a record of `regions` says that the class keeps its heat to that region."""
    return bool(region["p"] < LEVEL and region["share"] >= TIMES * region["area"])


def lowers(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Return what blurring a region does to the probability of the class, and whether it clearly lowers it.

    Args:
        before, after: float64 (n,), the probability of each image as it is, and with the region blurred.

    Returns:
        `before` and `after` (means), `drop` (mean fall of the log odds), `drop_p` (one-sided) and `lowers`.
    """
    falls = log_odds(before) - log_odds(after)
    drop, p = float(falls.mean()), p_better(falls)
    found = {"before": float(before.mean()), "after": float(after.mean()), "drop": drop, "drop_p": p, "blurred": len(falls)}
    return {**found, "lowers": drop >= DROP and p < DROP_LEVEL}


def area(region: str) -> float:
    """The share of what the network sees that a region covers."""
    top, left, bottom, right = REGIONS[region]
    return (bottom - top) * (right - left)


def as_data(views: Sequence[ClassView]) -> list[dict[str, Any]]:
    """Views as JSON."""
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
