"""Searches: Optuna proposes, the methods fit, every trial is kept at once, so that a killed search goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.errors import SightlineError
from sightline.records import Predictions, Recipe
from sightline.schema import from_json
from sightline.search_space import Choice, Space, Suggest
from sightline.store import plain, stream
from sightline.studies import parameter_count, search_spaces
from sightline.studies.recipe_edit import network_of
from sightline.training import methods
from sightline.training.context import VAL, Candidate, Context, decided

if TYPE_CHECKING:
    import optuna

COMPLETE, PRUNED, REPEATED, REJECTED, FAILED = "complete", "pruned", "repeated", "rejected", "failed"
MOST_TRIALS = 10_000
TRIES = 5
"""Proposals that are too large, or were made before, cost nothing and don't count; so many times the trials are drawn."""
STARTUP = 8
"""Trials drawn at random before the sampler models them, the default included."""
_TENTHS = 10
"""A training reports so many times at most, by the share of its epochs, so that long and short ones can be compared."""
_WARM_UP = {True: 3, False: 2}
"""Nothing is given up before so many tenths: a training with a high rate begins like any other."""
_NOISE = 2.0
"""How many standard errors below the best one at the same point a fit must be to be given up."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One proposal and what became of it.

    Args:
        number: From 0, which is the recipe that the search started from.
        recipe: What was fitted.
        params: What was proposed, by the names of `spaces`.
        state: complete, pruned (given up on the way), repeated (of a recipe that was fitted already), rejected (too many
            parameters), or failed.
        accuracy, log_loss: On held-out images; None where it is not complete.
        seconds: What it took.
        parameters: Of network and head.
        estimate: How the accuracy came about.
        why: Why it is not complete.
    """

    number: int
    recipe: Recipe
    params: Mapping[str, Any]
    state: str
    accuracy: float | None = None
    log_loss: float | None = None
    seconds: float = 0.0
    parameters: int = 0
    estimate: str = VAL
    why: str | None = None


class _GivenUp(Exception):  # noqa: N818 - no error: a trial that is not worth going on with
    """Raised out of a fit that can hardly win any more."""


class _TimeUp(Exception):  # noqa: N818 - no error either
    """Raised out of a fit when the budget is spent."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How far a search goes.

    Args:
        trials: In all, those of earlier calls included.
        budget_s: How long this call may take.
        max_parameters: What has more is not fitted.
        image_size: What the network sees where the recipe names no size, in pixels.
    """

    trials: int = 40
    budget_s: float = math.inf
    max_parameters: float | None = None
    image_size: int = 64


def search(
    context: Context,
    recipe: Recipe,
    asked: Asked,
    storage: Path,
    *,
    keep: Callable[[int, Predictions], None],
    told: Callable[[Trial], None],
) -> list[Trial]:
    """Fit the recipe itself, then what Optuna proposes, until trials or time are spent.

    Every draw is a function of the recipe's seed and of how many trials are finished: a search that was interrupted ends with
    the same trials as one that was not.

    Args:
        work: Training and validation images; what it holds of others is not looked at.
        recipe: Trial 0.
        asked: How far.
        storage: The SQLite file; trials that are in it are not fitted again.
        keep: Stores the answers of a trial, before the trial counts as finished.
        told: Given every trial, the earlier ones too.

    Returns:
        All trials in order.

    Raises:
        SightlineError: The file is damaged, or cannot be written.
    """
    started = time.perf_counter()
    with quiet() as optuna, _named(optuna, storage):
        study = _open(optuna, storage, recipe.method)
        done = _finished(optuna, study)
        for trial in done:
            told(trial)
        found = search_spaces.here(recipe, asked.image_size, asked.max_parameters, context.cache)
        while _wanted(done, asked) and _time_left(done, asked, started):
            timed = _timed(context, started + asked.budget_s) if done else context
            try:
                trial = _next(optuna, study, timed, recipe, asked, found, done, keep)
            except _TimeUp:
                _set_aside(optuna, study)
                break
            done.append(trial)
            told(trial)
    return done


