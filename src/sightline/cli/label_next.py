"""`sightline label-next`: which photographs to label next."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, options, tables_output
from sightline.cli.progress import progress
from sightline.errors import RequestError


@console.guarded
def label_next(
    subjects: Annotated[
        list[str],
        typer.Argument(metavar="[RUN|MODEL] FOLDER", help="Run or classifier, and a folder of photographs to choose from."),
    ],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Number of photographs.")] = 50,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the contact sheet.")] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Without a classifier: network whose features are compared.")
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Choose the photographs whose labels help most.

    Without a classifier, or with few labels, photographs that cover the whole folder; then those of which the classifier is
    uncertain and that resemble many others. Of near duplicates only one is proposed.

    \b
    Examples:
      sightline label-next "new photos" -n 50
      sightline label-next runs/pets "new photos" -n 50 -o runs/next
    """
    from sightline import store
    from sightline.commands import label_next as command
    from sightline.commands.evaluate import in_order

    subject, photos = in_order(*subjects) if len(subjects) == 2 else (None, subjects[0])
    if len(subjects) > 2:
        raise RequestError(
            f"label-next takes a run or classifier and one folder, not {len(subjects)} arguments ({', '.join(subjects)})",
            'put a name with spaces in quotation marks: sightline label-next runs/pets "new photos"',
        )
    with progress() as shown:
        found = command.label_next(
            subject if subject is None else options.path(subject),
            options.path(photos),
            count=count,
            out=None if out is None else options.path(out),
            backbone=backbone,
            seed=seed,
            device=device,
            progress=shown,
            cache=store.Cache(),
        )
    if as_json:
        return console.print_json(found.rows)
    rows = [
        (
            row["rank"],
            row["path"],
            row["reason"],
            row["predicted"] or "–",
            "–" if row["probability"] is None else f"{row['probability']:.2f}",
        )
        for row in found.rows
    ]
    tables_output.print_table(("rank", "photograph", "reason", "predicted", "probability"), rows)
    console.print_line(f"contact sheet  {found.folder / 'label_next.png'}")
