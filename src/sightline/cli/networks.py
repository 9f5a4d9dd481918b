"""`sightline networks`: the list of available networks."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, options, tables_output


@console.guarded
def networks(
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Part of a name, or a pattern with *, such as resnet*.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the networks that --backbone accepts.

    Columns: params, parameters with the original classifier; MACs, multiply-accumulates for one image; px, side of the input
    image in pixels; smallest, side of the smallest accepted image; weights, the default pretrained weights, the number of
    others, and where they are on this machine: folder (of SIGHTLINE_WEIGHTS), installed (with Sightline), or downloaded
    (earlier). Short lists are printed with all details.

    \b
    Example:
      sightline networks "mobilenet*"
    """
    from sightline import networks as index

    rows = index.table(pattern)
    return console.print_json(rows) if as_json else tables_output.print_networks(rows, pattern)
