"""Isolation: decode unusual formats in worker processes, so that a decoder that hangs or crashes costs only its file.

Plain JPEG and PNG files, most of all photographs, are decoded in this process. Everything else (TIFF, WebP, GIF, AVIF,
arithmetic-coded JPEG, …) goes to a process that is started on the first such file as `python -m sightline.pixels.worker`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import sightline
from sightline import activity
from sightline.errors import ImageError

T = TypeVar("T")

LIMIT_S = 30.0
"""Time limit for one file in seconds, plus one second per megabyte of its size."""
_MOST_WORKERS = 4
_LARGE_BYTES = 1 << 24  # files above this size are decoded one at a time, to bound memory
_LENGTH = struct.Struct("<Q")
_log = logging.getLogger("sightline")
_large = threading.Lock()
_inside = False


def call(function: Callable[..., T], data: bytes, name: str, *args: Any) -> T:
    """Call a function that decodes an image, in a worker process unless the image is a plain JPEG or PNG.

    Args:
        function: Module-level function, called as `function(data, name, *args)`.
        data: Bytes of the file.
        name: Name of the file for messages.
        args: Further arguments that can be pickled.

    Returns:
        The function's result.

    Raises:
        ImageError: If the function raises one, or if the decoder crashes or exceeds `LIMIT_S` (`damaged`).
    """
    if _inside or is_plain(data):
        return activity.decode(name, lambda: function(data, name, *args))
    with _large if len(data) > _LARGE_BYTES else contextlib.nullcontext():
        return activity.decode(name, lambda: _pool.call(function, data, name, args))


def is_plain(data: bytes) -> bool:
    """Return whether the bytes are a PNG, a NumPy array, or a baseline, extended or progressive JPEG with Huffman coding.

    Example:
        >>> is_plain(b"GIF89a")
        False
    """
    if data.startswith((b"\x89PNG\r\n\x1a\n", b"\x93NUMPY")):
        return True
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF or data[position + 1] == 0xFF:
            position += 1
            continue
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker <= 0xC2
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True  # without a frame header no decoder is called


def limit_s(data: bytes) -> float:
    """Return the time limit in seconds for decoding these bytes."""
    return LIMIT_S + len(data) / 1e6


# ------------------------------------------------------------------------------------------------------------- messages


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message to a pipe: its length in bytes, then its pickle. Both ends are processes of Sightline."""
    payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message from a pipe.

    Raises:
        EOFError: If the other process has ended.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    payload = stream.read(length)
    if len(payload) < length:
        raise EOFError
    return pickle.loads(payload)


# ---------------------------------------------------------------------------------------------------------- the processes


class WorkerStartError(Exception):
    """No worker process can be started here."""


class _Worker:
    """One worker process and its pipes."""

    def __init__(self) -> None:
        root = str(Path(sightline.__file__).parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        if not sys.executable:
            raise WorkerStartError("the path of the Python interpreter is unknown")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sightline.pixels.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
            assert self.process.stdin is not None and self.process.stdout is not None
            self.requests, self.replies = self.process.stdin, self.process.stdout
            if receive(self.replies) != "ready":
                raise EOFError
        except (OSError, EOFError) as error:
            raise WorkerStartError(str(error) or "it ended at once") from error

    def ask(self, message: Any) -> Any:
        """Send a request and return the reply; raise EOFError if the process ends before it."""
        try:
            send(self.requests, message)
        except (BrokenPipeError, OSError) as error:
            raise EOFError from error
        return receive(self.replies)

    def end(self) -> int:
        """End the process and return its exit code."""
        with contextlib.suppress(OSError):
            self.process.kill()
        code = self.process.wait()
        for stream in (self.requests, self.replies):
            with contextlib.suppress(OSError):
                stream.close()
        return code

    def exit_code(self) -> int:
        """Return the exit code of a process that has closed its pipe."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        return self.end()


class _Pool:
    """At most `_MOST_WORKERS` worker processes, started when they are needed."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.pid = os.getpid()
        self.idle: list[_Worker] = []
        self.free = threading.Semaphore(min(_MOST_WORKERS, os.cpu_count() or 1))
        self.cannot_start = False

    def call(self, function: Callable[..., T], data: bytes, name: str, args: tuple[Any, ...]) -> T:
        """Call a function in a worker process; see `call`."""
        if self.pid != os.getpid():  # a forked child does not share its parent's workers
            self._reset()
        with self.free:
            try:
                worker = self.idle.pop() if self.idle and not self.cannot_start else self._start()
            except WorkerStartError as error:
                if not self.cannot_start:
                    _log.warning("no process for decoding can be started (%s): unusual formats are decoded in this one", error)
                self.cannot_start = True
                return function(data, name, *args)
            began = time.monotonic()
            try:
                status, value = worker.ask((function, data, name, args))
            except EOFError:
                raise _ended(name, worker.exit_code(), time.monotonic() - began, limit_s(data)) from None
            except BaseException:  # interrupted between request and reply
                worker.end()
                raise
            self.idle.append(worker)
        if status == "image error":
            raise ImageError(*value)
        if status == "error":
            raise value
        result: T = value
        return result

    def _start(self) -> _Worker:
        if self.cannot_start:
            raise WorkerStartError("it failed before")
        return _Worker()

    def close(self) -> None:
        """End all idle workers."""
        if self.pid == os.getpid():
            while self.idle:
                self.idle.pop().end()


def _ended(name: str, code: int, seconds: float, limit: float) -> ImageError:
    """Return the error for a worker process that ended during a file."""
    hint = "convert the file, or leave it out"
    if seconds >= limit:
        return ImageError("damaged", f"{name} cannot be decoded (the decoder did not return within {limit:.0f} s)", hint)
    return ImageError("damaged", f"{name} cannot be decoded (the decoder crashed, exit code {code})", hint)


_pool = _Pool()
atexit.register(_pool.close)


def enter_worker() -> None:
    """Decode everything in this process from now on: it is a worker."""
    global _inside
    _inside = True
