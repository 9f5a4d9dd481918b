"""Multi-crop test-time augmentation: the centre, the four corners, and their mirror images."""

from __future__ import annotations

import dataclasses

import numpy as np

from sightline.errors import RequestError
from sightline.records import Preprocess

CROPS = (1, 5, 10)
"""Supported numbers of crops: the centre; the centre and four corners; these five and their mirror images."""
_FRACTION = 0.875
"""Ratio of crop side to image side (224 / 256) if the preprocess itself shows the whole image."""


def check_crops(crops: int) -> None:
    """Check the number of crops.

    Raises:
        RequestError: If it is not one of `CROPS`.
    """
    if crops not in CROPS:
        hint = "use 1 (centre), 5 (centre and corners) or 10 (these and their mirror images)"
        raise RequestError(f"crops cannot be {crops}", hint)


def uncut(preprocess: Preprocess) -> Preprocess:
    """Return the preprocess that decodes the larger image from which the crops are cut, at the same scale.

    Source: Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks", section 4.1: crops of
    224 px from the central 256 px square. If the preprocess shows the whole image, the image is enlarged by 8/7 first.

    Example:
        >>> uncut(Preprocess()).size, uncut(Preprocess(crop_fraction=1.0, size=(28, 28))).size
        ((256, 256), (32, 32))
    """
    inner = preprocess.crop_fraction if preprocess.fit == "crop" and preprocess.crop_fraction < 1 else _FRACTION
    height, width = (round(side / inner) for side in preprocess.size)
    return dataclasses.replace(preprocess, size=(height, width), crop_fraction=1.0)


def cut(images: np.ndarray, size: tuple[int, int], number: int) -> np.ndarray:
    """Return one of the ten crops of each image.

    Args:
        images: uint8 (n, h, w, 3), decoded with `uncut`.
        size: (height, width) of the crop, not larger than the images.
        number: 0 for the centre, 1 to 4 for the corners (top left, top right, bottom left, bottom right), 5 to 9 for the mirror
            images of these.

    Returns:
        uint8 (n, height, width, 3).
    """
    down, right = images.shape[1] - size[0], images.shape[2] - size[1]
    top, left = ((down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right))[number % 5]
    part = images[:, top : top + size[0], left : left + size[1]]
    return np.ascontiguousarray(part[:, :, ::-1] if number >= 5 else part)
