"""`sightline` without arguments in a terminal: what to do next."""

from __future__ import annotations

import sys

from sightline.cli import console

LINES = (
    "Sightline trains, tests and explains image classifiers from a folder of labelled photographs.",
    '  sightline run "my photos"    train on your photographs: one folder per class',
    "  sightline demo               try everything on handwritten digits, offline",
    "  sightline open               work in the browser instead of the terminal",
    "  sightline --help             all commands",
)


def is_wanted() -> bool:
    """Return whether the command line has no arguments and a person sits in front of it."""
    return len(sys.argv) == 1 and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty() and not console.follows()


def welcome() -> None:
    """Print what to do next; a yes continues with `sightline open`."""
    for line in LINES:
        console.print_line(line)
    try:
        answer = input("Open it in the browser now? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() in ("y", "yes"):
        sys.argv.append("open")
    else:
        sys.exit(0)
