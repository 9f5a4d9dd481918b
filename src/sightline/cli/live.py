"""A training as it goes on, drawn on a terminal: a table of its last epochs, with the one at hand below them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.progress import Progress, Task, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sightline.records import Learning

ROWS = 8
"""Finished epochs that are shown; on a low terminal fewer."""
_REST = 6
"""Lines that the head, the epoch at hand and the bars take."""


@dataclass(slots=True)
class Epochs:
    """What a training has told so far.

    Args:
        rows: Finished epochs, the last ones.
        now: The epoch at hand; None where nothing trains.
    """

    rows: list[Learning] = field(default_factory=list)
    now: Learning | None = None

    def take(self, learning: Learning) -> None:
        """Take a report: what it scores is the epoch before the one at hand. A training that begins is another one."""
        if self.now is not None and learning.epoch < self.now.epoch:
            self.rows.clear()
        known = not math.isnan(learning.loss)
        if known and (not self.rows or self.rows[-1].epoch < learning.epoch - 1):
            self.rows = [*self.rows, _finished(learning)][-ROWS:]
        self.now = learning

    def clear(self) -> None:
        """The training is over."""
        self.rows, self.now = [], None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table; nothing where nothing trains."""
        if self.now is None:
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("epoch", "loss", "accuracy", "val loss", "val accuracy", "images/s", "time left"):
            table.add_column(name, justify="right", no_wrap=True, min_width=5)
        if self.now.fits:
            left = f"at most {clock(self.now.left_s)} (budget); {self.now.fits} of {self.now.epochs} epochs will fit"
            yield Text(f"training: {left}", no_wrap=True, overflow="ellipsis")
        room = max(0, min(ROWS, options.size.height - _REST))
        for row in self.rows[len(self.rows) - room :] if room else []:
            table.add_row(str(row.epoch), *_scores(row), "", "")
        table.add_row(
            f"{self.now.epoch}/{self.now.epochs}",
            "",
            "",
            "",
            "",
            _number(self.now.images_s),
            clock(self.now.left_s),
            style="bold",
        )
        yield table


def screen(epochs: Epochs, bars: Progress) -> Group:
    """All that moves: the table above the bars."""
    return Group(epochs, bars)


def _finished(learning: Learning) -> Learning:
    """The epoch that a report scores."""
    return Learning(
        learning.epoch - 1, learning.epochs, learning.loss, learning.accuracy, learning.val_loss, learning.val_accuracy
    )


def _scores(row: Learning) -> tuple[str, ...]:
    values = (row.loss, row.accuracy, row.val_loss, row.val_accuracy)
    return tuple("–" if math.isnan(v) else f"{v:.3f}" for v in values)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.0f}"


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds; nothing for NaN.

    Example:
        >>> clock(193)
        '0:03:13'
    """
    if math.isnan(seconds):
        return ""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class TimeLeft(TimeRemainingColumn):
    """The time left of a stage: as a training itself predicts it, else by how quick the stage has been."""

    def render(self, task: Task) -> Text:
        """Return the time as text."""
        left_s = task.fields.get("left_s")
        return super().render(task) if left_s is None else Text(clock(left_s), style="progress.remaining")
