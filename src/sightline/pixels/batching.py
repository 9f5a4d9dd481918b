"""Batches of decoded images by worker threads, in order; and the range of stored values over a training set."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline import activity
from sightline.errors import ImageError
from sightline.pixels import modes
from sightline.pixels.decoding import decode, decode_array, read
from sightline.pixels.header import read_header
from sightline.pixels.opening import DEEP_MODES
from sightline.records import Preprocess
from sightline.store import bytes_digest

_RANGE_IMAGES = 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """Some images of a sequence, in its order.

    Args:
        index: int64 (b,): which of the sources these are.
        images: uint8 (b, height, width, 3).
        errors: Source → why it is not in `index`. An error stands in the batch in which its turn came.
    """

    index: np.ndarray
    images: np.ndarray
    errors: dict[int, ImageError]


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def batches(
    sources: Sequence[Path | np.ndarray],
    preprocess: Preprocess,
    *,
    batch_size: int,
    threads: int | None = None,
    contents: Sequence[str] | None = None,
) -> Iterator[Batch]:
    """Decode images in worker threads, ahead of whoever takes the batches.

    Pillow holds no lock while it decodes and resizes, so threads scale as processes do, without their start-up. At most
    two batches (and two images a thread) wait to be taken. What cannot be decoded is an error of its own, never another
    image; batches are full but for the last.

    Args:
        sources: Files or arrays.
        preprocess: What the network expects.
        batch_size: Images in a batch.
        threads: Workers; None takes one per core.
        contents: The SHA-256 that each file's bytes should have, "" where it is not known; others are `changed`.

    Yields:
        Batches, the last one maybe without images but with errors.
    """
    workers = cores() if threads is None else max(1, threads)
    ahead = max(2 * batch_size, 2 * workers)
    waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
    with activity.workers(workers, "sightline-decode") as pool:
        upcoming = iter(range(len(sources)))
        index, errors = _none()
        images = np.empty((batch_size, *preprocess.size, 3), dtype=np.uint8)
        while True:
            for i in upcoming:
                waiting.append((i, pool.submit(_one, sources[i], preprocess, contents[i] if contents else "")))
                if len(waiting) >= ahead:
                    break
            if not waiting:
                break
            i, future = waiting.popleft()
            try:
                images[len(index)] = future.result()
                index.append(i)
            except ImageError as error:
                errors[i] = error
            if len(index) == batch_size:
                yield Batch(np.array(index, dtype=np.int64), images, errors)
                index, errors = _none()
                images = np.empty_like(images)
        if index or errors:
            yield Batch(np.array(index, dtype=np.int64), images[: len(index)], errors)


def _none() -> tuple[list[int], dict[int, ImageError]]:
    """What a batch begins with."""
    return [], {}


def _one(source: Path | np.ndarray, preprocess: Preprocess, content: str) -> np.ndarray:
    """Decode one source; a file must still have the bytes that it had when it was scanned."""
    if isinstance(source, np.ndarray):
        return decode_array(source, preprocess)
    if not content:
        return decode(source, preprocess)
    data, name = read(source)
    if bytes_digest(data) != content:
        raise ImageError("changed", f"{name} has changed since it was scanned", "scan the photographs again")
    return decode(data, preprocess, name)


def value_range(files: Sequence[Path], threads: int | None = None) -> tuple[float, float] | None:
    """The stored values that become 0 and 255 for images with more than 8 bits a channel; 8-bit images are unaffected.

    The range of an image leaves out its darkest and brightest 0.1 % (hot pixels, stray values) and all that is not
    finite; the range of the set is from the lowest to the highest of these, so that no image of it is clipped in more
    than 0.2 % of its values, and a 12-bit camera's files fill the 8 bits. Of more than 1,000 such images 1,000 are looked
    at, evenly spread over `files`.

    Args:
        files: Of the training split; those that cannot be read are passed over.
        threads: Workers; None takes one per core.

    Returns:
        (low, high), or None where no file has more than 8 bits.
    """
    with activity.workers(cores() if threads is None else max(1, threads), "sightline-decode") as pool:
        deep = [f for f, found in zip(files, pool.map(_is_deep, files), strict=True) if found]
        chosen = [deep[i * len(deep) // _RANGE_IMAGES] for i in range(_RANGE_IMAGES)] if len(deep) > _RANGE_IMAGES else deep
        ranges = [r for r in pool.map(_range, chosen) if r is not None]
    if not ranges:
        return None
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _is_deep(file: Path) -> bool:
    """Whether a file has more than 8 bits a channel."""
    try:
        data, name = read(file)
        return activity.decode(name, lambda: read_header(data, name).mode) in DEEP_MODES
    except ImageError:
        return False


def _range(file: Path) -> tuple[float, float] | None:
    """The range of one image, None where it cannot be decoded."""
    try:
        data, name = read(file)
        return activity.decode(name, lambda: modes.image_range(data, read_header(data, name).format))
    except ImageError:
        return None