@contextlib.contextmanager
def _named(optuna: Any, storage: Path) -> Iterator[None]:
    """Turn what the database raises, of a full disk or a damaged file, into an error that names the file."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = str(getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error)
        hint = "make room on its disk, or name another folder with -o"
        raise SightlineError(f"the search's database {storage} cannot be read or written ({reason})", hint) from error


def image_size(context: Context, recipe: Recipe) -> int:
    """What the recipe's network sees without a search, in pixels; only `scratch` asks."""
    if recipe.method != "scratch" or recipe.image_size is not None:
        return recipe.image_size or 64
    from sightline.training.methods import scratch

    return scratch.own_image_size(context, network_of(recipe))


def _timed(context: Context, deadline: float) -> Context:
    """Work that ends when the time is up: a trial that is cut short would lose for that reason alone, so it is no trial."""

    def progress(stage: str, finished: int, total: int) -> None:
        check()
        context.progress(stage, finished, total)

    def check(*_: float) -> None:
        if time.perf_counter() > deadline:
            raise _TimeUp

    return dataclasses.replace(context, progress=progress, watch=check)


def _wanted(done: Sequence[Trial], asked: Asked) -> bool:
    """Whether another trial is asked for, and may still be drawn."""
    return made(done) < asked.trials and len(done) < TRIES * asked.trials


def made(done: Sequence[Trial]) -> int:
    """How many trials count."""
    return sum(t.state not in (REJECTED, REPEATED) for t in done)


def _time_left(done: Sequence[Trial], asked: Asked, started: float) -> bool:
    """Whether a trial of the usual length still fits; the first one always does."""
    usual = float(np.median([t.seconds for t in done if t.state not in (REJECTED, REPEATED)])) if done else 0.0
    return not done or time.perf_counter() - started + usual <= asked.budget_s


def _next(
    optuna: Any,
    study: optuna.Study,
    context: Context,
    recipe: Recipe,
    asked: Asked,
    found: search_spaces.SearchContext,
    done: Sequence[Trial],
    keep: Callable[[int, Predictions], None],
) -> Trial:
    """Propose one recipe, fit it, and write down what became of it."""
    number = len(done)
    seed = int(stream(recipe.seed, "tune", number).integers(2**31))
    study.sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=False
    )
    asking = study.ask()
    proposed = recipe if number == 0 else search_spaces.propose(recipe, _suggest(asking), found)
    before = next((t for t in done if t.recipe == proposed and t.state in (COMPLETE, PRUNED, FAILED)), None)
    if before is not None:
        why = f"the same as trial {before.number}"
        trial = dataclasses.replace(before, number=number, state=REPEATED, seconds=0.0, why=why)
    else:
        trial = _fit(study, context, proposed, asked, number, asking, keep)
    trial = dataclasses.replace(trial, params=dict(asking.params))
    if trial.accuracy is not None and trial.log_loss is not None:
        # The log loss decides between equals, and is never worth an image: it is at most 35.
        asking.set_user_attr("value", trial.accuracy - trial.log_loss / (40 * _images(context)))
    asking.set_user_attr("trial", json.dumps(plain(trial), sort_keys=True))
    _tell(optuna, study, asking.number, asking.user_attrs)
    return trial


def _tell(optuna: Any, study: Any, number: int, known: Mapping[str, Any]) -> None:
    """Close a trial with what was written down of it; without that, it was interrupted."""
    states = optuna.trial.TrialState
    if "value" in known and "trial" in known:
        study.tell(number, known["value"])
    else:
        pruned = "trial" in known and json.loads(known["trial"])["state"] != FAILED
        study.tell(number, state=states.PRUNED if pruned else states.FAIL)


def _images(context: Context) -> int:
    """The most held-out images that there can be."""
    return max(1, len(context.split("train", "val")))


def _suggest(asking: Any) -> Suggest:
    """Optuna's trial as what a space is drawn with."""

    def suggest(name: str, space: Space) -> Any:
        if isinstance(space, Choice):
            return asking.suggest_categorical(name, list(space.options))
        if space.whole:
            return asking.suggest_int(name, int(space.low), int(space.high), log=space.log)
        return float(f"{asking.suggest_float(name, space.low, space.high, log=space.log):.4g}")

    return suggest


