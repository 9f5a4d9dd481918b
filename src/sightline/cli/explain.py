"""`explain`: where a classifier looked."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, options
from sightline.cli.models import Subject


@console.guarded
def explain(
    subject: Subject,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="The images to explain.")],
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FOLDER", help="Where overlays (.png) and heat (.npy) go.")
    ] = "explanations",
    target: Annotated[str | None, typer.Option(metavar="CLASS", help="Explain this class; else the predicted one.")] = None,
    method: Annotated[str, typer.Option(metavar="auto|gradcam|contribution|masks", help="How.")] = "auto",
    seed: options.Seed = 0,
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Draw where a classifier looked.

    Each image gets an overlay (.png) and its raw, signed heat (.npy).

    \b
    Example:
      sightline explain runs/pets cat.jpg dog.jpg -o explanations
    """
    from sightline import journey, store

    with console.progress() as progress:
        rows = journey.explain(
            subject,
            images,
            out=out,
            target=target,
            method=method,
            seed=seed,
            code=code,
            device=device,
            progress=progress,
            cache=store.Cache(),
        )
    if as_json:
        return console.print_json(rows)
    drawn = [(row["path"], row["target"], row["overlay"]) for row in rows if "error" not in row]
    console.print_table(("path", "target", "overlay"), drawn)
    for row in rows:
        if "error" in row:
            console.warn_of(row["path"], row["error"])
