"""Defaults of the public functions in a Python session: progress on standard error, and notes as warnings of the log."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from typing import Any


def with_defaults(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a public function that shows progress and logs notes unless its caller passes `progress` or `say`.

    Progress is shown as bars in a terminal and as one line per stage in a notebook; elsewhere it is not shown. With `on="ray"`
    its heavy work runs on a Ray cluster.
    """
    parameters = inspect.signature(function).parameters
    if "progress" not in parameters:
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "on" in kwargs:
            from sightline.cli import execution

            with execution.on(kwargs.pop("on")):
                return call(*args, **kwargs)
        if "say" in parameters:
            kwargs.setdefault("say", log_note)
        if "progress" in kwargs or not interactive():
            return function(*args, **kwargs)
        from sightline.cli.progress import progress

        with progress(command=()) as shown:
            return function(*args, progress=shown, **kwargs)

    return call


def interactive() -> bool:
    """Return whether standard error is a terminal, or the code runs in a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return sys.stderr.isatty() or type(shell).__name__ == "ZMQInteractiveShell"


def log_note(line: str) -> None:
    """Log a line of a command as a warning if it is a note or a caution; other lines only describe the work."""
    if line.lower().startswith(("note: ", "caution: ")):
        logging.getLogger("sightline").warning("%s", line.removeprefix("note: "))
