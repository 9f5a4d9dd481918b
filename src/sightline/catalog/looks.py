"""Thumbnails and statistics of images from one decode of each file, cached by content, many images per cache entry."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline import activity, pixels
from sightline.errors import ImageError
from sightline.records import Progress, silent
from sightline.store import Cache, bytes_digest

VERSION = "looks/3"
PREVIEW_PX = 256
"""Longer side in pixels to which images are reduced before measuring, so that sharpness does not depend on the file's size."""
LUMA_PX, COLOUR_PX = 64, 16
UNKNOWN = "?"
"""First character of a key that is not a content hash; results under such keys are not cached."""
STATISTICS = (
    "brightness",
    "contrast",
    "sharpness",
    "entropy",
    "saturation",
    "highlights",
    "shadows",
    "border_top",
    "border_bottom",
    "border_left",
    "border_right",
    "red",
    "green",
    "blue",
    "jpeg_quality",
)
_PER_ENTRY = 20_000
_CHUNK = 16
_IN_MEMORY = 50_000  # images; thumbnails of more are kept in a temporary file, which the system pages in as needed
_LINES_AT_ONCE = 8
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_BORDER_LEVELS, _BORDER_SHARE = (
    10.0,
    0.97,
)  # most grey levels that a border differs by, JPEG noise included, and of how many pixels


@dataclass(frozen=True, slots=True)
class Looks:
    """Thumbnails and statistics of n images; those of an image that cannot be decoded are 0 and NaN.

    Args:
        luma: uint8 (n, 64, 64), grey levels of the whole upright image, resized to a square.
        colour: uint8 (n, 16, 16, 3), RGB of the same.
        statistics: float32 (n, s), the columns of `STATISTICS`, as defined in `of_image`.
        complete: Whether every file could be read, so that results may be cached.
    """

    luma: np.ndarray
    colour: np.ndarray
    statistics: np.ndarray
    complete: bool


def looks(files: Sequence[Path], contents: Sequence[str], cache: Cache, progress: Progress = silent) -> Looks:
    """Return thumbnails and statistics of images, decoding only images that are not in the cache, each once.

    Args:
        files: n files.
        contents: n different content hashes, or keys that begin with `UNKNOWN`.
        cache: Cache for the results.
        progress: Progress callback.
    """
    n = len(files)
    luma, colour = _array((n, LUMA_PX, LUMA_PX)), _array((n, COLOUR_PX, COLOUR_PX, 3))
    numbers = np.full((n, len(STATISTICS)), np.nan, np.float32)
    place = {content: i for i, content in enumerate(contents)}
    missing = set(place)
    for name in cache.names(f"{VERSION}/index"):
        known = cache.read_json(name) if missing else None
        if known is None or missing.isdisjoint(known):
            continue
        payload = cache.read(name.replace("/index/", "/rows/"))
        if payload is None:
            continue
        for at, row in _unpack(payload, place, missing, known):
            luma[at], colour[at], numbers[at] = row
    todo = [i for i, content in enumerate(contents) if content in missing]
    fresh: list[int] = []
    for done, (i, look) in enumerate(_looked(files, todo), 1):
        if look is not None:
            luma[i], colour[i], numbers[i] = look
            fresh.append(i)
        if done % 64 == 0 or done == len(todo):
            progress("measuring images", done, len(todo))
    to_store = [i for i in fresh if not contents[i].startswith(UNKNOWN)]
    for start in range(0, len(to_store), _PER_ENTRY):
        rows = to_store[start : start + _PER_ENTRY]
        store_looks(cache, [contents[i] for i in rows], luma[rows], colour[rows], numbers[rows])
    return Looks(luma, colour, numbers, len(fresh) == len(todo))


def store_looks(cache: Cache, contents: Sequence[str], luma: np.ndarray, colour: np.ndarray, numbers: np.ndarray) -> None:
    """Store thumbnails and statistics of images in the cache, as one entry; the arrays are those of `Looks`."""
    payload = _pack(luma, colour, numbers)
    key = bytes_digest(payload)[:32]
    cache.write(f"{VERSION}/rows/{key}", payload)
    cache.write_json(f"{VERSION}/index/{key}", list(contents))


def of_image(image: np.ndarray, jpeg_quality: float = np.nan) -> np.ndarray:
    """Return the `STATISTICS` of an image, float32 (s,).

    `brightness` is the mean grey level and `contrast` its standard deviation; `highlights` and `shadows` are its 99th and 5th
    percentile; `red`, `green` and `blue` the mean levels (all 0 to 1). `sharpness` is the variance of the Laplacian divided by
    the variance of the grey level, so that it does not depend on brightness and contrast. `entropy` is that of the grey levels,
    0 to 8 bits. `saturation` is the 99th percentile of the difference between the largest and smallest channel, 0 to 1.
    `border_*` are the shares of height and width of a margin of one colour.

    Args:
        image: uint8 (h, w, 3).
        jpeg_quality: Quality of the JPEG file, 1 to 100; NaN for another format.

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy", the variance of the Laplacian.

    Example:
        >>> of_image(np.full((4, 4, 3), 255, np.uint8))[:3].tolist()
        [1.0, 0.0, 0.0]
    """
    grey = image.astype(np.float32) @ _GREY
    levels = np.bincount(np.minimum(grey + 0.5, 255).astype(np.int64).ravel(), minlength=256) / grey.size
    entropy = float(-(levels[levels > 0] * np.log2(levels[levels > 0])).sum())
    shadows, highlights = (int(np.searchsorted(levels.cumsum(), share)) / 255 for share in (0.05, 0.99))
    spreads = np.bincount((image.max(axis=2) - image.min(axis=2)).ravel(), minlength=256).cumsum() / grey.size
    spread = int(np.searchsorted(spreads, 0.99)) / 255
    red, green, blue = image.reshape(-1, 3).mean(axis=0) / 255
    brightness, contrast, sharpness = _light(grey / 255)
    sides = _borders(image)
    return np.array(
        [brightness, contrast, sharpness, entropy, spread, highlights, shadows, *sides, red, green, blue, jpeg_quality],
        np.float32,
    )


