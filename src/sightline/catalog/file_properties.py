"""File properties of the images of a catalog, cached by content."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from sightline import activity, pixels
from sightline.errors import ImageError
from sightline.records import Progress, silent
from sightline.store import Cache, canonical_json, digest

VERSION = "properties/1"
_CHUNK = 64


def file_properties(
    files: Sequence[Path], contents: Sequence[str], cache: Cache, progress: Progress = silent
) -> list[dict[str, str]]:
    """Return the `pixels.PROPERTIES` of files, reading only files that are not in the cache. No pixels are decoded.

    Args:
        files: n files.
        contents: n content hashes, not necessarily different; "" is not cached.
        cache: Cache for the properties.
        progress: Progress callback.

    Returns:
        One dict per file; empty for files that cannot be read.
    """
    known: dict[str, dict[str, str]] = {}
    wanted = set(contents) - {""}
    for name in cache.names(VERSION):
        payload = cache.read(name)
        known |= {} if payload is None else {c: v for c, v in json.loads(payload).items() if c in wanted}
    first = {content or f"?{i}": i for i, content in reversed(list(enumerate(contents)))}
    todo = [i for content, i in first.items() if content not in known]
    fresh: dict[str, dict[str, str]] = {}

    def some(rows: Sequence[int]) -> list[dict[str, str]]:
        return [_of_file(files[i]) for i in rows]

    parts = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
    with activity.workers(min(16, os.cpu_count() or 1), "sightline-properties") as pool:
        for rows, found in zip(parts, pool.map(some, parts), strict=True):
            fresh |= {contents[i] or f"?{i}": value for i, value in zip(rows, found, strict=True)}
            progress("reading file properties", len(fresh), len(todo))
    to_store = {content: value for content, value in fresh.items() if value and not content.startswith("?")}
    if to_store:
        cache.write(f"{VERSION}/{digest(sorted(to_store))}", canonical_json(to_store))
    return [(known | fresh).get(content or f"?{i}", {}) for i, content in enumerate(contents)]


def _of_file(file: Path) -> dict[str, str]:
    try:
        return pixels.file_properties(file)
    except ImageError:
        return {}
