"""Progress on standard error: a bar per stage, and a table of epochs while a network trains."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sightline.cli import console

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.progress import Progress, ProgressColumn

    from sightline.records import Learning

ROWS = 8
"""Finished epochs in the table; fewer on a low terminal."""
QUIET_S = 5.0
"""Seconds between two lines about epochs if standard error is not a terminal."""
FRAMES_PER_S = 4
"""Refresh rate on a terminal."""
_OTHER_LINES = 6
"""Terminal lines taken by the header, the current epoch and the bars."""


@contextlib.contextmanager
def progress(shown: bool = True, command: Sequence[str] | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a `records.Progress` callback that shows progress on standard error, or does not if not `shown`.

    The folders that the command writes get a progress file; see `runs.progress_file`.

    Args:
        shown: Whether to show it.
        command: Arguments after `sightline`, from which it can be started again; None for those of this process.
    """
    from sightline.records import silent

    if console.follows():
        yield silent
        return
    from sightline.runs.progress_file import reporting

    with reporting(sys.argv[1:] if command is None else command) as reporter, _display(shown) as display:

        def report(stage: str, done: int, total: int) -> None:
            display(stage, done, total)
            reporter.report(stage, done, total)

        yield report


@contextlib.contextmanager
def _display(shown: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback that shows progress on standard error, or a silent one if not `shown`."""
    from sightline.records import silent

    stderr = console.stderr()
    if not shown or not stderr.is_terminal:
        yield Bars(None) if shown else silent
        return
    from rich.console import Group
    from rich.live import Live
    from rich.progress import Progress

    bars, epochs = Progress(*_columns(), console=stderr, auto_refresh=False), Epochs()
    with Live(Group(epochs, bars), console=stderr, transient=True, refresh_per_second=FRAMES_PER_S):
        yield Bars(bars, epochs)


def _columns() -> list[ProgressColumn]:
    """Return the columns of a bar. On a narrow terminal the description is cut, not the numbers."""
    from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class TimeLeft(TimeRemainingColumn):
        """Remaining time as predicted by the training, else extrapolated from the speed of the stage."""

        def render(self, task: Task) -> Text:
            left_s = task.fields.get("left_s")
            return super().render(task) if left_s is None else Text(clock(left_s), style="progress.remaining")

    return [
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9)),
        TimeLeft(table_column=Column(no_wrap=True, min_width=7)),
    ]


class Bars:
    """A `records.Progress` callback with a bar per stage on a terminal, and one line per stage elsewhere.

    The text of a stage after a colon may change, as in `training: epoch 3 of 12, loss 0.41`. Epochs are shown as a table on a
    terminal; elsewhere as one line per epoch, at most one every `QUIET_S` seconds.

    Args:
        bars: The rich display, or None if standard error is not a terminal.
        epochs: The table of epochs.
    """

    def __init__(self, bars: Progress | None, epochs: Epochs | None = None) -> None:
        self._bars, self._epochs = bars, epochs
        self._stages: dict[str, Any] = {}
        self._printed_epoch, self._printed_at = 0, -math.inf
        self._lock = threading.Lock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show a report of progress, from any thread. A bar disappears when its stage ends or another one begins."""
        name = stage.partition(": ")[0]
        learning: Learning | None = getattr(stage, "learning", None)
        with self._lock:
            if self._bars is None:
                self._print_line(name, stage, learning, total)
                return
            over = bool(total and done >= total)
            if learning is not None and self._epochs is not None:
                self._epochs.update(learning)
                stage = name
            elif self._epochs is not None:
                self._epochs.clear()
            for other in [other for other in self._stages if other != name or over]:
                self._bars.remove_task(self._stages.pop(other))
            if over:
                if self._epochs is not None:
                    self._epochs.clear()
                return
            count, text = total or None, stage.replace("[", r"\[")
            left_s = None if learning is None else learning.left_s
            if name not in self._stages:
                self._stages[name] = self._bars.add_task(text, total=count, left_s=left_s)
            self._bars.update(self._stages[name], description=text, completed=done, total=count, left_s=left_s)

    def _print_line(self, name: str, stage: str, learning: Learning | None, total: int) -> None:
        """Print a line for a new stage, or for a new epoch if the last line is older than `QUIET_S`."""
        if learning is None:
            if name in self._stages:
                return
            text = f"{name} ({total:,})" if total > 1 else name
        else:
            now = time.monotonic()
            if learning.epoch == self._printed_epoch or now - self._printed_at < QUIET_S:
                return
            self._printed_epoch, self._printed_at, text = learning.epoch, now, stage
        self._stages[name] = None
        print(console.visible(text), file=sys.stderr, flush=True)


@dataclass(slots=True)
class Epochs:
    """Table of the last finished epochs and the current one.

    Args:
        rows: The last finished epochs.
        now: The current epoch; None if nothing trains.
    """

    rows: list[Learning] = field(default_factory=list)
    now: Learning | None = None

    def update(self, learning: Learning) -> None:
        """Add a report, whose scores are those of the previous epoch. An earlier epoch than before starts a new table."""
        if self.now is not None and learning.epoch < self.now.epoch:
            self.rows.clear()
        known = not math.isnan(learning.loss)
        if known and (not self.rows or self.rows[-1].epoch < learning.epoch):
            self.rows = [*self.rows, learning][-ROWS:]
        self.now = learning

    def clear(self) -> None:
        """Remove all rows when the training is over."""
        self.rows, self.now = [], None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, or nothing if nothing trains."""
        from rich.table import Table
        from rich.text import Text

        if self.now is None:
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("epoch", "loss", "accuracy", "val loss", "val accuracy", "images/s", "time left"):
            table.add_column(name, justify="right", no_wrap=True, min_width=5)
        if self.now.fits:
            left = f"at most {clock(self.now.left_s)} (budget); {self.now.fits} of {self.now.epochs} epochs will fit"
            yield Text(f"training: {left}", no_wrap=True, overflow="ellipsis")
        room = max(0, min(ROWS, options.size.height - _OTHER_LINES))
        for row in self.rows[len(self.rows) - room :] if room else []:
            scores = (row.loss, row.accuracy, row.val_loss, row.val_accuracy)
            table.add_row(str(row.epoch - 1), *("–" if math.isnan(v) else f"{v:.3f}" for v in scores), "", "")
        images_s = "" if math.isnan(self.now.images_s) else f"{self.now.images_s:,.0f}"
        epoch = f"{self.now.epoch}/{self.now.epochs}"
        table.add_row(*(epoch, "", "", "", ""), images_s, clock(self.now.left_s), style="bold")
        yield table


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds; "" for NaN.

    Example:
        >>> clock(193)
        '0:03:13'
    """
    if math.isnan(seconds):
        return ""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
