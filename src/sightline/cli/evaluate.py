"""`sightline evaluate`: score a classifier, cross-validate a recipe, or draw its learning curve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sightline.cli import console, json_output, options, tables_output
from sightline.cli.progress import progress
from sightline.errors import RequestError

FOLDS = 5


@console.guarded
def evaluate(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL|PREDICTIONS.csv|RECIPE",
            help="Run folder, classifier file, table of probabilities from any tool, or recipe in TOML.",
        ),
    ],
    catalog: options.CatalogFile,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="RUN", help="Folder for report and tables.")] = None,
    folds: Annotated[
        int | None, typer.Option(help=f"With a RECIPE: number of cross-validation folds. Default: {FOLDS}.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="With a RECIPE: number of repetitions with other folds.")] = 1,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="With a RECIPE: plot accuracy against the number of training images.")
    ] = False,
    goal: Annotated[
        float | None,
        typer.Option(
            metavar="ACCURACY",
            help="With --learning-curve: target accuracy, such as 0.95. Default: half the current error rate.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="With a RECIPE: random seed of the folds. Default: that of the recipe.")
    ] = None,
    split: options.Split = None,
    label_from: options.LabelFrom = None,
    label_level: options.LabelLevel = None,
    label_column: options.LabelColumn = None,
    follow_links: options.FollowLinks = False,
    positive: options.Positive = None,
    crops: options.Crops = None,
    heatmaps: options.Heatmaps = "all",
    stress: Annotated[
        bool,
        typer.Option(
            "--stress", help="Score blurred, dark, noisy, recompressed, turned and low-resolution versions of the images too."
        ),
    ] = False,
    stress_bound: Annotated[
        float | None,
        typer.Option(
            metavar="ACCURACY",
            help="With --stress: accuracy below which an alteration is named. Default: 0.9 times that on the unaltered images.",
        ),
    ] = None,
    code: options.Code = None,
    device: options.Device = "auto",
    on: options.On = "local",
    as_json: options.Json = False,
) -> None:
    """Score a classifier, or predictions of any tool.

    CATALOG is any labelled data set; images that were used for training are counted and reported. A table of predictions has
    the columns path and p:CLASS for every class.

    With a RECIPE, cross-validates it, so that every image is predicted by a classifier trained without it; or draws its
    learning curve, which estimates the benefit of more photographs. Both arguments may come in either order.

    \b
    Examples:
      sightline evaluate runs/pets/classifier.safetensors "new photos" -o runs/pets-new
      sightline evaluate runs/pets "new photos" --stress --stress-bound 0.9
      sightline evaluate catalog.csv recipes/cats.toml --folds 5 --repeats 2
      sightline evaluate catalog.csv recipes/cats.toml --learning-curve --goal 0.95
    """
    from sightline import store
    from sightline.commands import evaluate as command

    shown_heatmaps = options.choice("--heatmaps", heatmaps, options.HEATMAPS)
    recipe, subject, catalog = in_order(subject, catalog)
    how: dict[str, Any] = {"split": split, "label_from": label_from, "label_column": label_column, "positive": positive}
    how |= {"label_level": label_level, "follow_links": follow_links or None}
    stress = stress or stress_bound is not None
    of_recipe = {"folds": folds, "repeats": repeats if repeats != 1 else None, "seed": seed, "goal": goal}
    if recipe is not None:
        other = {**how, "crops": crops, "code": code, "heatmaps": heatmaps if heatmaps != "all" else None}
        other |= {"stress": stress or None}
        _check_without_classifier(recipe, catalog, other)
        if learning_curve or goal is not None:
            _check_learning_curve(folds, repeats)
            return _learning_curve(catalog, recipe, out, goal=goal, seed=seed, device=device, as_json=as_json)
        return _cross_validate(
            catalog, recipe, out, folds=folds or FOLDS, repeats=repeats, seed=seed, device=device, as_json=as_json
        )
    _check_without_recipe(subject, catalog, {**of_recipe, "learning_curve": learning_curve or None})
    with progress() as shown:
        run = command.evaluate(
            subject,
            catalog,
            out=out,
            **how,
            crops=crops,
            heatmaps=shown_heatmaps,
            stress=stress,
            stress_bound=stress_bound,
            code=code,
            device=device,
            progress=shown,
            cache=store.Cache(),
        )
    value = json_output.of_evaluation(run)
    return console.print_json(value) if as_json else _print_evaluation(value, catalog, run.folder / "report.html")


def _print_evaluation(value: dict[str, Any], catalog: str, report: Path) -> None:
    """Print all scores, and what limits their meaning."""
    if value["caution"]:
        console.print_line(f"CAUTION: {value['caution']}")
    if value["split"] != "all":
        console.print_line(f"{'split':<20}using the {value['split']} split of {catalog} only")
    console.print_line(f"{'accuracy':<20}{tables_output.interval(value)}")
    if value["in_training"]:
        clean = tables_output.interval(value["test_without_leaks"])
        console.print_line(f"{'without these':<20}{clean}  (images that were not used to fit the classifier)")
    for line in tables_output.metric_lines(value):
        console.print_line(line)
    if value["label_changes"]:
        changes = value["label_changes"]
        old, new = (f"{changes[k]:.3f} [{changes[f'{k}_low']:.3f}, {changes[f'{k}_high']:.3f}]" for k in ("old", "new"))
        text = f"{changes['n']:,} of {changes['compared']:,} images; accuracy under the old labels {old}, under the new {new}"
        console.print_line(f"{'changed labels':<20}{text}")
    if value["stress"]:
        _print_stress(value["stress"])
    if value["inverted"]:
        console.print_line(value["inverted"])
    if value["looks"] > 1:
        console.print_line(f"note: these test images have been used {value['looks']} times; the report lists when")
    console.print_line(f"{'report':<20}{report}")


def _print_stress(found: dict[str, Any]) -> None:
    """Print the accuracy on altered images: a row for each alteration, a column for each strength."""
    from sightline.records.stress import STRENGTHS

    rows: dict[str, list[str]] = {}
    for score in found["scores"]:
        mark = " (below)" if score["below"] else ""
        interval = f"{score['accuracy']:.3f} [{score['accuracy_low']:.3f}, {score['accuracy_high']:.3f}]{mark}"
        rows.setdefault(score["title"], []).append(interval)
    tables_output.print_table(("altered images", *STRENGTHS), [(title, *cells) for title, cells in rows.items()])
    console.print_line(f"{'stress test':<20}{found['sentence']}")


# -------------------------------------------------------------------------------------------------------------- arguments


def in_order(first: str, second: str) -> tuple[str | None, str, str]:
    """Return (recipe or None, subject, catalog) of two arguments in either order.

    Example:
        >>> in_order("photos", "cats.toml"), in_order("cats.toml", "photos")
        (('cats.toml', '', 'photos'), ('cats.toml', '', 'photos'))
    """
    for recipe, other in ((first, second), (second, first)):
        if recipe.lower().endswith(".toml"):
            return recipe, "", other
    from sightline.commands import evaluate as command

    subject, catalog = command.in_order(first, second)
    return None, subject, catalog


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_without_recipe(subject: str, catalog: str, values: dict[str, Any]) -> None:
    """Reject options of recipes if no recipe is given.

    Raises:
        RequestError: If such an option is set; the hint names the recipe of the subject if it has one.
    """
    name = next((name for name, value in values.items() if value is not None), None)
    if name is None:
        return
    file = Path(subject) / "recipe.toml"
    recipe = str(file) if file.is_file() else "RECIPE"
    raise RequestError(
        f"{_option(name)} needs a recipe, not a classifier", f"sightline evaluate {catalog} {recipe} {_option(name)} ..."
    )


def _check_without_classifier(recipe: str, catalog: str, values: dict[str, Any]) -> None:
    """Reject options of classifiers if a recipe is given.

    Raises:
        RequestError: If such an option is set; the hint says where to set it instead.
    """
    name = next((name for name, value in values.items() if value is not None), None)
    if name is None:
        return
    value = values[name]
    hints = {
        "crops": f"write crops = {value} under [settings] in {recipe}",
        "code": f'write backbone = "{value}" in {recipe}',
        "positive": f'write positive = "{value}" in {recipe}',
        "heatmaps": "leave it out: no heatmaps are drawn for a recipe",
        "stress": f"train it with sightline train {catalog} {recipe}, and pass the run to evaluate",
        "split": "leave it out: train and val are cross-validated, or all images if there are no splits; test is not used",
    }
    scan = f"run sightline scan {catalog} {_option(name)} ... -o catalog.csv, and use that table with the recipe"
    raise RequestError(f"{_option(name)} has no effect on a recipe", hints.get(name, scan))


def _check_learning_curve(folds: int | None, repeats: int) -> None:
    """Reject options of a cross-validation together with a learning curve.

    Raises:
        RequestError: If folds or repeats are set.
    """
    if folds is not None or repeats != 1:
        option = "--folds" if folds is not None else "--repeats"
        hint = f"leave out {option}, or run evaluate twice"
        raise RequestError(f"{option} and a learning curve cannot be combined", hint)


# ---------------------------------------------------------------------------------------------------------------- recipes


def _cross_validate(
    catalog: str, recipe: str, out: str | None, folds: int, repeats: int, seed: int | None, device: str, as_json: bool
) -> None:
    """Run `evaluate CATALOG RECIPE --folds`."""
    from sightline import inputs, store
    from sightline.commands import cross_validate as command

    with progress() as shown:
        run = command.cross_validate(
            options.path(catalog),
            inputs.read_recipe(options.path(recipe)),
            None if out is None else options.path(out),
            folds=folds,
            repeats=repeats,
            seed=seed,
            device=device,
            progress=shown,
            say=console.line_printer(as_json),
            cache=store.Cache(),
        )
    value = json_output.of_cross_validation(run)
    return console.print_json(value) if as_json else _print_cross_validation(value)


def _print_cross_validation(value: dict[str, Any]) -> None:
    """Print the accuracy over all folds, its spread, and the other scores."""
    console.print_line(f"{'accuracy':<20}{tables_output.interval(value)}, {value['estimate']}")
    repeats = value["by_repeat"]
    if len(repeats) > 1:
        console.print_line(f"{'over repeats':<20}{min(repeats):.3f} to {max(repeats):.3f}")
    parts = [p["accuracy"] for p in value["parts"] if p["accuracy"] is not None]
    console.print_line(f"{'over folds':<20}{min(parts):.3f} to {max(parts):.3f}")
    thresholds = (value["threshold"] or {}).get("bars")
    if thresholds:
        by, positive = value["threshold"]["by"], value["threshold"]["positive"]
        span = f"{min(thresholds):.3g} to {max(thresholds):.3g}"
        console.print_line(f"{'threshold':<20}{span} for {positive}, set in each fold by the criterion {by}")
    if len(repeats) > 1:
        console.print_line(f"{'first repeat':<20}{repeats[0]:.3f}; the scores below are also of the first repeat:")
    for line in tables_output.metric_lines(value):
        console.print_line(line)
    console.print_line(f"{'report':<20}{value['report']}")


def _learning_curve(
    catalog: str, recipe: str, out: str | None, goal: float | None, seed: int | None, device: str, as_json: bool
) -> None:
    """Run `evaluate CATALOG RECIPE --learning-curve`."""
    from sightline import inputs, store
    from sightline.commands import learning_curve as command

    with progress() as shown:
        curve = command.learning_curve(
            options.path(catalog),
            inputs.read_recipe(options.path(recipe)),
            None if out is None else options.path(out),
            goal=goal,
            seed=seed,
            device=device,
            progress=shown,
            cache=store.Cache(),
        )
    plot = curve.folder / "learning-curve.svg"
    if as_json:
        return console.print_json({**curve.data, "folder": str(curve.folder), "plot": str(plot)})
    rows = [
        (f"{p['images']:,}", f"{p['measured']:.3f}", f"{p['accuracy']:.3f} [{p['low']:.3f}, {p['high']:.3f}]")
        for p in curve.data["points"]
    ]
    tables_output.print_table(("training images", "accuracy", "fitted curve"), rows)
    for line in curve.data["words"]:
        console.print_line(line)
    console.print_line(f"plot  {plot}")
