"""Which file each thread is decoding, so that a decoder that hangs or crashes can be named; thread pools that can be left."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType
from typing import Any, TypeVar

T = TypeVar("T")

_numbers = itertools.count()
_busy: dict[int, tuple[str, float]] = {}
"""Files that are being decoded: number → (name, start time). Single dict operations are atomic, so there is no lock."""
_FRAME_NAME = "image being decoded: if the process crashed here, convert or remove it"


def decode(name: str, function: Callable[[], T]) -> T:
    """Call a function that decodes a file, and record the file while it runs.

    The call goes through a frame whose source file is called `name`. When the process crashes inside a decoder,
    `faulthandler` prints the frames of the crashed thread, and so the image.

    Args:
        name: The file, as messages name it.
        function: Takes no arguments; its result or error is passed on.
    """
    number = next(_numbers)
    _busy[number] = name, time.monotonic()
    try:
        code = _call.__code__.replace(co_filename=name, co_name=_FRAME_NAME)
        result: T = FunctionType(code, {})(function)
        return result
    finally:
        _busy.pop(number, None)


def _call(function: Callable[[], Any]) -> Any:
    return function()


def describe(least_s: float) -> str:
    """Return the files that have been decoded for at least `least_s` seconds as a clause for a message; "" if there are none.

    Example:
        >>> decode("cat.png", lambda: describe(least_s=0.0))
        'the decoder has not returned from cat.png for 0 s'
    """
    now = time.monotonic()
    found = sorted(((now - began, name) for name, began in list(_busy.values()) if now - began >= least_s), reverse=True)
    if not found:
        return ""
    files = ", ".join(f"{name} for {seconds:.0f} s" for seconds, name in found[:3])
    more = f" and {len(found) - 3} more files" if len(found) > 3 else ""
    return f"the decoder has not returned from {files}{more}"


@contextlib.contextmanager
def workers(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads for the block. If the block is left by an error or an interruption, running work is not waited for.

    Args:
        threads: How many.
        name: How the threads' names begin.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=isinstance(error, GeneratorExit), cancel_futures=True)  # whoever closes a generator is in no hurry
        raise
    pool.shutdown(wait=True)
