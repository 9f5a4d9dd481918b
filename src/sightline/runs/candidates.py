"""Fit the candidates of a plan, cheap ones first, within the time budget; skip or stop those that cannot win."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sightline import evaluation
from sightline.deadline import UNLIMITED, Deadline, OutOfTimeError
from sightline.errors import DataError, SightlineError
from sightline.records import Progress, Recipe
from sightline.runs import executor
from sightline.runs import folder as folders
from sightline.runs.plan import BEST, FAR_AHEAD, Plan, PlannedStep, speed_name, step_name
from sightline.training.context import Candidate, Context
from sightline.training.methods import METHODS, ensemble

GIVE_UP_FROM = 0.4
"""Fraction of the epochs, or of the time, before which no training is stopped early."""
FEWEST_EPOCHS = 5
"""Number of epochs before which the clock stops no training early."""
STANDARD_ERRORS = 2.0
"""A training is stopped early if its predicted accuracy is this many standard errors below that of the leader."""
BEHIND_SHARE = 0.25
"""Fraction of the remaining time that fine-tuning reserves for a later training from scratch."""
OVERRUN = 0.15
"""Fraction of its time by which a step may overrun before it is stopped."""
MEASURED_S = 2.0
"""Seconds for which a stage is measured before its remaining time is predicted."""
GUESS = 2.0
"""Factor by which an unmeasured estimate may exceed the remaining time before the step is skipped."""


class _GivenUp(Exception):  # noqa: N818 - not an error
    """Stop signal for a training that can hardly become the best."""


@dataclass(slots=True)
class EarlyGiveUp:
    """Early stopping: decide after every epoch whether a training can still reach the best candidate so far.

    The final accuracy is extrapolated from the accuracy of earlier epochs: it grows about linearly with the logarithm of the
    epochs, so each doubling of the epochs adds at most as much as the last one.

    Args:
        leader: The best candidate so far.
        images: Number of held-out images of the training.
        deadline: End of the training, if the clock may stop it early too.
    """

    leader: Candidate
    images: int
    deadline: Deadline = UNLIMITED
    _began: float = field(init=False)
    _course: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began = self.deadline.clock()

    def __call__(self, share: float, accuracy: float) -> None:
        """Judge the training after an epoch.

        Args:
            share: Of the epochs that are done, 0 to 1.
            accuracy: On the held-out images.

        Raises:
            _GivenUp: It cannot win any more.
        """
        done = min(1.0, max(share, self._time_share() if len(self._course) + 1 >= FEWEST_EPOCHS else 0.0))
        best = max([accuracy, *(a for _, a in self._course)])
        self._course.append((done, best))
        half = [(s, a) for s, a in self._course if s <= done / 2]
        since, then = half[-1] if half else self._course[0]
        if not GIVE_UP_FROM <= done < 1 or not since < done:
            return
        reach = best + (best - then) * math.log2(1 / done) / min(1.0, math.log2(done / since))
        goal = self.leader.val_accuracy
        # Laplace's rule: all right on a few images is no certainty
        smoothed = [(p * self.images + 1) / (self.images + 2) for p in (best, goal)]
        error = math.sqrt(max(p * (1 - p) for p in smoothed) / max(1, self.images))
        if reach < goal - STANDARD_ERRORS * error:
            what = f"{share:.0%} of its epochs" if done == share else f"{done:.0%} of its time"
            raise _GivenUp(f"stopped early after {what} ({best:.2f}; {self.leader.label} already has {goal:.2f})")

    def _time_share(self) -> float:
        """Return the fraction of the time that is used; 0 without a time limit."""
        total = self.deadline.at - self._began
        return (self.deadline.clock() - self._began) / total if math.isfinite(total) and total > 0 else 0.0


@dataclass(slots=True)
class StepClock:
    """Progress callback that stops a step that cannot finish in time.

    A stage that counts images is measured, and stopped if its remaining images would take longer than the time left. Training
    by epochs observes the deadline itself and is stopped here only if it overruns it by far.

    Args:
        progress: Callback that receives the reports.
        deadline: End of the step.
        extra_s: Allowed overrun in seconds.
    """

    progress: Progress
    deadline: Deadline
    extra_s: float
    _stage: str = ""
    _since: tuple[float, int] = (0.0, 0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Forward a progress report to the callback.

        Raises:
            OutOfTimeError: If the step cannot end in time.
        """
        self.progress(stage, done, total)
        now, name = self.deadline.clock(), stage.partition(":")[0]
        last = self.deadline.at + self.extra_s
        if now >= last:
            raise OutOfTimeError("stopped: its share of the time budget is used up", "raise --budget")
        if name != self._stage or done < self._since[1]:
            self._stage, self._since = name, (now, done)
            return
        elapsed, counted = now - self._since[0], done - self._since[1]
        if name == "training" or elapsed < MEASURED_S or counted <= 0 or total <= done:
            return
        rest = (total - done) * elapsed / counted
        if now + rest > last:
            left = self.deadline.left()
            why = f"{name} of {total:,} images would take about {elapsed + rest:.0f} s here, {left:.0f} s are left"
            raise OutOfTimeError(f"stopped: {why}", "raise --budget")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Fitted candidates and skipped steps.

    Args:
        candidates: The fitted candidates, the best one of each step first.
        skipped: (method, backbone or "", reason) of each skipped step.
    """

    candidates: list[Candidate]
    skipped: list[tuple[str, str, str]]


@dataclass(slots=True)
class _Climb:
    """State while a plan is carried out: fitted candidates, skipped steps, failures, and the slowness of this machine."""

    candidates: list[Candidate] = field(default_factory=list)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)
    failures: list[SightlineError] = field(default_factory=list)
    slowness: float = 1.0


def fit_candidates(
    plan: Plan, context: Context, deadline: Deadline, say: Callable[[str], None], *, clock_decides: bool = True
) -> Candidates:
    """Fit every step of the plan that the budget allows, in order.

    A step that fails is reported and skipped; if all fail, the first error is raised. Once a candidate predicts every held-out
    image correctly, the remaining steps are skipped; a training that falls too far behind is stopped early. A step starts only
    if its estimated time fits into the time left, and is measured again while it runs.

    Args:
        plan: The planned steps.
        context: Images, labels and compute settings.
        deadline: End of the last step.
        say: Function called with a line per step.
        clock_decides: Whether the clock may stop a training early; False without a user-defined budget, so that results are
            reproducible.
    """
    state = _Climb()
    for number, step in enumerate(plan.steps):
        recipe, why = resolved(step.recipe, state.candidates)
        name = step_name(recipe)
        backbone = "" if recipe.backbone == "none" else recipe.backbone
        why = step.why_not or why or _pointless(step, recipe, state, context) or _too_long(step, state, deadline)
        if why is not None:
            say(f"{name}: skipped, {why}")
            state.skipped.append((recipe.method, backbone, why))
            continue
        share = _share(step, plan.steps[number + 1 :], state, context, deadline)
        try:
            fitted = _fit(_given(context, recipe, share, state.candidates, clock_decides), recipe, state.candidates)
        except _GivenUp as reason:
            say(f"{name}: {reason}")
            state.skipped.append((recipe.method, backbone, str(reason)))
            continue
        except SightlineError as error:
            say(f"{name}: {error.message}")
            state.skipped.append((recipe.method, backbone, error.message))
            state.failures.append(error)
            continue
        _say_fitted(name, fitted[0], say)
        _remember_speed(fitted[0], context)
        if METHODS[recipe.method].fits_heads and fitted[0].classifier.card.backbone.is_network and step.seconds > 0:
            state.slowness = max(1.0, fitted[0].seconds / step.seconds)
        state.candidates.extend(fitted)
    if not state.candidates:
        raise state.failures[0] if state.failures else DataError("no method was tried", "raise --budget")
    return Candidates(state.candidates, state.skipped)


def _say_fitted(name: str, best: Candidate, say: Callable[[str], None]) -> None:
    """Report the accuracy of the best candidate of a step, its best epoch, and whether the budget ended its training."""
    estimate = f"{best.estimate}, {len(best.val):,} images"
    say(f"{name}: {best.val_accuracy:.3f} on {estimate} ({best.label}, {best.seconds:.1f} s)")
    if best.course is not None:
        say(f"  {best.course}")
    if "gain" in best.detail and best.note:
        say(f"  {best.note}")


def _share(step: PlannedStep, later: Sequence[PlannedStep], state: _Climb, context: Context, deadline: Deadline) -> Deadline:
    """Return the deadline of a step; fine-tuning leaves time for a later training from scratch."""
    scratch = [s for s in later if METHODS[s.recipe.method].network == "random" and s.why_not is None]
    if not METHODS[step.recipe.method].fills_time or not any(_pointless(s, s.recipe, state, context) is None for s in scratch):
        return deadline
    wanted = min(sum(s.seconds for s in scratch) * state.slowness, BEHIND_SHARE * deadline.left())
    return deadline.sooner(wanted) if math.isfinite(wanted) else deadline


def resolved(recipe: Recipe, candidates: Sequence[Candidate]) -> tuple[Recipe, str | None]:
    """Return the recipe with the best backbone so far filled in if it asks for that, and why there is none."""
    if recipe.backbone != BEST:
        return recipe, None
    known = [c for c in candidates if METHODS[c.classifier.card.method].fits_heads and c.classifier.card.backbone.is_network]
    if not known:
        return recipe, "no network gave features"
    best = min(known, key=lambda c: (-c.val_accuracy, c.val_log_loss))
    return dataclasses.replace(recipe, backbone=best.classifier.card.recipe.backbone), None


def _pointless(step: PlannedStep, recipe: Recipe, state: _Climb, context: Context) -> str | None:
    """Return why a step cannot become the best any more; None if it can."""
    if METHODS[recipe.method].role != "classifier":
        return None
    perfect = [c for c in state.candidates if METHODS[c.classifier.card.method].role == "classifier" and c.val_accuracy == 1.0]
    if perfect:
        return f"it cannot win any more: {perfect[0].label} has all {len(perfect[0].val):,} held-out images right"
    return far_ahead(state.candidates, context) if step.unless_far_ahead else None


def far_ahead(candidates: Sequence[Candidate], context: Context) -> str | None:
    """Return why training from scratch is skipped in favour of a pretrained network; None if it may win.

    It is skipped if the lower end of the 95 % interval of the leader leaves at most a quarter (`FAR_AHEAD`) of the errors of
    always predicting the most frequent class.
    """
    known = [c for c in candidates if c.classifier.card.backbone.pretrained_on != "nothing"]
    known = [c for c in known if c.classifier.card.backbone.is_network]
    if not known:
        return None
    leader = min(known, key=lambda c: (-c.val_accuracy, c.val_log_loss))
    low, _ = evaluation.accuracy_interval(leader.val, folders.clusters_of(context.catalog, context.cluster, leader.val))
    labels = leader.val.y_true.tolist()
    frequent = max(labels.count(label) for label in set(labels)) / len(labels)
    if 1 - low > FAR_AHEAD * (1 - frequent):
        return None
    return (
        f"{leader.label} is far ahead: the lower end of its 95 % interval ({low:.1%}) leaves at most {FAR_AHEAD:.0%} of the "
        f"errors of always predicting the most frequent class ({frequent:.1%})"
    )


def _too_long(step: PlannedStep, state: _Climb, deadline: Deadline) -> str | None:
    """Return why a step does not fit into the time left; None if it does."""
    if METHODS[step.recipe.method].role == "reference":  # there is always something to compare with
        return None
    left = deadline.left()
    if left <= 0:
        return "no time is left in the budget"
    needed = step.least_s * state.slowness
    if needed > left * (1.0 if step.measured else GUESS):
        return f"it takes about {needed:.0f} s here, {left:.0f} s are left"
    return None


def _given(context: Context, recipe: Recipe, share: Deadline, candidates: Sequence[Candidate], clock_decides: bool) -> Context:
    """Return the context of a step: its deadline, its checkpoint folder and its early stopping.

    Args:
        context: Context of the whole plan.
        recipe: The recipe of the step.
        share: Deadline of the step.
        candidates: Candidates of the earlier steps.
        clock_decides: Whether the clock may stop it early.
    """
    if METHODS[recipe.method].role == "reference":
        share = dataclasses.replace(share, at=math.inf)
    kept = None if context.checkpoint is None else context.checkpoint / f"{recipe.method}-{recipe.id[:8]}"
    rivals = [c for c in candidates if METHODS[c.classifier.card.method].role == "classifier"]
    watch = context.watch
    if rivals and METHODS[recipe.method].by_epochs:
        leader = max(rivals, key=lambda c: (c.val_accuracy, -c.val_log_loss))
        watch = EarlyGiveUp(leader, len(context.split("val")), share if clock_decides else UNLIMITED)
    progress = context.progress
    if math.isfinite(share.at):
        progress = StepClock(progress, share, OVERRUN * share.left())
    return dataclasses.replace(context, deadline=share, checkpoint=kept, watch=watch, progress=progress)


def _fit(context: Context, recipe: Recipe, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Fit a step; an ensemble without members uses the candidates fitted so far."""
    if METHODS[recipe.method].network == "members" and not recipe.settings:
        return ensemble.of_candidates(context, recipe, finalists(candidates))
    return executor.current().fit(context, recipe)


def finalists(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the best candidate of each method and backbone, without `shortcut` if there is another."""
    found: dict[tuple[str, str], Candidate] = {}
    for c in candidates:
        key = (c.classifier.card.method, c.classifier.card.backbone.name)
        if METHODS[key[0]].role != "shortcut_check":
            found.setdefault(key, c)  # each method gives its best first
    return list(found.values()) or list(candidates)


def _remember_speed(best: Candidate, context: Context) -> None:
    """Store the measured speed of a network for the next plan."""
    computed = best.detail.get("computed", 0)
    if computed >= 256 and best.classifier.card.backbone.parameters:
        rate = computed / max(best.seconds, 1e-3)
        context.cache.write_json(speed_name(best.classifier.card.backbone, context.device), rate)
