"""`sightline train`: train one recipe, or one per setting, or find its learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli import console, json_output, options, tables_output
from sightline.cli.progress import progress
from sightline.errors import RequestError

if TYPE_CHECKING:
    from sightline.commands.study import Study
    from sightline.records import Recipe, Run


@console.guarded
def train(
    catalog: Annotated[
        str | None, typer.Argument(metavar="CATALOG", help="Table written by scan or split, or a folder of photographs.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="Recipe in TOML. Default: the default recipe with the options below.")
    ] = None,
    out: Annotated[str, typer.Option("-o", "--out", metavar="RUN", help="Run folder to write.")] = "runs/train",
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="Training method, such as features, finetune or scratch.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Network, pixels, or your own as my_net.py:build.")
    ] = None,
    head: Annotated[str | None, typer.Option(metavar="NAME", help="Classifier on top of the features.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of training epochs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed. Default: that of the recipe.")] = None,
    changes: options.Changes = None,
    save_recipe: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the recipe with all changes to this TOML file before training.")
    ] = None,
    sweeps: Annotated[
        list[str] | None,
        typer.Option("--sweep", metavar="KEY=A,B,...", help="Train once per value of this key. Several keys form a grid."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of random seeds per setting, counted up from that of the recipe.")] = 1,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    resume: options.Resume = False,
    continued: Annotated[
        str | None,
        typer.Option(
            "--continue", metavar="RUN", help="Continue training a finished run. Defaults of CATALOG and RECIPE: those of RUN."
        ),
    ] = None,
    find_rate: Annotated[
        bool, typer.Option("--find-rate", help="Do not train: find a learning rate, and plot the loss at each rate.")
    ] = False,
    on: options.On = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="With --on ray: processes that train one network. Default: one per GPU, or per machine."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Train one classifier on a catalog.

    The recipe sets method, backbone, head and hyperparameters. After an interruption, the same command with --resume continues
    at the same step and gives bit-identical results. --sweep and --seeds train several runs below RUN and print a table with
    the best setting and its uncertainty.

    \b
    Examples:
      sightline train catalog.csv --method finetune --backbone resnet18 --epochs 5 -o runs/cats
      sightline train catalog.csv recipes/cats.toml -o runs/cats --seed 1
      sightline train --continue runs/cats --epochs 10 -o runs/cats-longer
      sightline train catalog.csv recipes/cats.toml -o runs/cats --find-rate
      sightline train catalog.csv recipes/cats.toml -o runs/turned --sweep augment.rotation=0,15,45 --seeds 3
    """
    from sightline import records, store
    from sightline.commands import train as command

    many = bool(sweeps) or seeds != 1
    _check_exclusive(find_rate, many, continued)
    wanted = options.choice("--precision", precision, options.PRECISIONS)
    if wanted != "auto" and (many or find_rate):
        raise RequestError("--precision is for one training", "leave it out, or leave out --sweep, --seeds and --find-rate")
    base = None if continued is None else records.Run.load(options.path(continued))
    if base is not None:
        catalog = str(base.folder / "catalog.csv") if catalog is None else catalog
        recipe = str(base.folder / "recipe.toml") if recipe is None else recipe
    if catalog is None:
        raise RequestError("missing argument CATALOG", "write sightline train CATALOG RECIPE, or --continue RUN")
    shortcuts = {"method": method, "backbone": backbone, "head": head, "epochs": epochs, "seed": seed}
    chosen = options.recipe(
        recipe, {**{key: value for key, value in shortcuts.items() if value is not None}, **options.assignments(changes)}
    )
    if save_recipe is not None:
        from sightline.runs import folder

        store.write_text(options.path(save_recipe), folder.toml(chosen))
    source, target = options.path(catalog), options.path(out)
    if find_rate:
        return _find_rate(source, chosen, target, device, as_json)
    if many:
        return _sweep(source, chosen, sweeps, seeds=seeds, out=target, device=device, as_json=as_json)
    before = _finished_at(target)
    with progress(not as_json) as shown:
        run = command.train(
            source,
            chosen,
            target,
            resume=resume,
            continued=base,
            device=device,
            precision=wanted,
            progress=shown,
            cache=store.Cache(),
        )
    reused = before is not None and _finished_at(run.folder) == before
    if as_json:
        return console.print_json({**json_output.of_training(run), "reused": reused})
    _print_run(run, reused)


