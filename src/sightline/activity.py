"""Decoder activity: record the file that each thread decodes, to name it after a hang or crash; interruptible thread pools."""

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
"""Files being decoded: number → (name, start time). Single dict operations are atomic, so no lock is needed."""
_FRAME_NAME = "image being decoded: if the process crashed here, convert or remove it"


def decode(name: str, function: Callable[[], T]) -> T:
    """Call a function that decodes a file, and record the file while it runs.

    The call goes through a stack frame whose source file is called `name`. If the process crashes inside a decoder,
    `faulthandler` prints the stack of the crashed thread, and with it the name of the image.

    Args:
        name: Name of the file in messages.
        function: Function without arguments; its result is returned, its errors are raised.
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
    """Return a clause for messages that names files whose decoding has taken at least `least_s` seconds; "" if none.

    Example:
        >>> decode("cat.png", lambda: describe(least_s=0.0))
        'the decoder has not returned from cat.png for 0 s'
    """
    now = time.monotonic()
    slow = sorted(((now - began, name) for name, began in list(_busy.values()) if now - began >= least_s), reverse=True)
    if not slow:
        return ""
    files = ", ".join(f"{name} for {seconds:.0f} s" for seconds, name in slow[:3])
    more = f" and {len(slow) - 3} more files" if len(slow) > 3 else ""
    return f"the decoder has not returned from {files}{more}"


@contextlib.contextmanager
def workers(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Provide a thread pool for the block. After an error or interruption in the block, do not wait for running tasks.

    Args:
        threads: Number of threads.
        name: Prefix of the threads' names.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=isinstance(error, GeneratorExit), cancel_futures=True)  # wait only if a generator is closed
        raise
    pool.shutdown(wait=True)
