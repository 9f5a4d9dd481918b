"""`sightline demo`: a complete run on handwritten digits."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, json_output, options
from sightline.cli.progress import progress
from sightline.cli.run import print_run


@console.guarded
def demo(
    out: Annotated[str, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the images and the run.")] = (
        "sightline-demo"
    ),
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Run everything once on handwritten digits, offline.

    Writes the 1,797 digits of scikit-learn as PNG files, then runs `sightline run` on them, with pixels as features and with
    a small network trained from scratch. Nothing is downloaded. It takes less than two minutes.

    \b
    Example:
      sightline demo
    """
    from sightline import store
    from sightline.commands import demo as command

    with progress() as shown:
        result = command.demo(out, seed=seed, progress=shown, say=console.line_printer(as_json), cache=store.Cache())
    return console.print_json(json_output.of_run(result)) if as_json else print_run(result)
