"""Studies as folders: a sweep or a search over recipes, every fit kept as it is finished, `study.json` written last."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import __version__, engine, report, studies
from sightline import catalog as catalogs
from sightline.commands.run import Say
from sightline.commands.train import train
from sightline.errors import DataError, ModelFileError, RequestError, SightlineError
from sightline.files import read_text
from sightline.inputs import read_predictions
from sightline.records import Catalog, Predictions, Progress, Recipe, read_study, silent
from sightline.records.run import RESULTS_VERSION
from sightline.runs import folder as folders
from sightline.runs import resume
from sightline.runs.plan import photos_name
from sightline.store import Cache, digest, plain, write_json, write_text
from sightline.studies import search_spaces, search_summary
from sightline.studies import tune as tuning
from sightline.training import process_group
from sightline.training.context import Context


@dataclass(frozen=True, slots=True)
class Study:
    """One finished folder of many fits.

    Args:
        folder: Where it lies.
        data: The content of `study.json`, which is written last.
    """

    folder: Path
    data: Mapping[str, Any]

    @property
    def best_recipe(self) -> Path:
        """The best recipe as TOML."""
        return self.folder / "best.toml"


@folders.releasing
def sweep(
    catalog: Catalog,
    recipe: Recipe,
    sweeps: Mapping[str, Sequence[Any]],
    out: str | Path | None = None,
    *,
    seeds: int = 1,
    device: str = "auto",
    progress: Progress = silent,
    say: Say = lambda line: None,
    cache: Cache | None = None,
) -> Study:
    """Carry a recipe out with some keys over several values, each under several seeds. The test split is not opened.

    Every fit is a run of its own below `out`; finished ones are taken as they are, an interrupted one goes on where it was
    kept, and a sweep with further values or seeds fits only these.

    Args:
        catalog: With or without splits; all fits have the same.
        recipe: What is changed.
        sweeps: Key → values, such as `{"augment.rotation": [0, 15]}`; several keys are a grid.
        out: The study's folder; one under `runs` if None.
        seeds: recipe.seed, the next, and so on.
        device, progress, cache: As everywhere.
        say: Given a line for each fit.

    Returns:
        The study, whose `data` holds the table, the paired tests and the verdict in words.

    Raises:
        RequestError: A key or a value is wrong, said before the first fit; or the folder holds another study.
        DataError: The photographs do not allow it, or every fit failed.
    """
    started = time.perf_counter()
    process_group.check_alone("a sweep")
    cache, device = Cache() if cache is None else cache, engine.choose_device(device)
    fits = studies.plan(recipe, sweeps, seeds)
    divided = _divided(catalog, recipe, cache, progress)
    for fit in fits:
        if fit.seed == recipe.seed:
            studies.check(fit.recipe, len(divided.usable().classes), cache)
            studies.check_threshold(fit.recipe, divided.usable().classes)
    asked = {"recipe": recipe, "data": _fingerprint(divided), "version": RESULTS_VERSION}
    identity = digest([asked, [f.recipe.id for f in fits]])
    folder = _claim(out, "sweep", divided, asked)
    earlier = _finished(folder, identity, [folder / f.name / "run.json" for f in fits])
    if earlier is not None:
        return earlier
    catalogs.save(divided, folder / "catalog.csv")
    keys, outcomes = list(sweeps), []
    for number, fit in enumerate(fits):
        progress("fits", number, len(fits))
        outcome = _carry_out(fit, divided, folder, device, progress, cache)
        outcomes.append(outcome)
        result = outcome.why if outcome.val is None else f"{_percent(outcome.val)}, {outcome.seconds:.1f} s"
        say(f"{studies.label(fit.setting, keys)}, seed {fit.seed}: {result}")
    progress("fits", len(fits), len(fits))
    found = studies.summarise(recipe, fits, outcomes)
    best = next(f for f in fits if f.setting == found["settings"][found["best"]]["setting"])
    write_text(folder / "best.toml", folders.toml(best.recipe))
    return _finish(folder, "sweep", identity, recipe, divided, found, started)


@folders.releasing
def tune(
    catalog: Catalog,
    recipe: Recipe | None = None,
    out: str | Path | None = None,
    *,
    trials: int = 40,
    budget_s: float = math.inf,
    max_parameters: float | None = None,
    device: str = "auto",
    progress: Progress = silent,
    say: Say = lambda line: None,
    cache: Cache | None = None,
) -> Study:
    """Search for a better recipe than the one given, which is always the first trial.

    Only training and validation images are ever touched: those of the test split are left out before anything is read.

    Args:
        catalog: With or without splits.
        recipe: Where the search starts; its method says what is searched. Its defaults if None.
        out: The study's folder; one under `runs` if None. The same call goes on with an interrupted search, and one with more
            trials or time continues a finished one.
        trials: In all.
        budget_s: How long this call may take.
        max_parameters: Networks with more are not fitted.
        device, progress, cache: As everywhere.
        say: Given a line for each trial.

    Returns:
        The study; `best_recipe` is the winner, `data` the trials, and how far they may be trusted.

    Raises:
        RequestError: A number or the recipe is wrong, its method has nothing to search, or the folder holds another study.
        DataError: The photographs do not allow it.
    """
    started = time.perf_counter()
    process_group.check_alone("a search")
    recipe = Recipe() if recipe is None else recipe
    _check_numbers(trials, budget_s, max_parameters)
    search_spaces.search_space_of(recipe)
    cache, device = Cache() if cache is None else cache, engine.choose_device(device)
    divided = _divided(catalog, recipe, cache, progress)
    kept = divided.rows(s in ("train", "val") for s in divided.column("split")).usable()
    if not len(kept):
        raise DataError("there are no usable images in the training split", "see `sightline scan` for what is left out")
    clusters = catalogs.together(kept, catalogs.find_duplicates(kept, cache=cache, progress=progress))
    context = Context(kept, clusters, kept.classes, cache, device, progress=progress)
    studies.check(recipe, len(kept.classes), cache)
    studies.check_threshold(recipe, kept.classes)
    asked = tuning.SearchLimits(trials, budget_s, max_parameters, tuning.image_size(context, recipe))
    claim = {"recipe": recipe, "data": kept.fingerprint(), "max_parameters": max_parameters, "version": RESULTS_VERSION}
    folder = _claim(out, "tune", divided, claim)
    catalogs.save(divided, folder / "catalog.csv")

    def keep(number: int, answers: Predictions) -> None:
        write_text(_answers(folder, number), answers.to_csv())

    def told(trial: tuning.Trial) -> None:
        result = trial.why or f"{100 * (trial.accuracy or 0):.1f} %, {trial.seconds:.1f} s"
        say(f"trial {trial.number}: {trial.state}, {result}  ({search_summary.params_text(trial.params)})")
        progress("trials", trial.number + 1, max(trials, trial.number + 1))

    storage = folder / "optuna.db"
    done = tuning.search(context, recipe, asked, storage, save=keep, on_trial=told)
    answers = {t.number: read_predictions(_answers(folder, t.number)) for t in done if t.state == tuning.COMPLETE}
    importances = search_summary.importance(storage)
    found = search_summary.summarise(done, answers, limits=asked, seed=recipe.seed, importances=importances)
    found["words"] += _unfinished(done, trials)
    best = next(t for t in done if t.number == found["best"])
    write_text(folder / "best.toml", folders.toml(best.recipe))
    return _finish(folder, "tune", digest([claim, trials]), recipe, divided, {**found, "asked": trials}, started)


def _unfinished(done: Sequence[tuning.Trial], trials: int) -> list[str]:
    """What to say of a search that made fewer trials than it was asked for."""
    made = tuning.counted(done)
    if made >= trials:
        return []
    if len(done) >= tuning.TRIES * trials:
        return [f"Only {made} of {len(done):,} proposals were new and small enough."]
    return [f"{made} of {trials} trials were made in the time given; the same command goes on from there."]


def _check_numbers(trials: int, budget_s: float, max_parameters: float | None) -> None:
    """Refuse numbers that cannot be right."""
    if not 1 <= trials <= tuning.MOST_TRIALS:
        raise RequestError(f"--trials cannot be {trials}", f"it lies between 1 and {tuning.MOST_TRIALS:,}")
    if not budget_s > 0:
        raise RequestError(f"a budget of {budget_s:g} s leaves no time", "name one such as --budget 10m")
    if max_parameters is not None and not max_parameters >= 1:
        raise RequestError(f"--max-parameters cannot be {max_parameters:g}", "write a number such as 2e6")


def _answers(folder: Path, number: int) -> Path:
    """Where the answers of a trial lie."""
    return folder / "trials" / f"{number:04d}.csv"


def _divided(catalog: Catalog, recipe: Recipe, cache: Cache, progress: Progress) -> Catalog:
    """The catalog with splits, as `train` makes them."""
    if any(catalog.column("split")):
        return catalog
    twins = catalogs.find_duplicates(catalog, cache=cache, progress=progress)
    return catalogs.split(catalog, seed=recipe.seed, clusters=twins, progress=progress)


def _fingerprint(divided: Catalog) -> str:
    """What a study's result depends on: not the test split."""
    return divided.rows(s in ("train", "val") for s in divided.column("split")).fingerprint()


