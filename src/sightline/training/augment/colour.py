"""Colour augmentation: combine all colour changes and the normalisation of the network into one 3×4 matrix per image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.training.augment.drawing import Draw

GREY = np.array([0.299, 0.587, 0.114], dtype=np.float64)
"""Weight of each channel in the luma (ITU-R BT.601, as in Pillow and torchvision)."""
_YIQ = np.array([GREY, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
"""RGB → luma and two chroma axes (NTSC, 1953), which are 0 for greys."""
_SAMPLED = 2_000_000
"""Number of pixels of a training set that its principal colours are computed from."""


def colour_matrices(
    drawn: Draw,
    mean_rgb: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    principal: np.ndarray | None = None,
) -> np.ndarray:
    """Return the colour change and the normalisation as one matrix from pixels (0 to 255): float32 (n, 3, 4).

    brightness x ← b·x, then contrast x ← c·x + (1 - c)·m with m the image's own mean grey, then saturation
    x ← s·x + (1 - s)·grey(x), then hue (a rotation about the grey axis that keeps the luma), then the shifts of red, green and
    blue and along the principal colours of the training set, then grey, then (x / 255 - mean) / std. Nothing is clipped in
    between.

    Args:
        drawn: Draw for n images.
        mean_rgb: float (n, 3), each image's mean colour, 0 to 255.
        mean, std: Normalisation of the network, per channel, for pixels in 0 to 1.
        principal: float (3, 3), result of `principal_colours`; needed if `drawn.pca` is not 0.
    """
    saturation = drawn.saturation[:, None, None]
    matrix = saturation * np.eye(3) + (1 - saturation) * GREY  # (n, 3, 3)
    matrix = matrix * (drawn.contrast * drawn.brightness)[:, None, None]
    grey = (1 - drawn.contrast) * drawn.brightness * (mean_rgb @ GREY)  # offset of contrast; grey, so saturation keeps it
    added = np.repeat(grey[:, None], 3, axis=1) + drawn.rgb
    if drawn.hue.any():
        matrix = hue_matrices(drawn.hue) @ matrix
    if drawn.pca.any():
        if principal is None:
            raise ValueError("shifts along the principal colours need `principal`")
        added += drawn.pca @ principal.T
    if drawn.grey.any():
        where = drawn.grey[:, None, None]
        matrix = np.where(where, GREY @ matrix[:, None], matrix)
        added = np.where(where[..., 0], (added @ GREY)[:, None], added)
    scale = 1.0 / np.asarray(std, dtype=np.float64)
    out = np.empty((len(drawn), 3, 4), dtype=np.float32)
    out[:, :, :3] = matrix * (scale / 255.0)[:, None]
    out[:, :, 3] = (added / 255.0 - np.asarray(mean)) * scale
    return out


def hue_matrices(degrees: np.ndarray) -> np.ndarray:
    """Return rotations of colours about the grey axis in YIQ, float64 (n, 3, 3), which keep greys and the luma of all colours.

    Positive angles rotate red towards yellow, as a positive hue shift in HSV does. A shift in HSV is not linear in RGB and
    changes the luma (yellow becomes as dark as blue); this rotation is linear, and can leave the range 0 to 255.

    Args:
        degrees: float (n,), angles.
    """
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.tile(np.eye(3), (len(degrees), 1, 1))
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cos, sin, -sin, cos
    out: np.ndarray = np.linalg.inv(_YIQ) @ turn @ _YIQ
    return out


def principal_colours(images: np.ndarray) -> np.ndarray:
    """Return the principal axes of the colours of a training set, scaled by standard deviation: float64 (3, 3), in columns.

    Source: Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks", section 4.1. There the
    axes are scaled by the eigenvalues of the covariance, whose meaning depends on the unit of pixels; here by their roots.

    Args:
        images: uint8 (n, h, w, 3), the training set; of many pixels, evenly spaced ones are used.

    Returns:
        Axes in grey levels, the longest first; the largest component of each is positive.
    """
    pixels = images.reshape(-1, 3)
    # an odd step: an even one could divide the side of the images and leave out columns of pixels
    some = pixels[:: max(1, len(pixels) // _SAMPLED) | 1].astype(np.float64)
    if len(some) < 2:
        return np.zeros((3, 3))
    values, vectors = np.linalg.eigh(np.cov(some, rowvar=False))
    axes: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1]
    negative = axes[np.abs(axes).argmax(axis=0), np.arange(3)] < 0
    return np.where(negative, -axes, axes)
