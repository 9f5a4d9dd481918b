"""What training on a network begins with: the network and its weights, the user's images decoded, their plain features."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sightline import engine, networks
from sightline.classifier import Classifier, check_crops
from sightline.errors import DataError, RequestError
from sightline.records import Backbone, Head, Recipe
from sightline.training import precision
from sightline.training.context import (
    UNBALANCED,
    VAL,
    Candidate,
    Context,
    adapted,
    calibrated,
    check_validation,
    extract,
    make_classifier,
    with_card,
)
from sightline.training.methods import scratch


@dataclass(frozen=True, slots=True)
class PretrainedStart:
    """A network that has learnt something.

    Args:
        backbone: What it is.
        tensors: Its weights; None finds them again by what the record says.
        seen: uint64 (m,): keys of the images that it was trained on before, as far as that is known.
        notes: What a reader should know of it.
        head: Its own head, where training goes on with that; None where a new one begins.
        classes: The classes of that head.
        temperature: What its logits are divided by.
    """

    backbone: Backbone
    tensors: Mapping[str, np.ndarray] | None = None
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    notes: tuple[str, ...] = ()
    head: Head | None = None
    classes: tuple[str, ...] = ()
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Material:
    """The images of train and val as a network sees them, and what it makes of them unchanged.

    Args:
        train, val: int64, the catalog's rows that could be decoded.
        train_images, val_images: uint8 (m, h, w, 3).
        train_features, val_features: float32 (m, d).
        lost: Split → files that gave no pixels, with the reason.
        precision: What the features were computed in.
    """

    train: np.ndarray
    val: np.ndarray
    train_images: np.ndarray
    val_images: np.ndarray
    train_features: np.ndarray
    val_features: np.ndarray
    lost: Mapping[str, list[dict[str, str]]]
    precision: engine.Precision


def resolve(context: Context, recipe: Recipe) -> Backbone:
    """The recipe's backbone with the pixel range that this catalog's training images call for."""
    backbone = networks.describe_recipe(recipe, context.cache)
    return dataclasses.replace(backbone, preprocess=adapted(context, backbone.preprocess))


def named(context: Context, recipe: Recipe) -> PretrainedStart:
    """The network that a recipe names.

    Raises:
        RequestError: It is none.
    """
    backbone = resolve(context, recipe)
    if not backbone.is_network:
        raise RequestError(
            f"{recipe.method} needs a network, and {recipe.backbone!r} is none", "name one that `sightline networks` lists"
        )
    return PretrainedStart(backbone)


def gather(context: Context, start: PretrainedStart) -> Material:
    """Decode train and val, and run the network over them once.

    Raises:
        DataError: A split has no image that can be used.
    """
    check_validation(context, "training on a network")
    lost: dict[str, list[dict[str, str]]] = {}
    fast, used, parts = engine.fast_precision(context.device), set[engine.Precision](), []
    for split in ("train", "val"):
        rows, images = scratch.decode(context, context.split(split), start.backbone.preprocess, lost)
        found = extract(context, start.backbone, fast, rows, start.tensors)
        used.add(found.precision)
        kept = found.ok
        if not kept.any():
            raise DataError(f"no image of the {split} split can be decoded", "see `sightline scan`")
        # a copy only where an image is left out: sets of pixels are large
        parts.append((rows[kept], images if kept.all() else images[kept], found.values[kept]))
    (train, train_images, train_features), (val, val_images, val_features) = parts
    return Material(
        train, val, train_images, val_images, train_features, val_features, lost, "bf16" if "bf16" in used else "f32"
    )


def check_ranges(settings: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse settings outside their documented ranges.

    Args:
        settings: A dataclass.
        ranges: Field → (lowest, highest); None is no value.

    Raises:
        RequestError: One lies outside.
    """
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:  # NaN too
            raise RequestError(f"{name} cannot be {value}", f"it lies between {low:g} and {high:g}")


def check_units(units: tuple[tuple[int, float], ...]) -> None:
    """Refuse layers of a head that cannot be.

    Raises:
        RequestError: A width or a share of dropout is out of range.
    """
    for width, dropout in units:
        if not 1 <= width <= 65_536 or not 0 <= dropout <= 0.95:
            raise RequestError(
                f"a head cannot have the layer [{width}, {dropout}]",
                "it is [units, dropout]: 1 to 65,536 and 0 to 0.95",
            )


def weighted(asked: str, labels: np.ndarray) -> Literal["balanced"] | None:
    """Whether classes are weighted, for `auto` by how unlike their sizes are."""
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    unbalanced = asked == "auto" and counts.max() > UNBALANCED * counts.min()
    return "balanced" if asked == "balanced" or unbalanced else None


@dataclass(frozen=True, slots=True)
class Result:
    """What was trained, before it is judged.

    Args:
        recipe: As it was carried out.
        start: The network that it is now.
        head: On its features.
        label: What people call it.
        crops: Looks at each image.
        fields: Other fields of the candidate.
    """

    recipe: Recipe
    start: PretrainedStart
    head: Head
    label: str
    crops: int
    fields: Mapping[str, Any] = field(default_factory=dict)


def made(context: Context, result: Result, material: Material) -> Classifier:
    """Return the classifier with its fast precision judged, not calibrated."""
    check_crops(result.crops, result.start.backbone)
    found = make_classifier(context, result.recipe, result.start.backbone, result.head, tensors=result.start.tensors)
    if len(result.start.seen):
        found = dataclasses.replace(found, seen=np.union1d(found.seen, result.start.seen))
    return precision.record(found, precision.judge(context, found, material.precision))


def everything(context: Context, material: Material) -> Material:
    """Return the images of train and val as one training split without validation."""
    return dataclasses.replace(
        material,
        train=np.concatenate([material.train, material.val]),
        val=material.val[:0],
        train_images=scratch.joined(context, material.train_images, material.val_images),
        val_images=material.val_images[:0],
        train_features=np.concatenate([material.train_features, material.val_features]),
        val_features=material.val_features[:0],
    )


def finish(context: Context, result: Result, material: Material, started: float) -> Candidate:
    """The candidate: its fast precision judged, its answers on validation, and calibrated on these, in this order."""
    classifier, val = calibrated(context, with_card(made(context, result, material), crops=result.crops))
    return Candidate(
        classifier=classifier,
        label=result.label,
        val=val,
        estimate=VAL,
        seconds=time.perf_counter() - started,
        undecodable=material.lost,
        **result.fields,
    )
