"""Grey thumbnails cached by content, many per cache entry, so that a million images do not need a million cache files."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sightline import activity, pixels
from sightline.errors import ImageError
from sightline.records import Progress, silent
from sightline.store import Cache, bytes_digest

VERSION = "looks/2"
_PER_ENTRY = 20_000
_CHUNK = 16


def grays(files: Sequence[Path], contents: Sequence[str], cache: Cache, progress: Progress = silent) -> np.ndarray:
    """Return grey thumbnails of images, decoding only images that are not in the cache.

    An image that cannot be decoded has a blank thumbnail, which is similar to no other image.

    Args:
        files: n files.
        contents: n different content hashes.
        cache: Cache for thumbnails.
        progress: Progress callback.

    Returns:
        uint8 (n, 32, 32).
    """
    out = np.zeros((len(files), 32, 32), np.uint8)
    place = {content: i for i, content in enumerate(contents)}
    missing = set(place)
    for name in cache.names(VERSION):
        if not missing:
            break
        payload = cache.read(name)
        if payload is None:
            continue
        known, values = _unpack(payload)
        for row, content in enumerate(known):
            if content in missing:
                out[place[content]] = values[row]
                missing.discard(content)
    todo = [i for i, content in enumerate(contents) if content in missing]
    fresh: list[int] = []
    for done, (i, gray) in enumerate(_look(files, todo), 1):
        if gray is not None:
            out[i] = gray
            fresh.append(i)
        if done % 64 == 0 or done == len(todo):
            progress("computing image fingerprints", done, len(todo))
    for start in range(0, len(fresh), _PER_ENTRY):
        rows = fresh[start : start + _PER_ENTRY]
        payload = _pack([contents[i] for i in rows], out[rows])
        cache.write(f"{VERSION}/{bytes_digest(payload)[:32]}", payload)
    return out


def _look(files: Sequence[Path], todo: Sequence[int]) -> Iterator[tuple[int, np.ndarray | None]]:
    """Compute thumbnails in worker threads, in order; yield None for images that fail for a temporary reason."""

    def some(rows: Sequence[int]) -> list[tuple[int, np.ndarray | None]]:
        return [(i, _gray(files[i])) for i in rows]

    with activity.workers(min(16, os.cpu_count() or 1), "sightline-look") as pool:
        for part in pool.map(some, (todo[s : s + _CHUNK] for s in range(0, len(todo), _CHUNK))):
            yield from part


def _gray(file: Path) -> np.ndarray | None:
    try:
        return pixels.look(file).gray
    except ImageError as error:
        return None if error.kind in pixels.PASSING_PROBLEMS else np.zeros((32, 32), np.uint8)


def _pack(contents: Sequence[str], values: np.ndarray) -> bytes:
    """Serialise thumbnails: length of the JSON, hashes as JSON, grey levels."""
    head = json.dumps(list(contents)).encode("ascii")
    return struct.pack("<Q", len(head)) + head + values.tobytes()


def _unpack(payload: bytes) -> tuple[list[str], np.ndarray]:
    """Undo `_pack`."""
    (length,) = struct.unpack_from("<Q", payload)
    contents: list[str] = json.loads(payload[8 : 8 + length])
    return contents, np.frombuffer(payload, np.uint8, offset=8 + length).reshape(len(contents), 32, 32)