def _check_exclusive(find_rate: bool, many: bool, continued: str | None) -> None:
    """Check for options that exclude each other.

    Raises:
        RequestError: If there are any.
    """
    if find_rate and many:
        raise RequestError("--find-rate works on one recipe; --sweep and --seeds train several", "use one of them")
    if continued is not None and (many or find_rate):
        option = "--find-rate" if find_rate else "--sweep and --seeds"
        hint = f'to start from the weights of {continued}, set method = "warmstart" and backbone = "{continued}" in a recipe'
        raise RequestError(f"{option} cannot be combined with --continue", hint)


def _finished_at(folder: Path) -> int | None:
    """Return the modification time of a run's run.json in nanoseconds; None if there is none."""
    file = folder / "run.json"
    return file.stat().st_mtime_ns if file.is_file() else None


def _print_run(run: Run, reused: bool) -> None:
    """Print accuracy, epochs and the path of the classifier."""
    from sightline.runs import notes

    value = json_output.of_training(run)
    if reused:
        console.print_line(f"{run.folder} already holds a finished run of this recipe and these images; nothing was trained")
    took = f"({value['method']}, {value['seconds']:.1f} s)"
    console.print_line(f"accuracy             {tables_output.interval(value['val'])}, {value['val_estimate']}  {took}")
    if run.data.get("course"):
        console.print_line(f"epochs               {run.data['course']}{no_better_epoch(run)}")
    console.print_line(f"classifier           {value['classifier']}")
    for note in notes.of_run(run.record):
        if not console.follows():
            console.warn(note)


def no_better_epoch(run: Run) -> str:
    """Return a note if the best epoch of a continued run is one of the run it continues; "" otherwise."""
    before = (run.data.get("continued") or {}).get("epochs") or 0
    if not before or (run.data.get("best_epoch") or 0) > before:
        return ""
    new = run.data["epochs"] - before
    return (
        f" None of the new epochs ({new}) was better: the best epoch is one of the continued run, and the classifier is "
        "unchanged. --set keep=last takes the last epoch."
    )


def _find_rate(catalog: Path, recipe: Recipe, out: Path, device: str, as_json: bool) -> None:
    """Run `train --find-rate`."""
    from sightline import store
    from sightline.commands import find_lr as command

    plot = out if out.suffix.lower() in (".svg", ".png") else out / "learning-rate.svg"
    with progress(not as_json) as shown:
        curve = command.find_lr(catalog, recipe, plot, device=device, progress=shown, cache=store.Cache())
    if as_json:
        value = {"learning_rate": curve.suggestion, "plot": str(plot), "rates": curve.rates, "losses": curve.losses}
        return console.print_json(value)
    console.print_line(f"suggestion  {curve.suggestion:g}  (--set learning_rate={curve.suggestion:g})")
    console.print_line(f"plot        {plot}")


def _sweep(catalog: Path, recipe: Recipe, sweeps: list[str] | None, seeds: int, out: Path, device: str, as_json: bool) -> None:
    """Run `train --sweep` or `train --seeds`."""
    from sightline import store
    from sightline.commands import sweep as command

    keys = options.grid(sweeps)
    with progress(not as_json) as shown:
        study = command.sweep(
            catalog,
            recipe,
            keys,
            out,
            seeds=seeds,
            device=device,
            progress=shown,
            say=console.line_printer(True),
            cache=store.Cache(),
        )
    return console.print_json(json_output.of_sweep(study)) if as_json else _print_sweep(study)


def _print_sweep(study: Study) -> None:
    """Print a row per setting, then the conclusions."""
    data = study.data
    several = len(data["seeds"]) > 1
    stored = any(row["feature_bytes"] for row in data["settings"])
    header = (
        *(", ".join(data["keys"]) or "recipe", "accuracy", *(("range",) if several else ()), "seconds", "parameters"),
        *(("features", "memory") if stored else ()),
        "",
    )
    rows: list[tuple[Any, ...]] = []
    for row in data["settings"]:
        marks = ", ".join(mark for mark in (row["mark"], "the recipe" if row["default"] else "") if mark)
        if row["failed"]:
            rows.append((row["label"], *["–"] * (len(header) - 2), f"failed: {row['failed']}"))
            continue
        span = (f"{100 * row['accuracy_low']:.1f}–{100 * row['accuracy_high']:.1f}",) if several else ()
        cost: tuple[str, ...] = (f"{row['seconds']:.1f}", f"{row['parameters']:,}")
        if stored:
            memory = row["feature_bytes"]
            cost += ("–", "–") if memory is None else (f"{row['feature_width']:,}", f"{memory / 1e6:.1f} MB")
        rows.append((row["label"], f"{100 * row['accuracy']:.1f}", *span, *cost, marks))
    tables_output.print_table(header, rows)
    tables_output.print_conclusions(study)
