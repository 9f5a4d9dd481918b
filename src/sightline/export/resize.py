"""Preprocessing as ONNX operators: an image of any size → the network's input, with the pixels of Pillow.

Pillow resizes uint8 images with weights of 22 bits and rounds after each of two passes. All sums here are sums of integers
below 2²⁴, which float32 holds exactly, so the result does not depend on the runtime; only the weights depend on the type of
geometry. With float64 they are Pillow's own; with float32 a few pixels in a hundred differ by one grey level.

Source: Pillow, src/libImaging/Resample.c and Reduce.c; the geometry is that of `pixels.geometry.plan`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sightline.engine.graph import Value, iota
from sightline.pixels import uncut
from sightline.records import Preprocess

_GAP = 3.0
"""Ratio to the target size down to which Pillow first averages whole blocks, as in `pixels.decoding`."""
_BITS = 22
_LOW_BITS = 10
"""Lower bits of a weight, which are multiplied separately so that sums stay below 2²⁴."""
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a resize: `size` source pixels, the box `low` to `high` in them, `out` target pixels; each of shape (1,)."""

    size: Value
    low: Value
    high: Value
    out: Value


def preprocess_image(image: Value, preprocess: Preprocess) -> Value:
    """Append the preprocessing of one image.

    Args:
        image: uint8 (height, width, 3) of any size, upright.
        preprocess: Preprocessing that the network expects.

    Returns:
        uint8 (1, height, width, 3) of `preprocess.size`, equal to `pixels.decode_array`.
    """
    shape = image.op("Shape", dtype=np.int64)
    rows, columns, offset = _plan(shape.slice([0], [1], [0]), shape.slice([1], [2], [0]), preprocess)
    if preprocess.interpolation == "nearest":
        planes = image.take(_nearest(rows), 0).take(_nearest(columns), 1).cast(np.float32).transpose(2, 0, 1)
    else:
        support = _SUPPORT[preprocess.interpolation]
        planes, rows, columns = _reduced(image.cast(np.float32).transpose(2, 0, 1), rows, columns, support)
        planes = _resampled(planes, rows, columns, preprocess.interpolation)
    if offset is not None:
        planes = _padded(planes, rows.out, columns.out, offset, preprocess)
    height, width = preprocess.size
    return planes.transpose(1, 2, 0).reshape(1, height, width, 3).cast(np.uint8)


def _plan(height: Value, width: Value, preprocess: Preprocess) -> tuple[_Side, _Side, tuple[Value, Value] | None]:
    """Return both sides of the resize, and (top, left) of a padded image, else None; as `pixels.geometry.plan`."""
    graph = height.graph
    real, (rows, columns) = graph.real, preprocess.size
    tall, wide = height.cast(real), width.cast(real)
    zero = graph.const(np.zeros(1), real)
    if preprocess.fit == "squash":
        return _Side(height, zero, tall, graph.ints(rows)), _Side(width, zero, wide, graph.ints(columns)), None
    if preprocess.fit == "pad":
        scale = (rows / tall).op("Min", columns / wide)
        inner = [
            (side * scale).op("Round").op("Max", 1.0).op("Min", float(most)) for side, most in ((tall, rows), (wide, columns))
        ]
        out = [side.cast(np.int64) for side in inner]
        offset = ((rows - out[0]) / 2, (columns - out[1]) / 2)
        return _Side(height, zero, tall, out[0]), _Side(width, zero, wide, out[1]), offset
    resized = _whole_size(height, width, preprocess)
    sides = []
    for size, whole, count in ((height, resized[0], rows), (width, resized[1], columns)):
        start = ((whole - count).cast(real) * 0.5).op("Round").cast(np.int64)
        low = (start * size).cast(real) / whole.cast(real)
        high = low + (size * count).cast(real) / whole.cast(real)
        sides.append(_Side(size, low.op("Max", 0.0), high.op("Min", size.cast(real)), graph.ints(count)))
    return sides[0], sides[1], None


def _whole_size(height: Value, width: Value, preprocess: Preprocess) -> tuple[Value, Value]:
    """Return (height, width) int64 of the whole resized image before its centre is cropped."""
    rows, columns = preprocess.size
    if rows == columns:
        short = math.floor(rows / preprocess.crop_fraction)
        long = height.op("Max", width) * short / height.op("Min", width)
        landscape, narrow = width >= height, height.graph.ints(short)
        return landscape.where(narrow, long), landscape.where(long, narrow)
    real = height.graph.real
    tall, wide = height.cast(real), width.cast(real)
    fraction = preprocess.crop_fraction
    ratio = (tall / float(int(rows / fraction))).op("Min", wide / float(int(columns / fraction)))
    return tuple(  # type: ignore[return-value]
        (side / ratio).op("Round").cast(np.int64).op("Max", count) for side, count in ((tall, rows), (wide, columns))
    )


