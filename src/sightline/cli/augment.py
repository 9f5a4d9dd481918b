"""`sightline augment`: a preview of data augmentation."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, options, tables_output
from sightline.cli.progress import progress


@console.guarded
def augment(
    catalog: options.CatalogFile,
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE.png", help="Image file to write.")] = "preview.png",
    policy: Annotated[
        str,
        typer.Option(
            metavar="auto|none|light|photo|strong|handwriting|texture", help="Augmentation policy; auto as in training."
        ),
    ] = "auto",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the policy. Repeatable.")
    ] = None,
    seed: options.Seed = 0,
    count: Annotated[int, typer.Option(metavar="N", help="Number of images, 1 to 8, taken from the classes in turn.")] = 3,
    image_size: options.ImageSize = None,
    as_json: options.Json = False,
) -> None:
    """Preview data augmentation on your images.

    Draws each operation of the policy alone, at both ends of its range, then all operations together as sampled in the first
    epochs. Uses training images if the catalog has splits.

    \b
    Example:
      sightline augment catalog.csv -o preview.png --policy photo --set rotation=30
    """
    from sightline.commands import augment as command

    with progress() as shown:
        value = command.augment(
            catalog,
            options.path(out),
            policy=policy,
            changes=options.assignments(changes),
            seed=seed,
            count=count,
            image_size=image_size,
            progress=shown,
        )
    if as_json:
        return console.print_json(value)
    tables_output.print_table(("operation", "range"), [(row["name"], row["range"]) for row in value["operations"]])
    console.print_line(f"policy   {value['policy']}")
    console.print_line(f"preview  {value['preview']}")
