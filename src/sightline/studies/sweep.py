"""Sweeps: one recipe with some keys over several values, under several seeds, and what may be said of the outcome."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sightline.errors import FailedWorkError, RequestError
from sightline.records import Predictions, Recipe
from sightline.store import digest, plain
from sightline.studies import paired_tests
from sightline.studies.recipe_edit import change, shown
from sightline.training.context import VAL

MOST_FITS = 1000


@dataclass(frozen=True, slots=True)
class Fit:
    """One fit of a sweep.

    Args:
        setting: Key → value of what was swept.
        seed: Of the recipe.
        recipe: What is carried out.
        name: Of its folder: readable, and a function of the recipe alone.
    """

    setting: Mapping[str, Any]
    seed: int
    recipe: Recipe
    name: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fit.

    Args:
        val: Its answers on held-out images; None where it failed.
        seconds: What it took.
        parameters: Of network and head.
        estimate: How `val` came about.
        why: Why it failed.
    """

    val: Predictions | None
    seconds: float = 0.0
    parameters: int = 0
    estimate: str = VAL
    why: str | None = None


def plan(recipe: Recipe, sweeps: Mapping[str, Sequence[Any]], seeds: int) -> list[Fit]:
    """Every setting of the grid under every seed: recipe.seed, the next, and so on.

    Raises:
        RequestError: A key is not known, has no value, or there are too many fits.
    """
    if not 1 <= seeds <= 100:
        raise RequestError(f"--seeds cannot be {seeds}", "it lies between 1 and 100")
    if "seed" in sweeps:
        raise RequestError("seeds are not swept like other keys", f"leave seed out and add --seeds {len(sweeps['seed'])}")
    for key, values in sweeps.items():
        if not values:
            raise RequestError(f"--sweep {key} names no value", f"write --sweep {key}=A,B,C")
    count = int(np.prod([len(v) for v in sweeps.values()])) * seeds
    if count > MOST_FITS:
        raise RequestError(f"this sweep has {count:,} fits", f"{MOST_FITS:,} are the most; sweep fewer keys or values")
    fits = []
    for values in itertools.product(*sweeps.values()):
        setting = dict(zip(sweeps, values, strict=True))
        changed = change(recipe, setting)
        for seed in range(recipe.seed, recipe.seed + seeds):
            own = replace(changed, seed=seed)
            fits.append(Fit(setting, seed, own, _folder_name(setting, seed, own)))
    for key, values in sweeps.items():
        if len({digest(v) for v in values}) < len(values):
            raise RequestError(f"--sweep {key} names a value twice", "name each once")
    return fits


def _folder_name(setting: Mapping[str, Any], seed: int, recipe: Recipe) -> str:
    """Such as `rotation-15-seed-0-1a2b3c4d`."""
    words = "-".join(f"{key.rpartition('.')[2]}-{shown(value)}" for key, value in setting.items())
    readable = re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-.")[:60].strip("-.")
    return f"{readable + '-' if readable else ''}seed-{seed}-{recipe.id[:8]}"


def label(setting: Mapping[str, Any], keys: Sequence[str]) -> str:
    """A setting for people; the value alone where one key was swept.

    Example:
        >>> label({"augment.rotation": 15}, ["augment.rotation"]), label({"a.x": 1, "b": 2}, ["a.x", "b"])
        ('15', 'x=1, b=2')
    """
    if len(keys) == 1:
        return shown(setting[keys[0]])
    return ", ".join(f"{key.rpartition('.')[2]}={shown(setting[key])}" for key in keys) or "the recipe as it is"


