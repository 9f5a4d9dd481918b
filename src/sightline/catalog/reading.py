"""File reading: get hashes, sizes and image headers with worker threads, in bounded memory, without decoding pixels."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from sightline import activity, pixels
from sightline.containers import read_bytes
from sightline.errors import ImageError, SightlineError
from sightline.files import NotReadableError
from sightline.records import Progress, silent
from sightline.store import bytes_digest

_CHUNK = 32
_LARGE_BYTES = 64 << 20
_one_large_file = threading.Lock()
"""Held while a file of more than `_LARGE_BYTES` is in memory, so that several threads do not hold one each."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Hash, size and header of a file.

    Args:
        content: SHA-256 of the bytes, "" if they could not be read.
        size_bytes: Size in bytes, None if the file could not be read.
        header: Image header, None if it could not be read.
        problem: `kind: reason` if the image cannot be used, else None.
    """

    content: str = ""
    size_bytes: int | None = None
    header: pixels.Header | None = None
    problem: str | None = None


def read_file(file: Path, name: str, allow_truncated: bool) -> Reading:
    """Read a file once, and return its hash, size and header. Errors are returned as `Reading.problem`."""
    try:
        with _one_large_file if _size_bytes(file) > _LARGE_BYTES else contextlib.nullcontext():
            return _read(read_bytes(file), name, allow_truncated)
    except (FileNotFoundError, NotADirectoryError):
        return Reading(problem="missing: there is no such file")
    except NotReadableError as error:
        return Reading("", _size_bytes(file) or None, None, f"{error.kind}: {error.detail}")
    except OSError as error:
        return Reading(problem=f"unreadable: {error.strerror or error}")
    except SightlineError as error:
        return Reading(problem=f"unreadable: {error.message}")
    except MemoryError:
        return Reading(problem="memory: reading it needs more memory than is available")


def _size_bytes(file: Path) -> int:
    """Return a file's size in bytes, 0 if it is unknown."""
    try:
        return file.stat().st_size
    except (OSError, ValueError):
        return 0


def _read(data: bytes, name: str, allow_truncated: bool) -> Reading:
    """Return the hash, size and header of a file's bytes."""
    content = bytes_digest(data)
    try:
        header = pixels.safe_header(data, name)
    except ImageError as error:
        return Reading(content, len(data), None, _problem(error.kind, error.message))
    problem = None
    if "truncated" in header.notes and not allow_truncated:
        problem = "truncated: its end is missing"
    return Reading(content, len(data), header, problem)


def _problem(kind: str, message: str) -> str:
    """Return `kind: message`, or only `kind` if the message repeats it."""
    return kind if message in (kind, "") else f"{kind}: {message}"


def read_files(
    files: Sequence[Path], names: Sequence[str], *, allow_truncated: bool = False, progress: Progress = silent
) -> list[Reading]:
    """Read files in worker threads, in order, with at most a few files per thread in memory.

    Args:
        files: n files.
        names: n names for messages.
        allow_truncated: Whether to accept a JPEG without its end.
        progress: Progress callback.

    Returns:
        n readings.
    """
    threads = min(8, 2 * (os.cpu_count() or 1))  # hashing releases the GIL, and threads hide the latency of a slow disk
    waiting: deque[Future[list[Reading]]] = deque()
    out: list[Reading] = []

    def some(start: int) -> list[Reading]:
        end = start + _CHUNK
        return [read_file(f, n, allow_truncated) for f, n in zip(files[start:end], names[start:end], strict=True)]

    with activity.workers(threads, "sightline-scan") as pool:
        starts = iter(range(0, len(files), _CHUNK))
        while True:
            for start in starts:
                waiting.append(pool.submit(some, start))
                if len(waiting) >= 4 * threads:
                    break
            if not waiting:
                return out
            out += waiting.popleft().result()
            progress("reading files", len(out), len(files))
