"""Recipes on the command line: read and changed, and what `evaluate` does with one in place of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli import console, data, job, options, values
from sightline.errors import RequestError

if TYPE_CHECKING:
    from sightline.records import Recipe

FOLDS = 5

Folds = Annotated[
    int | None, typer.Option(help=f"With a RECIPE: cross-validate it, in so many folds; {FOLDS} where nothing is said.")
]
Curve = Annotated[bool, typer.Option("--learning-curve", help="With a RECIPE: accuracy against the number of training images.")]
Goal = Annotated[
    float | None,
    typer.Option(metavar="ACCURACY", help="With --learning-curve: the wish, such as 0.95; else half of today's errors."),
]
Repeats = Annotated[int, typer.Option(help="With --folds: so often, with other folds each time.")]


def read(file: str, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with the keys of `--set` changed, which reach inside by dots as those of `--sweep` do.

    Raises:
        RequestError: The file is missing or is no recipe, or a key is not known.
    """
    from sightline import inputs, networks, store
    from sightline.studies import change
    from sightline.training.methods import method_of

    recipe = change(inputs.read_recipe(options.output(file)), changes)
    if method_of(recipe).network != "classifier":  # there the backbone is a run
        networks.check_name(recipe.backbone, store.Cache())
    return recipe


def sort(first: str, second: str) -> tuple[str | None, str, str]:
    """(recipe or None, subject, catalog) of two arguments in whichever order they came.

    Example:
        >>> sort("photos", "cats.toml"), sort("cats.toml", "photos")
        (('cats.toml', '', 'photos'), ('cats.toml', '', 'photos'))
    """
    for recipe, other in ((first, second), (second, first)):
        if recipe.lower().endswith(".toml"):
            return recipe, "", other
    from sightline.commands.evaluate import in_order

    subject, catalog = in_order(first, second)
    return None, subject, catalog


def check_alone(subject: str, catalog: str, **given: Any) -> None:
    """Refuse options of recipes where there is none.

    Raises:
        RequestError: So it is, with the recipe that the subject came from where it has one.
    """
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if not named:
        return
    own = Path(subject) / "recipe.toml"
    recipe = str(own) if own.is_file() else "RECIPE"
    raise RequestError(f"{named[0]} needs a recipe, not a classifier", f"sightline evaluate {catalog} {recipe} {named[0]} ...")


def check_recipe(recipe: str, catalog: str, **given: Any) -> None:
    """Refuse options of classifiers where a recipe is named: what it says of them stands in it, or in the table.

    Raises:
        RequestError: So it is, with where that belongs.
    """
    name = next((name for name, value in given.items() if value is not None), None)
    if name is None:
        return
    option, value = f"--{name.replace('_', '-')}", given[name]
    hints = {
        "crops": f"write crops = {value} under [settings] in {recipe}",
        "code": f'write backbone = "{value}" in {recipe}',
        "positive": f'write positive = "{value}" in {recipe}',
        "heatmaps": "no heatmaps are drawn for a recipe: leave it out",
        "split": "train and val are divided, or all where there are no splits; the test split stays out",
    }
    scan = f"sightline scan {catalog} {option} ... -o catalog.csv, and then that table with the recipe"
    raise RequestError(f"{option} has no effect on a recipe", hints.get(name, scan))


def check_curve(folds: int | None, repeats: int) -> None:
    """Refuse what a learning curve has no use for.

    Raises:
        RequestError: Folds or repeats were asked for as well.
    """
    if folds is not None or repeats != 1:
        named = "--folds" if folds is not None else "--repeats"
        hint = f"a curve has folds of its own: leave out {named}, or run evaluate twice"
        raise RequestError(f"{named} and a learning curve are two questions", hint)


def cross_validate(
    catalog: str, recipe: str, out: str | None, folds: int, repeats: int, seed: int | None, device: str, as_json: bool
) -> None:
    """`evaluate CATALOG RECIPE --folds`."""
    from sightline import inputs, store
    from sightline.commands import cross_validate as crossvalidating

    chosen = inputs.read_recipe(options.output(recipe))
    with console.progress() as progress:
        table = data.open_catalog(catalog, progress)
        run = crossvalidating.cross_validate(
            table,
            chosen,
            None if out is None else options.output(out),
            folds=folds,
            repeats=repeats,
            seed=seed,
            device=device,
            progress=progress,
            say=console.sayer(as_json),
            cache=store.Cache(),
        )
    value = values.of_crossvalidation(run)
    if as_json:
        return console.print_json(value)
    console.print_line(f"{'accuracy':<20}{job.interval(value)}, {value['estimate']}")
    if len(value["by_repeat"]) > 1:
        low, high = min(value["by_repeat"]), max(value["by_repeat"])
        console.print_line(f"{'over repeats':<20}{low:.3f} to {high:.3f}")
    parts = [p["accuracy"] for p in value["parts"] if p["accuracy"] is not None]
    console.print_line(f"{'over folds':<20}{min(parts):.3f} to {max(parts):.3f}")
    bars = (value["threshold"] or {}).get("bars")
    if bars:
        by, positive = value["threshold"]["by"], value["threshold"]["positive"]
        console.print_line(f"{'bar':<20}each fold's own, criterion {by}: {positive} from {min(bars):.3g} to {max(bars):.3g} on")
    if len(value["by_repeat"]) > 1:
        console.print_line(f"{'of the first repeat':<20}{value['by_repeat'][0]:.3f}, and so these:")
    for line in job.metrics(value):
        console.print_line(line)
    console.print_line(f"{'report':<20}{run.folder / 'report.html'}")


def learning_curve(
    catalog: str, recipe: str, out: str | None, goal: float | None, seed: int | None, device: str, as_json: bool
) -> None:
    """`evaluate CATALOG RECIPE --learning-curve`."""
    from sightline import inputs, store
    from sightline.commands import learning_curve as learning

    chosen = inputs.read_recipe(options.output(recipe))
    with console.progress() as progress:
        table = data.open_catalog(catalog, progress)
        done = learning.learning_curve(
            table,
            chosen,
            None if out is None else options.output(out),
            goal=goal,
            seed=seed,
            device=device,
            progress=progress,
            cache=store.Cache(),
        )
    plot = done.folder / "learning-curve.svg"
    if as_json:
        return console.print_json({**done.data, "folder": str(done.folder), "plot": str(plot)})
    rows = [
        (f"{p['images']:,}", f"{p['measured']:.3f}", f"{p['accuracy']:.3f} [{p['low']:.3f}, {p['high']:.3f}]")
        for p in done.data["points"]
    ]
    console.print_table(("training images", "accuracy", "curve"), rows)
    for line in done.data["words"]:
        console.print_line(line)
    console.print_line(f"plot  {plot}")
