"""The gradient of a score with respect to a feature map, in closed form where the tail is a mean."""

from __future__ import annotations

import numpy as np

from sightline import heads
from sightline.explanation.feature_map import grid_size, to_grid
from sightline.explanation.score import Score


def tangent_plane(score: Score, last: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the score as a linear function of the features; for a non-linear head its tangent plane at this image.

    Args:
        score: The score to explain.
        last: float32 (1, …), the feature map.

    Returns:
        The gradient float32 (d,) and the intercept.
    """
    if heads.linear(score.head) is not None:
        return score.direction(np.zeros(len(score.head.arrays["weights"][0]), dtype=np.float32))
    return score.direction(score.session.tail(last)[0])


def map_gradient(score: Score, last: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the score's gradient on the grid: in closed form where the tail is a mean, else by backpropagation through it.

    Args:
        score: The score to explain.
        last: float32 (1, …), the feature map.

    Returns:
        The gradient float32 (c, h, w), and the neutral value of a cell for methods whose values add up to the score.
    """
    session = score.session
    direction, intercept = tangent_plane(score, last)
    if not session.tail_is_mean:
        return to_grid(session.tail_gradient(last, direction), session.backbone)[0], 0.0
    channels, height, width = grid_size(session.backbone)
    cells = height * width
    return np.broadcast_to((direction / np.float32(cells))[:, None, None], (channels, height, width)), -intercept / cells
