"""`sightline scan`: photographs to a catalog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli import console, json_output, options, tables_output
from sightline.cli.progress import progress
from sightline.errors import RequestError

if TYPE_CHECKING:
    from sightline.records.catalog_audit import DuplicateSet, Finding


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
    sheet: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also write a picture with samples of each class (.png or .jpg).")
    ] = None,
    on: options.On = "local",
    partitions: Annotated[
        bool,
        typer.Option(
            "--partitions",
            help="With --on ray, of a Parquet table: write a folder of Parquet files, so that no process holds all rows.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """List all images with class, size and problems in a table.

    Also reports sizes and shapes, duplicate images, images with two labels, and blurred, dark or otherwise unusual images. An
    existing table of that name is overwritten.

    \b
    Examples:
      sightline scan "my photos" -o catalog.csv
      sightline scan "my photos" --sheet samples.png
    """
    from sightline import catalog as catalogs
    from sightline import store
    from sightline.runs import executor

    target = options.path(out)
    if partitions:
        return _scan_partitions(photos, out, path_column=path_column, label_column=label_column, on=on, as_json=as_json)
    catalogs.check_name(target)
    picture = None if sheet is None else options.path(sheet)
    if picture is not None:
        catalogs.check_sheet(picture)
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
        cache = store.Cache()
        duplicates = catalogs.find_duplicates(catalog, cache, shown)
        catalog = catalogs.with_duplicates(catalog, duplicates)
        unusual = catalogs.quality_findings(catalog, catalogs.measure(catalog, cache, shown))
        catalogs.save(catalog, target)
        if picture is not None:
            catalogs.write_sheet(catalog, picture, progress=shown)
    found, sets = catalogs.overview(catalog), catalogs.duplicate_sets(catalog, duplicates)
    value = {**json_output.of_scan(catalog, out, found, sets, unusual), "sheet": sheet, "overwritten": overwritten}
    if as_json:
        return console.print_json(value)
    tables_output.print_table(("class", "images"), list(value["classes"].items()))
    for line in catalogs.overview_lines(found):
        console.print_line(line)
    for kind, count in value["problems"].items():
        console.print_line(f"left out: {count:,} ({kind})")
    for line in catalogs.left_out(catalog):
        console.print_line(f"  {line}")
    _print_findings(sets, unusual)
    console.print_notes(catalog.notes)
    if sheet is not None:
        console.print_line(f"samples: {sheet}")
    console.print_line(f"{value['images']:,} files in {out}{' (overwritten)' if overwritten else ''}")


def _scan_partitions(
    photos: str, out: str, *, path_column: str | None, label_column: str | None, on: str, as_json: bool
) -> None:
    """Run `scan --partitions`."""
    if on != "ray":
        raise RequestError("--partitions needs --on ray", "add --on ray, or leave out --partitions")
    from sightline.scale import tables

    with progress() as shown:
        counts = tables.scan(
            photos, out, path_column=path_column or "path", label_column=label_column or "label", progress=shown
        )
    if as_json:
        return console.print_json({"catalog": out, "images": counts["images"], "left_out": counts["problems"]})
    console.print_line(f"{counts['images']:,} files in {out}, {counts['problems']:,} left out")


def _print_findings(sets: Sequence[DuplicateSet], unusual: Sequence[Finding]) -> None:
    """Print duplicate sets and unusual images, the first of each."""
    from sightline import catalog as catalogs

    for line in catalogs.set_lines(sets, catalogs.MOST_NAMED):
        console.print_line(line)
    if sets:
        console.print_line(catalogs.NOT_LOOKED_FOR)
    kinds = Counter(finding.kind for finding in unusual)
    for kind, count in kinds.items():
        first = [f"{f.path} ({f.detail})" for f in unusual if f.kind == kind][:3]
        more = f" and {count - len(first):,} more" if count > len(first) else ""
        console.print_line(f"{kind.replace('_', ' ')}: {', '.join(first)}{more}")
