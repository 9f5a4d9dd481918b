"""Sweeps: a grid of values for some keys of a recipe, fitted with several seeds and compared by paired tests."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sightline.errors import FailedWorkError, RequestError
from sightline.records import Predictions, Recipe, SweepRecord
from sightline.records.study import SweepComparison, SweepSetting
from sightline.schema import from_json
from sightline.store import digest, plain
from sightline.studies import paired_tests
from sightline.studies.recipe_edit import change, shown
from sightline.training.context import VAL

MOST_FITS = 1000


@dataclass(frozen=True, slots=True)
class Fit:
    """One fit of a sweep.

    Args:
        setting: Swept key → value.
        seed: Seed of the recipe.
        recipe: The recipe to fit.
        name: Name of its folder: readable, and determined by the recipe alone.
    """

    setting: Mapping[str, Any]
    seed: int
    recipe: Recipe
    name: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a fit.

    Args:
        val: Predictions of held-out images; None if the fit failed.
        seconds: Wall-clock time, in seconds.
        parameters: Number of parameters of network and head.
        estimate: How the held-out images were chosen, such as by cross-validation.
        feature_width: Number of features that the head takes; None without a network.
        feature_bytes: Size of the cached features of train and val in float32; None for a method that caches none.
        why: Reason of a failure.
    """

    val: Predictions | None
    seconds: float = 0.0
    parameters: int = 0
    estimate: str = VAL
    feature_width: int | None = None
    feature_bytes: int | None = None
    why: str | None = None


def plan(recipe: Recipe, sweeps: Mapping[str, Sequence[Any]], seeds: int) -> list[Fit]:
    """Return the fits of every setting of the grid with every seed: recipe.seed, recipe.seed + 1, and so on.

    Raises:
        RequestError: If a key is unknown or has no values, or there are too many fits.
    """
    if not 1 <= seeds <= 100:
        raise RequestError(f"--seeds cannot be {seeds}", "give a number from 1 to 100")
    if "seed" in sweeps:
        raise RequestError("--sweep does not take the key seed", f"leave seed out and add --seeds {len(sweeps['seed'])}")
    for key, values in sweeps.items():
        if not values:
            raise RequestError(f"--sweep {key} has no values", f"write --sweep {key}=A,B,C")
    count = int(np.prod([len(v) for v in sweeps.values()])) * seeds
    if count > MOST_FITS:
        raise RequestError(f"this sweep has {count:,} fits", f"at most {MOST_FITS:,} are allowed; sweep fewer keys or values")
    fits = []
    for values in itertools.product(*sweeps.values()):
        setting = dict(zip(sweeps, values, strict=True))
        changed = change(recipe, setting)
        for seed in range(recipe.seed, recipe.seed + seeds):
            seeded = replace(changed, seed=seed)
            fits.append(Fit(setting, seed, seeded, _folder_name(setting, seed, seeded)))
    for key, values in sweeps.items():
        if len({digest(v) for v in values}) < len(values):
            raise RequestError(f"--sweep {key} has a value twice", "give each value once")
    return fits


def _folder_name(setting: Mapping[str, Any], seed: int, recipe: Recipe) -> str:
    """Return a folder name such as `rotation-15-seed-0-1a2b3c4d`."""
    text = "-".join(f"{key.rpartition('.')[2]}-{shown(value)}" for key, value in setting.items())
    readable = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60].strip("-.")
    return f"{readable + '-' if readable else ''}seed-{seed}-{recipe.id[:8]}"


