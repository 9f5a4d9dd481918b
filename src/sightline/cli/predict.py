"""`sightline predict`: classes of new images."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli import console, options, tables_output
from sightline.cli.progress import progress

if TYPE_CHECKING:
    from sightline.commands.predict import PredictResult

MOST_PRINTED = 1_000
"""Predictions printed as a table; -o and --json give all."""
MOST_ERRORS = 200
"""Unreadable files named on the terminal; -o and --json name all."""


@console.guarded
def predict(
    model: options.ClassifierFile,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images, folders, patterns such as 'day*/*.jpg', tables; - reads a list of them from standard input.",
        ),
    ],
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="FILE", help="Also write all predictions: .csv, .jsonl or .parquet.")
    ] = None,
    sets: options.Sets = None,
    top: Annotated[int | None, typer.Option(min=1, metavar="N", help="List the N most probable classes.")] = None,
    crops: options.Crops = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|burst",
            help="Predict events: images with equal cells in a column, or photographs taken within 10 s of the one before.",
        ),
    ] = None,
    heatmaps: Annotated[str | None, typer.Option(metavar="FOLDER", help="Write a heatmap of each image.")] = None,
    copy_to: Annotated[str | None, typer.Option(metavar="FOLDER", help="Copy the images into one folder per class.")] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Report drift since training, and corrected class counts.")
    ] = False,
    path_column: options.PathColumn = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted job; needs -o.")] = False,
    code: options.Code = None,
    device: options.Device = "auto",
    on: options.On = "local",
    as_json: options.Json = False,
) -> None:
    """Predict the class of images, with probabilities.

    Marks uncertain predictions and images that are unlike the training images. A file that cannot be read is reported, and
    the others are predicted; the exit code is then 1. Works in bounded memory on any number of images.

    \b
    Examples:
      sightline predict runs/pets/classifier.safetensors "new photos" cat.jpg
      sightline predict runs/pets photos.csv -o predictions.parquet --resume
    """
    from sightline import store
    from sightline.commands import predict as command

    def folder(name: str | None) -> Any:
        return None if name is None else options.path(name)

    settings = command.PredictOptions(
        sets=sets,
        crops=crops,
        top=top,
        group_by=group_by,
        heatmaps=folder(heatmaps),
        copy_to=folder(copy_to),
        out=folder(out),
        resume=resume,
        path_column=path_column,
        code=code,
        device=device,
    )
    failed = 0

    def show(result: PredictResult) -> None:
        nonlocal failed
        failed = result.failed
        report: Any = None
        if summary:
            from sightline.commands import drift

            report = drift.compare(result.model, result.image_entries)
        if as_json:
            _print_json(result, report)
        else:
            _print_table(result, sets is not None)
            if report is not None:
                console.print_line()
                for line in report.lines():
                    console.print_line(line)

    with progress() as shown:
        command.predict(
            options.path(model),
            [path if path == "-" else str(options.path(path)) for path in paths],
            settings,
            show,
            lines=_standard_input() if "-" in paths else (),
            progress=shown,
            cache=store.Cache(),
        )
    if failed:
        raise typer.Exit(1)


def _standard_input() -> Iterable[str]:
    """Return the lines of standard input; bytes that are not UTF-8 are kept, as in file names."""
    return (line.decode("utf-8", "surrogateescape") for line in sys.stdin.buffer)


def _print_json(result: PredictResult, report: Any) -> None:
    """Print the entries as one JSON array, one after the other; with a summary, as an object."""
    import json

    def write(text: str) -> None:
        sys.stdout.write(text)

    if console.follows():
        return
    if report is not None:
        write('{"summary": ' + json.dumps(report.as_json(), ensure_ascii=False, allow_nan=False) + ', "predictions": ')
    write("[")
    for number, entry in enumerate(result.entries()):
        write((",\n " if number else "\n ") + json.dumps(entry, ensure_ascii=False, allow_nan=False))
    write("\n]}\n" if report is not None else "\n]\n")
    for note in result.notes:
        console.warn(note)
    _warn_of_failed(result, named=False)


def _print_table(result: PredictResult, with_sets: bool) -> None:
    """Print the first entries as a table, the legend of remarks, and the files without a prediction."""
    good = (entry for entry in result.entries() if "error" not in entry)
    rows = list(itertools.islice(good, MOST_PRINTED))
    tables_output.print_table(*tables_output.predictions_table(rows, with_sets))
    if result.images - result.failed > len(rows):
        console.print_line(f"… and {result.images - result.failed - len(rows):,} more; -o FILE writes all")
    for line in tables_output.predictions_legend(rows, result.model.card.uncertainty):
        console.print_line(line)
    for note in result.notes:
        console.warn(note)
    _warn_of_failed(result, named=True)


def _warn_of_failed(result: PredictResult, *, named: bool) -> None:
    """Name files without a prediction, up to `MOST_ERRORS`, and print their number."""
    if not result.failed:
        return
    failed = (entry for entry in result.entries() if "error" in entry)
    for entry in itertools.islice(failed, MOST_ERRORS) if named else ():
        console.warn_of(entry["path"], entry["error"])
    console.warn(f"{result.failed:,} of {result.images:,} files have no prediction")
