"""Progress of Python calls: one line that is updated in place, in a notebook or on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_EVERY_S = 0.2
_BAR = 20


class ProgressLine:
    """A `records.Progress` callback: `sl.fit(catalog, progress=sl.ProgressLine())`.

    Args:
        stream: Where to write; standard output if None, which notebooks show below the cell.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._stage, self._started, self._shown, self._width = "", 0.0, 0.0, 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show a report of progress; each stage has a line of its own."""
        name, now = stage.partition(": ")[0], time.monotonic()
        over = bool(total) and done >= total
        if name != self._stage:
            if self._width:
                self._write("\n")
            self._stage, self._started, self._shown, self._width = name, now, 0.0, 0
        if not over and now - self._shown < _EVERY_S:
            return
        self._shown = now
        text = stage
        if total:
            filled = _BAR * min(done, total) // total
            text += f"  [{'#' * filled}{'.' * (_BAR - filled)}] {done:,}/{total:,}"
            if 0 < done < total:
                left_s = round((now - self._started) / done * (total - done))
                text += f"  {left_s // 60}:{left_s % 60:02} left"
        self._write("\r" + text.ljust(self._width))
        self._width = len(text)
        if over:
            self._write("\n")
            self._stage, self._width = "", 0

    def _write(self, text: str) -> None:
        stream = sys.stdout if self._stream is None else self._stream
        stream.write(text)
        stream.flush()
