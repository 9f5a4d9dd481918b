"""Up the ladder of methods, from cheap to dear, as far as the budget lets it and something can still be won."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sightline.errors import DataError, SightlineError
from sightline.journey.request import BEST, TRIMMED, Plan, speed_name
from sightline.records import Recipe
from sightline.training import ensemble, methods
from sightline.training.work import Candidate, Work

ALWAYS = ("baseline", "shortcut")
"""What says something of the photographs, whoever wins."""
RESERVE = 0.1
"""The share of the budget that what does as much as time allows leaves for what comes behind it: test, heatmaps, page."""


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
    image right, nothing dearer can win, and is not tried.

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
    for step in plan.steps:
        left = budget_s - (time.perf_counter() - started)
        recipe, why = resolved(step.recipe, candidates)
        why = step.why_not or why or _hopeless(recipe, candidates, left)
        if recipe.method in TRIMMED:
            left -= spent_s + RESERVE * budget_s
        name = f"{recipe.method} on {recipe.backbone}" if recipe.method in methods.PRETRAINED else recipe.method
        backbone = "" if recipe.backbone == "none" else recipe.backbone
        if why is not None:
            say(f"{name}: left out, {why}")
            skipped.append((recipe.method, backbone, why))
            continue
        try:
            fitted = _fit(_given(work, recipe, left), recipe, candidates)
        except SightlineError as error:
            say(f"{name}: {error.message}")
            skipped.append((recipe.method, backbone, error.message))
            failures.append(error)
            continue
        best = fitted[0]
        _remember_speed(best, work)
        say(f"{name}: {best.val_accuracy:.3f} ({best.label}, {best.seconds:.1f} s)")
        if "gain" in best.detail and best.note:
            say(f"  {best.note}")
        candidates.extend(fitted)
    if not candidates:
        raise failures[0] if failures else DataError("no method was tried", "raise --budget")
    return Climbed(candidates, skipped)


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


def _given(work: Work, recipe: Recipe, left_s: float) -> Work:
    """What a step is given: the time that is left, and a place of its own where its training is kept."""
    kept = None if work.checkpoint is None else work.checkpoint / f"{recipe.method}-{recipe.id[:8]}"
    return dataclasses.replace(work, budget_s=max(left_s, 1.0), checkpoint=kept)


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
