"""`sightline catalog`: compare catalogs."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from sightline.cli import console, options

catalog = typer.Typer(no_args_is_help=True, help="Compare catalogs.", rich_markup_mode=None)
_MOST_SHOWN = 10


@catalog.command()
@console.guarded
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Catalog (.csv or .parquet).")],
    after: Annotated[str, typer.Argument(metavar="B", help="Catalog to compare with it.")],
    as_json: options.Json = False,
) -> None:
    """List the images that were added, removed, moved or changed between two catalogs.

    Images are matched by path, moved files by content. Changed labels, splits, groups and problems are listed with both values.

    \b
    Example:
      sightline catalog diff catalog.csv corrected.csv
    """
    from sightline import catalog as catalogs

    found = catalogs.diff(*(catalogs.load(options.path(name)) for name in (before, after)))
    value: dict[str, Any] = {**dataclasses.asdict(found), "same": found.same}
    if as_json:
        return console.print_json(value)
    if found.same:
        return console.print_line("The catalogs do not differ.")
    for name in ("added", "removed", "content"):
        _print_listed({"content": "changed content"}.get(name, name), list(value[name]))
    _print_listed("moved", [f"{old} → {new}" for old, new in found.moved])
    for name in ("label", "split", "group", "problem"):
        pairs = value[name] or {}
        _print_listed(name, [f"{path}: {old or 'none'} → {new or 'none'}" for path, (old, new) in pairs.items()])


def _print_listed(title: str, texts: list[str]) -> None:
    """Print the number of changes of a kind, and the first of them."""
    if texts:
        console.print_line(f"{title}: {len(texts):,}")
        for text in texts[:_MOST_SHOWN]:
            console.print_line(f"  {text}")
        if len(texts) > _MOST_SHOWN:
            console.print_line(f"  and {len(texts) - _MOST_SHOWN:,} more; --json lists all of them")
