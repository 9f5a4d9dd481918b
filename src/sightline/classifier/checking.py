"""Validation of loaded classifiers: check every tensor and every card field that predictions depend on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from sightline import heads
from sightline.errors import ModelFileError
from sightline.evaluation import out_of_distribution
from sightline.features import FILE_FEATURES
from sightline.records import Backbone, Card, Head, Preprocess
from sightline.records.classifier import Uncertainty

MOST_SIDE_PX = 65_536
_CROPS = (1, 5, 10)


def check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Check that no tensor holds NaN or infinity, except those of heads that may, which the check of the head covers.

    Raises:
        ModelFileError: If a tensor does; the message names it.
    """
    for name, values in arrays.items():
        exempt = name.startswith("head.") and heads.may_be_infinite(name.rpartition(".")[2])
        if values.dtype.kind == "f" and not exempt and not np.isfinite(values).all():
            kind = "NaN" if np.isnan(values).any() else "infinity"
            raise ModelFileError(f"the tensor {name} holds {kind}")


def check_card(card: Card) -> None:
    """Check the card fields that predictions depend on, including those of an ensemble's members.

    Raises:
        ModelFileError: If a field has an invalid value; the message names the field.
    """
    if not card.classes or not all(name.strip() for name in card.classes):
        raise ModelFileError("the card has no classes" if not card.classes else "the card has a class with an empty name")
    if len(set(card.classes)) < len(card.classes):
        duplicate = next(name for name in card.classes if card.classes.count(name) > 1)
        raise ModelFileError(f"the card names the class {duplicate!r} twice")
    _range("temperature", [card.temperature], 1e-12, 1e12)
    if card.positive is not None and card.positive not in card.classes:
        raise ModelFileError(f"the card's positive class {card.positive!r} is not one of its classes")
    if card.threshold is not None:
        _range("threshold", [card.threshold], 0, 2)
    if card.crops not in _CROPS:
        raise ModelFileError(f"the card's crops cannot be {card.crops}")
    _check_backbone(card.backbone)
    if len(card.weights) != len(card.members):
        raise ModelFileError(f"the card has {len(card.members)} members and {len(card.weights)} weights")
    if card.members:
        _range("weights", card.weights, 0, 1)
        if abs(math.fsum(card.weights) - 1) > 1e-6:
            raise ModelFileError(f"the card's weights sum to {math.fsum(card.weights):g}, not to 1")
    elif card.head == "ensemble" or card.backbone.source == "ensemble":
        raise ModelFileError("the card of an ensemble has no members")
    for member in card.members:
        if member.members or set(member.classes) != set(card.classes):
            raise ModelFileError("a member of the ensemble has other classes" if not member.members else "a member has members")
        check_card(member)


def _check_backbone(backbone: Backbone) -> None:
    """Check the sizes and the preprocessing of a backbone."""
    _range("backbone.features", [backbone.features], 0, 2**31)
    _range("backbone.prefix", [backbone.prefix], 0, 2**31)
    if backbone.map_shape is not None:
        _range("backbone.map_shape", backbone.map_shape, 1, 2**31)
    p: Preprocess = backbone.preprocess
    _range("preprocess.size", p.size, 1, MOST_SIDE_PX)
    _range("preprocess.size (height × width)", [math.prod(p.size)], 1, 2**28)
    _range("preprocess.crop_fraction", [p.crop_fraction], 1e-3, 1)
    _range("preprocess.mean", p.mean, -1e6, 1e6)
    _range("preprocess.std", p.std, 1e-12, 1e12)
    _range("preprocess.background", [p.background], 0, 255)
    _range("preprocess.max_pixels", [p.max_pixels], 1, 2**53)
    if p.value_range is not None:
        low, high = p.value_range
        _range("preprocess.value_range", [low, high], -1e300, 1e300)
        if not low < high:
            raise ModelFileError(f"the card's preprocess.value_range cannot be {low:g} to {high:g}")


def _range(field: str, values: Iterable[float], low: float, high: float) -> None:
    """Check that numbers of a card are finite and within a range."""
    for value in values:
        if not low <= value <= high:  # NaN too
            raise ModelFileError(f"the card's {field} cannot be {value:g}; it must be between {low:g} and {high:g}")


def check_part(card: Card, head: Head, tensors: Mapping[str, np.ndarray]) -> None:
    """Check a classifier's head against its classes and features, and that the weights of its network are present.

    Raises:
        ModelFileError: If a tensor is missing or has a wrong shape; the message names it.
    """
    if card.backbone.weights_hash and not tensors:
        raise ModelFileError(f"the weights of its network {card.backbone.name} are missing")
    heads.check(head, card.backbone.features)


def check_limits(limits: Mapping[str, np.ndarray], facts: Uncertainty, classes: int, embedding_model: Backbone) -> None:
    """Check the tensors of prediction sets and OOD detection.

    Args:
        limits: Tensors `limits.*` by name, without that prefix.
        facts: Their description in the card.
        classes: Number of classes k.
        embedding_model: Backbone in whose feature space distances are measured.

    Raises:
        ModelFileError: If a tensor is missing, has a wrong shape or holds an invalid value; the message names it.
    """
    index = ("iu", 0, classes - 1)
    expected = {"scores": ("f", 0, np.inf), "labels": index, "answers": ("f", 0, 1), "right": ("iu", 0, 1), "predicted": index}
    for name, (kinds, low, high) in expected.items():
        if name not in limits and (not facts.images or name == "predicted"):  # older files lack it
            continue
        values = limits.get(name)
        if values is None or values.shape != (facts.images,) or values.dtype.kind not in kinds:
            state = "is missing" if values is None else f"has the shape {values.shape} of {values.dtype}"
            raise ModelFileError(f"the tensor limits.{name} {state}, expected ({facts.images},)")
        if values.size and not (values.min() >= low and values.max() <= high + 1e-9):
            raise ModelFileError(f"the tensor limits.{name} holds values outside {low:g} to {high:g}")
    statistics = limits.get("statistics", np.zeros((0, len(FILE_FEATURES)), np.float32))
    if statistics.ndim != 2 or statistics.shape[1] != len(FILE_FEATURES) or statistics.dtype.kind != "f":
        raise ModelFileError(f"the tensor limits.statistics has the shape {statistics.shape} of {statistics.dtype}")
    bank, threshold = limits.get("bank"), facts.ood_threshold
    if (bank is None) != (threshold is None):
        raise ModelFileError(
            "the tensor limits.bank is missing" if bank is None else "the card lacks the threshold of limits.bank"
        )
    if bank is None or threshold is None:
        return
    width = min(embedding_model.features, out_of_distribution.WIDTH)
    if bank.ndim != 2 or not len(bank) or bank.shape[1] != width or bank.dtype.kind != "f":
        raise ModelFileError(f"the tensor limits.bank has the shape {bank.shape}, expected (any, {width})")
    _range("limits.unlike_bar", [threshold], 0, 2)