def _light(grey: np.ndarray) -> tuple[float, float, float]:
    """Return brightness, contrast and sharpness of grey levels, float32 (h, w), 0 to 1."""
    brightness, contrast = float(min(grey.mean(), 1.0)), float(grey.std())
    if contrast < 1e-4:
        return brightness, 0.0, 0.0
    if min(grey.shape) < 3:
        return brightness, contrast, 0.0
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return brightness, contrast, float(laplacian.var()) / contrast**2


def _borders(image: np.ndarray) -> tuple[float, float, float, float]:
    """Return the shares of height and width that margins of one colour take: top, bottom, left, right."""
    sides = []
    for lines in (image, image[::-1], image.transpose(1, 0, 2), image.transpose(1, 0, 2)[::-1]):
        first = lines[0].mean(axis=0)
        count = 0
        while count < len(lines):
            some = lines[count : count + _LINES_AT_ONCE]
            near = np.abs(some - first) <= _BORDER_LEVELS  # (lines, w, 3)
            uniform = near.all(axis=2).mean(axis=1) >= _BORDER_SHARE
            if not uniform.all():
                count += int(uniform.argmin())
                break
            count += len(some)
        sides.append(count / len(lines))
    top, bottom, left, right = sides
    return top, bottom, left, right


def thumbnails(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an image as `Looks.luma`, uint8 (64, 64), and `Looks.colour`, uint8 (16, 16, 3)."""
    from PIL import Image

    whole = Image.fromarray(image)
    luma = np.asarray(whole.convert("L").resize((LUMA_PX, LUMA_PX), Image.Resampling.BILINEAR))
    return luma, np.asarray(whole.resize((COLOUR_PX, COLOUR_PX), Image.Resampling.BILINEAR))


def _array(shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of zeros, uint8, in memory if it is small, else in a temporary file."""
    if shape[0] <= _IN_MEMORY:
        return np.zeros(shape, np.uint8)
    return np.memmap(tempfile.TemporaryFile(), np.uint8, "w+", shape=shape)


def _looked(files: Sequence[Path], todo: Sequence[int]) -> Iterator[tuple[int, tuple[np.ndarray, ...] | None]]:
    """Decode and measure images in worker threads, in order; yield None for images that fail for a temporary reason."""

    def some(rows: Sequence[int]) -> list[tuple[int, tuple[np.ndarray, ...] | None]]:
        return [(i, look_at(files[i])) for i in rows]

    with activity.workers(min(16, os.cpu_count() or 1), "sightline-look") as pool:
        for part in pool.map(some, (todo[s : s + _CHUNK] for s in range(0, len(todo), _CHUNK))):
            yield from part


def look_at(file: Path) -> tuple[np.ndarray, ...] | None:
    """Return the thumbnails and statistics of a file, None if it could not be read for a temporary reason."""
    try:
        image, quality = pixels.preview(file, PREVIEW_PX)
    except ImageError as error:
        if error.kind in pixels.PASSING_PROBLEMS:
            return None
        blank = np.zeros((LUMA_PX, LUMA_PX), np.uint8), np.zeros((COLOUR_PX, COLOUR_PX, 3), np.uint8)
        return *blank, np.full(len(STATISTICS), np.nan, np.float32)
    return *thumbnails(image), of_image(image, quality)


# ----------------------------------------------------------------------------------------------------------- cache entries


def _pack(luma: np.ndarray, colour: np.ndarray, numbers: np.ndarray) -> bytes:
    """Serialise rows: their number, then each array."""
    return struct.pack("<Q", len(luma)) + luma.tobytes() + colour.tobytes() + numbers.astype("<f4").tobytes()


def _unpack(
    payload: bytes, place: dict[str, int], missing: set[str], contents: Sequence[str]
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Yield (index, row) of the entry's images that are missing, and remove them from `missing`."""
    (n,) = struct.unpack_from("<Q", payload)
    shapes = (((n, LUMA_PX, LUMA_PX), "u1"), ((n, COLOUR_PX, COLOUR_PX, 3), "u1"), ((n, len(STATISTICS)), "<f4"))
    arrays, offset = [], 8
    for shape, kind in shapes:
        size = int(np.prod(shape))
        arrays.append(np.frombuffer(payload, kind, size, offset).reshape(shape))
        offset += arrays[-1].nbytes
    for row, content in enumerate(contents):
        if content in missing and row < n:
            missing.discard(content)
            yield place[content], tuple(a[row] for a in arrays)
