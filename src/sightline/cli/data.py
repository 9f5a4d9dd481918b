"""`scan` and `split`: photographs to a table that can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli import console, options, values

if TYPE_CHECKING:
    from sightline.records import Catalog, Progress


def open_catalog(path: str, progress: Progress) -> Catalog:
    """The catalog that CATALOG names: a table, or a folder that is scanned."""
    from sightline import catalog

    source = options.output(path)
    return catalog.scan(source, progress=progress) if source.is_dir() else catalog.load(source)


@console.guarded
def scan(
    photos: options.Photos,
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="The table: .csv, or .parquet.")] = "catalog.csv",
    label_from: options.LabelFrom = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    as_json: options.Json = False,
) -> None:
    """List every image with its class, size and problems.

    Duplicates, and the same picture under two labels, are told too. An earlier table of that name is overwritten.

    \b
    Example:
      sightline scan "my photos" -o catalog.csv
    """
    from sightline import catalog, store

    catalog.check_name(options.output(out))
    target = options.output(out)
    overwritten = target.is_file()
    with console.progress() as progress:
        table = catalog.scan(
            options.output(photos),
            classes=options.classes(classes),
            limit=limit,
            label_from=label_from,
            path_column=path_column,
            label_column=label_column,
            progress=progress,
        )
        table = catalog.with_duplicates(table, catalog.find_duplicates(table, store.Cache(), progress))
        catalog.save(table, target)
    value = {**values.of_scan(table, out), "overwritten": overwritten}
    if as_json:
        return console.print_json(value)
    console.print_table(("class", "images"), list(value["classes"].items()))
    for kind, count in value["problems"].items():
        console.print_line(f"left out: {count:,} ({kind})")
    for line in catalog.left_out(table):
        console.print_line(f"  {line}")
    console.print_notes(table.notes)
    console.print_line(f"{value['images']:,} files in {out}{' (overwritten)' if overwritten else ''}")


@console.guarded
def split(
    catalog: options.CatalogFile,
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="FILE", help="Where the table goes; without it, CATALOG is rewritten.")
    ] = None,
    val: options.Val = "0.15",
    test: options.Test = "0.2",
    seed: options.Seed = 0,
    group_by: options.GroupBy = None,
    previous: Annotated[
        str | None, typer.Option(metavar="CATALOG", help="An earlier table: what it assigned stays where it was.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Assign every image to train, val or test.

    Duplicates and groups stay together; what is assigned already never moves.

    \b
    Example:
      sightline split catalog.csv --val 0.15 --test 0.2 --seed 0
    """
    from sightline import catalog as catalogs
    from sightline import store

    source = options.output(catalog)
    target = options.output(out) if out is not None else source
    if target.is_dir():
        target = target.parent / "catalog.csv" if out is None else target / "catalog.csv"
    catalogs.check_name(target)
    overwritten = target.is_file()
    sizes = options.share("--val", val), options.share("--test", test)
    with console.progress() as progress:
        before = open_catalog(catalog, progress)
        earlier = None if previous is None else catalogs.load(options.output(previous))
        clusters = catalogs.find_duplicates(before, store.Cache(), progress)
        table = catalogs.split(
            before,
            val=sizes[0],
            test=sizes[1],
            seed=seed,
            group_by=group_by,
            previous=earlier,
            clusters=clusters,
            progress=progress,
        )
        catalogs.save(table, target)
    counts = {name: len(table.usable().where(split=name)) for name in ("train", "val", "test")}
    found = {"clusters": len(clusters.exact) + len(clusters.near), "straddling": catalogs.straddling(table, clusters)}
    if as_json:
        told = {"catalog": str(target), **counts, **found, "notes": list(table.notes), "overwritten": overwritten}
        return console.print_json(told)
    console.print_notes(table.notes)
    console.print_line(", ".join(f"{name} {count:,}" for name, count in counts.items()))
    console.print_line(f"{found['clusters']:,} clusters of duplicates, {found['straddling']:,} of them in more than one split")
    console.print_line(f"catalog: {target}{' (overwritten)' if overwritten else ''}")
