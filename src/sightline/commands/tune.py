"""Hyperparameter search: try recipes proposed by Optuna, on train and val only."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sightline import catalog as catalogs
from sightline import engine, studies
from sightline.commands import study
from sightline.commands.study import Study
from sightline.errors import DataError, RequestError
from sightline.inputs import read_predictions
from sightline.records import Catalog, Predictions, Progress, Recipe, silent
from sightline.records.versions import RESULTS_VERSION
from sightline.runs import executor
from sightline.runs import folder as folders
from sightline.runs.dataset import as_recipe, open_catalog, with_splits
from sightline.store import Cache, digest, write_text
from sightline.studies import search_spaces, search_summary
from sightline.studies import tune as tuning
from sightline.training import process_group
from sightline.training.context import Context


@folders.releasing
def tune(
    catalog: Catalog | str | Path,
    recipe: Recipe | str | Path | None = None,
    out: str | Path | None = None,
    *,
    trials: int = 40,
    budget_s: float = math.inf,
    max_parameters: float | None = None,
    concurrent: int = 1,
    device: str = "auto",
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
    cache: Cache | None = None,
) -> Study:
    """Search for a better recipe than the given one, which is the first trial.

    Images of the test split are left out before anything is read.

    Args:
        catalog: Catalog, or the path of one, or a folder of photographs.
        recipe: Start of the search; its method sets the search space. Default: `Recipe()`.
        out: Study folder to write; one below `runs` if None. The same call resumes an interrupted search; a call with more
            trials or time continues a finished one.
        trials: Total number of trials, those of earlier calls included.
        budget_s: Time limit of this call in seconds.
        max_parameters: Recipes with more parameters are skipped.
        concurrent: Number of recipes that are proposed together, and on a cluster fitted at the same time.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Progress callback.
        say: Function called with a line per trial.
        cache: Cache. Default: the user's cache.

    Returns:
        The study. `best_recipe` is the path of the best recipe; `data` holds the trials and the uncertainty of the gain.

    Raises:
        RequestError: If a number or the recipe is invalid, the method has no search space, or the folder holds another study.
        DataError: If there are no usable training images.
    """
    started = time.perf_counter()
    process_group.check_alone("a search")
    recipe = as_recipe(recipe)
    _check_numbers(trials, budget_s, max_parameters, concurrent)
    search_spaces.search_space_of(recipe)
    cache, device = Cache() if cache is None else cache, engine.choose_device(device)
    catalog, _ = with_splits(open_catalog(catalog, progress), recipe.seed, cache, progress)
    rows = catalog.rows(s in ("train", "val") for s in catalog.column("split")).usable()
    if not len(rows):
        raise DataError("the training split has no usable images", "`sightline scan` lists the images that were left out")
    clusters = catalogs.together(rows, catalogs.find_duplicates(rows, cache=cache, progress=progress))
    context = Context(rows, clusters, rows.classes, cache, device, progress=progress)
    studies.check(recipe, len(rows.classes), cache)
    studies.check_threshold(recipe, rows.classes)
    limits = tuning.SearchLimits(trials, budget_s, max_parameters, tuning.image_size(context, recipe), concurrent)
    request = {"recipe": recipe, "data": rows.fingerprint(), "max_parameters": max_parameters, "version": RESULTS_VERSION}
    folder = study.claim_folder(out, "tune", catalog, request)
    catalogs.save(catalog, folder / "catalog.csv")

    def save(number: int, predictions: Predictions) -> None:
        write_text(_predictions_file(folder, number), predictions.to_csv())

    def report_trial(trial: tuning.Trial) -> None:
        result = trial.why or f"{100 * (trial.accuracy or 0):.1f} %, {trial.seconds:.1f} s"
        say(f"trial {trial.number}: {trial.state}, {result}  ({search_summary.params_text(trial.params)})")
        progress("trials", trial.number + 1, max(trials, trial.number + 1))

    storage = folder / "optuna.db"
    done = executor.current().search(context, recipe, limits, storage, save=save, on_trial=report_trial)
    complete = [t.number for t in done if t.state == tuning.COMPLETE]
    predictions = {number: read_predictions(_predictions_file(folder, number)) for number in complete}
    importances = search_summary.importance(storage)
    results = search_summary.summarise(done, predictions, limits=limits, seed=recipe.seed, importances=importances)
    words = [*results.words, *_unfinished(done, trials)]
    results = dataclasses.replace(results, words=words, trials_requested=trials)
    best = next(t for t in done if t.number == results.best)
    write_text(folder / "best.toml", folders.toml(best.recipe))
    return study.finish(folder, results, digest([request, trials]), catalog=catalog, started=started)


def _unfinished(done: Sequence[tuning.Trial], trials: int) -> list[str]:
    """Return a sentence on a search with fewer trials than requested."""
    made = tuning.counted(done)
    if made >= trials:
        return []
    if len(done) >= tuning.TRIES * trials:
        return [f"Only {made} of {len(done):,} proposals were new and within the size limit."]
    return [f"{made} of {trials} trials fit into the time limit; the same command continues the search."]


def _check_numbers(trials: int, budget_s: float, max_parameters: float | None, concurrent: int) -> None:
    """Check the numbers.

    Raises:
        RequestError: If one is out of range.
    """
    if not 1 <= trials <= tuning.MOST_TRIALS:
        raise RequestError(f"--trials cannot be {trials}", f"it must be between 1 and {tuning.MOST_TRIALS:,}")
    if not budget_s > 0:
        raise RequestError(f"the budget must be more than 0 s, not {budget_s:g} s", "write --budget 10m")
    if not 1 <= concurrent <= tuning.MOST_TRIALS:
        raise RequestError(f"--concurrent cannot be {concurrent}", "it is the number of recipes fitted at a time, such as 4")
    if max_parameters is not None and not max_parameters >= 1:
        raise RequestError(f"--max-parameters cannot be {max_parameters:g}", "write a number such as 2e6")


def _predictions_file(folder: Path, number: int) -> Path:
    """Return the path of the predictions of a trial."""
    return folder / "trials" / f"{number:04d}.csv"
