"""`sightline export`: a classifier as a file that predicts without Sightline."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, options
from sightline.cli.progress import progress


@console.guarded
def export(
    model: options.ClassifierFile,
    folder: Annotated[str | None, typer.Argument(metavar="[FOLDER]", help="Folder for the files, as --out.")] = None,
    to: Annotated[str, typer.Option("--to", metavar="onnx|openvino|html|huggingface", help="Format to write.")] = "onnx",
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the files, or a file name such as cats.onnx.")
    ] = "exported",
    precision: Annotated[
        str | None, typer.Option(metavar="f32|int8", help="Precision of the network. Default: f32; html has 16-bit weights.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Images to compare with, or a folder. Default: those that the run was trained on."),
    ] = None,
    allow_difference: Annotated[
        bool, typer.Option("--allow-difference", help="Keep the file even if its predictions differ from the classifier's.")
    ] = False,
    code: options.Code = None,
    as_json: options.Json = False,
) -> None:
    """Export a classifier to ONNX, OpenVINO, or one web page.

    The file takes an image of any size: preprocessing, calibration and class names are in it. It is compared with the
    classifier on up to 200 validation and training images (never test images, and no label is read), and kept only if they
    agree. A short script beside it predicts with onnxruntime or OpenVINO alone. The web page works offline, on phones too.

    \b
    Examples:
      sightline export runs/pets --to onnx -o pets-onnx
      sightline export runs/pets --to openvino --precision int8 -o pets-int8
      sightline export runs/pets --to html -o pets.html
      sightline export runs/pets --to huggingface pets-model
    """
    from sightline import store
    from sightline.commands import export as command

    with progress() as shown:
        done = command.export(
            options.path(model),
            to,
            options.path(out if folder is None else folder),
            precision=precision,
            images=[options.path(path) for path in images or ()],
            allow_difference=allow_difference,
            code=code,
            progress=shown,
            cache=store.Cache(),
        )
    agreed = done.record.agreement
    if as_json:
        return console.print_json(
            {
                "file": str(done.file),
                "format": done.record.format,
                "precision": done.record.precision,
                "images": agreed.images,
                "same_class": agreed.same_class,
                "max_difference": agreed.max_difference,
                "bytes": done.record.bytes,
            }
        )
    console.print_line(f"{done.file}  ({done.record.bytes / 1e6:,.1f} MB, {done.record.precision})")
    if agreed.images:
        most = 0.0 if agreed.max_difference is None else agreed.max_difference
        console.print_line(
            f"compared on {agreed.images:,} photographs: {agreed.same_class:,} get the same class, "
            f"and a probability differs by at most {most:.2g}"
        )
    for change in agreed.changed:
        console.print_line(f"  {change.path}: {change.exported} instead of {change.predicted}")
    return None
