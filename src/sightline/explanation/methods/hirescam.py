"""HiResCAM: gradient × feature map at each place."""

from __future__ import annotations

import numpy as np

from sightline.errors import RequestError
from sightline.explanation.feature_map import to_grid
from sightline.explanation.layers import behind_norm
from sightline.explanation.methods.map_gradient import map_gradient
from sightline.explanation.methods.record import Attribution, Method
from sightline.explanation.score import Score

_CANCELLED = 1e-3
"""A sum below this share of its summands' absolute values counts as rounding or LayerNorm's epsilon."""


def hirescam(grid: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return HiResCAM, which weights each place by its own gradient and not by the channel's mean gradient.

    Where the tail is a mean the gradient is the same everywhere, and this equals Grad-CAM.

    Source: Draelos & Carin, HiResCAM (2020), eq. 3, without a ReLU.

    Args:
        grid: float32 (c, h, w), the feature map.
        gradient: float32 (c, h, w), of the score with respect to it.

    Returns:
        float32 (h, w), in units of the score (logits).

    Example:
        >>> hirescam(np.array([[[1.0, 2.0]], [[0.0, 4.0]]]), np.array([[[1.0, 0.5]], [[3.0, -1.0]]])).tolist()
        [[1.0, -3.0]]
    """
    return np.asarray((grid * gradient).sum(axis=0), dtype=np.float32)


def cancels(score: Score, last: np.ndarray) -> bool:
    """Return whether gradient × map sums to 0 over the channels of each place, except for rounding.

    This is the case for a transformer's patches that only a LayerNorm reads: its output does not change with a patch's size, so
    the derivative along the patch is 0 (Euler's theorem on homogeneous functions).
    """
    shares = to_grid(last, score.session.backbone)[0] * map_gradient(score, last)[0]
    return bool(np.abs(shares.sum(axis=0)).max() <= _CANCELLED * np.abs(shares).sum(axis=0).max())


def layer_for(score: Score, last: np.ndarray) -> str | None:
    """Return the normalisation behind which a transformer's patches are read; None where the last map itself will do.

    Raises:
        RequestError: If HiResCAM would be 0 at every patch and no normalisation follows.
    """
    if not cancels(score, last):
        return None
    name = behind_norm(score.session, score.pixels)
    if name is None:
        message = f"HiResCAM is 0 at every patch of {score.session.backbone.name}: their size does not change its score"
        raise RequestError(message, "use --method patches or gradcam")
    return name


def _explain(score: Score, last: np.ndarray) -> Attribution:
    gradient, neutral = map_gradient(score, last)
    return Attribution(hirescam(to_grid(last, score.session.backbone)[0], gradient), neutral)


METHOD = Method(explain=_explain, title="HiResCAM", needs="map", heads="gradient", unit="logit", layer_for=layer_for)
