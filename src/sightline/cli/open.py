"""`sightline open`: the local web app."""

from __future__ import annotations

import contextlib
import sys
import threading
import webbrowser
from collections.abc import Callable
from typing import Annotated

import typer

from sightline.cli import console, options


@console.guarded
def open(
    runs: Annotated[str, typer.Argument(metavar="[RUNS]", help="Folder of runs.", show_default="runs")] = "runs",
    port: Annotated[int, typer.Option(metavar="PORT", help="Port to listen on; 0 for any free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
    as_json: options.Json = False,
) -> None:
    """Open the local app: start runs, correct data, label images.

    Only this machine can connect, and only with the printed address, which opens one browser; Enter prints another one. The app
    keeps nothing of its own: its state is in the run folders. Ctrl-C stops it; runs that it started go on.

    \b
    Examples:
      sightline open
      sightline open "my runs" --port 8700 --no-browser
    """
    from sightline.serve.local_app import open_app

    folder = options.path(runs)

    def ready(address: Callable[[], str]) -> None:
        url = address()
        if as_json:
            console.print_json({"url": url, "runs": str(folder)})
        else:
            console.print_line(f"{folder} at {url} (Ctrl-C stops, Enter prints a new address)")
        sys.stdout.flush()
        if browser:
            threading.Thread(target=_show, args=(url,), daemon=True).start()
        if sys.stdin is not None and sys.stdin.isatty():
            threading.Thread(target=_print_more, args=(address,), daemon=True).start()

    open_app(folder, port, ready)


def _show(url: str) -> None:
    """Open the browser, if there is one."""
    with contextlib.suppress(webbrowser.Error, OSError):
        webbrowser.open(url)


def _print_more(address: Callable[[], str]) -> None:
    """Print a new address for each line on standard input."""
    for _ in sys.stdin:
        console.print_line(address())
        sys.stdout.flush()