def _nearest(side: _Side) -> Value:
    """Return the source pixel of each target pixel, int64 (out,), from a running sum, as Pillow computes it."""
    real = side.low.dtype
    low, high = side.low.cast(np.float32), side.high.cast(np.float32)
    step = (high - low).cast(real) / side.out.cast(real)
    steps = (iota(side.out, real) < 1.0).where(low.cast(real) + step * 0.5, step)
    place = steps.op("CumSum", side.low.graph.const(0, np.int64))
    return place.cast(np.int64).op("Min", side.size - 1)


def _reduced(planes: Value, rows: _Side, columns: _Side, support: float) -> tuple[Value, _Side, _Side]:
    """Average whole blocks of a large image, as Pillow's `reducing_gap` does, and return the sides of the smaller image.

    Args:
        planes: float32 (3, height, width).
        rows, columns: The resize.
        support: Half width of the filter.
    """
    graph, real = planes.graph, planes.graph.real
    factors, safe = [], []
    for side in (rows, columns):
        scale = (side.high - side.low) / side.out.cast(real)
        factors.append((scale / _GAP).op("Floor").op("Max", 1.0).cast(np.int64))
        margin = scale * (support - 0.5)
        low = (side.low - margin).cast(np.int64).op("Max", 0)
        safe.append((low, (side.high + margin).op("Ceil").cast(np.int64).op("Min", side.size)))
    reduces = factors[0].op("Max", factors[1]) >= 2
    sides = []
    for side, factor, (low, high) in zip((rows, columns), factors, safe, strict=True):
        start = reduces.where(low, graph.ints(0))
        length = reduces.where(high, side.size) - start
        blocks = (length + factor - 1) / factor
        by = factor.cast(real)
        sides.append(_Side(blocks, (side.low - start.cast(real)) / by, (side.high - start.cast(real)) / by, side.out))

    def smaller() -> Value:
        part = planes.slice([safe[0][0], safe[1][0]], [safe[0][1], safe[1][1]], [1, 2])
        return _block_means(part, factors, [side.size for side in sides], [high - low for low, high in safe])

    return graph.choose(reduces, smaller, lambda: planes.op("Identity")), sides[0], sides[1]


def _block_means(planes: Value, factors: list[Value], blocks: list[Value], sizes: list[Value]) -> Value:
    """Return the means of blocks, rounded as Pillow rounds them; blocks at the far edges may be smaller.

    Pillow multiplies with 2²⁴ / n rounded down instead of dividing by n, so that a sum which n divides gives one less.
    """
    graph = planes.graph
    missing = [block * factor - size for block, factor, size in zip(blocks, factors, sizes, strict=True)]
    filled = graph.op("Pad", planes, graph.ints(0, 0, 0, 0, missing[0], missing[1]), mode="constant")
    total = filled.reshape(3, blocks[0], factors[0], blocks[1], factors[1]).sum(2, 4)
    counts = []
    for block, factor, size in zip(blocks, factors, sizes, strict=True):
        left = size.cast(np.float32) - iota(block, np.dtype(np.float32)) * factor.cast(np.float32)
        counts.append(left.op("Min", factor.cast(np.float32)))
    n = counts[0].reshape(-1, 1) * counts[1].reshape(1, -1)
    multiplier = (2.0**32 / (n * 256.0)).op("Floor")
    less = (n * multiplier < 2.0**24).where(0.5, graph.const(0.0, np.float32))
    return ((total + (n * 0.5).op("Floor") - less) / n).op("Floor")


def _resampled(planes: Value, rows: _Side, columns: _Side, interpolation: str) -> Value:
    """Return the box of float32 (3, height, width), resized in two passes in the order of Pillow."""
    across, down = _weights(columns, interpolation), _weights(rows, interpolation)

    def horizontal(values: Value) -> Value:
        return _pass(values, across, lambda v, w: v @ w.transpose(1, 0))

    def vertical(values: Value) -> Value:
        return _pass(values, down, lambda v, w: w @ v)

    if not vertical_may_be_first():
        return vertical(horizontal(planes))
    shrinks, narrows = rows.size - rows.out, columns.size - columns.out
    first = (rows.out < rows.size) & (narrows * 2 < shrinks)
    return planes.graph.choose(first, lambda: horizontal(vertical(planes)), lambda: vertical(horizontal(planes)))


