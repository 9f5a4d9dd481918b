"""`sightline tune`: hyperparameter search."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli import console, json_output, options, tables_output
from sightline.cli.progress import progress

if TYPE_CHECKING:
    from sightline.commands.study import Study

MOST_SHOWN = 10
"""Trials on the terminal; the report shows all."""


@console.guarded
def tune(
    catalog: options.CatalogFile,
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Recipe in TOML that the search starts from: the first trial.")
    ],
    out: Annotated[str, typer.Option("-o", "--out", metavar="STUDY", help="Study folder to write.")] = "runs/tune",
    trials: Annotated[int, typer.Option(help="Total number of trials, those of earlier calls included.")] = 40,
    budget: Annotated[str, typer.Option(metavar="TIME", help="Time limit of this call: 90s, 10m, 1h.")] = "10m",
    max_parameters: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Skip recipes with more parameters, such as 2e6.")
    ] = None,
    concurrent: Annotated[
        int,
        typer.Option(metavar="N", help="Propose N recipes at a time; with --on ray they are fitted at the same time."),
    ] = 1,
    changes: options.Changes = None,
    device: options.Device = "auto",
    on: options.On = "local",
    as_json: options.Json = False,
) -> None:
    """Search for better hyperparameters, using train and val only.

    The method of the recipe sets the search space. The same command resumes an interrupted search, and continues a finished
    one with more trials. The best recipe is written to best.toml, and its expected gain is reported with its uncertainty.

    \b
    Example:
      sightline tune catalog.csv recipes/cats.toml --trials 40 --budget 10m -o runs/tuned
    """
    from sightline import store
    from sightline.commands import tune as command

    chosen = options.recipe(recipe, options.assignments(changes))
    with progress(not as_json) as shown:
        study = command.tune(
            options.path(catalog),
            chosen,
            options.path(out),
            trials=trials,
            budget_s=options.seconds(budget),
            max_parameters=max_parameters,
            concurrent=concurrent,
            device=device,
            progress=shown,
            say=console.line_printer(True),
            cache=store.Cache(),
        )
    return console.print_json(json_output.of_tuning(study)) if as_json else _print_tuning(study)


def _print_tuning(study: Study) -> None:
    """Print the best trials and the one of the recipe, then the conclusions."""
    data = study.data
    complete = [t for t in data["trials"] if t["state"] == "complete"]
    complete.sort(key=lambda t: (t["number"] != data["best"], -t["accuracy"], t["log_loss"]))
    default = [t for t in complete[MOST_SHOWN:] if t["number"] == 0]
    rows = [
        (t["number"], f"{100 * t['accuracy']:.1f}", f"{t['log_loss']:.3f}", f"{t['seconds']:.1f}", _parameters(t["params"]))
        for t in [*complete[:MOST_SHOWN], *default]
    ]
    tables_output.print_table(("trial", "accuracy", "log loss", "seconds", "parameters"), rows)
    console.print_line(", ".join(f"{n} {state}" for state, n in data["counts"].items() if n))
    tables_output.print_conclusions(study)


def _parameters(params: dict[str, Any]) -> str:
    """Return the sampled hyperparameters of a trial on one line."""
    texts = (f"{k}={v:.4g}" if isinstance(v, float) and math.isfinite(v) else f"{k}={v}" for k, v in params.items())
    return ", ".join(texts) or "the starting recipe"
