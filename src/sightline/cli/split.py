"""`sightline split`: assign images to train, validation and test."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline import remote
from sightline.cli import console, options
from sightline.cli.progress import progress
from sightline.errors import RequestError


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
    order_by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of dates or numbers: train on the earliest images, test on the latest."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, metavar="K", help="Also number K folds of the images outside test, in the column fold.")
    ] = None,
    previous: Annotated[
        str | None, typer.Option(metavar="CATALOG", help="Earlier catalog; its images keep their splits.")
    ] = None,
    on: options.On = "local",
    as_json: options.Json = False,
) -> None:
    """Assign each image to train, val or test.

    Duplicates, images of one scene, and images of the same group stay together. Images that already have a split keep it; if
    val or test is missing among them, it is taken from train.

    \b
    Examples:
      sightline split catalog.csv --val 0.15 --test 0.2 --seed 0
      sightline split catalog.csv --group-by patient
      sightline split catalog.csv --order-by date --folds 5
    """
    from sightline import catalog as catalogs
    from sightline import store
    from sightline.runs import executor

    source = options.path(catalog)
    if on == "ray" and (remote.is_uri(source) or any(source.glob("part-*.parquet"))):
        shares = {"val": options.share("--val", val), "test": options.share("--test", test)}
        return _split_partitions(catalog, out, shares, seed=seed, group_by=group_by, as_json=as_json)
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
            order_by=order_by,
            folds=folds,
            previous=earlier,
            clusters=duplicates,
            progress=shown,
        )
        catalogs.save(table, target)
    counts = {name: len(table.usable().where(split=name)) for name in ("train", "val", "test")}
    proof = catalogs.split_proof(table, duplicates)
    if as_json:
        value = {"catalog": str(target), **counts, "clusters": proof.clusters, "straddling": proof.straddling}
        value["proof"] = proof.sentence
        return console.print_json({**value, "notes": list(table.notes), "overwritten": overwritten})
    console.print_notes(table.notes)
    console.print_line(", ".join(f"{name} {count:,}" for name, count in counts.items()))
    if len(before) and table.column("split") == before.column("split"):
        console.print_line("nothing was assigned: all images had a split (to divide them anew, remove the column split)")
    console.print_line(f"{proof.sentence} (duplicates, scenes and groups in more than one split)")
    if proof.examples:
        console.print_line(f"  such as {', '.join(proof.examples[:4])}")
    console.print_line(f"catalog: {target}{' (overwritten)' if overwritten else ''}")


def _split_partitions(
    catalog: str, out: str | None, shares: dict[str, float | int], *, seed: int, group_by: str | None, as_json: bool
) -> None:
    """Split a catalog in partitions, which `scan --partitions` wrote."""
    if out is None:
        raise RequestError("a catalog in partitions is written to another folder", "name it with -o FOLDER")
    from sightline.scale import tables

    with progress() as shown:
        counts = tables.split(
            catalog, out, val=shares["val"], test=shares["test"], seed=seed, group_by=group_by, progress=shown
        )
    if as_json:
        return console.print_json({"catalog": out, **{name: counts[name] for name in ("train", "val", "test")}})
    console.print_line(", ".join(f"{name} {counts[name]:,}" for name in ("train", "val", "test")))
    console.print_line(f"catalog: {out}")
