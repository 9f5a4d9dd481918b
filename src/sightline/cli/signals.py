"""Ctrl-C and SIGTERM end the process within two seconds, whatever it is doing; a crash in a decoder names the image."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading

from sightline import activity

GRACE_S = 1.5
"""From the signal on, the commands have so long to write what they have begun; then the process ends."""
SLOW_S = 1.0
"""A file that has been decoded for so long is named when the process is interrupted."""
_reported: list[str] = []
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def watch() -> None:
    """End this process within `GRACE_S` of Ctrl-C or SIGTERM, also while foreign code does not return.

    Python runs its own signal handlers between two steps of the main thread, which never comes while a decoder, a download or
    a network computes. The signal's number is written to a pipe at once, and a thread of its own reads it. The signals'
    handlers stay as they are.
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
    """End the process at once; standard error says which files did not let it end in another way."""
    if not _reported:
        words = interruption("interrupted" if code == EXIT_CODES[signal.SIGINT] else "terminated")
        cursor = "\x1b[?25h" if os.isatty(2) else ""  # which a progress bar has hidden
        with contextlib.suppress(OSError):
            os.write(2, f"{cursor}\nerror: {words}\n".encode("utf-8", "backslashreplace"))
    os._exit(code)


def leave(code: int) -> None:
    """End the process with an exit code.

    After an interruption, and while a decoder does not return, Python's own end is left out: it waits for threads and unloads
    libraries, which takes seconds, and `watch` cannot end it any more.
    """
    if _reported or activity.describe(SLOW_S):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def interruption(what: str) -> str:
    """Return the message for an interruption: the word itself, and the files that have been decoded for more than a second.

    It is printed once: the process does not say it again when it has to be ended.

    Args:
        what: `interrupted` or `terminated`.
    """
    slow = activity.describe(SLOW_S)
    _reported.append(what)
    return f"{what}; {slow}: convert or remove what hangs" if slow else what
