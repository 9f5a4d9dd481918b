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
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="PATH",
            help="HTML file (default: report.html), or folder with --format md (default: the run's).",
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--format", metavar="html|md", help="One HTML page, or report.md with figures, model card and scores.json."
        ),
    ] = "html",
    as_json: options.Json = False,
) -> None:
    """Write one HTML page about runs, a sweep or a search.

    The page is a single file that opens offline in any browser. With --format md, report.md, its figures (SVG), model_card.md
    and scores.json are written to a folder.

    \b
    Examples:
      sightline report runs/pets runs/pets-2 -o report.html
      sightline report runs/pets --format md -o text
    """
    from sightline import report as reports
    from sightline.errors import RequestError
    from sightline.records import Run

    folders = [options.path(folder) for folder in runs]
    if options.choice("--format", kind, ("html", "md")) == "md":
        if len(folders) > 1:
            raise RequestError("--format md writes about one run", "name one run, or leave out --format")
        file = reports.write_documents(Run.load(folders[0]), folders[0] if out is None else options.path(out))[0]
    else:
        file = reports.write_page(folders, options.path("report.html" if out is None else out))
    return console.print_json({"report": str(file), "runs": runs}) if as_json else console.print_line(str(file))
