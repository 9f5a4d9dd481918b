"""The Typer application with all commands."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated

import typer

from sightline import __version__
from sightline.cli import cache, catalog

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Train, evaluate and explain image classifiers from a folder of labelled photographs.",
    epilog='Start with: sightline demo, then: sightline run "my photos"',
)


def _version(requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        print(f"sightline {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Accept options before the name of a command."""


_NAMES = (
    *("run", "demo", "scan", "split", "networks", "summary", "augment", "train", "tune", "evaluate", "compare", "predict"),
    *("mistakes", "explain", "report", "open", "serve", "export", "card", "audit", "label-next"),
)
COMMANDS: dict[str, Callable[..., None]] = {
    name: getattr(importlib.import_module(f"sightline.cli.{name.replace('-', '_')}"), name.replace("-", "_")) for name in _NAMES
}
"""Command name → function of the same name in the module of the same name. Its docstring is the help text."""

for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(cache.cache, name="cache")
app.add_typer(catalog.catalog, name="catalog")
