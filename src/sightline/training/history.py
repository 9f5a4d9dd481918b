"""What training leaves behind of every epoch: scores, gradient norms by layer, and in words where overfitting starts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sightline.evaluation import METRICS, wilson
from sightline.training.plan import WATCHED

GAP, LASTING = 0.1, 3
"""By how much the training accuracy must be above the validation accuracy, for how many epochs, to be called overfitting."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the history. Training figures are those of the augmented images on the way, with dropout.

    Args:
        epoch: From 1.
        train_loss, train_accuracy: Means over the epoch.
        val_loss, val_accuracy: After the epoch, on unchanged images, in float32; NaN without validation images.
        learning_rate: Of the epoch's last step.
        seconds: Since training began.
        val_watched: Of the metric that the plan keeps an epoch by, where it is none of these; else NaN.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    val_watched: float = math.nan


@dataclass(frozen=True, slots=True)
class GradientNorm:
    """How strongly one layer learnt in one epoch.

    Args:
        epoch: From 1.
        layer: The module's name; the layers of an epoch come in the order of the network, which mostly is that of depth.
        norm: The Euclidean norm of the loss's gradient over all parameters of the layer, before clipping; the mean over the
            epoch's steps that were measured.
        type: The module's class, such as `Conv2d`.
    """

    epoch: int
    layer: str
    norm: float
    type: str


@dataclass(frozen=True, slots=True)
class Trained:
    """What the loop did. The network itself holds the weights of `best_epoch`, in eval mode.

    Args:
        history: Every epoch that was finished with finite numbers, those of an earlier run that was continued among them.
        best_epoch: The one whose weights were kept, from 1.
        steps: Of the optimizer, in all epochs.
        seconds: In all.
        precision: What the convolutions were computed in.
        stopped: How the deadline ended it, in words (another machine might have gone further); None where it did not.
        notes: What a reader should know, in sentences.
        gradients: The gradient norm of every layer in every epoch of `history`.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    steps: int
    seconds: float
    precision: Literal["bf16", "f32"]
    stopped: str | None = None
    notes: tuple[str, ...] = ()
    gradients: tuple[GradientNorm, ...] = ()


def rank(line: Epoch, keep: str) -> tuple[float, float]:
    """How good an epoch is by what a plan keeps; higher is better. Without validation images the last is the best."""
    value = float(line.epoch) if keep == "last" else getattr(line, keep if keep in WATCHED else "val_watched")
    if keep == "last" or math.isnan(value):
        return float(line.epoch), 0.0
    part, _, metric = keep.partition("_")
    loss, accuracy = getattr(line, f"{part}_loss"), getattr(line, f"{part}_accuracy")
    if metric == "loss":
        return -loss, accuracy
    return value if METRICS[metric].higher_is_better else -value, -loss


def as_rows(history: Sequence[Epoch], keep: str) -> list[dict[str, float]]:
    """The history as a table; what else is watched bears its own name there."""
    told = [dataclasses.asdict(line) for line in history]
    for row in told:
        watched = row.pop("val_watched")
        if keep not in (*WATCHED, "last"):
            row[keep] = watched
    return told


def best_of(history: Sequence[Epoch], keep: str) -> int:
    """The number of the best epoch, the first of equals; 0 where there is none."""
    return max(history, key=lambda line: (rank(line, keep), -line.epoch)).epoch if history else 0


def overfitting(history: Sequence[Epoch], images: int) -> str | None:
    """Return where overfitting starts, such as "from epoch 7: train 0.98, val 0.64"; None where it does not.

    It starts with the epoch from which on the training accuracy stays above the validation accuracy by more than `GAP` and
    above its 95 % interval, for `LASTING` epochs at least; the numbers are the last epoch's.

    Args:
        history: The epochs.
        images: Of the validation split.
    """
    lasting: list[Epoch] = []
    for line in reversed(history):
        if math.isnan(line.val_accuracy) or images < 1:
            break
        _, high = wilson(round(line.val_accuracy * images), images)
        if not line.train_accuracy > max(high, line.val_accuracy + GAP):
            break
        lasting.append(line)
    if len(lasting) < LASTING:
        return None
    last, start = history[-1], lasting[-1].epoch
    return f"from epoch {start}: train {last.train_accuracy:.2f}, val {last.val_accuracy:.2f}"
