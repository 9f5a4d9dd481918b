"""Where the pixels that the network sees lie in the upright image, exactly as timm's and torchvision's evaluation has it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sightline.records import Preprocess

Box = tuple[float, float, float, float]
"""(top, left, height, width) in pixels; fractions are meant."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One resize: the part `box` of the upright image becomes `size` pixels, laid at `offset` in the network's input.

    Args:
        box: (top, left, height, width) in the upright image's pixels, within the image.
        size: (height, width) that the box is resized to.
        offset: (top, left) in the network's input; not (0, 0) only where it is padded.
    """

    box: Box
    size: tuple[int, int]
    offset: tuple[int, int] = (0, 0)


def plan(width: int, height: int, preprocess: Preprocess) -> Plan:
    """How an upright image of this size becomes the network's input.

    `crop` is torchvision's `Resize(floor(size / crop_fraction))` + `CenterCrop(size)`, rounding included, in one step: the
    crop's box is found in the original, so that nothing outside it is computed.

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
    """(height, width) of the whole image where its centre is cropped; at least the crop."""
    rows, columns = preprocess.size
    if rows == columns:
        short = math.floor(rows / preprocess.crop_fraction)
        long = int(short * max(width, height) / min(width, height))
        return (short, long) if height <= width else (long, short)
    # timm's ResizeKeepRatio, for inputs that are not square
    ratio = min(height / int(rows / preprocess.crop_fraction), width / int(columns / preprocess.crop_fraction))
    return max(rows, round(height / ratio)), max(columns, round(width / ratio))


def seen_box(width: int, height: int, preprocess: Preprocess) -> Box:
    """What the network sees of an upright image, as (top, left, height, width) in its pixels.

    With `pad` it reaches beyond the image: there the network sees the mean grey.

    Example:
        >>> seen_box(100, 50, Preprocess(size=(10, 10), fit="pad"))
        (-20.0, 0.0, 100.0, 100.0)
    """
    found = plan(width, height, preprocess)
    rows, columns = preprocess.size
    down, right = height / found.size[0], width / found.size[1]
    if preprocess.fit == "pad":
        return (-found.offset[0] * down, -found.offset[1] * right, rows * down, columns * right)
    return found.box


def stored_box(box: Box, width: int, height: int, orientation: int) -> Box:
    """A box of the upright image (`width` × `height`) where the file stores it, before it is turned by `orientation`."""
    top, left, tall, wide = box
    if orientation in (2, 3, 6, 7):
        left = width - left - wide
    if orientation in (3, 4, 7, 8):
        top = height - top - tall
    return (left, top, wide, tall) if orientation >= 5 else (top, left, tall, wide)


# By how much a JPEG is decoded smaller, and how many times the target must be left of it at least. At twice the target
# an eighth differs by up to 1.8 grey levels on average, a quarter by 1.3; with these, 1.0 was the most on 41 web
# photographs (texture at one pixel's scale is the worst case), 0.4 the mean.
_DRAFTS = ((8, 3.0), (4, 2.5), (2, 2.0))


def draft_scale(box: Box, size: tuple[int, int]) -> int:
    """By how much a JPEG may be decoded smaller (1, 2, 4 or 8), so that what is left is at least twice the target."""
    times = min(box[2] / size[0], box[3] / size[1])
    return next((scale for scale, left in _DRAFTS if times >= scale * left), 1)
