"""Hyperparameter search: Optuna proposes recipes, the methods fit them; trials are saved at once, so a search can resume."""

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
from typing import Any

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

COMPLETE, PRUNED, REPEATED, REJECTED, FAILED = "complete", "pruned", "repeated", "rejected", "failed"
MOST_TRIALS = 10_000
TRIES = 5
"""Maximum number of proposals per trial: repeated and too large ones cost no time and do not count as trials."""
STARTUP = 8
"""Number of trials drawn at random before the sampler models them, the starting recipe included."""
_TENTHS = 10
"""Number of points, by the fraction of a fit that is done, at which long and short fits are compared."""
_WARM_UP = {True: 3, False: 2}
"""Method trains by epochs → number of points before which no fit is pruned."""
_NOISE = 2.0
"""A fit is pruned only if it is this many standard errors below the best one at the same point."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One proposed recipe and its result.

    Args:
        number: Index from 0; trial 0 is the recipe that the search started from.
        recipe: The recipe.
        params: The drawn values, by the names of the search space.
        state: complete, pruned (stopped early), repeated (fitted before), rejected (too many parameters), or failed.
        accuracy, log_loss: On held-out images; None if the trial is not complete.
        seconds: Wall-clock time, in seconds.
        parameters: Number of parameters of network and head.
        estimate: How the held-out images were chosen, such as by cross-validation.
        why: Reason why it is not complete.
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


class _Pruned(Exception):  # noqa: N818 - not an error
    """Raised inside a fit that is unlikely to become the best."""


class _TimeUp(Exception):  # noqa: N818 - not an error
    """Raised inside a fit when the time budget is used up."""


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Limits of a search.

    Args:
        trials: Total number of trials, those of earlier calls included.
        budget_s: Time budget of this call, in seconds.
        max_parameters: Maximum number of parameters of a fitted recipe.
        image_size: Side of the network's input if the recipe sets none, in pixels.
    """

    trials: int = 40
    budget_s: float = math.inf
    max_parameters: float | None = None
    image_size: int = 64


def search(
    context: Context,
    recipe: Recipe,
    limits: SearchLimits,
    storage: Path,
    *,
    save: Callable[[int, Predictions], None],
    on_trial: Callable[[Trial], None],
) -> list[Trial]:
    """Fit the recipe itself, then Optuna's proposals, until the trials or the time are used up.

    Every draw depends only on the recipe's seed and the number of finished trials, so an interrupted search ends with the same
    trials as an uninterrupted one.

    Args:
        context: Training and validation images; images of other splits are ignored.
        recipe: The starting recipe, trial 0.
        limits: Limits of the search.
        storage: SQLite file; trials stored in it are not fitted again.
        save: Stores the predictions of a trial; called before the trial counts as finished.
        on_trial: Called with every trial, stored ones included.

    Returns:
        All trials in order.

    Raises:
        SightlineError: If the file is damaged, or cannot be written.
    """
    started = time.perf_counter()
    with quiet() as optuna, _database_errors(optuna, storage):
        study = _open(optuna, storage, recipe.method)
        done = _finished(optuna, study)
        for trial in done:
            on_trial(trial)
        space = search_spaces.here(recipe, limits.image_size, limits.max_parameters, context.cache)
        while _more_trials(done, limits) and _time_left(done, limits, started):
            timed = _with_deadline(context, started + limits.budget_s) if done else context
            current = _Search(optuna=optuna, study=study, context=timed, recipe=recipe, limits=limits, space=space, save=save)
            try:
                trial = current.next_trial(done)
            except _TimeUp:
                _close_interrupted(optuna, study)
                break
            done.append(trial)
            on_trial(trial)
    return done


@contextlib.contextmanager
def _database_errors(optuna: Any, storage: Path) -> Iterator[None]:
    """Convert errors of the database (full disk, damaged file) into one that names the file."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = str(getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error)
        hint = "free space on its disk, or choose another folder with -o"
        raise SightlineError(f"the search's database {storage} cannot be read or written ({reason})", hint) from error


def image_size(context: Context, recipe: Recipe) -> int:
    """Return the side of the network's input without a search, in pixels; only `scratch` uses it."""
    if recipe.method != "scratch" or recipe.image_size is not None:
        return recipe.image_size or 64
    from sightline.training.methods import scratch

    return scratch.own_image_size(context, network_of(recipe))


