"""Decoding worker: a process that decodes unusual image formats for `isolation`. Run as `python -m sightline.pixels.worker`."""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import threading
from typing import IO, Any

from sightline.errors import ImageError
from sightline.pixels import isolation


def main() -> None:
    """Answer requests from standard input until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent decides
    replies = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # text that a library prints must not reach the pipe
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    isolation.enter_worker()
    threading.Thread(target=_receive, args=(os.fdopen(os.dup(0), "rb"), requests), daemon=True).start()
    isolation.send(replies, "ready")
    with os.fdopen(null, "w") as log:
        while True:
            function, data, name, args = requests.get()
            # This timer runs outside Python, so it also ends a decoder that holds Python's lock.
            faulthandler.dump_traceback_later(isolation.limit_s(data), exit=True, file=log)
            reply = _reply(function, data, name, args)
            faulthandler.cancel_dump_traceback_later()
            isolation.send(replies, reply)


def _receive(stream: IO[bytes], requests: queue.SimpleQueue[Any]) -> None:
    """Read requests, and end this process when the parent has ended, even while a decoder runs."""
    try:
        while True:
            requests.put(isolation.receive(stream))
    except EOFError:
        os._exit(0)


def _reply(function: Any, data: bytes, name: str, args: tuple[Any, ...]) -> tuple[str, Any]:
    """Call the function and return its result or error as a reply."""
    try:
        return "result", function(data, name, *args)
    except ImageError as error:
        return "image error", (error.kind, error.message, error.hint)
    except Exception as error:
        return "error", error


if __name__ == "__main__":
    main()
