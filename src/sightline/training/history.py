"""Training history: scores and gradient norms of every epoch, and the onset of overfitting."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sightline.evaluation import METRICS, wilson
from sightline.training.plan import WATCHED

GAP, LASTING = 0.1, 3
"""Overfitting: smallest gap between training and validation accuracy, and number of epochs that it has to last."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """Scores of one epoch. Training scores are computed during the epoch on augmented images, with dropout.

    Args:
        epoch: Number of the epoch, from 1.
        train_loss, train_accuracy: Means over the epoch.
        val_loss, val_accuracy: Scores after the epoch on unchanged images, in float32; NaN without validation images.
        learning_rate: Learning rate of the last step.
        seconds: Seconds since training began.
        val_watched: Value of the metric that the plan's `keep` names, if it is not one of these; else NaN.
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
    """Gradient norm of one layer in one epoch.

    Args:
        epoch: Number of the epoch, from 1.
        layer: Name of the module; the layers of an epoch are in the order of the network, mostly by depth.
        norm: L2 norm of the gradient over all parameters of the layer, before clipping; mean over the measured steps of the
            epoch.
        type: Class of the module, such as `Conv2d`.
    """

    epoch: int
    layer: str
    norm: float
    type: str


@dataclass(frozen=True, slots=True)
class Trained:
    """Result of the training loop; the network holds the weights of `best_epoch`, in eval mode.

    Args:
        history: Epochs that were completed with finite numbers, with those of a continued run.
        best_epoch: Epoch whose weights are the result, from 1.
        steps: Optimizer steps of all epochs.
        seconds: Duration of the training.
        precision: Precision of the forward and backward passes.
        stopped: Sentence on how the deadline ended training (a faster machine might have trained longer); None if it did not.
        notes: Notes for the user.
        gradients: Gradient norm of every layer in every epoch of `history`.
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
    """Return the score by which a plan ranks epochs; higher is better. Without validation images the last epoch is best."""
    value = float(line.epoch) if keep == "last" else getattr(line, keep if keep in WATCHED else "val_watched")
    if keep == "last" or math.isnan(value):
        return float(line.epoch), 0.0
    part, _, metric = keep.partition("_")
    loss, accuracy = getattr(line, f"{part}_loss"), getattr(line, f"{part}_accuracy")
    if metric == "loss":
        return -loss, accuracy
    return value if METRICS[metric].higher_is_better else -value, -loss


def as_rows(history: Sequence[Epoch], keep: str) -> list[dict[str, float]]:
    """Return the history as rows; `val_watched` is renamed to the metric in `keep`, or left out."""
    rows = [dataclasses.asdict(line) for line in history]
    for row in rows:
        watched = row.pop("val_watched")
        if keep not in (*WATCHED, "last"):
            row[keep] = watched
    return rows


def best_of(history: Sequence[Epoch], keep: str) -> int:
    """Return the number of the best epoch, the first one of ties; 0 for an empty history."""
    return max(history, key=lambda line: (rank(line, keep), -line.epoch)).epoch if history else 0


def overfitting(history: Sequence[Epoch], images: int) -> str | None:
    """Return the onset of overfitting, such as "from epoch 7: train 0.98, val 0.64"; None without overfitting.

    It is the epoch from which on the training accuracy stays above the validation accuracy by more than `GAP` and above its
    95 % interval, until the end and for at least `LASTING` epochs; the accuracies are those of the last epoch.

    Args:
        history: Epochs.
        images: Number of validation images.
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
