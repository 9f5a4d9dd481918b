"""`sightline compare`: several classifiers on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli import console, json_output, options, tables_output
from sightline.cli.progress import progress

if TYPE_CHECKING:
    from sightline.commands.compare import Comparison

MOST_SHOWN = 20
"""Pairs on the terminal; the report shows all."""


@console.guarded
def compare(
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|MODEL|PREDICTIONS.csv...", help="Two or more run folders, classifier files or tables of probabilities."
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(metavar="val|test", help="Split to compare on. Default: test if all runs were tested, else val."),
    ] = None,
    catalog: Annotated[
        str | None, typer.Option(metavar="CATALOG", help="Labelled images to predict now, instead of using stored predictions.")
    ] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for report and tables.")] = None,
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Test whether one classifier is significantly better.

    Each pair gets McNemar's exact test, corrected for the number of pairs, and a confidence interval of the difference. If a
    difference is not significant, the number of images needed to detect it is estimated. A comparison on test images counts
    as one use of the test set.

    \b
    Examples:
      sightline compare runs/pets runs/pets-finetuned
      sightline compare runs/pets/classifier.safetensors theirs.csv --catalog "new photos"
    """
    from sightline import store
    from sightline.commands import compare as command

    with progress() as shown:
        comparison = command.compare(
            [str(options.path(s)) for s in subjects],
            split=split,
            catalog=catalog,
            out=out,
            code=code,
            device=device,
            progress=shown,
            cache=store.Cache(),
        )
    return console.print_json(json_output.of_comparison(comparison)) if as_json else _print(comparison)


def _print(comparison: Comparison) -> None:
    """Print scores, the result of each test and the path of the report."""
    data = comparison.data
    rows = [(s["run"], tables_output.interval({**s, "n": data["n"]}), s["wrong"]) for s in data["scores"]]
    tables_output.print_table(("run", f"accuracy on {data['n']:,} {data['images']} images", "wrong"), rows)
    for pair in data["pairs"][:MOST_SHOWN]:
        console.print_line(pair["verdict"])
    if len(data["pairs"]) > MOST_SHOWN:
        console.print_line(f"{len(data['pairs']) - MOST_SHOWN} more pairs are in the report")
    for note in data["notes"]:
        console.print_line(f"note: {note}")
    uses = data.get("test_openings") or []
    if len(uses) > 1:
        console.print_line(f"note: these test images have been used {len(uses)} times; the report lists when")
    console.print_line(f"disagreements  {len(data['disagreements']):,} images, in {comparison.folder / 'disagreements.csv'}")
    console.print_line(f"report         {comparison.folder / 'report.html'}")
