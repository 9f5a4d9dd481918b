"""Recipes and progress callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sightline import store
from sightline.errors import RequestError

Progress = Callable[[str, int, int], None]
"""Progress callback: (name of the stage, steps done, total steps); total is 0 if not known yet."""


@dataclass(frozen=True, slots=True)
class Learning:
    """Progress of a training by epochs. Scores are those of the last finished epoch, NaN before it.

    Args:
        epoch: Current epoch, from 1.
        epochs: Planned number of epochs.
        loss, accuracy: Scores on the training images.
        val_loss, val_accuracy: Scores on the validation images.
        images_s: Training images per second so far; NaN until known.
        left_s: Predicted seconds until training ends, by its plan or deadline; NaN until known.
        fits: Number of epochs that will finish before the deadline; 0 if all will, or without a deadline.
    """

    epoch: int
    epochs: int
    loss: float = math.nan
    accuracy: float = math.nan
    val_loss: float = math.nan
    val_accuracy: float = math.nan
    images_s: float = math.nan
    left_s: float = math.nan
    fits: int = 0


class TrainingStage(str):
    """Name of a training stage with its numbers; a plain string for callbacks that don't show them."""

    learning: Learning

    def __new__(cls, words: str, learning: Learning) -> TrainingStage:
        """Return the string `words` with the attribute `learning`."""
        stage = super().__new__(cls, words)
        stage.learning = learning
        return stage


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


MOST_IMAGE_PX = 2048
"""Maximum side of a network's square input, in pixels."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a training. Users write it as TOML; its identity is the hash of its canonical JSON.

    Args:
        method: Name in `sightline.training.methods.METHODS`.
        backbone: Name of a network, `pixels`, or `file.py:function` for a user-defined network.
        weights: `pretrained`, `random`, or a file.
        head: Name in `sightline.heads.HEADS`; `auto` compares the fast ones on validation images.
        image_size: Side of the network's square input in pixels, at most 2,048; None for the size that its weights were
            trained with.
        fit: How a non-square image is fitted to the square; None for that of the weights.
        pool: Pooling of the last map: `avg`, or `flatten` for the whole map.
        positive: Positive class, for two classes; None for the rarer one.
        threshold: Criterion for choosing the decision threshold on held-out images, for two classes; one of
            `sightline.evaluation.thresholds.CRITERIA`.
        seed: Random seed.
        settings: Settings of the method, validated by the method's dataclass: strings, finite numbers, booleans, lists and
            tables of these.

    Raises:
        RequestError: If `image_size` is too large, or a setting has a type that recipes can't hold.
    """

    method: str = "features"
    backbone: str = "tf_efficientnet_lite0"
    weights: str = "pretrained"
    head: str = "auto"
    image_size: int | None = None
    fit: Literal["crop", "pad", "squash"] | None = None
    pool: Literal["avg", "flatten"] = "avg"
    positive: str | None = None
    threshold: str = "half"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size > MOST_IMAGE_PX:
            raise RequestError(f"image_size cannot be {self.image_size}", f"use at most {MOST_IMAGE_PX:,} pixels")
        for key, value in self.settings.items():
            _check_value(str(key), value)

    @property
    def id(self) -> str:
        """Return the identity of the recipe; its keys are written out, as in `Preprocess.id`."""
        return store.digest(
            {
                "method": self.method,
                "backbone": self.backbone,
                "weights": self.weights,
                "head": self.head,
                "image_size": self.image_size,
                "fit": self.fit,
                "pool": self.pool,
                "positive": self.positive,
                "threshold": self.threshold,
                "seed": self.seed,
                "settings": self.settings,
            }
        )


def _check_value(key: str, value: Any) -> None:
    """Check that a recipe can hold a value, including nested ones.

    Raises:
        RequestError: If it is a date, NaN, infinite, or of another unsupported type.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_value(f"{key}.{name}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_value(key, inner)
    else:
        try:
            store.plain(value)
        except TypeError as error:
            hint = "use strings, finite numbers, true or false, and lists and tables of these"
            raise RequestError(f"{key} cannot be {value}", hint) from error
