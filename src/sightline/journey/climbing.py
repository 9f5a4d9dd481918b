"""Up the ladder of methods, from cheap to dear, as far as the budget lets it and something can still be won."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sightline.errors import DataError, SightlineError
from sightline.journey.request import BEST, BUDGET_S, TRIMMED, Plan, Step, speed_name, step_name
from sightline.records import Recipe
from sightline.training import ensemble, methods
from sightline.training.work import Candidate, Work

ALWAYS = ("baseline", "shortcut")
"""What says something of the photographs, whoever wins."""
RESERVE = 0.1
"""The share of the budget that what does as much as time allows leaves for what comes behind it: test, heatmaps, page."""
HOPE_UNTIL = 0.4
"""Nothing is given up before this share of its epochs, or of its time: a training begins slowly."""
NOISE = 2.0
"""How many standard errors below the best step so far what a training may yet reach must lie for it to be given up."""


class _GivenUp(Exception):  # noqa: N818 - no error: a step that is not worth going on with
    """Raised out of a training that can hardly win any more."""


@dataclass(slots=True)
class Hope:
    """Whether a training can still come to the best step so far; it is told after every epoch, and raises where it cannot.

    What it may yet reach is foretold from its own course: accuracy grows about evenly with the logarithm of the epochs, so that
    each doubling of them adds at most what the last one did.

    Args:
        leader: The best step so far.
        images: Held-out ones, on which the training is judged.
        time_s: What it may take, where that counts beside its epochs; infinite where the clock decides nothing.
    """

    leader: Candidate
    images: int
    time_s: float = math.inf
    _began: float = field(default_factory=lambda: time.perf_counter())
    _course: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, share: float, accuracy: float) -> None:
        """Take an epoch in.

        Args:
            share: Of the epochs that are done.
            accuracy: On the held-out images.

        Raises:
            _GivenUp: It cannot win any more.
        """
        done = min(1.0, max(share, (time.perf_counter() - self._began) / self.time_s))
        best = max([accuracy, *(a for _, a in self._course)])
        self._course.append((done, best))
        half = [(s, a) for s, a in self._course if s <= done / 2]
        since, then = half[-1] if half else self._course[0]
        if not HOPE_UNTIL <= done < 1 or not since < done:
            return
        reach = best + (best - then) * math.log2(1 / done) / min(1.0, math.log2(done / since))
        goal = self.leader.val_accuracy
        likely = [(p * self.images + 1) / (self.images + 2) for p in (best, goal)]  # all right on a few is no certainty
        error = math.sqrt(max(p * (1 - p) for p in likely) / max(1, self.images))
        if reach < goal - NOISE * error:
            what = f"{share:.0%} of its epochs" if done == share else f"{done:.0%} of its time"
            raise _GivenUp(f"given up after {what}: {best:.2f} against {goal:.2f} of {self.leader.label}")


@dataclass(frozen=True, slots=True)
class Climbed:
    """What was fitted, and what was not.

    Args:
        candidates: Of each step its best first.
        skipped: (method, backbone or "", why) of what was left out.
    """

    candidates: list[Candidate]
    skipped: list[tuple[str, str, str]]


def climb(plan: Plan, work: Work, budget_s: float, say: Callable[[str], None], spent_s: float = 0.0) -> Climbed:
    """Fit every step of the plan that the budget allows, cheap ones first.

    A step that fails is said and left out; if none works, the first failure is raised. Where a candidate has every held-out
    image right, nothing dearer can win, and is not tried; a training that falls too far behind is given up on its way. Where
    somebody set the budget, that looks at the clock too, and a training from scratch leaves half of the time to the
    fine-tuning that is planned behind it.

    Args:
        plan: The steps.
        work: What they are given.
        budget_s: For all steps together.
        say: Told what happens.
        spent_s: What came before the first step; a step that does as much as the time allows makes up for it.
    """
    started = time.perf_counter()
    candidates: list[Candidate] = []
    skipped: list[tuple[str, str, str]] = []
    failures: list[SightlineError] = []
    for number, step in enumerate(plan.steps):
        left = budget_s - (time.perf_counter() - started)
        recipe, why = resolved(step.recipe, candidates)
        why = step.why_not or why or _hopeless(recipe, candidates, left)
        name = step_name(recipe)
        backbone = "" if recipe.backbone == "none" else recipe.backbone
        if why is not None:
            say(f"{name}: left out, {why}")
            skipped.append((recipe.method, backbone, why))
            continue
        left = _share(recipe, plan.steps[number + 1 :], left, budget_s, spent_s)
        try:
            fitted = _fit(_given(work, recipe, left, candidates, budget_s != BUDGET_S), recipe, candidates)
        except _GivenUp as reason:
            say(f"{name}: {reason}")
            skipped.append((recipe.method, backbone, str(reason)))
            continue
        except SightlineError as error:
            say(f"{name}: {error.message}")
            skipped.append((recipe.method, backbone, error.message))
            failures.append(error)
            continue
        best = fitted[0]
        _remember_speed(best, work)
        say(f"{name}: {best.val_accuracy:.3f} ({best.label}, {best.seconds:.1f} s)")
        if best.course is not None:
            say(f"  {best.course}")
        if "gain" in best.detail and best.note:
            say(f"  {best.note}")
        candidates.extend(fitted)
    if not candidates:
        raise failures[0] if failures else DataError("no method was tried", "raise --budget")
    return Climbed(candidates, skipped)


def _share(recipe: Recipe, later: Sequence[Step], left_s: float, budget_s: float, spent_s: float) -> float:
    """How much of the time that is left a step may take."""
    if recipe.method in TRIMMED:
        return left_s - spent_s - RESERVE * budget_s
    if recipe.method != "scratch" or budget_s == BUDGET_S:
        return left_s
    left_s -= spent_s + RESERVE * budget_s
    return left_s / 2 if any(s.recipe.method in TRIMMED and s.why_not is None for s in later) else left_s


def resolved(recipe: Recipe, candidates: Sequence[Candidate]) -> tuple[Recipe, str | None]:
    """The recipe with the network that did best so far, where it asks for that; and why there is none."""
    if recipe.backbone != BEST:
        return recipe, None
    known = [c for c in candidates if c.classifier.card.method == "features" and c.classifier.card.backbone.is_network]
    if not known:
        return recipe, "no network gave features"
    best = min(known, key=lambda c: (-c.val_accuracy, c.val_log_loss))
    return dataclasses.replace(recipe, backbone=best.classifier.card.recipe.backbone), None


def _hopeless(recipe: Recipe, candidates: Sequence[Candidate], left_s: float) -> str | None:
    """Why a step cannot win any more, None where it may."""
    if left_s <= 0 and candidates:
        return "the budget is spent"
    if recipe.method in ALWAYS:
        return None
    perfect = [c for c in candidates if c.classifier.card.method not in ALWAYS and c.val_accuracy == 1.0]
    if not perfect:
        return None
    return f"it cannot win any more: {perfect[0].label} has all {len(perfect[0].val):,} held-out images right"


def _given(work: Work, recipe: Recipe, left_s: float, candidates: Sequence[Candidate] = (), timed: bool = False) -> Work:
    """What a step is given: its time, a place of its own where its training is kept, and who gives it up.

    Args:
        work: Of the whole ladder.
        recipe: The step.
        left_s: Its time.
        candidates: Of the steps before.
        timed: Whether the clock may have it given up.
    """
    kept = None if work.checkpoint is None else work.checkpoint / f"{recipe.method}-{recipe.id[:8]}"
    rivals = [c for c in candidates if c.classifier.card.method not in ALWAYS]
    watch = work.watch
    if rivals and recipe.method in methods.FINDERS:  # what trains by epochs
        leader = max(rivals, key=lambda c: (c.val_accuracy, -c.val_log_loss))
        watch = Hope(leader, len(work.split("val")), max(left_s, 1.0) if timed else math.inf)
    return dataclasses.replace(work, budget_s=max(left_s, 1.0), checkpoint=kept, watch=watch)


def _fit(work: Work, recipe: Recipe, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Carry a step out; an ensemble without members is one of what was fitted so far."""
    if recipe.method == "ensemble" and not recipe.settings:
        return ensemble.of_candidates(work, recipe, finalists(candidates))
    return methods.fit(work, recipe)


def finalists(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The best of each method and backbone; never `shortcut` where there is another."""
    found: dict[tuple[str, str], Candidate] = {}
    for c in candidates:
        key = (c.classifier.card.method, c.classifier.card.backbone.name)
        if key[0] != "shortcut":
            found.setdefault(key, c)  # each method gives its best first
    return list(found.values()) or list(candidates)


def _remember_speed(best: Candidate, work: Work) -> None:
    """How quick a network was here, for the next plan."""
    computed = best.detail.get("computed", 0)
    if computed >= 256 and best.classifier.card.backbone.parameters:
        rate = computed / max(best.seconds, 1e-3)
        work.cache.write_json(speed_name(best.classifier.card.backbone, work.device), rate)
