"""Image statistics: measure brightness, contrast and sharpness, cached by content."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sightline import activity, pixels
from sightline.errors import ImageError
from sightline.records import Progress, silent
from sightline.store import Cache, canonical_json, digest

VERSION = "statistics/2"
STATISTICS = ("brightness", "contrast", "sharpness")
SIDE_PX = 256
"""Longer side in pixels to which images are reduced before measuring, so that sharpness does not depend on the file's size."""
_CHUNK = 16
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def statistics(
    files: Sequence[Path], contents: Sequence[str], cache: Cache, progress: Progress = silent
) -> dict[str, np.ndarray]:
    """Return the `STATISTICS` of images, decoding only images that are not in the cache.

    Args:
        files: n files.
        contents: n content hashes, not necessarily different.
        cache: Cache for the statistics.
        progress: Progress callback.

    Returns:
        Name → float64 (n,), as defined in `of_image`; NaN for images that cannot be decoded.
    """
    known: dict[str, list[float | None]] = {}
    wanted = set(contents)
    for name in cache.names(VERSION):
        payload = cache.read(name)
        known |= {} if payload is None else {c: v for c, v in json.loads(payload).items() if c in wanted}
    first = {content: i for i, content in reversed(list(enumerate(contents)))}
    todo = [i for content, i in first.items() if content not in known]
    fresh: dict[str, list[float | None]] = {}
    for done, (i, measured) in enumerate(_measured(files, todo), 1):
        if measured is not None:
            fresh[contents[i]] = measured
        if done % 64 == 0 or done == len(todo):
            progress("measuring brightness and sharpness", done, len(todo))
    to_store = {c: v for c, v in fresh.items() if c}
    if to_store:
        cache.write(f"{VERSION}/{digest(sorted(to_store))}", canonical_json(to_store))
    rows = [(known | fresh).get(c) or [None] * len(STATISTICS) for c in contents]
    values = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=np.float64)
    return {name: values.reshape(-1, len(STATISTICS))[:, j] for j, name in enumerate(STATISTICS)}


def of_image(image: np.ndarray) -> tuple[float, float, float]:
    """Return brightness (mean grey level, 0 to 1), contrast (standard deviation of the grey level, 0 to 0.5) and sharpness.

    Sharpness is the variance of the Laplacian divided by the variance of the grey level, so that it does not depend on
    brightness and contrast. It is 0 for a uniform image.

    Args:
        image: uint8 (h, w, 3).

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy", the variance of the Laplacian.

    Example:
        >>> of_image(np.full((4, 4, 3), 255, np.uint8))
        (1.0, 0.0, 0.0)
    """
    grey = image.astype(np.float32) @ _GREY / 255
    brightness, contrast = float(min(grey.mean(), 1.0)), float(grey.std())
    if contrast < 1e-4 or min(grey.shape) < 3:
        return round(brightness, 6), round(contrast, 6) if contrast >= 1e-4 else 0.0, 0.0
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return round(brightness, 6), round(contrast, 6), round(float(laplacian.var()) / contrast**2, 6)


def _measured(files: Sequence[Path], todo: Sequence[int]) -> Iterator[tuple[int, list[float | None] | None]]:
    """Measure images in worker threads, in order; yield None for images that fail for a temporary reason."""

    def some(rows: Sequence[int]) -> list[tuple[int, list[float | None] | None]]:
        return [(i, _of_file(files[i])) for i in rows]

    with activity.workers(min(16, os.cpu_count() or 1), "sightline-look") as pool:
        for part in pool.map(some, (todo[s : s + _CHUNK] for s in range(0, len(todo), _CHUNK))):
            yield from part


def _of_file(file: Path) -> list[float | None] | None:
    try:
        return list(of_image(pixels.upright(file, SIDE_PX)))
    except ImageError as error:
        return None if error.kind in pixels.PASSING_PROBLEMS else [None] * len(STATISTICS)
