"""METHODS: the training methods by name, each a record in a file of its own, and `fit`, which carries a recipe out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sightline.errors import DataError, unknown
from sightline.records import Recipe
from sightline.store import Cache, file_digest
from sightline.training.context import Candidate, Context, never_held_out
from sightline.training.method import Method
from sightline.training.methods import baseline, ensemble, features, finetune, frozen, scratch, shortcut, warmstart

__all__ = ["METHODS", "count_parameters", "fit", "method_of", "source_hashes"]

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        baseline.METHOD,
        shortcut.METHOD,
        features.METHOD,
        frozen.METHOD,
        finetune.METHOD,
        warmstart.METHOD,
        scratch.METHOD,
        ensemble.METHOD,
    )
}
"""Name → record, in the order in which a run tries them: fast ones first."""


def method_of(recipe: Recipe) -> Method:
    """Return the record of a recipe's method.

    Raises:
        RequestError: If the method is not known.
    """
    if recipe.method not in METHODS:
        raise unknown("method", recipe.method, METHODS)
    return METHODS[recipe.method]


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Carry a recipe out.

    Returns:
        Candidates, the one with the highest accuracy on held-out images first.

    Raises:
        RequestError: If the method, a setting, the backbone or the head is not known.
        DataError: If the training split is empty or all images belong to one class.
    """
    method = method_of(recipe)
    if not len(context.split("train")):
        raise DataError("the training split has no usable images", "`sightline scan` lists the images that are left out")
    if len(np.unique(context.labels[context.split("train", "val")])) < 2:
        raise DataError("all images belong to one class", "a classifier needs at least two classes; see `sightline scan`")
    fitted = method.fit(dataclasses.replace(context, fit_recipe=fit), recipe)
    candidates = [_with_note(c, never_held_out(context, c.val)) for c in fitted]
    return sorted(candidates, key=lambda c: (-c.val_accuracy, c.val_log_loss))


def _with_note(candidate: Candidate, note: str | None) -> Candidate:
    """Return the candidate with one more note."""
    if note is None:
        return candidate
    return dataclasses.replace(candidate, note=f"{candidate.note}; {note}" if candidate.note else note)


def count_parameters(recipe: Recipe, classes: int, image_size: int, cache: Cache) -> int:
    """Return the number of trainable parameters of network and head, counted without building or fitting them.

    Args:
        recipe: The recipe.
        classes: Number of classes.
        image_size: Input side in pixels if the recipe names none and the network depends on it.
        cache: Holds descriptions of networks.

    Raises:
        RequestError: If the network is not known or cannot take such images.
    """
    count = method_of(recipe).count_parameters
    return 0 if count is None else count(recipe, classes, image_size, cache)


def source_hashes(recipe: Recipe) -> list[str]:
    """Return the SHA-256 of every classifier file that a recipe begins with: other files give another result."""
    paths = [Path(name) for name in METHODS[recipe.method].source_files(recipe)] if recipe.method in METHODS else []
    files = [path / "classifier.safetensors" if path.is_dir() else path for path in paths]
    return [file_digest(file) for file in files if file.is_file()]
