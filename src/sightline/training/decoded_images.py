"""Decode the images of a split into one array, in memory or in a memory-mapped file."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sightline import pixels
from sightline.errors import FailedWorkError
from sightline.records import Preprocess
from sightline.records.data_summary import FileProblem
from sightline.store import log
from sightline.training.context import Context

LARGE_BYTES = 1_000_000_000
"""From this size on, decoded images are stored in a memory-mapped file and not in memory."""


def decode(
    context: Context, rows: np.ndarray, preprocess: Preprocess, lost: dict[str, list[FileProblem]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows whose images can be decoded, and these images, uint8 (m, h, w, 3); the others are added to `lost`."""
    files, contents = context.catalog.files(), context.catalog.column("content")
    images = room((len(rows), *preprocess.size, 3), context.cache.root)
    good = np.ones(len(rows), dtype=bool)
    batches: Any = pixels.batches([files[i] for i in rows], preprocess, batch_size=64, contents=[contents[i] for i in rows])
    for batch in batches:
        images[batch.index] = batch.images
        for index, error in batch.errors.items():
            good[index] = False
            split = context.catalog.column("split")[rows[index]]
            lost.setdefault(split, []).append(FileProblem(context.catalog.paths[rows[index]], error.message))
        context.progress("decoding", int(batch.index[-1]) + 1 if len(batch.index) else 0, len(rows))
    decoded = np.flatnonzero(good)
    for place, row in enumerate(decoded):
        if place != row:
            images[place] = images[row]
    return rows[good], images[: len(decoded)]


def joined(context: Context, train: np.ndarray, val: np.ndarray) -> np.ndarray:
    """Return the images of both splits as one array, in memory or in a file as `room` decides.

    Args:
        context: The file is created in the folder of its cache.
        train, val: uint8 (n, h, w, 3) and (m, h, w, 3).

    Returns:
        uint8 (n + m, h, w, 3).
    """
    images = room((len(train) + len(val), *train.shape[1:]), context.cache.root)
    images[: len(train)], images[len(train) :] = train, val
    return images


def room(shape: tuple[int, ...], folder: Path) -> np.ndarray:
    """Return an empty uint8 array: in memory, or from `LARGE_BYTES` on in a memory-mapped temporary file.

    Args:
        shape: Shape of the array.
        folder: Folder of the file.

    Raises:
        FailedWorkError: If it fits neither on the disk nor into memory.
    """
    from sightline.training import hardware

    size_bytes = math.prod(shape)
    if size_bytes < LARGE_BYTES:
        return np.empty(shape, dtype=np.uint8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size_bytes)  # a full disk shows now, not as a crash later
            return np.memmap(file, dtype=np.uint8, mode="r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
    except OSError as error:
        memory = hardware.memory_bytes()
        if memory is not None and size_bytes > memory:
            message = (
                f"{size_bytes / 1e9:,.0f} GB of decoded images fit neither into {folder} ({error.strerror}) nor into memory"
            )
            raise FailedWorkError(message, "use a smaller image_size or fewer images, or free disk space") from error
        log.warning("cannot store decoded images in %s (%s); they are kept in memory", folder, error.strerror)
        return np.empty(shape, dtype=np.uint8)
