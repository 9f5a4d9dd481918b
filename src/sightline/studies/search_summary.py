"""What may be said of a finished search: who won, how sure that is, what choosing it has cost, and what mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline import evaluation
from sightline.records import Predictions, Recipe
from sightline.store import plain
from sightline.studies import paired_tests
from sightline.studies.recipe_edit import build, shown
from sightline.studies.tune import COMPLETE, FAILED, PRUNED, REJECTED, REPEATED, STARTUP, Asked, Trial, quiet


def importance(storage: Path) -> dict[str, float]:
    """How much of what tells good trials from all of them lies in each parameter, shares that sum to 1.

    Source: Watanabe, Bansal, Hutter 2023, "PED-ANOVA: Efficiently quantifying hyperparameter importance in arbitrary
    subspaces", as Optuna has it; parameters of one kind of head or policy count among the trials that had them.
    """
    with quiet() as optuna:
        study = optuna.load_study(study_name="tune", storage=f"sqlite:///{storage.resolve().as_posix()}")
        complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len([t for t in complete if t.params]) < STARTUP:
            return {}
        try:
            found = optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError):  # all trials alike
            return {}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def summarise(
    trials: Sequence[Trial],
    answers: Mapping[int, Predictions],
    *,
    asked: Asked,
    seed: int,
    importances: Mapping[str, float],
) -> dict[str, Any]:
    """The winner, how sure that is, and what choosing it has cost, as plain data.

    Args:
        trials: All of them.
        answers: Of the complete ones, by number.
        asked: What the search was asked for.
        seed: Of the halves.
        importances: What `importance` gave.
    """
    complete = [t for t in trials if t.state == COMPLETE and t.number in answers]
    right, paths = paired_tests.paired([answers[t.number] for t in complete])
    losses = [t.log_loss or 0.0 for t in complete]
    fits = [asked.max_parameters is None or t.parameters <= asked.max_parameters for t in complete]
    allowed = [i for i in range(len(complete)) if fits[i]] or [0]
    best = min(allowed, key=lambda i: (-right[i].mean(), losses[i], i))
    d = right[best].astype(int) - right[0].astype(int)
    low, high = evaluation.paired_bootstrap(d)
    p = evaluation.mcnemar(right[best], right[0])
    worth = paired_tests.optimism(right[allowed], [losses[i] for i in allowed], seed=seed) if fits[0] else None
    comparison = {"difference": float(d.mean()), "low": low, "high": high, "p": p, "told_apart": p < evaluation.SIGNIFICANT}
    return {
        "images": len(paths),
        "estimate": complete[0].estimate,
        "trials": [{**plain(t), "recipe": plain(t.recipe)} for t in trials],
        "counts": {s: sum(t.state == s for t in trials) for s in (COMPLETE, PRUNED, REPEATED, REJECTED, FAILED)},
        "best": complete[best].number,
        "changed": changed(trials[0].recipe, complete[best].recipe),
        "comparison": comparison,
        "optimism": None if worth is None else plain(worth),
        "importance": dict(importances),
        "path": _path(complete, fits),
        "words": words(
            complete[best],
            complete[0],
            comparison,
            worth,
            len(paths),
            asked.max_parameters,
            tried=sum(t.state in (COMPLETE, PRUNED) for t in trials),
        ),
    }


def changed(before: Recipe, after: Recipe) -> dict[str, Any]:
    """The keys of a recipe, settings included, that another one holds with another value."""
    a = {**plain(before), **plain(build(before))}
    b = {**{k: v for k, v in plain(after).items() if k != "settings"}, **plain(after.settings)}
    heads = {"head_settings": after.settings["head"]} if "head" in after.settings else {}
    own = {k: v for k, v in b.items() if k != "head" and a.get(k) != v}
    return {**({"head": after.head} if after.head != before.head else {}), **heads, **own}


def _path(complete: Sequence[Trial], fits: Sequence[bool]) -> list[dict[str, Any]]:
    """The best accuracy so far after each complete trial."""
    path, best = [], -1.0
    for trial, allowed in zip(complete, fits, strict=True):
        best = max(best, trial.accuracy or 0.0) if allowed else best
        path.append({"number": trial.number, "accuracy": trial.accuracy, "best": best if best >= 0 else None})
    return path


def words(
    best: Trial,
    default: Trial,
    comparison: Mapping[str, Any],
    worth: paired_tests.Optimism | None,
    images: int,
    max_parameters: float | None,
    tried: int = 2,
) -> list[str]:
    """What may be said of a search, in sentences.

    Args:
        best, default: The trial that came first, and that of the recipe as it is.
        comparison: Of both.
        worth: What choosing has cost.
        images: How many chose.
        max_parameters: What was asked for.
        tried: How many recipes were fitted or given up on the way.
    """
    assert best.accuracy is not None and default.accuracy is not None
    points = 100 * comparison["difference"]
    told = f"{100 * best.accuracy:.1f} % against {100 * default.accuracy:.1f} %"
    said = []
    if tried < 2:
        said.append(
            f"Only the recipe itself was tried ({100 * best.accuracy:.1f} %), so it is compared with nothing. "
            "To go on, repeat the command with a longer --budget or more --trials."
        )
    elif best.number == default.number:
        said.append(f"No trial was better than the recipe as it is ({100 * best.accuracy:.1f} %).")
    elif comparison["told_apart"]:
        said.append(f"Trial {best.number} is better than the recipe as it is: {told} (p = {comparison['p']:.2g}).")
    elif not comparison["difference"]:
        same = f"{100 * best.accuracy:.1f} % each on {images:,} images"
        said.append(f"Trial {best.number} and the recipe as it is are tied, {same}; the trial has the lower log loss.")
    else:
        said.append(
            f"Trial {best.number} came first, {told}, but {abs(points):.1f} percentage points on {images:,} images may be "
            f"chance (p = {comparison['p']:.2g}): the recipe as it is may be as good."
        )
    if worth is not None and best.number != default.number:
        less = f"about {100 * worth.optimism:.1f} percentage points less" if worth.optimism >= 5e-4 else "hardly less"
        gain = round(100 * worth.gain, 1)
        said.append(
            f"It was chosen among {worth.chosen_among} trials on the same {images:,} images: on others expect {less}. Chosen "
            f"on one half and scored on the other, the gain over the recipe as it is was {gain or 0.0:+.1f} points."
        )
    if max_parameters is not None and default.parameters > max_parameters:
        said.append(f"The recipe as it is has {default.parameters:,} parameters, more than {max_parameters:,.0f}.")
    return said


def params_text(params: Mapping[str, Any]) -> str:
    """What was proposed, for a table."""
    return ", ".join(f"{name}={shown(value)}" for name, value in params.items()) or "the recipe as it is"
