"""Activation strength of a feature map, independent of any class."""

from __future__ import annotations

import numpy as np

from sightline.explanation.feature_map import to_grid
from sightline.explanation.methods.record import Attribution, Method
from sightline.explanation.score import Score


def energy_map(grid: np.ndarray) -> np.ndarray:
    """Return the root mean square over channels at each place of a feature map.

    Args:
        grid: float32 (c, h, w).

    Returns:
        float32 (h, w), not negative.
    """
    return np.asarray(np.sqrt((grid.astype(np.float64) ** 2).mean(axis=0)), dtype=np.float32)


def _explain(score: Score, last: np.ndarray) -> Attribution:
    return Attribution(energy_map(to_grid(last, score.session.backbone)[0]))


METHOD = Method(
    explain=_explain, title="activation", needs="map", heads="any", signed=False, unit="activation", class_free=True
)
