"""METHODS: the ways from a catalog and a recipe to classifiers. Each gives its candidates, the best first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sightline.errors import DataError, unknown
from sightline.heads import constant
from sightline.records import Backbone, Preprocess, Recipe
from sightline.schema import from_json
from sightline.store import file_digest
from sightline.training.context import Candidate, Context, never_held_out
from sightline.training.methods import ensemble, finetune, frozen, scratch, shortcut, warmstart
from sightline.training.methods import features as on_features
from sightline.training.methods.features import FeaturesSettings

if TYPE_CHECKING:
    from sightline.training.lr_finder import LrCurve

__all__ = ["FINDERS", "LADDER", "METHODS", "PRETRAINED", "BaselineSettings", "FeaturesSettings", "fit", "sources"]


@dataclass(frozen=True, slots=True)
class BaselineSettings:
    """`baseline` always gives the most frequent class; there is nothing to set."""


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Carry a recipe out.

    Returns:
        Candidates, the best on held-out images first.

    Raises:
        RequestError: The method, a setting, the backbone or the head is not known.
        DataError: The photographs do not allow it: one class only, nothing in the training split.
    """
    if recipe.method not in METHODS:
        raise unknown("method", recipe.method, METHODS)
    if not len(context.split("train")):
        raise DataError("there are no usable images in the training split", "see `sightline scan` for what is left out")
    if len(np.unique(context.labels[context.split("train", "val")])) < 2:
        raise DataError("all images belong to one class", "a classifier needs at least two classes; see `sightline scan`")
    candidates = [_with_note(c, never_held_out(context, c.val)) for c in METHODS[recipe.method](context, recipe)]
    return sorted(candidates, key=lambda c: (-c.val_accuracy, c.val_log_loss))


def _with_note(candidate: Candidate, note: str | None) -> Candidate:
    """Return the candidate with one more note."""
    if note is None:
        return candidate
    return dataclasses.replace(candidate, note=f"{candidate.note}; {note}" if candidate.note else note)


def sources(recipe: Recipe) -> list[str]:
    """The SHA-256 of every classifier's file that a recipe begins with: with other files it is another work."""
    members = recipe.settings.get("members", ()) if recipe.method == "ensemble" else ()
    named = [recipe.backbone] if recipe.method == "warmstart" else [str(m) for m in members]
    files = [Path(n) / "classifier.safetensors" if Path(n).is_dir() else Path(n) for n in named]
    return [file_digest(f) for f in files if f.is_file()]


def baseline(context: Context, recipe: Recipe) -> list[Candidate]:
    """Always the most frequent class: what any classifier has to beat."""
    from_json(BaselineSettings, recipe.settings, "settings of baseline")
    backbone = Backbone("none", "none", Preprocess(), 0)
    kinds: Mapping[str, Mapping[str, object]] = {constant.HEAD.name: {}}
    return on_features.fit_heads(context, dataclasses.replace(recipe, backbone="none"), backbone, kinds, FeaturesSettings())


def features(context: Context, recipe: Recipe) -> list[Candidate]:
    """A head, or several, on the features of a frozen backbone: one forward pass per image, or one for each view of it."""
    return on_features.fit(context, recipe, from_json(FeaturesSettings, recipe.settings, "settings of features"))


LADDER = ("baseline", "shortcut", "features", "finetune", "scratch")
"""What is tried where nobody names methods, in this order. `frozen` learns the same as `features` with views, at more cost;
`warmstart` and `ensemble` need to be told of what."""
PRETRAINED = ("features", "frozen", "finetune")
"""Methods that begin with a network by its name and weights."""

FINDERS: dict[str, Callable[[Context, Recipe], LrCurve]] = {
    "scratch": scratch.find_rate,
    "frozen": frozen.find_rate,
    "finetune": finetune.find_rate,
    "warmstart": warmstart.find_rate,
}
"""Method → losses by learning rate of what a recipe would train."""

METHODS: dict[str, Callable[[Context, Recipe], list[Candidate]]] = {
    "baseline": baseline,
    "shortcut": shortcut.fit,
    "features": features,
    "frozen": frozen.fit,
    "finetune": finetune.fit,
    "warmstart": warmstart.fit,
    "scratch": scratch.fit,
    "ensemble": ensemble.fit,
}