def label(setting: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return a setting as text for people; the value alone if one key was swept.

    Example:
        >>> label({"augment.rotation": 15}, ["augment.rotation"]), label({"a.x": 1, "b": 2}, ["a.x", "b"])
        ('15', 'x=1, b=2')
    """
    if len(keys) == 1:
        return shown(setting[keys[0]])
    return ", ".join(f"{key.rpartition('.')[2]}={shown(setting[key])}" for key in keys) or "the recipe itself"


def summarise(recipe: Recipe, fits: Sequence[Fit], outcomes: Sequence[Outcome]) -> SweepRecord:
    """Return the table of a sweep, its paired tests and its result in sentences.

    Raises:
        FailedWorkError: If every setting failed.
    """
    keys, groups = list(fits[0].setting), _groups(fits)
    rows = [_row([fits[i] for i in g], [outcomes[i] for i in g], keys, recipe) for g in groups]
    complete = [i for i, row in enumerate(rows) if row["failed"] is None]
    if not complete:
        raise FailedWorkError(f"every fit of the sweep failed: {rows[0]['failed']}", "the message is that of the first setting")
    answers = [o.val for i in complete for o in (outcomes[j] for j in groups[i]) if o.val is not None]
    right, paths = paired_tests.paired(answers)
    right = right.reshape(len(complete), -1, len(paths))
    losses = [rows[i]["log_loss"] for i in complete]
    accuracy = right.mean(axis=(1, 2))
    best = min(range(len(complete)), key=lambda i: (-accuracy[i], losses[i], i))
    default = next((i for i, row in enumerate(complete) if rows[row]["default"]), None)
    pairs = paired_tests.differences(right)
    references = {"best": best} | ({"default": default} if default is not None and default != best else {})
    compared = [
        {**plain(d), "a": complete[d.a], "b": complete[d.b], "against": name, "told_apart": d.told_apart}
        for name, one in references.items()
        for d in paired_tests.against(pairs, one)
    ]
    rows[complete[best]]["best"] = True
    against_best = [d for d in compared if d["against"] == "best"]
    similar = [d["b"] for d in against_best if not d["told_apart"]]
    tied = [i for i in similar if rows[i]["accuracy"] == rows[complete[best]]["accuracy"]]
    for i in (complete[best], *tied):
        rows[i]["mark"] = "tied" if tied else "first, may be chance" if similar else "best"
    seeds = right.shape[1]
    return SweepRecord(
        kind="sweep",
        words=sentences(rows, against_best, best=complete[best], keys=keys, images=len(paths), seeds=seeds),
        images=len(paths),
        estimate=next(o.estimate for o in outcomes if o.val is not None),
        recipe=plain(recipe),
        keys=keys,
        seeds=[f.seed for f in fits[:seeds]],
        settings=[SweepSetting(**plain(row)) for row in rows],
        comparisons=[from_json(SweepComparison, d, "comparison") for d in compared],
        best=complete[best],
        default=None if default is None else complete[default],
    )


def _groups(fits: Sequence[Fit]) -> list[list[int]]:
    """Return the indices of the fits of each setting, in order."""
    groups: dict[str, list[int]] = {}
    for i, fit in enumerate(fits):
        groups.setdefault(digest(fit.setting), []).append(i)
    return list(groups.values())


def _row(fits: Sequence[Fit], outcomes: Sequence[Outcome], keys: Sequence[str], recipe: Recipe) -> dict[str, Any]:
    """Return the table row of one setting."""
    failed = next((o.why for o in outcomes if o.val is None), None)
    done = [o for o in outcomes if o.val is not None]
    by_seed = [float((o.val.y_pred == o.val.y_true).mean()) for o in done if o.val is not None]
    return {
        "setting": dict(fits[0].setting),
        "label": label(fits[0].setting, keys),
        "accuracy": float(np.mean(by_seed)) if failed is None else None,
        "accuracy_low": min(by_seed) if failed is None else None,
        "accuracy_high": max(by_seed) if failed is None else None,
        "by_seed": by_seed if failed is None else None,
        "log_loss": float(np.mean([log_loss(o.val) for o in done if o.val is not None])) if failed is None else None,
        "seconds": float(np.mean([o.seconds for o in done])) if done else None,
        "parameters": max((o.parameters for o in done), default=None),
        "feature_width": max((o.feature_width for o in done if o.feature_width is not None), default=None),
        "feature_bytes": max((o.feature_bytes for o in done if o.feature_bytes is not None), default=None),
        "runs": [f.name for f in fits],
        "default": fits[0].recipe == replace(recipe, seed=fits[0].seed),
        "best": False,
        "mark": "",
        "failed": failed or (None if done else "nothing was fitted"),
    }


def log_loss(val: Predictions) -> float:
    """Return the mean negative log probability of the true class."""
    true_probs = val.probs[np.arange(len(val)), val.y_true]
    return float(-np.log(np.clip(true_probs, 1e-15, 1)).mean())


def sentences(
    rows: Sequence[Mapping[str, Any]],
    compared: Sequence[Mapping[str, Any]],
    *,
    best: int,
    keys: Sequence[str],
    images: int,
    seeds: int,
) -> list[str]:
    """Return the result of a sweep in sentences.

    Args:
        rows: The table.
        compared: Paired tests of the best setting against each other one.
        best: Index of the best row.
        keys: Swept keys.
        images: Number of images.
        seeds: Number of seeds.
    """
    one = keys[0].rpartition(".")[2] if len(keys) == 1 else None
    name = f"{one}={rows[best]['label']}" if one else rows[best]["label"]
    mean = f"{100 * rows[best]['accuracy']:.1f} %{f', the mean of {seeds} seeds' if seeds > 1 else ''}"
    if not compared:
        lines = [f"{name}: {mean}, with {images:,} images."]
    else:
        worse = [d["b"] for d in compared if d["told_apart"]]
        similar = [d["b"] for d in compared if not d["told_apart"]]
        listed = functools.partial(_listed, rows, one is not None)
        tied = [i for i in similar if rows[i]["accuracy"] == rows[best]["accuracy"]]
        behind = [i for i in similar if i not in tied]
        first = "is best" if not similar else "came first"
        lines = [f"{name} and {listed(tied)} are tied ({mean})." if tied else f"{name} {first} ({mean})."]
        if behind:
            lines.append(f"Its lead over {listed(behind)} is not significant with {images:,} images.")
        if worse:
            others = "all others" if len(worse) > 1 and not similar else listed(worse)
            lines.append(f"It is significantly better than {others}, on {images:,} images.")
    spread = max((r["accuracy_high"] - r["accuracy_low"] for r in rows if r["failed"] is None), default=0.0)
    if seeds > 1:
        lines.append(f"The random seed alone changes the accuracy by up to {100 * spread:.1f} percentage points.")
    else:
        lines.append("The effect of the random seed is unknown: only one seed was used.")
    lines += [f"{row['label']} failed: {row['failed']}." for row in rows if row["failed"] is not None]
    return lines


def _listed(rows: Sequence[Mapping[str, Any]], single: bool, indices: Sequence[int]) -> str:
    """Return settings as an enumeration in the order of the table, shortened if long; quoted if several keys were swept."""
    most = 6 if single else 3
    names = [rows[i]["label"] if single else f"“{rows[i]['label']}”" for i in sorted(indices)]
    if len(names) > most + 1:
        names = [*names[:most], f"{len(names) - most} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
