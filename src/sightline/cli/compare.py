"""`compare`: several classifiers on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli import console, job, options

if TYPE_CHECKING:
    from sightline.commands.compare import Comparison

MOST_SHOWN = 20
"""Pairs that the terminal shows; the page has all."""


@console.guarded
def compare(
    subjects: Annotated[
        list[str],
        typer.Argument(metavar="RUN|MODEL|PREDICTIONS.csv...", help="Two or more: runs, classifiers, tables of probabilities."),
    ],
    split: Annotated[
        str | None, typer.Option(metavar="val|test", help="Whose images; else test where all have opened it, else val.")
    ] = None,
    catalog: Annotated[
        str | None, typer.Option(metavar="CATALOG", help="A labelled set that all are asked about, in place of kept answers.")
    ] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FOLDER", help="Where the report and tables go.")] = None,
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Say which classifier is better, or that it may be chance.

    All pairs get McNemar's exact test, corrected for their number, and the interval of the difference. Where they cannot be
    told apart, how many images would be needed is said. A comparison on test images is one look at them.

    \b
    Examples:
      sightline compare runs/pets runs/pets-finetuned
      sightline compare runs/pets/classifier.safetensors theirs.csv --catalog "new photos"
    """
    from sightline import store
    from sightline.commands import compare as compare_command

    with console.progress() as progress:
        done = compare_command.compare(
            [str(options.output(s)) for s in subjects],
            split=split,
            catalog=catalog,
            out=out,
            code=code,
            device=device,
            progress=progress,
            cache=store.Cache(),
        )
    return console.print_json(of_comparison(done)) if as_json else _print(done)


def of_comparison(done: Comparison) -> dict[str, Any]:
    """`compare --json`: pairs by the names that were given; difference is a less b."""
    data = done.data
    keys = ("runs", "split", "n", "scores", "pairs", "patterns", "notes")
    told: dict[str, Any] = {key: data[key] for key in keys}
    told |= {"disagreements": data["disagreements"], "folder": str(done.folder), "report": str(done.folder / "report.html")}
    told["test_openings"] = data.get("test_openings") or []
    return told


def _print(done: Comparison) -> None:
    """Scores, verdicts, and where the rest is."""
    data = done.data
    rows = [(s["run"], job.interval({**s, "n": data["n"]}), s["wrong"]) for s in data["scores"]]
    console.print_table(("run", f"accuracy on {data['n']:,} {data['images']} images", "wrong"), rows)
    for pair in data["pairs"][:MOST_SHOWN]:
        console.print_line(pair["verdict"])
    if len(data["pairs"]) > MOST_SHOWN:
        console.print_line(f"{len(data['pairs']) - MOST_SHOWN} more pairs are in the report")
    for note in data["notes"]:
        console.print_line(f"note: {note}")
    looks = data.get("test_openings") or []
    if len(looks) > 1:
        console.print_line(f"note: these test images have been looked at {len(looks)} times; the report says by what")
    console.print_line(f"disagreements  {len(data['disagreements']):,} images, in {done.folder / 'disagreements.csv'}")
    console.print_line(f"report         {done.folder / 'report.html'}")
