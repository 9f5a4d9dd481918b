"""Reading files on a cluster: hash, header, and the thumbnails by which duplicates are found, in one pass over the bytes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline.catalog import looks, reading
from sightline.catalog.reading import Reading
from sightline.records import Progress, silent
from sightline.scale.pipeline import absolute
from sightline.store import Cache

BLOCK_FILES = 256
"""Number of files per task."""
FEWEST_FILES = 64
"""Number of files below which this machine reads them itself."""

Look = tuple[np.ndarray, ...]
"""Thumbnails and statistics of an image: one row of each array of `looks.Looks`."""


def read(paths: Sequence[str], names: Sequence[str], allow_truncated: bool) -> list[tuple[Reading, Look | None]]:
    """Read files in a worker: hash and header, and thumbnails of usable images; None for others and temporary failures."""
    rows: list[tuple[Reading, Look | None]] = []
    for path, name in zip(paths, names, strict=True):
        try:
            found = reading.read_file(Path(path), name, allow_truncated)
            rows.append((found, looks.look_at(Path(path)) if found.problem is None else None))
        except Exception as error:  # a fault of the decoder: that file is named, and the others are read
            rows.append((Reading(problem=f"unreadable: it makes the worker raise {type(error).__name__}: {error}"), None))
    return rows


def _read_row(row: dict[str, Any], allow_truncated: bool) -> dict[str, Any]:
    """`read` as Ray Data calls it."""
    found = read(list(row["paths"]), list(row["names"]), allow_truncated)
    return {"start": row["start"], "found": pickle.dumps(found, protocol=5)}


def read_files(
    files: Sequence[Path],
    names: Sequence[str],
    *,
    cache: Cache,
    allow_truncated: bool = False,
    progress: Progress = silent,
) -> list[Reading]:
    """Read files on the cluster, in order, as `catalog.reading.read_files` does, and store their thumbnails in the cache.

    A file that ends its worker has a problem that says so.

    Args:
        files: n files on a file system that all machines share, or URIs.
        names: n names for messages.
        cache: Cache of this machine, for the thumbnails.
        allow_truncated: Whether to accept a JPEG without its end.
        progress: Progress callback.

    Returns:
        n readings.
    """
    if len(files) < FEWEST_FILES:
        return reading.read_files(files, names, allow_truncated=allow_truncated, progress=progress)
    out: dict[int, Reading] = {}
    for size in (BLOCK_FILES, 1):
        todo = [row for row in range(len(files)) if row not in out]
        blocks = [todo[i : i + size] for i in range(0, len(todo), size)]
        table = [
            {"start": number, "paths": [absolute(str(files[r])) for r in rows], "names": [names[r] for r in rows]}
            for number, rows in enumerate(blocks)
        ]
        for number, found in _run(table, allow_truncated):
            out |= zip(blocks[number], (one for one, _ in found), strict=True)
            _store(cache, found)
            progress("reading files", len(out), len(files))
        if len(out) == len(files):
            break
    ended = Reading(problem="unreadable: it ends the worker process that reads it")
    return [out.get(row, ended) for row in range(len(files))]


def _run(table: list[dict[str, Any]], allow_truncated: bool) -> Iterator[tuple[int, list[tuple[Reading, Look | None]]]]:
    """Read the files of blocks on the cluster, and yield (number of the block, readings) as they are done."""
    import ray

    blocks = ray.data.from_items(table, override_num_blocks=len(table))
    for row in blocks.map(_read_row, fn_kwargs={"allow_truncated": allow_truncated}, num_cpus=1).iter_rows():
        yield int(row["start"]), pickle.loads(row["found"])


def _store(cache: Cache, found: Sequence[tuple[Reading, Look | None]]) -> None:
    """Store the thumbnails of a block in the cache, each content once."""
    unique = {one.content: look for one, look in found if look is not None}
    if unique:
        luma, colour, numbers = (np.stack(arrays) for arrays in zip(*unique.values(), strict=True))
        looks.store_looks(cache, list(unique), luma, colour, numbers)
