"""Cross-validation of a recipe as a run folder; finished folds are saved, so that an interrupted run can be resumed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sightline import catalog as catalogs
from sightline import engine, evaluation, report, studies
from sightline.classifier import environment
from sightline.commands.run import reuse
from sightline.errors import RequestError, SightlineError
from sightline.files import read_text
from sightline.inputs import read_predictions
from sightline.records import Catalog, Predictions, Progress, Recipe, Run, RunRecord, silent
from sightline.records.candidates import ThresholdChoice
from sightline.records.scores import Metric
from sightline.records.versions import RESULTS_VERSION
from sightline.runs import error_analysis, executor
from sightline.runs import folder as folders
from sightline.runs import record as records
from sightline.runs.dataset import as_recipe, open_catalog, taking_part
from sightline.runs.plan import photos_name
from sightline.store import Cache, digest, write_json, write_text
from sightline.studies import cross_validation as folding
from sightline.studies.cross_validation import Fitted, Part
from sightline.training import methods
from sightline.training.context import Context

KEPT = "folds"
"""Subfolder with the finished folds of an unfinished cross-validation."""


@folders.releasing
def cross_validate(
    catalog: Catalog | str | Path,
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    folds: int = 5,
    repeats: int = 1,
    seed: int | None = None,
    device: str = "auto",
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
    cache: Cache | None = None,
) -> Run:
    """Predict every image with a classifier trained without it, and score the predictions.

    Test images are not used. Duplicates and groups stay in one fold. Choices of the recipe (head, hyperparameters, epoch,
    threshold) are repeated inside each fold.

    Args:
        catalog: Catalog, or the path of one, or a folder of photographs. Uses train and val if there are splits, else all.
        recipe: Recipe, or the path of its TOML file.
        out: Run folder to write; one below `runs` if None. The same call resumes an interrupted cross-validation.
        folds: Number of folds.
        repeats: Number of repetitions with other folds.
        seed: Random seed of the folds. Default: that of the recipe.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Progress callback.
        say: Function called with a line per fold.
        cache: Cache. Default: the user's cache.

    Returns:
        A run. `data["val"]` holds the scores, `data["crossvalidation"]` those of each fold. Predictions are in
        `predictions/cross_validated.csv`, those of further repeats in `cross_validated-2.csv` and so on.

    Raises:
        RequestError: If the recipe or a number is invalid, or the folder holds another run.
        DataError: If fewer than two classes have usable images.
    """
    started = time.perf_counter()
    cache, device = Cache() if cache is None else cache, engine.choose_device(device)
    recipe = as_recipe(recipe)
    seed = recipe.seed if seed is None else seed
    evaluation.check_criterion(recipe.threshold)
    folding.check(recipe, folds, repeats)
    catalog = open_catalog(catalog, progress)
    kept, closed = taking_part(catalog)
    twins = catalogs.find_duplicates(kept, cache=cache, progress=progress)
    context = Context(kept, catalogs.together(kept, twins), kept.classes, cache, device, progress=progress)
    studies.check(recipe, len(kept.classes), cache)
    studies.check_threshold(recipe, kept.classes)
    folding.check_unseen(context, recipe)
    asked = folding.parts(context, folds, repeats, seed)
    request = ["crossvalidate", recipe.id, kept.fingerprint(), folds, repeats, seed, RESULTS_VERSION]
    identity = digest([*request, *methods.source_hashes(recipe)])
    folder = Path(out) if out is not None else Path("runs") / f"{photos_name(str(catalog.root))}-folds-{identity[:8]}"
    earlier = _claim(folder, identity)
    if earlier is not None:
        return earlier
    made = max(p.fold for p in asked) + 1
    if made < folds:
        say(f"note: using {made} folds: no class has more images (duplicates count once)")
    for name in folding.never_held_out(context, asked):
        say(f"note: {name!r} has a single image or group of duplicates: it is always used for training and never tested")
    if closed:
        say(f"note: cross-validating on train + val; the {closed:,} test images are not used")
    exact = _with_positive(recipe, context)
    found = [
        (part, _carry_out(context, exact, part, folder=folder, count=len(asked), say=say, progress=progress)) for part in asked
    ]
    tables = folding.gathered(kept, found)
    record = dataclasses.replace(_describe(kept, exact, found, tables, context, closed=closed), id=identity, seed=seed)
    record = dataclasses.replace(record, dataset=records.dataset_summary(kept, twins))
    _write(folder, kept, recipe, tables, found)
    folders.write_curves(folder, "cross_validated", tables[0], record.val, recipe.threshold)
    record = records.with_environment(record, environment(device), time.perf_counter() - started)
    done = folders.finish(folder, record)
    shutil.rmtree(folder / KEPT, ignore_errors=True)
    report.write_report([done], folder / "report.html")
    return done


def _with_positive(recipe: Recipe, context: Context) -> Recipe:
    """Return the recipe with a positive class, by default the less frequent one, so that it is the same in all folds."""
    if recipe.positive is not None or len(context.classes) != 2:
        return recipe
    known = Predictions(tuple(context.catalog.paths), context.classes, context.labels, np.zeros((len(context.labels), 2)))
    return dataclasses.replace(recipe, positive=evaluation.rarer_class(known))


def _claim(folder: Path, identity: str) -> Run | None:
    """Return the finished run of the same request in a folder; None if it still has to be made.

    Raises:
        RequestError: If the folder holds something else.
    """
    folders.lock(folder)
    earlier = reuse_without_classifier(folder)
    if earlier is not None and earlier.data.get("id") == identity:
        return earlier
    if (folder / "run.json").is_file() or (folder / "study.json").is_file():
        raise RequestError(f"{folder} holds another run", "name another folder with -o")
    plan = folder / KEPT / "plan.json"
    try:
        same = json.loads(read_text(plan)).get("id") == identity
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:
        if plan.is_file():
            raise RequestError(
                f"{folder} holds an unfinished cross-validation of another recipe, other images or other folds",
                "name another folder with -o",
            )
        write_json(plan, {"id": identity})
    return None


def reuse_without_classifier(folder: Path) -> Run | None:
    """Return the finished cross-validation in a folder, which has predictions and no classifier; None if there is none."""
    if (folder / "classifier.safetensors").is_file():
        return reuse(folder)
    try:
        done = Run.load(folder)
    except SightlineError:
        return None
    if not (folder / "predictions" / "cross_validated.csv").is_file():
        return None
    if not (folder / "report.html").is_file():
        report.write_report([done], folder / "report.html")
    return done


def _carry_out(
    context: Context, recipe: Recipe, part: Part, folder: Path, count: int, say: Callable[[str], None], progress: Progress
) -> Fitted:
    """Return the predictions of one fold, loaded if it was finished before."""
    table, facts = (folder / KEPT / f"{part.name}.{suffix}" for suffix in ("csv", "json"))
    if facts.is_file() and table.is_file():
        try:
            told = json.loads(read_text(facts))
            return Fitted(_with_errors(read_predictions(table), told["errors"]), told["facts"])
        except (SightlineError, ValueError, KeyError):
            say(f"fold {part.name} is damaged and is trained again")
    done = part.repeat * count + part.fold
    progress("folds", done, 0)
    fitted = executor.current().fit_fold(context, recipe, part)
    write_text(table, fitted.answers.to_csv())
    write_json(facts, {"facts": fitted.facts, "errors": fitted.answers.errors})
    right = float((fitted.answers.y_pred == fitted.answers.y_true).mean())
    say(
        f"{part.name}: {100 * right:.1f} % of {len(fitted.answers):,}, {fitted.facts['label']}, {fitted.facts['seconds']:.1f} s"
    )
    return fitted


def _with_errors(answers: Predictions, errors: dict[str, str]) -> Predictions:
    return dataclasses.replace(answers, errors=errors)


def _describe(
    kept: Catalog,
    recipe: Recipe,
    found: list[tuple[Part, Fitted]],
    tables: list[Predictions],
    context: Context,
    *,
    closed: int,
) -> RunRecord:
    """Return the record except identity, images, times and environment; `closed` test images were left out."""
    summary = folding.summarise(tables, found, context.cluster, kept.paths)
    first = tables[0]
    score = records.scores(first, recipe.positive, folders.clusters_of(kept, context.cluster, first))
    assert score is not None
    over_all = Metric(summary.accuracy, summary.accuracy_low, summary.accuracy_high)
    heads = [f"{name} ({n} of {len(found)})" if len(summary.heads) > 1 else name for name, n in summary.heads.items()]
    times = f", {summary.repeats} repeats" if summary.repeats > 1 else ""
    parts = "train+val" if closed or any(kept.column("split")) else "all images"
    problems = records.file_problems(first.errors)
    return dataclasses.replace(
        records.begin("crossvalidate", photos_name(str(kept.root))),
        photos=str(kept.root),
        root=kept.root.as_posix(),
        classes=first.classes,
        positive=score.positive,
        threshold=ThresholdChoice(
            criterion=recipe.threshold,
            positive=score.positive,
            by_fold=[f.facts["threshold"] for _, f in found] if first.threshold is not None else [],
        ),
        method=recipe.method,
        backbone=recipe.backbone,
        head=", ".join(heads),
        val=dataclasses.replace(score, metrics={**score.metrics, "accuracy": over_all}),
        val_estimate=f"CV ({parts}, {summary.folds} folds{times})",
        predictions_in="cross_validated",
        cross_validation=dataclasses.replace(summary, test_images=closed),
        undecodable={"val": problems} if problems else {},
        mistakes=error_analysis.mistakes_of(first),
        mistakes_in="cross_validated",
    )


def _write(folder: Path, kept: Catalog, recipe: Recipe, tables: list[Predictions], found: list[tuple[Part, Fitted]]) -> None:
    """Write catalog, recipe, predictions, and the fold of every image."""
    catalogs.save(kept, folder / "catalog.csv")
    write_text(folder / "recipe.toml", folders.toml(recipe))
    for number, table in enumerate(tables, 1):
        name = "cross_validated.csv" if number == 1 else f"cross_validated-{number}.csv"
        write_text(folder / "predictions" / name, table.to_csv())
    paths = kept.paths
    rows = [{"path": paths[i], "repeat": p.repeat + 1, "fold": p.fold + 1} for p, _ in found for i in p.held.tolist()]
    write_text(folder / "folds.csv", folders.table(rows))
