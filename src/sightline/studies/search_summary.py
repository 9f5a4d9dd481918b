"""Search summary: the best trial, the paired test against the starting recipe, optimism, and parameter importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline import evaluation
from sightline.records import Predictions, Recipe
from sightline.records.study import BestAgainstDefault, SearchRecord, SearchStep, SelectionOptimism
from sightline.records.study import Trial as TrialRecord
from sightline.schema import from_json
from sightline.store import plain
from sightline.studies import paired_tests
from sightline.studies.recipe_edit import build, shown
from sightline.studies.tune import COMPLETE, FAILED, PRUNED, REJECTED, REPEATED, STARTUP, SearchLimits, Trial, quiet


def importance(storage: Path) -> dict[str, float]:
    """Return the importance of each parameter for the score, fractions that sum to 1; empty with too few trials.

    Source: Watanabe, Bansal, Hutter 2023, "PED-ANOVA: Efficiently quantifying hyperparameter importance in arbitrary
    subspaces", as implemented in Optuna; a parameter that only some trials have is evaluated among those.
    """
    with quiet() as optuna:
        study = optuna.load_study(study_name="tune", storage=f"sqlite:///{storage.resolve().as_posix()}")
        complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len([t for t in complete if t.params]) < STARTUP:
            return {}
        try:
            importances = optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError):  # all trials have the same score
            return {}
    return {name: float(value) for name, value in importances.items() if math.isfinite(value)}


def summarise(
    trials: Sequence[Trial],
    answers: Mapping[int, Predictions],
    *,
    limits: SearchLimits,
    seed: int,
    importances: Mapping[str, float],
) -> SearchRecord:
    """Return the best trial, its paired test against the starting recipe, and its optimism.

    Args:
        trials: All trials.
        answers: Predictions of the complete trials, by number.
        limits: Limits of the search.
        seed: Random seed of the optimism estimate.
        importances: Importance of each parameter, as `importance` returns it.
    """
    complete = [t for t in trials if t.state == COMPLETE and t.number in answers]
    right, paths = paired_tests.paired([answers[t.number] for t in complete])
    losses = [t.log_loss or 0.0 for t in complete]
    small_enough = [limits.max_parameters is None or t.parameters <= limits.max_parameters for t in complete]
    allowed = [i for i in range(len(complete)) if small_enough[i]] or [0]
    best = min(allowed, key=lambda i: (-right[i].mean(), losses[i], i))
    d = right[best].astype(int) - right[0].astype(int)
    low, high = evaluation.paired_bootstrap(d)
    p = evaluation.mcnemar(right[best], right[0])
    optimism = paired_tests.optimism(right[allowed], [losses[i] for i in allowed], seed=seed) if small_enough[0] else None
    comparison = BestAgainstDefault(float(d.mean()), low, high, p, significant=p < evaluation.SIGNIFICANT)
    return SearchRecord(
        kind="tune",
        words=sentences(
            complete[best],
            complete[0],
            comparison,
            optimism=optimism,
            images=len(paths),
            max_parameters=limits.max_parameters,
            tried=sum(t.state in (COMPLETE, PRUNED) for t in trials),
        ),
        images=len(paths),
        estimate=str(complete[0].estimate),
        recipe=plain(trials[0].recipe),
        trials=[from_json(TrialRecord, plain(t), "trial") for t in trials],
        path=_path(complete, small_enough),
        best=complete[best].number,
        changed=changed(trials[0].recipe, complete[best].recipe),
        comparison=comparison,
        optimism=optimism,
        importance=dict(importances),
        counts={s: sum(t.state == s for t in trials) for s in (COMPLETE, PRUNED, REPEATED, REJECTED, FAILED)},
    )


def changed(before: Recipe, after: Recipe) -> dict[str, Any]:
    """Return the keys, those of the settings included, whose values differ in `after`, with their new values."""
    a = {**plain(before), **plain(build(before))}
    b = {**{k: v for k, v in plain(after).items() if k != "settings"}, **plain(after.settings)}
    head = {"head": after.head} if after.head != before.head else {}
    head_settings = {"head_settings": after.settings["head"]} if "head" in after.settings else {}
    return {**head, **head_settings, **{k: v for k, v in b.items() if k != "head" and a.get(k) != v}}


def _path(complete: Sequence[Trial], small_enough: Sequence[bool]) -> list[SearchStep]:
    """Return the best accuracy so far after each complete trial."""
    path: list[SearchStep] = []
    best = -1.0
    for trial, allowed in zip(complete, small_enough, strict=True):
        best = max(best, trial.accuracy or 0.0) if allowed else best
        path.append(SearchStep(trial.number, trial.accuracy or 0.0, best if best >= 0 else None))
    return path


def sentences(
    best: Trial,
    default: Trial,
    comparison: BestAgainstDefault,
    *,
    optimism: SelectionOptimism | None,
    images: int,
    max_parameters: float | None,
    tried: int = 2,
) -> list[str]:
    """Return the result of a search in sentences.

    Args:
        best, default: The best trial, and that of the starting recipe.
        comparison: The paired test between them.
        optimism: Optimism of the selection.
        images: Number of images that the selection used.
        max_parameters: Maximum number of parameters, if limited.
        tried: Number of recipes fitted, pruned ones included.
    """
    assert best.accuracy is not None and default.accuracy is not None
    points = 100 * comparison.difference
    accuracies = f"{100 * best.accuracy:.1f} % against {100 * default.accuracy:.1f} %"
    lines = []
    if tried < 2:
        lines.append(
            f"Only the starting recipe was tried ({100 * best.accuracy:.1f} %), so there is no comparison. "
            "To continue, repeat the command with a longer --budget or more --trials."
        )
    elif best.number == default.number:
        lines.append(f"No trial was better than the starting recipe ({100 * best.accuracy:.1f} %).")
    elif comparison.significant:
        lines.append(f"Trial {best.number} is better than the starting recipe: {accuracies} (p = {comparison.p:.2g}).")
    elif not comparison.difference:
        same = f"{100 * best.accuracy:.1f} % each on {images:,} images"
        lines.append(f"Trial {best.number} and the starting recipe are tied, {same}; the trial has the lower log loss.")
    else:
        lines.append(
            f"Trial {best.number} came first, {accuracies}, but {abs(points):.1f} percentage points on {images:,} images may "
            f"be due to chance (p = {comparison.p:.2g}): the starting recipe may be as good."
        )
    if optimism is not None and best.number != default.number:
        small = optimism.optimism < 5e-4
        less = "almost the same accuracy" if small else f"about {100 * optimism.optimism:.1f} percentage points less"
        gain = round(100 * optimism.gain, 1)
        lines.append(
            f"It was selected among {optimism.chosen_among} trials on the same {images:,} images: on others, expect {less}. "
            f"When selected on one half of the images and scored on the other, it gained {gain or 0.0:+.1f} percentage points "
            "over the starting recipe."
        )
    if max_parameters is not None and default.parameters > max_parameters:
        lines.append(f"The starting recipe has {default.parameters:,} parameters, more than {max_parameters:,.0f}.")
    return lines


def params_text(params: Mapping[str, Any]) -> str:
    """Return the drawn parameters of a trial as text for a table."""
    return ", ".join(f"{name}={shown(value)}" for name, value in params.items()) or "the starting recipe"
