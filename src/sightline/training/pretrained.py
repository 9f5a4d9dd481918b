"""Shared steps of methods that train on an existing network: load it, decode images, extract features, build the candidate."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sightline import engine, heads, networks
from sightline.classifier import Classifier, check_crops
from sightline.errors import DataError, RequestError
from sightline.records import Backbone, Head, Recipe
from sightline.records.data_summary import FileProblem
from sightline.store import Cache
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
from sightline.training.decoded_images import decode, joined


@dataclass(frozen=True, slots=True)
class PretrainedStart:
    """Trained network that training begins with.

    Args:
        backbone: Record of the network.
        tensors: Weights; None loads those that the record names.
        seen: uint64 (m,), keys of the images that it was trained on before, as far as they are known.
        notes: Notes for the user.
        head: Head of an earlier classifier to continue with; None for a new one.
        classes: Classes of that head.
        temperature: Temperature of that head.
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
    """Decoded images of train and val, and their features in the unchanged network.

    Args:
        train, val: int64, rows of the catalog that could be decoded.
        train_images, val_images: uint8 (m, h, w, 3).
        train_features, val_features: float32 (m, d).
        lost: Split → files that cannot be decoded, with the reason.
        precision: Precision of the features.
    """

    train: np.ndarray
    val: np.ndarray
    train_images: np.ndarray
    val_images: np.ndarray
    train_features: np.ndarray
    val_features: np.ndarray
    lost: Mapping[str, list[FileProblem]]
    precision: engine.Precision


def resolve(context: Context, recipe: Recipe) -> Backbone:
    """Return the recipe's backbone with the pixel range of this catalog's training images."""
    backbone = networks.describe_recipe(recipe, context.cache)
    return dataclasses.replace(backbone, preprocess=adapted(context, backbone.preprocess))


def named(context: Context, recipe: Recipe) -> PretrainedStart:
    """Return the network that a recipe names.

    Raises:
        RequestError: If its backbone is not a network.
    """
    backbone = resolve(context, recipe)
    if not backbone.is_network:
        raise RequestError(
            f"{recipe.method} needs a network, and {recipe.backbone!r} is not one", "`sightline networks` lists networks"
        )
    return PretrainedStart(backbone)


def gather(context: Context, start: PretrainedStart) -> Material:
    """Decode train and val, and run the network over them once.

    Raises:
        DataError: If train or val has no usable image.
    """
    check_validation(context, "training on a network")
    lost: dict[str, list[FileProblem]] = {}
    fast = "f32" if context.precision == "f32" else engine.fast_precision(context.device)
    used, parts = set[engine.Precision](), []
    for split in ("train", "val"):
        rows, images = decode(context, context.split(split), start.backbone.preprocess, lost)
        extracted = extract(context, start.backbone, fast, rows, start.tensors)
        used.add(extracted.precision)
        ok = extracted.ok
        if not ok.any():
            raise DataError(f"no image of the {split} split can be decoded", "see `sightline scan`")
        # a copy only where an image is left out: sets of pixels are large
        parts.append((rows[ok], images if ok.all() else images[ok], extracted.values[ok]))
    (train, train_images, train_features), (val, val_images, val_features) = parts
    return Material(
        train,
        val,
        train_images=train_images,
        val_images=val_images,
        train_features=train_features,
        val_features=val_features,
        lost=lost,
        precision="bf16" if "bf16" in used else "f32",
    )


def check_ranges(settings: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Check that settings are within their documented ranges.

    Args:
        settings: Dataclass of settings.
        ranges: Field → (lowest, highest); a value of None is not checked.

    Raises:
        RequestError: If a value is outside its range.
    """
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:  # NaN too
            raise RequestError(f"{name} cannot be {value}", f"it lies between {low:g} and {high:g}")


def check_units(units: tuple[tuple[int, float], ...]) -> None:
    """Check the hidden layers of a head.

    Raises:
        RequestError: If a width or a dropout rate is out of range.
    """
    for width, dropout in units:
        if not 1 <= width <= 65_536 or not 0 <= dropout <= 0.95:
            raise RequestError(
                f"a head cannot have the layer [{width}, {dropout}]",
                "a layer is [units, dropout]: 1 to 65,536 and 0 to 0.95",
            )


def weighted(class_weight: str, labels: np.ndarray) -> Literal["balanced"] | None:
    """Return whether classes are weighted; `auto` decides by the ratio of the largest class to the smallest."""
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    unbalanced = class_weight == "auto" and counts.max() > UNBALANCED * counts.min()
    return "balanced" if class_weight == "balanced" or unbalanced else None


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a training, before its evaluation.

    Args:
        recipe: Recipe, with the settings that were used.
        start: The trained network.
        head: Head on its features.
        label: Name for display.
        crops: Crops per image at prediction.
        fields: Further fields of the candidate.
    """

    recipe: Recipe
    start: PretrainedStart
    head: Head
    label: str
    crops: int
    fields: Mapping[str, Any] = field(default_factory=dict)


def made(context: Context, result: Result, material: Material) -> Classifier:
    """Return the classifier, with its fast precision checked, before calibration."""
    check_crops(result.crops, result.start.backbone)
    classifier = make_classifier(context, result.recipe, result.start.backbone, result.head, tensors=result.start.tensors)
    if len(result.start.seen):
        classifier = dataclasses.replace(classifier, seen=np.union1d(classifier.seen, result.start.seen))
    # a network that was trained in the run would be quantised anew in every run: only on demand
    tried: tuple[engine.Precision, ...] = (material.precision, "f32")
    choice = precision.choose(context, result.start.backbone, classifier.tensors or None, tried=tried)
    return precision.record(classifier, choice)


def everything(context: Context, material: Material) -> Material:
    """Return the images of train and val as one training split, with an empty validation split."""
    return dataclasses.replace(
        material,
        train=np.concatenate([material.train, material.val]),
        val=material.val[:0],
        train_images=joined(context, material.train_images, material.val_images),
        val_images=material.val_images[:0],
        train_features=np.concatenate([material.train_features, material.val_features]),
        val_features=material.val_features[:0],
    )


def finish(context: Context, result: Result, material: Material, started: float) -> Candidate:
    """Return the candidate: check its fast precision, predict the validation images, and calibrate on these, in this order."""
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


def check_backbone(recipe: Recipe, settings: Mapping[str, Any], classes: int, cache: Cache) -> None:
    """Check that the backbone of a recipe exists, with its weights, and can take images of that size.

    Raises:
        RequestError: If the name is not known, or the network cannot take images of that size.
        WeightsError: If its weights are not available.
    """
    networks.describe_recipe(recipe, cache)


def count_layers(recipe: Recipe, classes: int, image_size: int, cache: Cache) -> int:
    """Return the number of parameters of a recipe's backbone and of the linear layers on it that its settings name."""
    backbone = networks.describe_recipe(recipe, cache)
    hidden = recipe.settings.get("head") or ()
    return backbone.parameters + heads.layer_parameters([backbone.features, *(units for units, _ in hidden), classes])
