"""What a command says and where: results on standard output; progress, notes and errors on standard error."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from sightline.cli.signals import interruption
from sightline.errors import RequestError, SightlineError, closest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from sightline.cli.live import Epochs
    from sightline.records import Learning

P = ParamSpec("P")

Told = Callable[[str, int, int], None]
"""What takes reports of progress, as `records.Progress`."""
QUIET_S = 5.0
"""Between two lines about epochs, where there is no terminal."""
FRAMES_S = 4
"""Frames a second on a terminal."""
INTERRUPTED = 130
TERMINATED = 143
_GOES_ON = "the same command goes on from there; where it has --resume, a training needs that, or it begins anew"

_SYSTEM = {
    errno.ENOSPC: "make room on that disk, or name another folder with -o",
    errno.EDQUOT if hasattr(errno, "EDQUOT") else -1: "make room on that disk, or name another folder with -o",
    errno.EROFS: "name a folder that can be written with -o",
    errno.EACCES: "ask for access, or name another file or folder",
    errno.EPERM: "ask for access, or name another file or folder",
    errno.EIO: "the disk may be failing; copy the files to another one",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ENOTDIR: "a file stands where a folder is needed; name another one",
    errno.EISDIR: "a folder stands where a file is needed; name another one",
    errno.EEXIST: "a file stands where a folder is needed; name another one",
    errno.ENOENT: "it is not there, or cannot be made there; check the name",
}
"""System errors that are no bug of ours, and what mends them."""

_MISNAMED = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST})
"""Those where another name is all that is needed: the request is wrong."""

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: object) -> str:
    r"""`text` with control and text-direction characters as escapes, so that a file's name cannot steer a terminal.

    Example:
        >>> visible("cat\x1b[31m.jpg")
        'cat\\x1b[31m.jpg'
    """
    return "".join(repr(c)[1:-1] if c in _BIDI or (ord(c) < 32 or 127 <= ord(c) < 160) else c for c in str(text))


def follows() -> bool:
    """Whether another process, which `torchrun` started with this one, speaks for both."""
    return "LOCAL_RANK" in os.environ and os.environ.get("RANK", "0") != "0"


def print_line(text: str = "") -> None:
    """One line of the result, on standard output."""
    if not follows():
        print(visible(text))


def print_json(value: Any) -> None:
    """The one JSON value of a command, on standard output."""
    from sightline import store

    if not follows():
        print(json.dumps(store.plain(value), ensure_ascii=False, indent=1, allow_nan=False))


def print_table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Aligned columns on standard output; numbers to the right. Widths count characters of a terminal, not code points."""
    from rich.cells import cell_len

    cells = [[visible(c) for c in row] for row in [header, *rows]]
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(header))]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) or _is_number(row[i]) for row in rows) for i in range(len(header))
    ]
    for row in cells:
        parts = []
        for cell, width, to_right in zip(row, widths, right, strict=True):
            space = " " * (width - cell_len(cell))
            parts.append(space + cell if to_right else cell + space)
        print("  ".join(parts).rstrip())


def _is_number(cell: object) -> bool:
    """Whether a formatted cell is a number or a missing one."""
    text = str(cell).replace(",", "").rstrip("%").split(" ")[0]
    return text in ("", "–") or text.replace(".", "", 1).isdigit()


def _say(kind: str, style: str, text: str) -> None:
    """One line on standard error: a word in colour, then text taken literally."""
    from rich.text import Text

    line = Text.assemble((f"{kind}: ", style), visible(text))
    _errors().print(line, soft_wrap=True, highlight=False)


def warn(text: str) -> None:
    """Print one line on standard error: with CAUTION where the text begins so, else with `note:`."""
    word, _, rest = text.partition(": ")
    _say(*(("CAUTION", "bold yellow", rest) if word == "CAUTION" else ("note", "yellow", text)))


@functools.cache
def _errors() -> Console:
    """The console on standard error. Made once, so that notes and progress bars do not write over each other."""
    from rich.console import Console

    return Console(stderr=True)


