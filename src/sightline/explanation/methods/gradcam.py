"""Grad-CAM without a backward pass through the network, and the exact shares of a linear score on an unpooled map."""

from __future__ import annotations

import numpy as np

from sightline.explanation.feature_map import MapSession, to_grid
from sightline.records import Backbone


def contrast(weights: np.ndarray, target: int) -> np.ndarray:
    """The direction in features that speaks for one class against the others.

    What is explained is the target's logit minus the mean of the others'. A softmax does not change when one number is
    added to all logits, so a single logit says nothing of the answer: a place that raises every class alike would light
    up. The contrast is what such a shift leaves alone; with two classes it is their logit difference, the log odds.

    Args:
        weights: float (k, d) of a linear head.
        target: The class index.

    Returns:
        float32 (d,).

    Example:
        >>> contrast(np.array([[1.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), 1).tolist()
        [-1.5, 2.0]
    """
    others = np.delete(weights, target, axis=0)
    if not len(others):
        return np.asarray(weights[target], dtype=np.float32)
    return np.asarray(weights[target] - others.mean(axis=0, dtype=np.float64), dtype=np.float32)


def gradcam_linear(grid: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Grad-CAM where the features are the mean of the map and the score is linear in them: a closed form.

    The gradient of weights · mean(map) is weights / (h·w) at every place, so its mean over places is too, and the heat is
    the map weighted by it. Nothing is approximated, and the heat adds up to weights · features: the score but its bias.
    The usual cut at zero is left to drawing.

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
    """Grad-CAM with the gradient taken through the network's tail alone; what lies before the map is never visited.

    Source: as `gradcam_linear`. For a transformer the map is the input of its last block, since the patches it gives out
    get no gradient where only the class token is read.

    Args:
        session: The network.
        last: float32 (1, …), one last map in the network's own layout.
        weights: float32 (d,), the direction in features that is explained.

    Returns:
        float32 (h, w).
    """
    gradient = to_grid(session.tail_gradient(last, weights), session.backbone)[0]
    channel = gradient.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
    return np.asarray(np.tensordot(channel, to_grid(last, session.backbone)[0], axes=1), dtype=np.float32)


def contribution(last: np.ndarray, weights: np.ndarray, reference: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Each place's exact share of a linear score whose features are the map itself, unpooled.

    weight × (value − reference), summed over channels: how much the place moves the score away from that of the mean
    training image. Grad-CAM's mean over places would throw away the very weights that differ from place to place. For
    `pixels` a missing stroke counts as much as one that is there: heat on an empty spot says "ink here would have spoken for
    another class".

    Source: Lundberg & Lee, SHAP (2017), corollary 1 (linear SHAP), for independent features.

    Args:
        last: float32 (1, …), one last map in the network's own layout.
        weights: float32, the same shape: the direction in features that is explained.
        reference: float32, the same shape: the mean of the training images' features.
        backbone: Whose map it is.

    Returns:
        float32 (h, w), in units of the score (logits); adds up to weights · (features − reference).
    """
    return np.asarray(to_grid(weights * (last - reference), backbone)[0].sum(axis=0), dtype=np.float32)


def gradcam_plus_plus(grid: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Grad-CAM++: a channel counts by where its gradient is positive, each place weighted so that small objects count too.

    weight of a channel = Σ α · max(gradient, 0) over places, with α = g² / (2 g² + (Σ channel) · g³ + 1e-6). In the paper the
    score stands in the exponent, which makes its higher derivatives powers of the first.

    Source: Chattopadhyay et al., Grad-CAM++ (2018), eq. 11 and 19, without the ReLU over the sum. The 1e-6 is that of the
    package `grad-cam`, so that both give the same; with it the map depends on the gradient's size, not on its sign alone.

    Args:
        grid: float32 (c, h, w), the map.
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


def hirescam(grid: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """HiResCAM: each place by its own gradient, not by the channel's mean: what is hot is what the score was made of.

    Where the tail is a mean the gradient is the same everywhere, and this is Grad-CAM.

    Source: Draelos & Carin, HiResCAM (2020), eq. 3, without a ReLU.

    Args:
        grid: float32 (c, h, w), the map.
        gradient: float32 (c, h, w), of the score with respect to it.

    Returns:
        float32 (h, w), in units of the score (logits).

    Example:
        >>> hirescam(np.array([[[1.0, 2.0]], [[0.0, 4.0]]]), np.array([[[1.0, 0.5]], [[3.0, -1.0]]])).tolist()
        [[1.0, -3.0]]
    """
    return np.asarray((grid * gradient).sum(axis=0), dtype=np.float32)


def patch_map(grid: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """A transformer's patches: gradient · (patch − mean patch), at the input of its last block.

    The patches that the last block gives out get no gradient where only the class token is read. The mean patch stands for
    "nothing special here", so that what all patches share, which is most of a token, lights up nowhere.

    Args:
        grid: float32 (c, h, w), the patches.
        gradient: float32 (c, h, w), of the score with respect to them.

    Returns:
        float32 (h, w), in units of the score (logits).
    """
    return hirescam(grid - grid.mean(axis=(1, 2), keepdims=True), gradient)
