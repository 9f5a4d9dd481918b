"""`sightline serve`: predict over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from sightline.cli import console, options


@console.guarded
def serve(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Classifier files (.safetensors), or run folders.")],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; beyond this machine, add --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="Port to listen on; 0 for any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="SIGHTLINE_TOKEN",
            show_envvar=False,
            help="Token that requests must carry, as in `Authorization: Bearer TOKEN`. Default: SIGHTLINE_TOKEN.",
        ),
    ] = None,
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Predict over HTTP, with a page to try it in a browser.

    POST /predict takes one image or several (multipart/form-data) and answers with the fields of `predict --json`. Stops at
    Ctrl-C after running requests are answered.

    \b
    Example:
      sightline serve runs/pets/classifier.safetensors
      curl -F images=@cat.jpg http://127.0.0.1:8000/predict
    """
    from sightline.serve import Settings
    from sightline.serve import serve as run

    def ready(url: str, names: Sequence[str]) -> None:
        if as_json:
            console.print_json({"url": url, "models": names})
        else:
            console.print_line(f"{', '.join(names)} at {url} (Ctrl-C stops)")
        sys.stdout.flush()

    run([options.path(model) for model in models], Settings(host, port, token, code, device), ready)