def _fit(
    study: Any,
    context: Context,
    recipe: Recipe,
    asked: Asked,
    number: int,
    asking: Any,
    keep: Callable[[int, Predictions], None],
) -> Trial:
    """Fit one recipe, unless it is too large; a failure is a result too."""
    started = time.perf_counter()
    trial = Trial(number, recipe, {}, FAILED)
    try:
        count = parameter_count.parameters(recipe, len(context.classes), asked.image_size, context.cache)
        trial = dataclasses.replace(trial, parameters=count)
        if number and asked.max_parameters is not None and count > asked.max_parameters:
            return dataclasses.replace(trial, state=REJECTED, why=f"{count:,} parameters")
        best = decided(methods.fit(_watched(study, context, recipe, asking), recipe)[0], recipe.positive, recipe.threshold)
    except _GivenUp as reason:
        return dataclasses.replace(trial, state=PRUNED, seconds=time.perf_counter() - started, why=str(reason))
    except SightlineError as error:
        if number == 0:
            raise
        return dataclasses.replace(trial, seconds=time.perf_counter() - started, why=error.message)
    keep(number, best.val)
    return _complete(trial, best, time.perf_counter() - started)


def _complete(trial: Trial, best: Candidate, seconds: float) -> Trial:
    """A trial that was fitted to the end."""
    return dataclasses.replace(
        trial,
        state=COMPLETE,
        accuracy=best.val_accuracy,
        log_loss=best.val_log_loss,
        seconds=seconds,
        estimate=best.estimate,
    )


def _watched(study: Any, context: Context, recipe: Recipe, asking: Any) -> Context:
    """Work that is given up where Optuna's pruner says so and the best trial was clearly better at the same point."""
    reported: set[int] = set()
    trains = _trains(recipe.method)
    held_out = len(context.split("val")) if trains else _images(context)

    def hopeless(step: int, share: float, accuracy: float) -> bool:
        others = (t.intermediate_values.get(step, 0.0) for t in study.get_trials(deepcopy=False) if t.state.is_finished())
        best, n = max(others, default=0.0), held_out * (1.0 if trains else share)
        likely = (best * n + 1) / (n + 2)  # all right on a few images is no certainty
        error = math.sqrt(likely * (1 - likely) / max(1.0, n))
        return bool(accuracy < best - _NOISE * error and asking.should_prune())

    def watch(share: float, accuracy: float) -> None:
        if context.watch is not None:
            context.watch(share, accuracy)
        step = int(share * _TENTHS + 1e-9)
        if step in reported or share >= 1:
            return
        reported.add(step)
        asking.report(accuracy, step)
        if hopeless(step, share, accuracy):
            raise _GivenUp(f"given up after {share:.0%} at an accuracy of {accuracy:.3f}")

    return dataclasses.replace(context, watch=watch)


@contextlib.contextmanager
def quiet() -> Iterator[Any]:
    """Optuna without its own lines on standard error."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", message="Some regimes", category=UserWarning)
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def _open(optuna: Any, storage: Path, method: str) -> Any:
    """The study in a file, made where it is absent. Trainings are compared with the median, folds with the worst quarter."""
    trains = _trains(method)
    keep = 50.0 if trains else 75.0
    pruner = optuna.pruners.PercentilePruner(keep, n_startup_trials=STARTUP, n_warmup_steps=_WARM_UP[trains])
    place = optuna.storages.RDBStorage(f"sqlite:///{storage.resolve().as_posix()}")
    return optuna.create_study(storage=place, study_name="tune", direction="maximize", pruner=pruner, load_if_exists=True)


def _trains(method: str) -> bool:
    """Whether a method reports after epochs, on validation images; else after a fold."""
    return method not in ("features", "shortcut")


def _set_aside(optuna: Any, study: Any) -> None:
    """Close what an interruption left open."""
    for frozen in study.get_trials(deepcopy=False):
        if not frozen.state.is_finished():
            _tell(optuna, study, frozen.number, frozen.user_attrs)


def _finished(optuna: Any, study: Any) -> list[Trial]:
    """The trials that were written down; one that was interrupted is set aside."""
    _set_aside(optuna, study)
    kept = (t.user_attrs["trial"] for t in study.get_trials(deepcopy=False) if "trial" in t.user_attrs)
    return [from_json(Trial, json.loads(text), "trial") for text in kept]