class _Notes(logging.Handler):
    """Warnings of the package as `note:` lines, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning."""
        text = record.getMessage()
        if text not in self.said and not follows():
            self.said.add(text)
            warn(text)


def _terminate(*_: object) -> None:
    """SIGTERM unwinds the stack as Ctrl-C does, so that what was begun is put away."""
    raise SystemExit(TERMINATED)


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose foreseeable failures are one sentence, a hint and an exit code: 1, 2, 130 or 143."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        log, notes = logging.getLogger("sightline"), _Notes()
        log.addHandler(notes)
        log.propagate = False
        main = threading.current_thread() is threading.main_thread()  # no other may set a handler
        before = signal.signal(signal.SIGTERM, _terminate) if main else None
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except SightlineError as error:
            _fail(error.message, error.hint, error.exit_code)
        except KeyboardInterrupt:
            _fail(interruption("interrupted"), _GOES_ON, INTERRUPTED)
        except SystemExit as error:
            if error.code != TERMINATED:
                raise
            _fail(interruption("terminated"), _GOES_ON, TERMINATED)
        except OSError as error:
            if error.errno not in _SYSTEM or (error.errno == errno.ENOENT and error.filename is None):
                raise
            where = f": {error.filename}" if error.filename is not None else ""
            code = RequestError.exit_code if error.errno in _MISNAMED else 1
            _fail(f"the system says: {error.strerror}{where}", _SYSTEM[error.errno], code)
        finally:
            log.removeHandler(notes)
            log.propagate = True
            if main:
                signal.signal(signal.SIGTERM, before)

    return run


def leave_if_any_failed(rows: Sequence[Mapping[str, Any]]) -> None:
    """Say how many of the rows have an `error`, and end with exit code 1, if any has one."""
    failed = sum("error" in row for row in rows)
    if failed:
        warn(f"{failed:,} of {len(rows):,} files have no answer")
        raise typer.Exit(1)


def _fail(message: str, hint: str | None, code: int) -> None:
    """Say what went wrong and leave. A wrong request is said once, whatever the number of processes."""
    if code == RequestError.exit_code and follows():
        raise typer.Exit(code)
    _say("error", "bold red", message)
    if hint is not None:
        _say("hint", "cyan", hint)
    raise typer.Exit(code)


_USAGE_WORDS = (
    (r"Input should be greater than or equal to (\S+)", r"it must be at least \1"),
    (r"Input should be less than or equal to (\S+)", r"it must be at most \1"),
    (r"Input should be a valid integer.*", "it must be a whole number"),
    (r"Input should be a valid number.*", "it must be a number"),
    (r"^No such (option|command):? '?([^'\s]+?)'?\.?(?: .*)?$", r"there is no \1 \2"),
    (r"^Missing (argument|option|parameter) '([^']+)'\.?.*", r"the \1 \2 is missing"),
)
"""What Typer says of a wrong command line, and what it says here."""


@contextlib.contextmanager
def plain_usage_errors() -> Iterator[None]:
    """End with exit code 2 and an error line with a hint where Typer refuses the command line inside the block."""
    usage_error: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
    try:
        yield
    except usage_error as error:
        said: Any = error  # Typer brings its own click, or uses the one that is installed
        if type(error).__name__ == "NoArgsIsHelpError":
            said.show()
            sys.exit(said.exit_code)
        context = getattr(error, "ctx", None)
        command = "sightline" if context is None else context.command_path
        message = usage_message(said.format_message())
        known = getattr(error, "possibilities", None) or getattr(getattr(context, "command", None), "commands", {})
        unknown = re.match(r"there is no (?:option|command) (\S+)", message)
        likely = closest(unknown[1], known) if unknown else None
        if not follows():
            _say("error", "bold red", message)
            _say("hint", "cyan", f"did you mean {likely}?" if likely else f"`{command} --help` lists what there is")
        sys.exit(said.exit_code)