def _claim(out: str | Path | None, kind: str, divided: Catalog, asked: Mapping[str, Any]) -> Path:
    """The study's folder, made or found to be of the same study.

    Raises:
        RequestError: It holds another one.
    """
    identity = digest([kind, asked])
    folder = Path(out) if out is not None else Path("runs") / f"{photos_name(str(divided.root))}-{kind}-{identity[:8]}"
    folders.lock(folder)
    file = folder / "plan.json"
    if file.is_file():
        try:
            before = json.loads(read_text(file))
        except ValueError as error:
            raise ModelFileError(f"{file} is damaged ({error})", "name another folder with -o") from error
        if before.get("id") != identity:
            raise RequestError(f"{folder} holds {_what_else(before, kind, asked)}", "name another folder with -o")
        return folder
    if (folder / "run.json").is_file():
        raise RequestError(f"{folder} holds a run", "name another folder with -o")
    write_json(file, {"kind": kind, "id": identity, **plain(asked)})
    return folder


def _what_else(before: Mapping[str, Any], kind: str, asked: Mapping[str, Any]) -> str:
    """What a folder holds that is not the study that is asked for."""
    if before.get("kind") != kind:
        return f"a study of another kind ({before.get('kind')})"
    others = {"data": "from other images or splits", "recipe": "of another recipe", "version": "by another version"}
    for key, words in others.items():
        if before.get(key) != plain(asked[key]):
            return f"a study {words}"
    return "a study with another --max-parameters"


