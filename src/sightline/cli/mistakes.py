"""`sightline mistakes`: misclassified images."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sightline.cli import console, options, tables_output
from sightline.cli.progress import progress
from sightline.errors import RequestError


@console.guarded
def mistakes(
    subject: Annotated[
        str,
        typer.Argument(metavar="RUN|MODEL|PREDICTIONS.csv", help="Run folder, classifier file, or table of probabilities."),
    ],
    catalog: Annotated[
        str | None,
        typer.Argument(metavar="CATALOG", help="Labelled images. Default: the images of the run, or the labels in the table."),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="confidence|pair|slice|COLUMN", help="How to list or group the mistakes.")
    ] = "confidence",
    split: options.Split = None,
    label_from: options.LabelFrom = None,
    label_level: options.LabelLevel = None,
    label_column: options.LabelColumn = None,
    follow_links: options.FollowLinks = False,
    crops: options.Crops = None,
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """List misclassified images, or where errors cluster.

    --by confidence lists every mistake, most confident first; --by pair counts label and prediction; --by slice compares the
    accuracy of groups of images (brightness, contrast, sharpness, size, aspect ratio, every table column) with all others.
    "worse" marks groups with significantly more errors, corrected for the number of groups.

    \b
    Examples:
      sightline mistakes runs/pets
      sightline mistakes runs/pets --by slice
      sightline mistakes runs/pets/classifier.safetensors "new photos" --by pair
    """
    from sightline import store
    from sightline.commands import mistakes as command

    how: dict[str, Any] = {"split": split, "label_from": label_from, "label_column": label_column, "crops": crops, "code": code}
    how |= {"label_level": label_level, "follow_links": follow_links or None}
    names = [f"--{name.replace('_', '-')}" for name, value in how.items() if value is not None]
    if catalog is None and names:
        raise RequestError(f"{names[0]} needs a CATALOG", f"sightline mistakes {subject} CATALOG {names[0]} ...")
    with progress() as shown:
        rows = command.mistakes(subject, catalog, by=by, **how, device=device, progress=shown, cache=store.Cache())
    if as_json:
        return console.print_json(rows)
    if not rows:
        return console.print_line(tables_output.no_mistakes(by))
    tables_output.print_table(*tables_output.mistakes_table(rows, by))
