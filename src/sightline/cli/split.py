"""`sightline split`: assign images to train, validation and test."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, options
from sightline.cli.progress import progress


@console.guarded
def split(
    catalog: options.CatalogFile,
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="FILE", help="Catalog to write. Default: overwrite CATALOG.")
    ] = None,
    val: options.Val = "0.15",
    test: options.Test = "0.2",
    seed: options.Seed = 0,
    group_by: options.GroupBy = None,
    previous: Annotated[
        str | None, typer.Option(metavar="CATALOG", help="Earlier catalog; its images keep their splits.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Assign each image to train, val or test.

    Duplicates and images of the same group stay together. Images that already have a split keep it.

    \b
    Example:
      sightline split catalog.csv --val 0.15 --test 0.2 --seed 0
    """
    from sightline import catalog as catalogs
    from sightline import store
    from sightline.runs import executor

    source = options.path(catalog)
    from_catalog = catalogs.is_catalog(source)
    target = options.path(out) if out is not None else source if from_catalog else source.parent / "catalog.csv"
    if out is None and not target.parent.is_dir():  # the source is inside an archive
        target = options.path("catalog.csv")
    if target.is_dir():
        target = target / "catalog.csv"
    catalogs.check_name(target)
    overwritten = target.is_file()
    val_size, test_size = options.share("--val", val), options.share("--test", test)
    with progress() as shown:
        before = catalogs.load(source) if from_catalog else executor.current().scan(source, progress=shown)
        earlier = None if previous is None else catalogs.load(options.path(previous))
        duplicates = catalogs.find_duplicates(before, store.Cache(), shown)
        table = catalogs.split(
            before,
            val=val_size,
            test=test_size,
            seed=seed,
            group_by=group_by,
            previous=earlier,
            clusters=duplicates,
            progress=shown,
        )
        catalogs.save(table, target)
    counts = {name: len(table.usable().where(split=name)) for name in ("train", "val", "test")}
    clusters, straddling = len(duplicates.exact) + len(duplicates.near), catalogs.straddling(table, duplicates)
    if as_json:
        value = {"catalog": str(target), **counts, "clusters": clusters, "straddling": straddling}
        return console.print_json({**value, "notes": list(table.notes), "overwritten": overwritten})
    console.print_notes(table.notes)
    console.print_line(", ".join(f"{name} {count:,}" for name, count in counts.items()))
    console.print_line(f"{clusters:,} clusters of duplicates, {straddling:,} of them in more than one split")
    console.print_line(f"catalog: {target}{' (overwritten)' if overwritten else ''}")
