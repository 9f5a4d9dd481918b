"""`sightline report`: one HTML page about finished runs."""

from __future__ import annotations

from typing import Annotated

import typer

from sightline.cli import console, options


@console.guarded
def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Folders written by run, train or evaluate, or one of a sweep or search."),
    ],
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="HTML file to write.")] = "report.html",
    as_json: options.Json = False,
) -> None:
    """Write one HTML page about runs, a sweep or a search.

    The page is a single file that opens offline in any browser.

    \b
    Example:
      sightline report runs/pets runs/pets-2 -o report.html
    """
    from sightline import report as reports

    file = reports.write_page([options.path(folder) for folder in runs], options.path(out))
    return console.print_json({"report": str(file), "runs": runs}) if as_json else console.print_line(str(file))
