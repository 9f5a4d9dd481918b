"""Grad-CAM++: channels weighted by where their gradient is positive."""

from __future__ import annotations

import numpy as np

from sightline.explanation.feature_map import to_grid
from sightline.explanation.methods.map_gradient import map_gradient
from sightline.explanation.methods.record import Attribution, Method
from sightline.explanation.score import Score


def gradcam_plus_plus(grid: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return Grad-CAM++, which weights each place so that small objects count too.

    The weight of a channel is Σ α · max(gradient, 0) over places, with α = g² / (2 g² + (Σ channel) · g³ + 1e-6). The paper
    puts the score into an exponential, so that its higher derivatives are powers of the first.

    Source: Chattopadhyay et al., Grad-CAM++ (2018), eq. 11 and 19, without the ReLU over the sum. The 1e-6 is that of the
    package `grad-cam`, so that both give the same values; with it the map depends on the gradient's size and sign.

    Args:
        grid: float32 (c, h, w), the feature map.
        gradient: float32 (c, h, w), of the score with respect to it.

    Returns:
        float32 (h, w).
    """
    square = gradient**2
    cube = square * gradient
    total = grid.sum(axis=(1, 2), keepdims=True)
    alpha = np.where(gradient != 0, square / (2 * square + total * cube + np.float32(1e-6)), 0)
    weights = (np.maximum(gradient, 0) * alpha).sum(axis=(1, 2))
    return np.asarray(np.tensordot(weights, grid, axes=1), dtype=np.float32)


def _explain(score: Score, last: np.ndarray) -> Attribution:
    return Attribution(gradcam_plus_plus(to_grid(last, score.session.backbone)[0], map_gradient(score, last)[0]))


METHOD = Method(explain=_explain, title="Grad-CAM++", needs="map", heads="gradient", unit="logit")