def _with_deadline(context: Context, deadline: float) -> Context:
    """Return a context whose fits stop when the time is up; such a trial is dropped, since it could only lose."""

    def progress(stage: str, finished: int, total: int) -> None:
        check()
        context.progress(stage, finished, total)

    def check(*_: float) -> None:
        if time.perf_counter() > deadline:
            raise _TimeUp

    return dataclasses.replace(context, progress=progress, watch=check)


def _more_trials(done: Sequence[Trial], limits: SearchLimits) -> bool:
    """Return whether another trial may be drawn."""
    return counted(done) < limits.trials and len(done) < TRIES * limits.trials


def counted(done: Sequence[Trial]) -> int:
    """Return the number of trials that count: all but rejected and repeated ones."""
    return sum(t.state not in (REJECTED, REPEATED) for t in done)


def _time_left(done: Sequence[Trial], limits: SearchLimits, started: float) -> bool:
    """Return whether a trial of median length fits in the remaining time; the first one always does."""
    usual = float(np.median([t.seconds for t in done if t.state not in (REJECTED, REPEATED)])) if done else 0.0
    return not done or time.perf_counter() - started + usual <= limits.budget_s


@dataclass(frozen=True, slots=True)
class _Search:
    """A search in progress.

    Args:
        optuna: The module.
        study: Optuna's study.
        context: Training and validation images.
        recipe: The starting recipe.
        limits: Limits of the search.
        space: Backbones and image size available to it.
        save: Stores the predictions of a trial.
    """

    optuna: Any
    study: Any
    context: Context
    recipe: Recipe
    limits: SearchLimits
    space: search_spaces.SearchContext
    save: Callable[[int, Predictions], None]

    def next_trial(self, done: Sequence[Trial]) -> Trial:
        """Propose one recipe, fit it, and store the result."""
        number = len(done)
        seed = int(stream(self.recipe.seed, "tune", number).integers(2**31))
        self.study.sampler = self.optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=False
        )
        proposal = self.study.ask()
        recipe = self.recipe if number == 0 else search_spaces.propose(self.recipe, _suggest(proposal), self.space)
        earlier = next((t for t in done if t.recipe == recipe and t.state in (COMPLETE, PRUNED, FAILED)), None)
        if earlier is not None:
            why = f"the same as trial {earlier.number}"
            trial = dataclasses.replace(earlier, number=number, state=REPEATED, seconds=0.0, why=why)
        else:
            trial = self._fit(recipe, number, proposal)
        trial = dataclasses.replace(trial, params=dict(proposal.params))
        if trial.accuracy is not None and trial.log_loss is not None:
            # The log loss breaks ties; it is at most 35, so that it never weighs as much as one image.
            proposal.set_user_attr("value", trial.accuracy - trial.log_loss / (40 * _max_held_out(self.context)))
        proposal.set_user_attr("trial", json.dumps(plain(trial), sort_keys=True))
        _close(self.optuna, self.study, proposal.number, proposal.user_attrs)
        return trial

    def _fit(self, recipe: Recipe, number: int, proposal: Any) -> Trial:
        """Fit one recipe, unless it has too many parameters; an error makes a failed trial, except for trial 0."""
        context, limits = self.context, self.limits
        started = time.perf_counter()
        trial = Trial(number, recipe, {}, FAILED)
        try:
            count = parameter_count.parameters(recipe, len(context.classes), limits.image_size, context.cache)
            trial = dataclasses.replace(trial, parameters=count)
            if number and limits.max_parameters is not None and count > limits.max_parameters:
                return dataclasses.replace(trial, state=REJECTED, why=f"{count:,} parameters")
            candidates = methods.fit(_with_pruning(self.study, context, recipe, proposal), recipe)
            best = decided(candidates[0], recipe.positive, recipe.threshold)
        except _Pruned as reason:
            return dataclasses.replace(trial, state=PRUNED, seconds=time.perf_counter() - started, why=str(reason))
        except SightlineError as error:
            if number == 0:
                raise
            return dataclasses.replace(trial, seconds=time.perf_counter() - started, why=error.message)
        self.save(number, best.val)
        return _complete(trial, best, time.perf_counter() - started)


