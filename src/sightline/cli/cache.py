"""`cache`: what Sightline keeps so that nothing is computed twice."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from sightline.cli import console, options

cache = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Show, check or clear what is kept for the next run.",
    epilog="Example: sightline cache show",
)


@cache.command()
@console.guarded
def show(as_json: options.Json = False) -> None:
    """Where the cache lies, how large it is, and what is in it.

    \b
    Example:
      sightline cache show
    """
    from sightline import store

    kept = store.Cache()
    parts = Counter(name.partition("/")[0] for name in kept.names())
    sizes = {part: kept.size_bytes(part) for part in parts}
    if as_json:
        found = [{"part": part, "entries": parts[part], "bytes": sizes[part]} for part in sorted(parts)]
        return console.print_json({"folder": str(kept.root), "limit_bytes": kept.limit_bytes, "parts": found})
    console.print_table(("part", "entries", "MB"), [(p, parts[p], f"{sizes[p] / 1e6:,.1f}") for p in sorted(parts)])
    total = f"{sum(sizes.values()) / 1e6:,.1f} MB of at most {kept.limit_bytes / 1e6:,.0f} MB"
    console.print_line(f"{total} in {kept.root} (SIGHTLINE_CACHE and SIGHTLINE_CACHE_GB change that)")


@cache.command()
@console.guarded
def verify(as_json: options.Json = False) -> None:
    """Check every entry and remove what is damaged.

    Each has a checksum; what is removed is computed again when it is needed.

    \b
    Example:
      sightline cache verify
    """
    from sightline import store

    kept = store.Cache()
    damaged = kept.verify()
    if as_json:
        return console.print_json({"folder": str(kept.root), "entries": len(kept.names()), "removed": damaged})
    console.print_line(f"{len(kept.names()):,} entries are sound, {len(damaged):,} were damaged and are removed")


@cache.command()
@console.guarded
def clear(
    part: Annotated[str, typer.Argument(help="Only this part of it, as show lists them, such as features.")] = "",
    as_json: options.Json = False,
) -> None:
    """Remove what is cached; the next run computes it again.

    \b
    Example:
      sightline cache clear features
    """
    from sightline import errors, store

    kept = store.Cache()
    parts = sorted({name.partition("/")[0] for name in kept.names()})
    if part and part not in parts:
        raise errors.unknown("part of the cache", part, parts)
    freed, count = kept.size_bytes(part), kept.clear(part)
    if as_json:
        return console.print_json({"folder": str(kept.root), "removed": count, "bytes": freed})
    console.print_line(f"removed {count:,} entries, {freed / 1e6:,.1f} MB, from {kept.root}")
