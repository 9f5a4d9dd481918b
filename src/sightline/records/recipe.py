"""What is asked for: the recipe, and how long work tells how far it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sightline import store
from sightline.errors import RequestError

Progress = Callable[[str, int, int], None]
"""How long work tells how far it is: (stage in words, done, total); total 0 where it is not known yet."""


@dataclass(frozen=True, slots=True)
class Learning:
    """How far a training by epochs is, for who draws it. Scores are those of the last finished epoch, NaN before there is one.

    Args:
        epoch: The one at hand, from 1.
        epochs: The last one that is planned.
        loss, accuracy: On the training images.
        val_loss, val_accuracy: On the validation images.
        images_s: Learnt from a second, so far; NaN until that is known.
        left_s: Predicted seconds until training ends, by its plan or by its deadline; NaN until that is known.
        fits: How many epochs will be done before the deadline; 0 where all will, or nothing limits the training.
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


class Told(str):
    """The words of a stage, with its numbers: a text as every stage is, so that only who draws a training needs to know."""

    learning: Learning

    def __new__(cls, words: str, learning: Learning) -> Told:
        """`words`, which carry `learning`."""
        told = super().__new__(cls, words)
        told.learning = learning
        return told


def silent(stage: str, done: int, total: int) -> None:
    """A `Progress` that says nothing."""


MOST_IMAGE_PX = 2048
"""The largest side of the square that a network sees."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to do. People write it as TOML; its identity is the hash of its canonical JSON.

    Args:
        method: A name of `sightline.training.methods.METHODS`.
        backbone: A network's name, `pixels`, or `file.py:function` for a network of the user's own.
        weights: `pretrained`, `random`, or a file.
        head: A name of `sightline.heads.HEADS`; `auto` compares the quick ones on validation.
        image_size: Side of the square that the network sees, in pixels, at most 2,048; None takes the one its weights were
            trained at.
        fit: How an image that is not square becomes one; None takes the weights' own.
        pool: What becomes of the last map: its mean, or all of it.
        positive: For two classes: the one that curves and threshold are about; None takes the rarer one.
        threshold: For two classes: how the probability is chosen from which on the answer is `positive`, on held-out images;
            a criterion of `sightline.evaluation.thresholds.CRITERIA`.
        seed: Every random draw is a function of it.
        settings: The method's own, checked against the method's dataclass: texts, finite numbers, true or false, lists and
            tables of these.

    Raises:
        RequestError: `image_size` is too large, or a setting is none of what settings hold.
    """

    method: str = "features"
    backbone: str = "mobilenetv2_100"
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
            raise RequestError(f"image_size cannot be {self.image_size}", f"it is at most {MOST_IMAGE_PX:,} pixels")
        for key, value in self.settings.items():
            _check_value(str(key), value)

    @property
    def id(self) -> str:
        """The recipe's identity."""
        return store.digest(self)


def _check_value(key: str, value: Any) -> None:
    """Refuse what a recipe cannot hold, however deep it lies.

    Raises:
        RequestError: It is a date, or a number that is none.
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
            hint = "a recipe holds texts, finite numbers, true or false, lists and tables of these"
            raise RequestError(f"{key} cannot be {value}", hint) from error
