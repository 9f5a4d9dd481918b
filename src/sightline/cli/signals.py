"""Signals: end the process within two seconds of Ctrl-C or SIGTERM, and name the image that crashed a decoder."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading

from sightline import activity

GRACE_S = 1.5
"""Seconds that a command has after a signal to finish its writes before the process ends."""
SLOW_S = 1.0
"""Files decoded for longer than this many seconds are named when the process is interrupted."""
_reported: list[str] = []
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def watch() -> None:
    """End this process within `GRACE_S` of Ctrl-C or SIGTERM, even while native code does not return.

    Python runs signal handlers between bytecode instructions of the main thread, so not while a decoder, a download or a
    network computes. So the signal number is written to a pipe, which another thread reads. Signal handlers stay in place.
    """
    _reported.clear()
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # without standard error there is nothing to write to
        faulthandler.enable(all_threads=False)
    reader, writer = os.pipe()
    if os.name != "nt":
        os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader,), name="sightline-signals", daemon=True).start()


def _wait(reader: int) -> None:
    """Wait for a signal that ends the process, then for `GRACE_S`, then end it."""
    while True:
        for number in os.read(reader, 64):
            if number in EXIT_CODES and signal.getsignal(number) not in (signal.SIG_IGN, signal.SIG_DFL):
                threading.Event().wait(GRACE_S)
                _end(EXIT_CODES[signal.Signals(number)])


def _end(code: int) -> None:
    """End the process at once; standard error names the files whose decoding did not end."""
    if not _reported:
        words = interruption("interrupted" if code == EXIT_CODES[signal.SIGINT] else "terminated")
        cursor = "\x1b[?25h" if os.isatty(2) else ""  # show the cursor hidden by a progress bar
        with contextlib.suppress(OSError):
            os.write(2, f"{cursor}\nerror: {words}\n".encode("utf-8", "backslashreplace"))
    os._exit(code)


def leave(code: int) -> None:
    """End the process with an exit code.

    After an interruption, or while a decoder does not return, the regular exit of Python is skipped: it waits for threads and
    unloads libraries, which takes seconds, and `watch` cannot interrupt it.
    """
    if _reported or activity.describe(SLOW_S):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def interruption(what: str) -> str:
    """Return the message for an interruption, with the files that have been decoded for more than `SLOW_S`.

    Calling this function marks the message as printed, so that it is not repeated when the process has to be ended.

    Args:
        what: `interrupted` or `terminated`.
    """
    slow = activity.describe(SLOW_S)
    _reported.append(what)
    return f"{what}; {slow}: convert or remove files that hang" if slow else what
