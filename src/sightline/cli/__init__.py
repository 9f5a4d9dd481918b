"""Command line: parse arguments, call one function of `commands`, print its result."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line: entry point of `sightline` and `python -m sightline`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # Windows pipes use another encoding by default
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    from sightline.cli import signals

    signals.watch()
    try:
        from sightline.cli import console, welcome

        if welcome.is_wanted():
            welcome.welcome()
        from sightline.cli.app import app

        with console.plain_usage_errors():
            code = app(prog_name="sightline", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except SystemExit as error:
        signals.leave(error.code if isinstance(error.code, int) else int(error.code is not None))
    except KeyboardInterrupt:  # before a command has started
        sys.exit(130)
