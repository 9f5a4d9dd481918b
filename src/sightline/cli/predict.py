"""`sightline predict`: classes of new images."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, json_output, options, tables_output
from sightline.cli.progress import progress


@console.guarded
def predict(
    model: options.ClassifierFile,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Images, or folders of images.")],
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="FILE", help="Also write a CSV with all probabilities and remarks.")
    ] = None,
    sets: options.Sets = None,
    crops: options.Crops = None,
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Predict the class of images, with probabilities.

    Marks uncertain predictions and images that are unlike the training images. A file that cannot be read is reported, and
    the others are predicted; the exit code is then 1.

    \b
    Example:
      sightline predict runs/pets/classifier.safetensors "new photos" cat.jpg
    """
    from sightline import store
    from sightline.commands import predict as command

    with progress() as shown:
        result = command.predict(
            options.path(model),
            [options.path(path) for path in paths],
            sets=sets,
            crops=crops,
            code=code,
            device=device,
            progress=shown,
            cache=store.Cache(),
        )
    with_sets, predictions = sets is not None, result.predictions
    rows = json_output.of_predictions(predictions, result.uncertainty, with_sets=with_sets)
    predicted = [row for row in rows if "error" not in row]
    if out is not None:
        store.write_text(options.path(out), predictions.to_csv(json_output.remark_columns(predicted), with_errors=True))
    if as_json:
        console.print_json(rows)
        return console.exit_if_any_failed(rows)
    tables_output.print_table(*tables_output.predictions_table(predicted, with_sets))
    for line in tables_output.predictions_legend(predicted, result.calibration):
        console.print_line(line)
    for path, error in predictions.errors.items():
        console.warn_of(path, error)
    console.exit_if_any_failed(rows)
