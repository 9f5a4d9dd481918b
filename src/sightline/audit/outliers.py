"""Outliers: images whose features are far from those of all others."""

from __future__ import annotations

import numpy as np

from sightline.audit.label_errors import unit
from sightline.evaluation.out_of_distribution import NEIGHBOURS
from sightline.store import stream

FENCE = 3.0
"""An image is listed from this many interquartile ranges above the third quartile (Tukey's outer fence)."""
_MOST_BANK = 10_000
_BLOCK = 2_048


def outlier_scores(features: np.ndarray, cluster: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean cosine distance of each image to its five nearest ones, and which are outliers.

    Args:
        features: float32 (n, d); rows that are not finite are left out.
        cluster: int64 (n,), duplicates and groups, which are not counted as neighbours of each other.

    Returns:
        Scores float64 (n,), NaN for images that were left out, and bool (n,).
    """
    score = np.full(len(features), np.nan)
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))
    if len(rows) <= NEIGHBOURS:
        return score, np.zeros(len(features), bool)
    directions, groups = unit(features[rows]), rows if cluster is None else cluster[rows]
    bank = np.sort(stream(0, "outliers").permutation(len(rows))[:_MOST_BANK])
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        away = np.maximum(1 - directions[part] @ directions[bank].T, 0).astype(np.float64)
        away[groups[part][:, None] == groups[bank][None]] = np.nan
        near = np.sort(away, axis=1)[:, :NEIGHBOURS]  # NaN last
        usable = np.isfinite(near)
        score[rows[part]] = np.where(usable, near, 0).sum(axis=1) / np.maximum(usable.sum(axis=1), 1)
    low, high = np.nanpercentile(score, [25, 75])
    return score, np.nan_to_num(score) > high + FENCE * max(high - low, 1e-6)
