"""`sightline cache`: show, check and clear cached results."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from sightline.cli import console, options, tables_output

cache = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Show, check or clear cached features and other results.",
    epilog="Example: sightline cache show",
)


@cache.command()
@console.guarded
def show(as_json: options.Json = False) -> None:
    """Show location, size and content of the cache.

    \b
    Example:
      sightline cache show
    """
    from sightline import store

    cached = store.Cache()
    parts = Counter(name.partition("/")[0] for name in cached.names())
    sizes = {part: cached.size_bytes(part) for part in parts}
    if as_json:
        rows = [{"part": part, "entries": parts[part], "bytes": sizes[part]} for part in sorted(parts)]
        return console.print_json({"folder": str(cached.root), "limit_bytes": cached.limit_bytes, "parts": rows})
    tables_output.print_table(("part", "entries", "MB"), [(p, parts[p], f"{sizes[p] / 1e6:,.1f}") for p in sorted(parts)])
    total = f"{sum(sizes.values()) / 1e6:,.1f} MB of at most {cached.limit_bytes / 1e6:,.0f} MB"
    console.print_line(f"{total} in {cached.root} (change with SIGHTLINE_CACHE and SIGHTLINE_CACHE_GB)")


@cache.command()
@console.guarded
def verify(as_json: options.Json = False) -> None:
    """Check all entries and remove damaged ones.

    Every entry has a checksum. Removed entries are computed again when needed.

    \b
    Example:
      sightline cache verify
    """
    from sightline import store

    cached = store.Cache()
    damaged = cached.verify()
    if as_json:
        return console.print_json({"folder": str(cached.root), "entries": len(cached.names()), "removed": damaged})
    console.print_line(f"{len(cached.names()):,} entries are valid, {len(damaged):,} damaged entries were removed")


@cache.command()
@console.guarded
def clear(
    part: Annotated[str, typer.Argument(help="Only this part of the cache, as listed by show, such as features.")] = "",
    as_json: options.Json = False,
) -> None:
    """Delete cached results; the next run computes them again.

    \b
    Example:
      sightline cache clear features
    """
    from sightline import errors, store

    cached = store.Cache()
    parts = sorted({name.partition("/")[0] for name in cached.names()})
    if part and part not in parts:
        raise errors.unknown("part of the cache", part, parts)
    freed, count = cached.size_bytes(part), cached.clear(part)
    if as_json:
        return console.print_json({"folder": str(cached.root), "removed": count, "bytes": freed})
    console.print_line(f"removed {count:,} entries, {freed / 1e6:,.1f} MB, from {cached.root}")
