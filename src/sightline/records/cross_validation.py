"""Blocks of run.json about a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sightline.schema import json_key


@dataclass(frozen=True, slots=True)
class FoldScore:
    """One fold of a cross-validation.

    Args:
        fold, repeat: Numbers from 1.
        n: Images that were predicted.
        trained_on: Images that were trained on.
        inner: Accuracy inside the fold by which the head was chosen.
    """

    fold: int
    repeat: int
    n: int | None = None
    trained_on: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    label: str | None = None
    head: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    inner: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class CrossValidationSummary:
    """Cross-validation of a recipe.

    Args:
        accuracy, accuracy_low, accuracy_high: Mean over repeats and its 95 % interval.
        by_repeat: Accuracy of each repeat.
        clusters: Images if those that belong together count once.
        test_images: Test images that were left out.
        heads: How often each head was chosen.
        parts: One for each fold and repeat.
    """

    folds: int
    repeats: int
    by_repeat: Sequence[float]
    images: int | None = None
    clusters: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    test_images: int = field(default=0, metadata=json_key("closed"))
    heads: Mapping[str, int] = field(default_factory=dict)
    parts: Sequence[FoldScore] = ()
