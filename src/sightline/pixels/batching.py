"""Batching: decode images in worker threads, in order; compute the value range of a training set of deep images."""

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
from sightline.pixels import isolation, modes
from sightline.pixels.decoding import decode, decode_array, read
from sightline.pixels.header import read_header, safe_header
from sightline.pixels.opening import DEEP_MODES
from sightline.records import Preprocess
from sightline.store import bytes_digest

_RANGE_IMAGES = 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive images of a sequence.

    Args:
        index: int64 (b,), indices of the decoded sources.
        images: uint8 (b, height, width, 3).
        errors: Source index → error, for sources of this batch that could not be decoded; they are not in `index`.
    """

    index: np.ndarray
    images: np.ndarray
    errors: dict[int, ImageError]


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
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
    """Decode images in worker threads, ahead of the consumer.

    Pillow releases the GIL while it decodes and resizes, so threads scale as well as processes, without their start-up cost.
    At most two batches, or two images per thread, are prefetched. A source that cannot be decoded is reported in
    `Batch.errors` and never replaced by another image; all batches but the last are full.

    Args:
        sources: Files or arrays.
        preprocess: Preprocessing that the network expects.
        batch_size: Images per batch.
        threads: Number of worker threads; None uses one per core.
        contents: Expected SHA-256 of each file's bytes, "" if unknown; a file with another hash has the error `changed`.

    Yields:
        Batches; the last one may have errors and no images.
    """
    workers = cores() if threads is None else max(1, threads)
    ahead = max(2 * batch_size, 2 * workers)
    waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
    with activity.workers(workers, "sightline-decode") as pool:
        upcoming = iter(range(len(sources)))
        index, errors = _empty_batch()
        images = np.empty((batch_size, *preprocess.size, 3), dtype=np.uint8)
        while True:
            for i in upcoming:
                waiting.append((i, pool.submit(decode_same, sources[i], preprocess, contents[i] if contents else "")))
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
                index, errors = _empty_batch()
                images = np.empty_like(images)
        if index or errors:
            yield Batch(np.array(index, dtype=np.int64), images[: len(index)], errors)


def _empty_batch() -> tuple[list[int], dict[int, ImageError]]:
    """Return an empty index and an empty dictionary of errors."""
    return [], {}


def decode_same(source: Path | np.ndarray, preprocess: Preprocess, content: str) -> np.ndarray:
    """Decode a file or array into the network's input, uint8 (height, width, 3), if a file still has the expected bytes.

    Args:
        source: The file or array.
        preprocess: Preprocessing that the network expects.
        content: Expected SHA-256 of the file's bytes, "" if unknown.

    Raises:
        ImageError: If it cannot be decoded, or the bytes have `changed`.
    """
    if isinstance(source, np.ndarray):
        return decode_array(source, preprocess)
    if not content:
        return decode(source, preprocess)
    data, name = read(source)
    if bytes_digest(data) != content:
        raise ImageError("changed", f"{name} has changed since it was scanned", "scan the images again")
    return decode(data, preprocess, name)


def value_range(files: Sequence[Path], threads: int | None = None) -> tuple[float, float] | None:
    """Return the stored values that map to 0 and 255 for images with more than 8 bits per channel.

    The range of one image excludes its darkest and brightest 0.1 % (hot pixels, outliers) and values that are not finite. The
    range of the set covers the ranges of all its images, so no image is clipped in more than 0.2 % of its values, and images
    of a 12-bit camera use all 8 bits. Of more than 1,000 such images, 1,000 evenly spaced ones are read.

    Args:
        files: Files of the training split; unreadable ones are ignored, and 8-bit images have no effect.
        threads: Number of worker threads; None uses one per core.

    Returns:
        (low, high), or None if no file has more than 8 bits per channel.
    """
    with activity.workers(cores() if threads is None else max(1, threads), "sightline-decode") as pool:
        deep = [file for file, is_deep in zip(files, pool.map(_is_deep, files), strict=True) if is_deep]
        sample = [deep[i * len(deep) // _RANGE_IMAGES] for i in range(_RANGE_IMAGES)] if len(deep) > _RANGE_IMAGES else deep
        ranges = [r for r in pool.map(_range, sample) if r is not None]
    if not ranges:
        return None
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _is_deep(file: Path) -> bool:
    """Return whether a file has more than 8 bits per channel."""
    try:
        return safe_header(*read(file)).mode in DEEP_MODES
    except ImageError:
        return False


def _range(file: Path) -> tuple[float, float] | None:
    """Return the value range of one image, None if it cannot be decoded."""
    try:
        return isolation.call(_value_range, *read(file))
    except ImageError:
        return None


def _value_range(data: bytes, name: str) -> tuple[float, float]:
    """Return the value range of one image from its bytes."""
    return modes.image_range(data, read_header(data, name).format)
