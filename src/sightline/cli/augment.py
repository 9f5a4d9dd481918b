"""`augment`: what an augmentation policy does, on the user's own images."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, options


@console.guarded
def augment(
    catalog: options.CatalogFile,
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE.png", help="The sheet.")] = "preview.png",
    policy: Annotated[
        str,
        typer.Option(metavar="auto|none|light|photo|strong|handwriting|texture", help="Which policy; auto as in training."),
    ] = "auto",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the policy.")
    ] = None,
    seed: options.Seed = 0,
    count: Annotated[int, typer.Option(metavar="N", help="How many images, 1 to 8, the classes in turn.")] = 3,
    image_size: options.ImageSize = None,
    as_json: options.Json = False,
) -> None:
    """Show what augmentation does to your images.

    One labelled sheet: every operation of the policy alone, at both ends of its range, then all together as drawn for the
    first epochs. Training images are shown where there is a split.

    \b
    Example:
      sightline augment catalog.csv -o preview.png --policy photo --set rotation=30
    """
    from sightline.commands import augment as preview

    with console.progress() as progress:
        value = preview.augment(
            catalog,
            options.output(out),
            policy=policy,
            changes=options.assignments(changes),
            seed=seed,
            count=count,
            image_size=image_size,
            progress=progress,
        )
    if as_json:
        return console.print_json(value)
    console.print_table(("operation", "range"), [(row["name"], row["range"]) for row in value["operations"]])
    console.print_line(f"policy   {value['policy']}")
    console.print_line(f"preview  {value['preview']}")
