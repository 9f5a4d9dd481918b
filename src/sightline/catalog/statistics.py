"""Image statistics by image: brightness, contrast, sharpness and more, from the decode that the search for duplicates uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sightline.catalog import looks
from sightline.records import Catalog, Progress, silent
from sightline.store import Cache

STATISTICS = ("brightness", "contrast", "sharpness")
"""Statistics by which predictions are sliced; `looks.STATISTICS` names all."""


def statistics(
    files: Sequence[Path], contents: Sequence[str], cache: Cache, progress: Progress = silent
) -> dict[str, np.ndarray]:
    """Return the statistics of images, decoding only images that are not in the cache.

    Args:
        files: n files.
        contents: n content hashes, not necessarily different; "" if unknown.
        cache: Cache for the statistics.
        progress: Progress callback.

    Returns:
        Name → float64 (n,), for each of `looks.STATISTICS`, defined in `looks.of_image`; NaN for images that cannot be decoded.
    """
    keys = [content or f"{looks.UNKNOWN}{i}" for i, content in enumerate(contents)]
    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    values = looks.looks([files[i] for i in first.values()], list(first), cache, progress).statistics
    place = {key: j for j, key in enumerate(first)}
    rows = np.array([place[key] for key in keys], dtype=np.int64)
    return {name: values[rows, j].astype(np.float64) for j, name in enumerate(looks.STATISTICS)}


def measure(catalog: Catalog, cache: Cache, progress: Progress = silent) -> dict[str, np.ndarray]:
    """Return the `statistics` of a catalog's images by row; NaN for rows with a problem.

    Args:
        catalog: n rows.
        cache: Cache for the statistics.
        progress: Progress callback.
    """
    problems, contents = catalog.column("problem"), catalog.column("content")
    rows = [i for i, problem in enumerate(problems) if problem is None]
    files = catalog.files()
    found = statistics([files[i] for i in rows], [contents[i] or "" for i in rows], cache, progress)
    out = {name: np.full(len(catalog), np.nan) for name in found}
    for name, values in found.items():
        out[name][rows] = values
    return out