def _finished(folder: Path, identity: str, files: Sequence[Path]) -> Study | None:
    """The study in a folder, if it is whole and the same; its page is written again where it is missing."""
    try:
        data = json.loads(read_text(folder / "study.json"))
    except (OSError, ValueError):
        return None
    if data.get("id") != identity or not all(f.is_file() for f in files):
        return None
    if not (folder / "report.html").is_file():
        report.write_study(read_study(data), folder / "report.html")
    return Study(folder, data)


def _carry_out(
    fit: studies.Fit, divided: Catalog, folder: Path, device: str, progress: Progress, cache: Cache
) -> studies.Outcome:
    """One fit as a run below the study; what fails for a reason that the user can understand is an outcome too."""
    place = folder / fit.name
    begun = (place / resume.FOLDER).is_dir()  # and not finished: it goes on where it was kept
    try:
        run = train(divided, fit.recipe, place, resume=begun, device=device, progress=progress, cache=cache)
    except RequestError:
        raise
    except SightlineError as error:
        return studies.Outcome(None, why=error.message)
    rung = run.data["ladder"][0]
    return studies.Outcome(
        val=read_predictions(run.held_out_file),
        seconds=float(rung["seconds"]),
        parameters=int(rung["parameters"]),
        estimate=str(run.data["val_estimate"]),
    )


def _percent(val: Predictions) -> str:
    return f"{100 * float(np.mean(val.y_pred == val.y_true)):.1f} %"


def _finish(
    folder: Path, kind: str, identity: str, recipe: Recipe, divided: Catalog, found: Mapping[str, Any], started: float
) -> Study:
    """Write `study.json`, and from it the page."""
    data = plain(
        {
            "version": 1,
            "sightline": __version__,
            "kind": kind,
            "name": folder.name,
            "created": folders.now(),
            "id": identity,
            "photos": str(divided.root),
            "recipe": recipe,
            **found,
            "seconds": time.perf_counter() - started,
        }
    )
    record = read_study(data)
    write_json(folder / "study.json", data)
    report.write_study(record, folder / "report.html")
    return Study(folder, data)
