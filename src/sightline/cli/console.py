"""Console output: results go to standard output; progress, notes and errors to standard error."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from sightline.cli import execution
from sightline.cli.signals import interruption
from sightline.errors import RequestError, SightlineError, closest

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")

INTERRUPTED = 130
TERMINATED = 143
_RESUME_HINT = "run the same command again to resume it; a command with the option --resume needs that option, else it restarts"

_SYSTEM = {
    errno.ENOSPC: "free some disk space, or name another folder with -o",
    errno.EDQUOT if hasattr(errno, "EDQUOT") else -1: "free some disk space, or name another folder with -o",
    errno.EROFS: "name a writable folder with -o",
    errno.EACCES: "ask for access, or name another file or folder",
    errno.EPERM: "ask for access, or name another file or folder",
    errno.EIO: "the disk may be failing; copy the files to another one",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ENOTDIR: "this name belongs to a file, but a folder is needed; name another one",
    errno.EISDIR: "this name belongs to a folder, but a file is needed; name another one",
    errno.EEXIST: "this name belongs to a file, but a folder is needed; name another one",
    errno.ENOENT: "it does not exist, or cannot be created there; check the name",
}
"""Hints for system errors that are not bugs of Sightline."""

_MISNAMED = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST})
"""System errors caused by a wrong name in the request: exit code 2."""

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: object) -> str:
    r"""Return `text` with control and text-direction characters escaped, so that a file name cannot control the terminal.

    Example:
        >>> visible("cat\x1b[31m.jpg")
        'cat\\x1b[31m.jpg'
    """
    return "".join(repr(c)[1:-1] if c in _BIDI or (ord(c) < 32 or 127 <= ord(c) < 160) else c for c in str(text))


def follows() -> bool:
    """Return whether this process was started by `torchrun` and is not the first one, which alone prints."""
    return "LOCAL_RANK" in os.environ and os.environ.get("RANK", "0") != "0"


def print_line(text: str = "") -> None:
    """Print one line of the result on standard output."""
    if not follows():
        print(visible(text))


def print_json(value: Any) -> None:
    """Print the JSON value of a command on standard output."""
    from sightline import store

    if not follows():
        print(json.dumps(store.plain(value), ensure_ascii=False, indent=1, allow_nan=False))


def line_printer(as_json: bool) -> Callable[[str], None]:
    """Return a function that prints a line of the plan: on standard output, or on standard error with `--json`."""

    from sightline.runs import progress_file

    def say(line: str) -> None:
        progress_file.note(line)
        print(visible(line), file=sys.stderr if as_json else sys.stdout, flush=True)

    return say


def print_notes(notes: Sequence[str]) -> None:
    """Print the notes of a catalog on standard output, one per line."""
    from sightline.catalog import line_of

    for note in notes:
        print_line(line_of(note))


def warn(text: str) -> None:
    """Print one line on standard error after `note:`, or after `CAUTION:` if the text begins so."""
    word, _, rest = text.partition(": ")
    _print_error(*(("CAUTION", "bold yellow", rest) if word == "CAUTION" else ("note", "yellow", text)))


def warn_of(path: str, error: str) -> None:
    """Print why a file has no prediction; the path is added unless the error names it."""
    warn(error if path in error else f"{path}: {error}")


@functools.cache
def stderr() -> Console:
    """Return the rich console on standard error: one object, so that notes and bars do not overwrite each other."""
    from rich.console import Console

    return Console(stderr=True)


def _print_error(kind: str, style: str, text: str) -> None:
    """Print a coloured word and a literal text on standard error."""
    from rich.text import Text

    line = Text.assemble((f"{kind}: ", style), visible(text))
    stderr().print(line, soft_wrap=True, highlight=False)


class _Notes(logging.Handler):
    """Log handler that prints each warning of the package once, as a `note:` line."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning."""
        text = record.getMessage()
        if text not in self.printed and not follows():
            self.printed.add(text)
            warn(text)