@functools.cache
def vertical_may_be_first() -> bool:
    """Return whether the installed Pillow resizes a tall image vertically first, as it does since version 12."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    steps = image.resize((30, 20), Image.Resampling.BICUBIC).resize((28, 20), Image.Resampling.BICUBIC)
    return np.array_equal(np.asarray(image.resize((28, 20), Image.Resampling.BICUBIC)), np.asarray(steps))


def _weights(side: _Side, interpolation: str) -> tuple[Value, Value]:
    """Return the weights (out, size) of one pass in units of 2⁻²², as upper and lower parts, both float32.

    Pillow takes the edges of the box as float32.
    """
    real, support = side.low.dtype, _SUPPORT[interpolation]
    low, high = side.low.cast(np.float32), side.high.cast(np.float32)
    scale = (high - low).cast(real) / side.out.cast(real)
    stretch = scale.op("Max", 1.0)
    centre = (low.cast(real) + (iota(side.out, real) + 0.5) * scale).reshape(-1, 1)
    place = iota(side.size, real).reshape(1, -1)
    first = (centre - stretch * support + 0.5).op("Floor")
    last = (centre + stretch * support + 0.5).op("Floor")
    weights = _filter((place - centre + 0.5) * (1.0 / stretch), interpolation)
    weights = ((place >= first) & (place < last)).where(weights, weights * 0.0)
    share = weights / weights.sum(1, keep=True) * float(1 << _BITS)
    whole = (share < 0.0).where((share - 0.5).op("Ceil"), (share + 0.5).op("Floor"))
    upper = (whole * 2.0**-_LOW_BITS).op("Floor")
    return upper.cast(np.float32), (whole - upper * 2.0**_LOW_BITS).cast(np.float32)


def _filter(x: Value, interpolation: str) -> Value:
    """Return the resampling filter at distances in source pixels, unlimited in width except for the zero outside."""
    x = x.op("Abs")
    if interpolation == "bilinear":
        return (1.0 - x).op("Max", 0.0)
    if interpolation == "bicubic":
        near = (x * 1.5 - 2.5) * x * x + 1.0
        far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
        return (x < 1.0).where(near, (x < 2.0).where(far, x * 0.0))
    return (x < 3.0).where(_sinc(x) * _sinc(x / 3.0), x * 0.0)


def _sinc(x: Value) -> Value:
    """Return sin(πx) / πx, 1 at 0."""
    angle = x.op("Max", 1e-12) * math.pi
    return angle.op("Sin") / angle


def _pass(values: Value, weights: tuple[Value, Value], multiply: Callable[[Value, Value], Value]) -> Value:
    """Return one pass, rounded to whole numbers from 0 to 255."""
    upper, lower = weights
    rest = multiply(values, lower) + float(1 << (_BITS - 1))
    total = multiply(values, upper) + (rest * 2.0**-_LOW_BITS).op("Floor")
    return (total * 2.0 ** (_LOW_BITS - _BITS)).op("Floor").op("Max", 0.0).op("Min", 255.0)


def _padded(planes: Value, rows: Value, columns: Value, offset: tuple[Value, Value], preprocess: Preprocess) -> Value:
    """Return the resized image on the mean colour, which normalisation maps to 0."""
    graph = planes.graph
    mean = graph.const(np.array([round(255 * m) for m in preprocess.mean]).reshape(3, 1, 1), np.float32)
    (height, width), (top, left) = preprocess.size, offset
    pads = graph.ints(0, top, left, 0, height - rows - top, width - columns - left)
    return graph.op("Pad", planes - mean, pads, mode="constant") + mean


def crop_views(image: Value, preprocess: Preprocess, crops: int) -> Value:
    """Return crops of an image, as `pixels.cut` does.

    Args:
        image: uint8 (1, height, width, 3), preprocessed with `pixels.uncut`.
        preprocess: Preprocessing of one crop.
        crops: 5 or 10.

    Returns:
        uint8 (crops, height, width, 3).
    """
    whole, (height, width) = uncut(preprocess).size, preprocess.size
    down, right = whole[0] - height, whole[1] - width
    corners = [(down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right)]
    parts = [image.slice([top, left], [top + height, left + width], [1, 2]) for top, left in corners]
    if crops > len(corners):
        parts += [part.slice([-1], [-(1 << 31)], [2], step=-1) for part in parts]
    return image.graph.op("Concat", *parts, axis=0)
