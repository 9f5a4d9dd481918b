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
"""The longer side at which they are measured, so that sharpness is that of what one sees and not of the file's size."""
_CHUNK = 16
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def statistics(
    files: Sequence[Path], contents: Sequence[str], cache: Cache, progress: Progress = silent
) -> dict[str, np.ndarray]:
    """STATISTICS of images, decoded only where the cache does not have them.

    Args:
        files: n files.
        contents: Their hashes; duplicates may be among them.
        cache: Where they are kept.
        progress: Told now and then.

    Returns:
        Name → float64 (n,), as `of_image` gives them; NaN for what cannot be decoded.
    """
    known: dict[str, list[float | None]] = {}
    wanted = set(contents)
    for name in cache.names(VERSION):
        payload = cache.read(name)
        known |= {} if payload is None else {c: v for c, v in json.loads(payload).items() if c in wanted}
    first = {content: i for i, content in reversed(list(enumerate(contents)))}
    todo = [i for content, i in first.items() if content not in known]
    fresh: dict[str, list[float | None]] = {}
    for done, (i, found) in enumerate(_measured(files, todo), 1):
        if found is not None:
            fresh[contents[i]] = found
        if done % 64 == 0 or done == len(todo):
            progress("measuring brightness and sharpness", done, len(todo))
    kept = {c: v for c, v in fresh.items() if c}
    if kept:
        cache.write(f"{VERSION}/{digest(sorted(kept))}", canonical_json(kept))
    rows = [(known | fresh).get(c) or [None] * len(STATISTICS) for c in contents]
    values = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=np.float64)
    return {name: values.reshape(-1, len(STATISTICS))[:, j] for j, name in enumerate(STATISTICS)}


def of_image(image: np.ndarray) -> tuple[float, float, float]:
    """Brightness (mean grey, 0 to 1), contrast (its standard deviation, 0 to 0.5) and sharpness.

    Sharpness is the variance of the Laplacian over the variance of the grey: a dark or a flat image is not called blurred for
    being so. 0 for an image of one grey.

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
    """Statistics by worker threads, in order; None for what fails for a reason that may pass."""

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