def _terminate(*_: object) -> None:
    """Raise SystemExit on SIGTERM, so that the stack unwinds as after Ctrl-C."""
    raise SystemExit(TERMINATED)


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Return a command that reports foreseeable failures as an error line, a hint and exit code 1, 2, 130 or 143.

    Its options `--on` and `--workers`, if it has them, choose where it runs.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        log, notes = logging.getLogger("sightline"), _Notes()
        log.addHandler(notes)
        log.propagate = False
        main = threading.current_thread() is threading.main_thread()  # only the main thread may set a signal handler
        before = signal.signal(signal.SIGTERM, _terminate) if main else None
        try:
            workers = kwargs.get("workers")
            with execution.on(str(kwargs.get("on", "local")), workers=workers if isinstance(workers, int) else None):
                command(*args, **kwargs)
            sys.stdout.flush()
        except SightlineError as error:
            _fail(error.message, error.hint, error.exit_code)
        except KeyboardInterrupt:
            _fail(interruption("interrupted"), _RESUME_HINT, INTERRUPTED)
        except SystemExit as error:
            if error.code != TERMINATED:
                raise
            _fail(interruption("terminated"), _RESUME_HINT, TERMINATED)
        except OSError as error:
            if error.errno not in _SYSTEM or (error.errno == errno.ENOENT and error.filename is None):
                raise
            where = f": {error.filename}" if error.filename is not None else ""
            code = RequestError.exit_code if error.errno in _MISNAMED else 1
            _fail(f"system error: {error.strerror}{where}", _SYSTEM[error.errno], code)
        finally:
            log.removeHandler(notes)
            log.propagate = True
            if main:
                signal.signal(signal.SIGTERM, before)

    return run


def exit_if_any_failed(rows: Sequence[Mapping[str, Any]]) -> None:
    """Exit with code 1 after a note with the number of rows that have an `error`, if there are any."""
    failed = sum("error" in row for row in rows)
    if failed:
        warn(f"{failed:,} of {len(rows):,} files have no prediction")
        raise typer.Exit(1)


def _fail(message: str, hint: str | None, code: int) -> None:
    """Print an error and its hint, and exit. Of several processes, only the first one reports a wrong request."""
    if code == RequestError.exit_code and follows():
        raise typer.Exit(code)
    _print_error("error", "bold red", message)
    if hint is not None:
        _print_error("hint", "cyan", hint)
    raise typer.Exit(code)


_USAGE_MESSAGES = (
    (r"Input should be greater than or equal to (\S+)", r"must be at least \1"),
    (r"Input should be less than or equal to (\S+)", r"must be at most \1"),
    (r"Input should be a valid integer.*", "must be a whole number"),
    (r"Input should be a valid number.*", "must be a number"),
    (r"^No such (option|command):? '?([^'\s]+?)'?\.?(?: .*)?$", r"unknown \1 \2"),
    (r"^Missing (argument|option|parameter) '([^']+)'\.?.*", r"missing \1 \2"),
)
"""Patterns of Typer's messages about a wrong command line, and their replacements."""


@contextlib.contextmanager
def plain_usage_errors() -> Iterator[None]:
    """Exit with code 2, an error line and a hint if Typer rejects the command line inside the block."""
    usage_error: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
    try:
        yield
    except usage_error as caught:
        error: Any = caught  # Typer brings its own click, or uses the installed one
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(error.exit_code)
        context = getattr(error, "ctx", None)
        command = "sightline" if context is None else context.command_path
        message = usage_message(error.format_message())
        known = getattr(error, "possibilities", None) or getattr(getattr(context, "command", None), "commands", {})
        unknown = re.match(r"unknown (?:option|command) (\S+)", message)
        likely = closest(unknown[1], known) if unknown else None
        if not follows():
            _print_error("error", "bold red", message)
            _print_error("hint", "cyan", f"did you mean {likely}?" if likely else f"see `{command} --help`")
        sys.exit(error.exit_code)


def usage_message(text: str) -> str:
    """Return Typer's message about a wrong command line in the style of all other errors.

    Example:
        >>> usage_message("Invalid value for '--limit': Input should be greater than or equal to 1")
        '--limit must be at least 1'
    """
    invalid = re.match(r"Invalid value for '?([^':]+)'?(?: / '[^']*')*: (.+)", text, re.DOTALL)
    message = invalid[2] if invalid else text
    for pattern, replacement in _USAGE_MESSAGES:
        message = re.sub(pattern, replacement, message)
    if invalid:
        message = f"{invalid[1]}{'' if message.startswith('must be') else ':'} {message}"
    return message.strip().rstrip(".")
