"""`sightline scan`: photographs to a catalog."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, json_output, options, tables_output
from sightline.cli.progress import progress


@console.guarded
def scan(
    photos: options.Photos,
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FILE", help="Catalog to write: .csv or .parquet.")
    ] = "catalog.csv",
    label_from: options.LabelFrom = None,
    label_level: options.LabelLevel = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    follow_links: options.FollowLinks = False,
    classes: options.Classes = None,
    limit: options.Limit = None,
    as_json: options.Json = False,
) -> None:
    """List all images with class, size and problems in a table.

    Also reports duplicate images and images with two labels. An existing table of that name is overwritten.

    \b
    Example:
      sightline scan "my photos" -o catalog.csv
    """
    from sightline import catalog as catalogs
    from sightline import store
    from sightline.runs import executor

    target = options.path(out)
    catalogs.check_name(target)
    overwritten = target.is_file()
    with progress() as shown:
        catalog = executor.current().scan(
            options.path(photos),
            classes=options.classes(classes),
            limit=limit,
            label_from=label_from,
            label_level=label_level,
            path_column=path_column,
            label_column=label_column,
            follow_links=follow_links,
            progress=shown,
        )
        catalog = catalogs.with_duplicates(catalog, catalogs.find_duplicates(catalog, store.Cache(), shown))
        catalogs.save(catalog, target)
    value = {**json_output.of_scan(catalog, out), "overwritten": overwritten}
    if as_json:
        return console.print_json(value)
    tables_output.print_table(("class", "images"), list(value["classes"].items()))
    for kind, count in value["problems"].items():
        console.print_line(f"left out: {count:,} ({kind})")
    for line in catalogs.left_out(catalog):
        console.print_line(f"  {line}")
    console.print_notes(catalog.notes)
    console.print_line(f"{value['images']:,} files in {out}{' (overwritten)' if overwritten else ''}")