def summarise(recipe: Recipe, fits: Sequence[Fit], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The table of a sweep, its paired tests and its verdict in words, as plain data.

    Raises:
        FailedWorkError: Every setting failed.
    """
    keys, groups = list(fits[0].setting), _groups(fits)
    rows = [_row([fits[i] for i in g], [outcomes[i] for i in g], keys, recipe) for g in groups]
    whole = [i for i, row in enumerate(rows) if row["failed"] is None]
    if not whole:
        raise FailedWorkError(f"every fit of the sweep failed: {rows[0]['failed']}", "see the first one's reason")
    answers = [o.val for i in whole for o in (outcomes[j] for j in groups[i]) if o.val is not None]
    right, paths = paired_tests.paired(answers)
    right = right.reshape(len(whole), -1, len(paths))
    losses = [rows[i]["log_loss"] for i in whole]
    accuracy = right.mean(axis=(1, 2))
    best = min(range(len(whole)), key=lambda i: (-accuracy[i], losses[i], i))
    base = next((i for i, row in enumerate(whole) if rows[row]["default"]), None)
    found = paired_tests.differences(right)
    reference = {"best": best} | ({"default": base} if base is not None and base != best else {})
    compared = [
        {**plain(d), "a": whole[d.a], "b": whole[d.b], "against": name, "told_apart": d.told_apart}
        for name, one in reference.items()
        for d in paired_tests.against(found, one)
    ]
    rows[whole[best]]["best"] = True
    unsure = [d["b"] for d in compared if d["against"] == "best" and not d["told_apart"]]
    tied = [i for i in unsure if rows[i]["accuracy"] == rows[whole[best]]["accuracy"]]
    for i in (whole[best], *tied):
        rows[i]["mark"] = "tied" if tied else "first, may be chance" if unsure else "best"
    seeds = right.shape[1]
    return {
        "keys": keys,
        "seeds": [f.seed for f in fits[:seeds]],
        "images": len(paths),
        "estimate": next(o.estimate for o in outcomes if o.val is not None),
        "settings": rows,
        "best": whole[best],
        "default": None if base is None else whole[base],
        "comparisons": compared,
        "words": words(rows, [d for d in compared if d["against"] == "best"], whole[best], keys, len(paths), seeds),
    }


def _groups(fits: Sequence[Fit]) -> list[list[int]]:
    """The places of the fits of each setting, in order."""
    found: dict[str, list[int]] = {}
    for i, fit in enumerate(fits):
        found.setdefault(digest(fit.setting), []).append(i)
    return list(found.values())


def _row(fits: Sequence[Fit], outcomes: Sequence[Outcome], keys: Sequence[str], recipe: Recipe) -> dict[str, Any]:
    """One line of the table."""
    failed = next((o.why for o in outcomes if o.val is None), None)
    done = [o for o in outcomes if o.val is not None]
    each = [float((o.val.y_pred == o.val.y_true).mean()) for o in done if o.val is not None]
    return {
        "setting": dict(fits[0].setting),
        "label": label(fits[0].setting, keys),
        "accuracy": float(np.mean(each)) if failed is None else None,
        "accuracy_low": min(each) if failed is None else None,
        "accuracy_high": max(each) if failed is None else None,
        "by_seed": each if failed is None else None,
        "log_loss": float(np.mean([log_loss(o.val) for o in done if o.val is not None])) if failed is None else None,
        "seconds": float(np.mean([o.seconds for o in done])) if done else None,
        "parameters": max((o.parameters for o in done), default=None),
        "runs": [f.name for f in fits],
        "default": fits[0].recipe == replace(recipe, seed=fits[0].seed),
        "best": False,
        "mark": "",
        "failed": failed or (None if done else "nothing was fitted"),
    }


def log_loss(val: Predictions) -> float:
    """The mean negative logarithm of the probability of the right answer."""
    picked = val.probs[np.arange(len(val)), val.y_true]
    return float(-np.log(np.clip(picked, 1e-15, 1)).mean())


def words(
    rows: Sequence[Mapping[str, Any]],
    compared: Sequence[Mapping[str, Any]],
    best: int,
    keys: Sequence[str],
    images: int,
    seeds: int,
) -> list[str]:
    """What may be said of a sweep, in sentences."""
    one = keys[0].rpartition(".")[2] if len(keys) == 1 else None
    name = f"{one}={rows[best]['label']}" if one else rows[best]["label"]
    mean = f"{100 * rows[best]['accuracy']:.1f} %{f', the mean of {seeds} seeds' if seeds > 1 else ''}"
    if not compared:
        said = [f"{name}: {mean}, with {images:,} images."]
    else:
        worse = [d["b"] for d in compared if d["told_apart"]]
        alike = [d["b"] for d in compared if not d["told_apart"]]
        listed = functools.partial(_listed, rows, one is not None)
        tied = [i for i in alike if rows[i]["accuracy"] == rows[best]["accuracy"]]
        behind = [i for i in alike if i not in tied]
        first = "is best" if not alike else "came first"
        said = [f"{name} and {listed(tied)} are tied ({mean})." if tied else f"{name} {first} ({mean})."]
        if behind:
            said.append(f"Its lead over {listed(behind)} may be chance with {images:,} images.")
        if worse:
            said.append(
                f"It is better than {'all others' if len(worse) > 1 and not alike else listed(worse)}, on {images:,} images."
            )
    spread = max((r["accuracy_high"] - r["accuracy_low"] for r in rows if r["failed"] is None), default=0.0)
    if seeds > 1:
        said.append(f"The seed alone moves a result by up to {100 * spread:.1f} percentage points.")
    else:
        said.append("With one seed it is not known how much the seed alone moves a result.")
    said += [f"{row['label']} failed: {row['failed']}." for row in rows if row["failed"] is not None]
    return said


def _listed(rows: Sequence[Mapping[str, Any]], single: bool, places: Sequence[int]) -> str:
    """Settings in a sentence in the order of the table, the first few of many; in quotes where several keys make one."""
    most = 6 if single else 3
    names = [rows[i]["label"] if single else f"“{rows[i]['label']}”" for i in sorted(places)]
    if len(names) > most + 1:
        names = [*names[:most], f"{len(names) - most} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