def usage_message(text: str) -> str:
    """Return what Typer says of a wrong command line in the words of all other errors.

    Example:
        >>> usage_message("Invalid value for '--limit': Input should be greater than or equal to 1")
        '--limit: it must be at least 1'
    """
    invalid = re.match(r"Invalid value for '?([^':]+)'?(?: / '[^']*')*: (.+)", text, re.DOTALL)
    message = f"{invalid[1]}: {invalid[2]}" if invalid else text
    for pattern, words in _USAGE_WORDS:
        message = re.sub(pattern, words, message)
    return message.strip().rstrip(".")


class Bars:
    """A `records.Progress`: a bar per stage on a terminal, gone when it is done; elsewhere one line as a stage begins.

    What a stage says after a colon may change as it goes, such as `training: epoch 3 of 12, loss 0.41`. What trains by epochs
    is a table on a terminal; elsewhere a line an epoch, and not more than one in `QUIET_S`.

    Args:
        bars: rich's display, or None where there is no terminal.
        epochs: What the table is drawn from.
    """

    def __init__(self, bars: Progress | None, epochs: Epochs | None = None) -> None:
        self._bars, self._epochs = bars, epochs
        self._stages: dict[str, Any] = {}
        self._told_epoch, self._told_at = 0, -math.inf
        self._lock = threading.Lock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take a report of progress, from any thread. A bar is removed when its stage is over, or gives way to another one."""
        name = stage.partition(": ")[0]
        learning: Learning | None = getattr(stage, "learning", None)
        with self._lock:
            if self._bars is None:
                self._line(name, stage, learning, total)
                return
            over = bool(total and done >= total)
            if learning is not None and self._epochs is not None:
                self._epochs.take(learning)
                stage = name
            elif self._epochs is not None:
                self._epochs.clear()
            for other in [other for other in self._stages if other != name or over]:
                self._bars.remove_task(self._stages.pop(other))
            if over:
                if self._epochs is not None:
                    self._epochs.clear()
                return
            known, shown = total or None, stage.replace("[", r"\[")
            left_s = None if learning is None else learning.left_s
            if name not in self._stages:
                self._stages[name] = self._bars.add_task(shown, total=known, left_s=left_s)
            self._bars.update(self._stages[name], description=shown, completed=done, total=known, left_s=left_s)

    def _line(self, name: str, stage: str, learning: Learning | None, total: int) -> None:
        """A line where there is no terminal, if there is something new to say."""
        if learning is None:
            if name in self._stages:
                return
            text = f"{name} ({total:,})" if total > 1 else name
        else:
            now = time.monotonic()
            if learning.epoch == self._told_epoch or now - self._told_at < QUIET_S:
                return
            self._told_epoch, self._told_at, text = learning.epoch, now, stage
        self._stages[name] = None
        print(visible(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(shown: bool = True) -> Iterator[Told]:
    """Show progress on standard error for the block, unless it is not to be shown."""
    from sightline.records import silent

    console = _errors()
    shown = shown and not follows()
    if not shown or not console.is_terminal:
        yield Bars(None) if shown else silent
        return
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    from sightline.cli import live

    columns = (  # on a narrow terminal the words give way, not the numbers
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9)),
        live.TimeLeft(table_column=Column(no_wrap=True, min_width=7)),
    )
    bars, epochs = Progress(*columns, console=console, auto_refresh=False), live.Epochs()
    with Live(live.screen(epochs, bars), console=console, transient=True, refresh_per_second=FRAMES_S):
        yield Bars(bars, epochs)


def sayer(as_json: bool) -> Callable[[str], None]:
    """How a verb's own lines (the plan) are printed: on standard output, or on standard error beside `--json`."""

    def say(line: str) -> None:
        print(visible(line), file=sys.stderr if as_json else sys.stdout, flush=True)

    return say


def print_notes(notes: Sequence[str]) -> None:
    """Print a catalog's notes on standard output, a line each."""
    from sightline.catalog import line_of

    for note in notes:
        print_line(line_of(note))


def warn_of(path: str, error: str) -> None:
    """Say why a file gave no answer, naming it once."""
    warn(error if path in error else f"{path}: {error}")