def _close(optuna: Any, study: Any, number: int, attributes: Mapping[str, Any]) -> None:
    """Close a trial of Optuna's study with its stored result; without one, it was interrupted."""
    states = optuna.trial.TrialState
    if "value" in attributes and "trial" in attributes:
        study.tell(number, attributes["value"])
    else:
        pruned = "trial" in attributes and json.loads(attributes["trial"])["state"] != FAILED
        study.tell(number, state=states.PRUNED if pruned else states.FAIL)


def _max_held_out(context: Context) -> int:
    """Return the maximum number of held-out images."""
    return max(1, len(context.split("train", "val")))


def _suggest(proposal: Any) -> Suggest:
    """Return a function that draws values of a search space from a trial of Optuna."""

    def suggest(name: str, space: Space) -> Any:
        if isinstance(space, Choice):
            return proposal.suggest_categorical(name, list(space.options))
        if space.whole:
            return proposal.suggest_int(name, int(space.low), int(space.high), log=space.log)
        return float(f"{proposal.suggest_float(name, space.low, space.high, log=space.log):.4g}")

    return suggest


def _complete(trial: Trial, best: Candidate, seconds: float) -> Trial:
    """Return a trial with the results of its best candidate."""
    return dataclasses.replace(
        trial,
        state=COMPLETE,
        accuracy=best.val_accuracy,
        log_loss=best.val_log_loss,
        seconds=seconds,
        estimate=best.estimate,
    )


def _with_pruning(study: Any, context: Context, recipe: Recipe, proposal: Any) -> Context:
    """Return a context that stops a fit if Optuna's pruner says so and the best trial was clearly better at the same point."""
    reported: set[int] = set()
    trains = _trains(recipe.method)
    held_out = len(context.split("val")) if trains else _max_held_out(context)

    def hopeless(step: int, share: float, accuracy: float) -> bool:
        others = (t.intermediate_values.get(step, 0.0) for t in study.get_trials(deepcopy=False) if t.state.is_finished())
        best, n = max(others, default=0.0), held_out * (1.0 if trains else share)
        smoothed = (best * n + 1) / (n + 2)  # so that an accuracy of 1 on few images has a standard error above 0
        error = math.sqrt(smoothed * (1 - smoothed) / max(1.0, n))
        return bool(accuracy < best - _NOISE * error and proposal.should_prune())

    def watch(share: float, accuracy: float) -> None:
        if context.watch is not None:
            context.watch(share, accuracy)
        step = int(share * _TENTHS + 1e-9)
        if step in reported or share >= 1:
            return
        reported.add(step)
        proposal.report(accuracy, step)
        if hopeless(step, share, accuracy):
            raise _Pruned(f"stopped early after {share:.0%} at an accuracy of {accuracy:.3f}")

    return dataclasses.replace(context, watch=watch)


@contextlib.contextmanager
def quiet() -> Iterator[Any]:
    """Yield the module optuna with its messages on standard error switched off."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", message="Some regimes", category=UserWarning)
            yield optuna
    finally:
        optuna.logging.set_verbosity(verbosity)


def _open(optuna: Any, storage: Path, method: str) -> Any:
    """Open or create the study in a file; it prunes trainings below the median, and heads in the worst quarter."""
    trains = _trains(method)
    percentile = 50.0 if trains else 75.0
    pruner = optuna.pruners.PercentilePruner(percentile, n_startup_trials=STARTUP, n_warmup_steps=_WARM_UP[trains])
    database = optuna.storages.RDBStorage(f"sqlite:///{storage.resolve().as_posix()}")
    return optuna.create_study(storage=database, study_name="tune", direction="maximize", pruner=pruner, load_if_exists=True)


def _trains(method: str) -> bool:
    """Return whether a method reports after epochs, on validation images; otherwise it reports after a fold."""
    return method not in ("features", "shortcut")


def _close_interrupted(optuna: Any, study: Any) -> None:
    """Close the trials that an interruption left open."""
    for frozen in study.get_trials(deepcopy=False):
        if not frozen.state.is_finished():
            _close(optuna, study, frozen.number, frozen.user_attrs)


def _finished(optuna: Any, study: Any) -> list[Trial]:
    """Return the stored trials, after closing interrupted ones."""
    _close_interrupted(optuna, study)
    stored = (t.user_attrs["trial"] for t in study.get_trials(deepcopy=False) if "trial" in t.user_attrs)
    return [from_json(Trial, json.loads(text), "trial") for text in stored]
