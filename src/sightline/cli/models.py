"""`networks`, `train`, `evaluate`, `predict` and `mistakes`: classifiers, made and used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli import answers as said
from sightline.cli import console, data, job, listing, options, recipes, studies, values
from sightline.errors import RequestError

if TYPE_CHECKING:
    from sightline.records import Recipe, Run

Subject = Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run's folder, or a classifier's .safetensors file.")]


@console.guarded
def networks(
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Part of a name, or one with * in it, such as resnet*.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the networks that --backbone takes.

    Params are those of the whole network with its own classifier, MACs multiply-accumulates for one image of its
    size (px), smallest the side of the smallest image that it takes, weights the default ones and how many more there are.
    Where there are few, all that is known of them is shown.

    \b
    Example:
      sightline networks "mobilenet*"
    """
    from sightline import networks as known

    rows = known.table(pattern)
    if as_json:
        return console.print_json(rows)
    listing.show(rows, pattern)


@console.guarded
def train(
    catalog: Annotated[
        str | None, typer.Argument(metavar="CATALOG", help="A table made by scan or split, or a folder of photographs.")
    ] = None,
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="What to do, in TOML.")] = None,
    out: Annotated[str, typer.Option("-o", "--out", metavar="RUN", help="The run's folder.")] = "runs/train",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe or its settings; dots reach inside."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Short for --set epochs=N.")] = None,
    sweeps: studies.Sweeps = None,
    seeds: studies.Seeds = 1,
    device: options.Device = "auto",
    resume: options.Resume = False,
    continued: Annotated[
        str | None,
        typer.Option(
            "--continue", metavar="RUN", help="Learn on from the end of a finished run; catalog and recipe may be left out."
        ),
    ] = None,
    find_rate: Annotated[
        bool, typer.Option("--find-rate", help="Only look for a good learning rate, and draw the loss at each.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train one classifier on a catalog as a recipe says.

    Interrupted, the same command with --resume goes on at that very step, and ends with the same bits. With --sweep or
    --seeds many, as runs below RUN: then a table says which setting is best, and how sure that is.

    \b
    Examples:
      sightline train catalog.csv recipes/cats.toml -o runs/cats --set seed=1
      sightline train --continue runs/cats --epochs 10 -o runs/cats-longer
      sightline train catalog.csv recipes/cats.toml -o runs/cats --find-rate
      sightline train catalog.csv recipes/cats.toml -o runs/turned --sweep augment.rotation=0,15,45 --seeds 3
    """
    from sightline import catalog as catalogs
    from sightline import records, store
    from sightline.commands import train as train_command

    many = bool(sweeps) or seeds != 1
    _check_one(find_rate, many, continued)
    before = None if continued is None else records.Run.load(options.output(continued))
    catalog, recipe = _sources(catalog, recipe, before)
    chosen = recipes.read(recipe, {**options.assignments(changes), **({} if epochs is None else {"epochs": epochs})})
    if find_rate:
        return _find_rate(catalog, chosen, out, device, as_json)
    if many:
        return studies.sweep(catalog, chosen, sweeps, seeds, out, device, as_json)
    before_s = _finished_at(options.output(out))
    with console.progress(not as_json) as progress:
        table = data.open_catalog(catalog, progress)
        catalogs.warn(table.notes)
        run = train_command.train(
            table,
            chosen,
            options.output(out),
            resume=resume,
            continued=before,
            device=device,
            progress=progress,
            cache=store.Cache(),
        )
    reused = before_s is not None and _finished_at(run.folder) == before_s
    value = {**values.of_training(run), "reused": reused}
    if as_json:
        return console.print_json(value)
    if reused:
        console.print_line(f"{run.folder} was already finished with this recipe and these images; nothing was trained")
    took = f"({value['method']}, {value['seconds']:.1f} s)"
    console.print_line(f"accuracy             {job.interval(value['val'])}, {value['val_estimate']}  {took}")
    if run.data.get("course"):
        console.print_line(f"epochs               {run.data['course']}{earlier_kept(run)}")
    console.print_line(f"classifier           {value['classifier']}")
    for note in (said.lost(run.data), run.data["ladder"][0]["note"]):
        if note and not console.follows():
            console.warn(note)


def _finished_at(folder: Path) -> int | None:
    """Return when the run in a folder was finished, in nanoseconds; None where there is none."""
    file = folder / "run.json"
    return file.stat().st_mtime_ns if file.is_file() else None


def earlier_kept(run: Run) -> str:
    """Return what to say if a continued run keeps an epoch of the run that it continues; "" if it does not."""
    before = (run.data.get("continued") or {}).get("epochs") or 0
    if not before or (run.data.get("best_epoch") or 0) > before:
        return ""
    new = run.data["epochs"] - before
    return (
        f" No new epoch ({new} tried) was better: this is an epoch of the run that was continued, and the classifier is the "
        "same. --set keep=last takes the last epoch."
    )


def _check_one(find_rate: bool, many: bool, continued: str | None) -> None:
    """Refuse options that ask for two things at once.

    Raises:
        RequestError: They do.
    """
    if find_rate and many:
        raise RequestError("--find-rate is about one recipe, --sweep and --seeds are about many", "leave one of them out")
    if continued is not None and (many or find_rate):
        what = "--find-rate begins" if find_rate else "--sweep and --seeds begin"
        hint = f'to begin with what {continued} has learnt, set method = "warmstart" and backbone = "{continued}" in a recipe'
        raise RequestError(f"{what} where the recipe does, and --continue where a run ended", hint)


def _sources(catalog: str | None, recipe: str | None, before: Run | None) -> tuple[str, str]:
    """Catalog and recipe: those that are named, else those of the run that is continued."""
    if before is not None:
        catalog = str(before.folder / "catalog.csv") if catalog is None else catalog
        recipe = str(before.folder / "recipe.toml") if recipe is None else recipe
    if catalog is None or recipe is None:
        missing = "CATALOG" if catalog is None else "RECIPE"
        raise RequestError(f"train lacks {missing}", "write sightline train CATALOG RECIPE, or --continue RUN")
    return catalog, recipe


def _find_rate(catalog: str, recipe: Recipe, out: str, device: str, as_json: bool) -> None:
    """`train --find-rate`."""
    from sightline import store
    from sightline.commands import train as single

    place = options.output(out)
    plot = place if place.suffix.lower() in (".svg", ".png") else place / "learning-rate.svg"
    with console.progress(not as_json) as progress:
        table = data.open_catalog(catalog, progress)
        found = single.find_rate(table, recipe, plot, device=device, progress=progress, cache=store.Cache())
    if as_json:
        told = {"learning_rate": found.suggestion, "plot": str(plot), "rates": found.rates, "losses": found.losses}
        return console.print_json(told)
    console.print_line(f"suggestion  {found.suggestion:g}  (--set learning_rate={found.suggestion:g})")
    console.print_line(f"plot        {plot}")


@console.guarded
def evaluate(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL|PREDICTIONS.csv|RECIPE",
            help="A run, a classifier, any tool's table of probabilities, or a recipe in TOML.",
        ),
    ],
    catalog: options.CatalogFile,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="RUN", help="A folder for report and mistakes.")] = None,
    folds: recipes.Folds = None,
    repeats: recipes.Repeats = 1,
    learning_curve: recipes.Curve = False,
    goal: recipes.Goal = None,
    seed: Annotated[int | None, typer.Option(help="With a RECIPE: of the folds; else the recipe's.")] = None,
    split: options.Split = None,
    label_from: options.LabelFrom = None,
    label_column: options.LabelColumn = None,
    positive: options.Positive = None,
    crops: options.Crops = None,
    heatmaps: options.Heatmaps = "all",
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Score a classifier, or any tool's probabilities.

    CATALOG is any labelled set; which of its images were in training is said. A table of predictions has the columns
    path and p:CLASS for every class.

    With a RECIPE it is cross-validated: every image is answered by a classifier made without it; or its learning curve is
    drawn, which says what more photographs would bring. The two arguments may come in either order.

    \b
    Examples:
      sightline evaluate runs/pets/classifier.safetensors "new photos" -o runs/pets-new
      sightline evaluate catalog.csv recipes/cats.toml --folds 5 --repeats 2
      sightline evaluate catalog.csv recipes/cats.toml --learning-curve --goal 0.95
    """
    from sightline import store
    from sightline.commands import evaluate as evaluate_command

    shown = options.choice("--heatmaps", heatmaps, options.HEATMAPS)
    recipe, subject, catalog = recipes.sort(subject, catalog)
    which: dict[str, Any] = {"split": split, "label_from": label_from, "label_column": label_column, "positive": positive}
    if recipe is not None:
        asked = heatmaps if heatmaps != "all" else None
        recipes.check_recipe(recipe, catalog, **which, crops=crops, code=code, heatmaps=asked)
    if recipe is not None and (learning_curve or goal is not None):
        recipes.check_curve(folds, repeats)
        return recipes.learning_curve(catalog, recipe, out, goal, seed, device, as_json)
    if recipe is not None:
        return recipes.cross_validate(catalog, recipe, out, folds or recipes.FOLDS, repeats, seed, device, as_json)
    recipes.check_alone(
        subject, catalog, folds=folds, repeats=repeats != 1, seed=seed is not None, goal=goal, learning_curve=learning_curve
    )

    with console.progress() as progress:
        run = evaluate_command.evaluate(
            subject,
            catalog,
            out=out,
            **which,
            crops=crops,
            heatmaps=shown,
            code=code,
            device=device,
            progress=progress,
            cache=store.Cache(),
        )
    value = values.of_evaluation(run)
    if as_json:
        return console.print_json(value)
    if value["caution"]:
        console.print_line(f"CAUTION: {value['caution']}")
    if value["split"] != "all":
        console.print_line(f"{'split':<20}{value['split']}; the other images of {catalog} are not asked about")
    console.print_line(f"{'accuracy':<20}{job.interval(value)}")
    if value["in_training"]:
        console.print_line(
            f"{'without these':<20}{job.interval(value['test_without_leaks'])}  (on images that it was not made from)"
        )
    for line in job.metrics(value):
        console.print_line(line)
    if value["inverted"]:
        console.print_line(value["inverted"])
    if value["looks"] > 1:
        console.print_line(f"note: these test images have been looked at {value['looks']} times; the report says by what")
    console.print_line(f"{'report':<20}{run.folder / 'report.html'}")


@console.guarded
def predict(
    model: Subject,
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
    """Say what is on images, and how sure that is.

    An answer is marked unsure where another class may well be right, and an image that is unlike anything in training is
    marked too. A file that cannot be read gets its own error, and the others are answered; the exit code is then 1.

    \b
    Example:
      sightline predict runs/pets/classifier.safetensors "new photos" cat.jpg
    """
    from sightline import classifier, store

    with console.progress() as progress:
        loaded = classifier.load(options.output(model), code=code)
        answers = loaded.predict(
            [options.output(path) for path in paths], crops=crops, device=device, progress=progress, cache=store.Cache()
        )
        doubts = loaded.uncertainty(answers, sets)
    rows = values.of_predictions(answers, doubts, with_sets=sets is not None)
    told = [row for row in rows if "error" not in row]
    if out is not None:
        store.write_text(options.output(out), answers.to_csv(values.remarks(told), with_errors=True))
    if as_json:
        console.print_json(rows)
        return console.leave_if_any_failed(rows)
    console.print_table(*said.table(told, sets is not None))
    for line in said.legend(told, loaded.card.limits):
        console.print_line(line)
    for path, error in answers.errors.items():
        console.warn_of(path, error)
    console.leave_if_any_failed(rows)


@console.guarded
def mistakes(
    subject: Annotated[
        str,
        typer.Argument(metavar="RUN|MODEL|PREDICTIONS.csv", help="A run, a classifier, or any tool's table of probabilities."),
    ],
    catalog: Annotated[
        str | None, typer.Argument(metavar="CATALOG", help="A labelled set; a run has its own, a table may have labels.")
    ] = None,
    by: Annotated[str, typer.Option(metavar="confidence|pair|slice|COLUMN", help="In which order, or where.")] = "confidence",
    split: options.Split = None,
    label_from: options.LabelFrom = None,
    label_column: options.LabelColumn = None,
    crops: options.Crops = None,
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """List what is answered wrongly, and where that is often.

    By slice: brightness, contrast, sharpness, size, aspect, and every column of the table, each part against all the others;
    "worse" is what chance does not explain, corrected for having looked at so many.

    \b
    Examples:
      sightline mistakes runs/pets
      sightline mistakes runs/pets --by slice
      sightline mistakes runs/pets/classifier.safetensors "new photos" --by pair
    """
    from sightline import store
    from sightline.commands import mistakes as verb

    which: dict[str, Any] = {
        "split": split,
        "label_from": label_from,
        "label_column": label_column,
        "crops": crops,
        "code": code,
    }
    named = [f"--{name.replace('_', '-')}" for name, value in which.items() if value is not None]
    if catalog is None and named:
        raise RequestError(
            f"{named[0]} is about a CATALOG, and none is named", f"sightline mistakes {subject} CATALOG {named[0]} ..."
        )
    with console.progress() as progress:
        rows = verb.mistakes(subject, catalog, by=by, **which, device=device, progress=progress, cache=store.Cache())
    if as_json:
        return console.print_json(rows)
    if not rows:
        return console.print_line(said.nothing(by))
    console.print_table(*said.mistakes(rows, by))
