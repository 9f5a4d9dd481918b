"""Resize and crop geometry: map the network's input to a box of the upright image, as timm and torchvision do."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sightline.records import Preprocess

Box = tuple[float, float, float, float]
"""(top, left, height, width) in pixels, possibly fractional."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Resize of a box of the upright image to `size` pixels, placed at `offset` in the network's input.

    Args:
        box: (top, left, height, width) in pixels of the upright image, within the image.
        size: (height, width) of the resized box in pixels.
        offset: (top, left) in the network's input; (0, 0) unless the image is padded.
    """

    box: Box
    size: tuple[int, int]
    offset: tuple[int, int] = (0, 0)


def plan(width: int, height: int, preprocess: Preprocess) -> Plan:
    """Return the resize that turns an upright image of this size into the network's input.

    `crop` equals torchvision's `Resize(floor(size / crop_fraction))` + `CenterCrop(size)`, rounding included, in one step: the
    box is computed in the original image, so that pixels outside the crop are not resized.

    Example:
        >>> plan(500, 375, Preprocess())
        Plan(box=(23.4375, 85.04398826979472, 328.125, 328.4457478005865), size=(224, 224), offset=(0, 0))
    """
    rows, columns = preprocess.size
    if preprocess.fit == "squash":
        return Plan((0.0, 0.0, float(height), float(width)), (rows, columns))
    if preprocess.fit == "pad":
        scale = min(rows / height, columns / width)
        inner = (_within(round(height * scale), rows), _within(round(width * scale), columns))
        offset = ((rows - inner[0]) // 2, (columns - inner[1]) // 2)
        return Plan((0.0, 0.0, float(height), float(width)), inner, offset)
    tall, wide = _resized(width, height, preprocess)
    top, left = round((tall - rows) / 2.0), round((wide - columns) / 2.0)
    box = (top * height / tall, left * width / wide, rows * height / tall, columns * width / wide)
    return Plan(box, (rows, columns))


def _within(value: int, limit: int) -> int:
    return max(1, min(value, limit))


def _resized(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    """Return (height, width) of the whole resized image before its centre is cropped; at least the size of the crop."""
    rows, columns = preprocess.size
    if rows == columns:
        short = math.floor(rows / preprocess.crop_fraction)
        long = int(short * max(width, height) / min(width, height))
        return (short, long) if height <= width else (long, short)
    # timm's ResizeKeepRatio, for inputs that are not square
    ratio = min(height / int(rows / preprocess.crop_fraction), width / int(columns / preprocess.crop_fraction))
    return max(rows, round(height / ratio)), max(columns, round(width / ratio))


def seen_box(width: int, height: int, preprocess: Preprocess) -> Box:
    """Return the box of an upright image that the network sees, as (top, left, height, width) in pixels.

    With `pad` the box extends beyond the image, where the network sees the mean colour.

    Example:
        >>> seen_box(100, 50, Preprocess(size=(10, 10), fit="pad"))
        (-20.0, 0.0, 100.0, 100.0)
    """
    resize = plan(width, height, preprocess)
    rows, columns = preprocess.size
    down, right = height / resize.size[0], width / resize.size[1]
    if preprocess.fit == "pad":
        return (-resize.offset[0] * down, -resize.offset[1] * right, rows * down, columns * right)
    return resize.box


def stored_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """Convert a box of the upright image (`width` × `height`) to stored pixels, before the turn by `orientation`."""
    top, left, tall, wide = box
    if orientation in (2, 3, 6, 7):
        left = width - left - wide
    if orientation in (3, 4, 7, 8):
        top = height - top - tall
    return (left, top, wide, tall) if orientation >= 5 else (top, left, tall, wide)


# (JPEG draft scale, minimum ratio of the draft's size to the target size). With a ratio of 2, a scale of 8 differs by up to 1.8
# grey levels on average and 4 by 1.3; with these ratios the maximum on 41 web photographs was 1.0 and the mean 0.4.
_DRAFTS = ((8, 3.0), (4, 2.5), (2, 2.0))


def draft_scale(box: Box, size: tuple[int, int]) -> int:
    """Return the factor (1, 2, 4 or 8) by which a JPEG may be decoded smaller and still be at least twice the target size."""
    times = min(box[2] / size[0], box[3] / size[1])
    return next((scale for scale, left in _DRAFTS if times >= scale * left), 1)
