"""Hyperparameter search: Optuna proposes recipes, the methods fit them; trials are saved at once, so a search can resume."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import SightlineError
from sightline.records import Predictions, Recipe
from sightline.schema import from_json
from sightline.search_space import Choice, Space, Suggest
from sightline.store import plain, stream
from sightline.studies import search_spaces
from sightline.training import methods
from sightline.training.context import VAL, Candidate, Context, decided
from sightline.training.method import SearchContext

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
        concurrent: Number of recipes that are proposed together, from the trials before them, so that they can be fitted at the
            same time. The trials depend on it, but not on where they are fitted.
    """

    trials: int = 40
    budget_s: float = math.inf
    max_parameters: float | None = None
    image_size: int = 64
    concurrent: int = 1


@dataclass(frozen=True, slots=True)
class FitTask:
    """Fit of one proposed recipe, which depends on nothing else, so that another machine can run it.

    Args:
        context: Training and validation images.
        recipe: The recipe.
        number: Number of the trial.
        limits: Limits of the search.
        left_s: Remaining time in seconds, counted from the start of the task.
        finished: Optuna's finished trials, with which the pruner compares.
        pruner: Optuna's pruner.
    """

    context: Context
    recipe: Recipe
    number: int
    limits: SearchLimits
    left_s: float
    finished: Sequence[Any]
    pruner: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a fit.

    Args:
        trial: The trial, without its drawn values; None if the time was used up.
        held_out: Predictions on held-out images; None if the trial is not complete.
        reports: Step → accuracy during the fit.
    """

    trial: Trial | None
    held_out: Predictions | None = None
    reports: Mapping[int, float] = field(default_factory=dict)


Run = Callable[[Sequence[FitTask]], list[Outcome]]
"""Fits all tasks, and returns their outcomes in order."""


def search(
    context: Context,
    recipe: Recipe,
    limits: SearchLimits,
    storage: Path,
    *,
    save: Callable[[int, Predictions], None],
    on_trial: Callable[[Trial], None],
    run: Run | None = None,
) -> list[Trial]:
    """Fit the recipe itself, then Optuna's proposals, until the trials or the time are used up.

    Every draw depends only on the recipe's seed and the number of finished trials, so an interrupted search ends with the same
    trials as an uninterrupted one; a round of concurrent fits that is interrupted is fitted again.

    Args:
        context: Training and validation images; images of other splits are ignored.
        recipe: The starting recipe, trial 0.
        limits: Limits of the search.
        storage: SQLite file; trials stored in it are not fitted again.
        save: Stores the predictions of a trial; called before the trial counts as finished.
        on_trial: Called with every trial, stored ones included.
        run: Fits the proposals of a round; one after the other in this process if None.

    Returns:
        All trials in order.

    Raises:
        SightlineError: If the file is damaged, or cannot be written.
    """
    started = time.perf_counter()
    with quiet() as optuna, _database_errors(optuna, storage):
        study = _open(optuna, storage, methods.method_of(recipe).by_epochs)
        done = _finished(optuna, study)
        for trial in done:
            on_trial(trial)
        space = search_spaces.here(recipe, limits.image_size, limits.max_parameters, context.cache)
        while _more_trials(done, limits) and _time_left(done, limits, started):
            left_s = started + limits.budget_s - time.perf_counter() if done else math.inf
            fits = _one_by_one if run is None or not done else run  # the first fit computes features that others need
            current = _Search(
                optuna=optuna, study=study, context=context, recipe=recipe, limits=limits, space=space, save=save, run=fits
            )
            trials, in_time = current.next_round(done, left_s)
            for trial in trials:
                done.append(trial)
                on_trial(trial)
            if not in_time:
                _close_interrupted(optuna, study)
                break
    return done


def _one_by_one(tasks: Sequence[FitTask]) -> list[Outcome]:
    """Fit the proposals of a round in this process."""
    return [fit_task(task) for task in tasks]


def fit_task(task: FitTask) -> Outcome:
    """Fit one proposed recipe, unless it has too many parameters; an error makes a failed trial, except for trial 0."""
    with quiet() as optuna:
        study = optuna.create_study(direction="maximize", pruner=task.pruner)  # in memory: a copy for the pruner
        study.add_trials(task.finished)
        proposal = study.ask()
        context = _with_deadline(task.context, time.perf_counter() + task.left_s)
        try:
            trial, held_out = _fitted(task, _with_pruning(study, context, task.recipe, proposal))
        except _TimeUp:
            return Outcome(None)
        return Outcome(trial, held_out, dict(study.trials[-1].intermediate_values))


def _fitted(task: FitTask, context: Context) -> tuple[Trial, Predictions | None]:
    """Return the trial of a recipe, and its predictions on held-out images if it is complete."""
    recipe, limits = task.recipe, task.limits
    started = time.perf_counter()
    trial = Trial(task.number, recipe, {}, FAILED)
    try:
        count = methods.count_parameters(recipe, len(context.classes), limits.image_size, context.cache)
        trial = dataclasses.replace(trial, parameters=count)
        if task.number and limits.max_parameters is not None and count > limits.max_parameters:
            return dataclasses.replace(trial, state=REJECTED, why=f"{count:,} parameters"), None
        best = decided(methods.fit(context, recipe)[0], recipe.positive, recipe.threshold)
    except _Pruned as reason:
        return dataclasses.replace(trial, state=PRUNED, seconds=time.perf_counter() - started, why=str(reason)), None
    except SightlineError as error:
        if task.number == 0:
            raise
        return dataclasses.replace(trial, seconds=time.perf_counter() - started, why=error.message), None
    return _complete(trial, best, time.perf_counter() - started), best.val


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
    """Return the input side of the recipe's network without a search, in pixels; 64 if the method does not depend on it."""
    own_size = methods.method_of(recipe).image_size
    if own_size is None or recipe.image_size is not None:
        return recipe.image_size or 64
    return own_size(context, recipe)


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
        run: Fits the proposals of a round.
    """

    optuna: Any
    study: Any
    context: Context
    recipe: Recipe
    limits: SearchLimits
    space: SearchContext
    save: Callable[[int, Predictions], None]
    run: Run

    def next_round(self, done: Sequence[Trial], left_s: float) -> tuple[list[Trial], bool]:
        """Propose recipes, fit them, and store the results.

        Args:
            done: All trials before.
            left_s: Remaining time in seconds.

        Returns:
            The trials, in order, and whether all were fitted in time; those after the first that was not are dropped.
        """
        most = max(1, self.limits.trials - counted(done))
        drawn = [self._propose(len(done) + i) for i in range(min(self.limits.concurrent, most) if done else 1)]
        finished = [t for t in self.study.get_trials(deepcopy=False) if t.state.is_finished()]
        earlier = [self._earlier(recipe, [*done, *self._planned(drawn[:i], len(done))]) for i, (_, recipe) in enumerate(drawn)]
        tasks = {
            i: FitTask(self.context, recipe, len(done) + i, self.limits, left_s, finished=finished, pruner=self.study.pruner)
            for i, (_, recipe) in enumerate(drawn)
            if earlier[i] is None
        }
        outcomes = dict(zip(tasks, self.run(list(tasks.values())), strict=True))
        trials: list[Trial] = []
        for i, (proposal, recipe) in enumerate(drawn):
            number = len(done) + i
            before = self._earlier(recipe, [*done, *trials])
            if before is not None:
                why = f"the same as trial {before.number}"
                outcome = Outcome(dataclasses.replace(before, number=number, state=REPEATED, seconds=0.0, why=why))
            elif i in outcomes:
                outcome = outcomes[i]
            else:  # the same as a recipe of this round that was rejected
                outcome = Outcome(next((dataclasses.replace(t, number=number) for t in trials if t.recipe == recipe), None))
            if outcome.trial is None:
                return trials, False
            trials.append(self._store(outcome, proposal))
        return trials, True

    def _propose(self, number: int) -> tuple[Any, Recipe]:
        """Return Optuna's proposal and its recipe; every draw depends on the number and on finished trials alone."""
        seed = int(stream(self.recipe.seed, "tune", number).integers(2**31))
        self.study.sampler = self.optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=False
        )
        proposal = self.study.ask()
        if number == 0:
            return proposal, self.recipe
        return proposal, search_spaces.search_space_of(self.recipe)(self.recipe, _suggest(proposal), self.space)

    @staticmethod
    def _earlier(recipe: Recipe, trials: Sequence[Trial]) -> Trial | None:
        """Return the trial that has fitted this recipe, None if there is none."""
        return next((t for t in trials if t.recipe == recipe and t.state in (COMPLETE, PRUNED, FAILED)), None)

    @staticmethod
    def _planned(drawn: Sequence[tuple[Any, Recipe]], first: int) -> list[Trial]:
        """Return the proposals of a round as trials, so that a recipe that is drawn twice is fitted once."""
        return [Trial(first + i, recipe, {}, COMPLETE) for i, (_, recipe) in enumerate(drawn)]

    def _store(self, outcome: Outcome, proposal: Any) -> Trial:
        """Store a result in Optuna's study, and its predictions."""
        assert outcome.trial is not None
        trial = dataclasses.replace(outcome.trial, params=dict(proposal.params))
        if outcome.held_out is not None:
            self.save(trial.number, outcome.held_out)
        for step, accuracy in sorted(outcome.reports.items()):
            proposal.report(accuracy, step)
        if trial.accuracy is not None and trial.log_loss is not None:
            # The log loss breaks ties; it is at most 35, so that it never weighs as much as one image.
            proposal.set_user_attr("value", trial.accuracy - trial.log_loss / (40 * _max_held_out(self.context)))
        proposal.set_user_attr("trial", json.dumps(plain(trial), sort_keys=True))
        _close(self.optuna, self.study, proposal.number, proposal.user_attrs)
        return trial


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
    trains = methods.method_of(recipe).by_epochs
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


def _open(optuna: Any, storage: Path, trains: bool) -> Any:
    """Open or create the study in a file; it prunes trainings below the median, and heads in the worst quarter."""
    percentile = 50.0 if trains else 75.0
    pruner = optuna.pruners.PercentilePruner(percentile, n_startup_trials=STARTUP, n_warmup_steps=_WARM_UP[trains])
    database = optuna.storages.RDBStorage(f"sqlite:///{storage.resolve().as_posix()}")
    return optuna.create_study(storage=database, study_name="tune", direction="maximize", pruner=pruner, load_if_exists=True)


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
