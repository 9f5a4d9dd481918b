"""A small convolutional network trained from nothing on the user's own images."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sightline.errors import DataError, RequestError, unknown
from sightline.networks.classics import CLASSICS
from sightline.records import Head, Preprocess, Progress, silent
from sightline.store import stream
from sightline.training import augment
from sightline.training.loop import Epoch, Pixels, Plan, balanced_weights, train

IMAGE_SIZE = 64
"""What the network sees where nobody says otherwise, in pixels."""
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
"""The normalisation of networks that are trained here."""
MAP_SIDE = 8
"""No block pools below a map of this side: a heatmap of fewer cells shows nothing."""
EFFORT_PIXELS = 80_000 * 64 * 64
"""How many pixels are learnt from, all epochs together, where no number of epochs is given: about a minute on two cores."""
FEWEST_EPOCHS, ENOUGH_EPOCHS, MOST_EPOCHS = 8, 50, 120
SMALL_SET = 500
"""Smaller sets get more than enough epochs: an epoch of few steps teaches little, and costs little."""


@dataclass(frozen=True, slots=True)
class ScratchSettings:
    """The settings of method `scratch`.

    Args:
        network: A name of `sightline.networks.classics.CLASSICS`.
        filters: Of each block, 1 to 4,096.
        kernel: Side of the filters, 1 to 11 pixels.
        dropout: The share of features that is dropped before the last layer in training, 0 to 0.9.
        epochs: 1 to 10,000; None takes as many as `epochs_for` says, by the number and size of images.
        batch_size: 2 to 4,096.
        learning_rate: The highest on its course, above 0, at most 1.
        weight_decay: 0 to 10.
        label_smoothing: 0 to 0.5.
        augment: A policy of `sightline.training.augment.POLICIES`, or `auto`: `light` for grey images, else `photo`.
        patience: Stop after so many epochs without a better validation loss, 0 to 10,000; 0 goes to the end.
        keep: Which epoch's weights become the classifier.
        class_weight: `balanced` counts every class the same, however many images it has.
    """

    network: str = "cnn"
    filters: tuple[int, ...] = (32, 64, 128, 128)
    kernel: int = 3
    dropout: float = 0.1
    epochs: int | None = None
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    augment: str = "auto"
    patience: int = 0
    keep: Literal["val_loss", "val_accuracy", "last"] = "val_loss"
    class_weight: Literal["balanced"] | None = None

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "kernel": (1, 11),
            "dropout": (0, 0.9),
            "epochs": (1, 10_000),
            "batch_size": (2, 4096),
            "learning_rate": (1e-9, 1),
            "weight_decay": (0, 10),
            "label_smoothing": (0, 0.5),
            "patience": (0, 10_000),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise RequestError(f"{name} cannot be {value}", f"it lies between {low:g} and {high:g}")
        if not self.filters or not all(1 <= f <= 4096 for f in self.filters):
            raise RequestError(f"filters cannot be {list(self.filters)}", "give one number from 1 to 4096 for each block")


@dataclass(frozen=True, slots=True)
class ScratchFit:
    """A network trained from scratch: body and linear head, like a pretrained backbone and its logistic head.

    Args:
        network: The body, in eval mode, on the CPU, float32.
        head: The last linear layer as a logistic head: `weights` float32 (k, d), `bias` float32 (k,).
        history: One line an epoch.
        epochs: How many were finished.
        best_epoch: The one whose weights these are.
        steps: Of the optimiser.
        seconds: In all.
        precision: What training was computed in.
        cut_by_time: Whether the time budget ended it.
        notes: What a reader should know, in sentences.
        arguments: What builds the body again: `CLASSICS[name](**arguments)`.
    """

    network: nn.Module
    head: Head
    history: tuple[Epoch, ...]
    epochs: int
    best_epoch: int
    steps: int
    seconds: float
    precision: Literal["bf16", "f32"]
    cut_by_time: bool
    notes: tuple[str, ...]
    arguments: Mapping[str, Any]


class _Trainee(nn.Module):
    """Body, dropout and the last linear layer, as they are while they learn."""

    def __init__(self, body: nn.Module, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, classes)
        nn.init.zeros_(self.linear.weight)  # all classes equally likely at first, whatever the body gives
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, k) of normalised images (n, 3, h, w)."""
        return self.linear(self.dropout(self.body(x)[1]))  # type: ignore[no-any-return]


def preprocess(image_size: int | None = None) -> Preprocess:
    """What turns a file into what the network sees."""
    side = IMAGE_SIZE if image_size is None else image_size
    return Preprocess(size=(side, side), fit="crop", crop_fraction=1.0, interpolation="bicubic", mean=MEAN, std=STD)


def body_arguments(settings: ScratchSettings, image_size: int) -> dict[str, Any]:
    """The arguments of the network's builder: blocks pool by 2 as long as the map keeps `MAP_SIDE` cells a side."""
    side, pool = image_size, []
    for _ in settings.filters:
        pool.append(2 if side // 2 >= MAP_SIDE else 1)
        side //= pool[-1]
    return {"image_size": image_size, "filters": list(settings.filters), "kernel": settings.kernel, "pool": pool}


def epochs_for(images: int, image_size: int) -> int:
    """How many epochs so many images get where nobody says: by what they cost, from 8 to 50, in small sets up to 120."""
    affordable = round(EFFORT_PIXELS / (max(images, 1) * image_size**2))
    enough = min(MOST_EPOCHS, max(ENOUGH_EPOCHS, ENOUGH_EPOCHS * SMALL_SET // max(images, 1)))
    return max(FEWEST_EPOCHS, min(enough, affordable))


def fit(
    images: np.ndarray,
    y: np.ndarray,
    val_images: np.ndarray,
    val_y: np.ndarray,
    classes: int,
    *,
    settings: ScratchSettings,
    seed: int = 0,
    device: str = "cpu",
    budget_s: float = math.inf,
    progress: Progress = silent,
) -> ScratchFit:
    """Train a network from scratch, and split it into a body and a linear head.

    Args:
        images: uint8 (n, s, s, 3), decoded with `preprocess(s)`.
        y: int64 (n,), 0 to classes - 1.
        val_images: uint8 (m, s, s, 3), what decides which epoch is kept; m may be 0.
        val_y: int64 (m,).
        classes: k.
        settings: The method's.
        seed: Every random draw is a function of it.
        device: Of torch.
        budget_s: When to stop, in seconds.
        progress: Told after each step.

    Raises:
        DataError: Images and labels don't fit, or fewer than two images.
        RequestError: The network is unknown, or too deep for this image size.
    """
    began = time.monotonic()
    for pixels, labels in ((images, y), (val_images, val_y)):
        _check(pixels, labels, classes)
    if settings.network not in CLASSICS:
        raise unknown("network of ours", settings.network, CLASSICS)
    arguments = body_arguments(settings, images.shape[1])
    name, policy = augment.policy_for(settings.augment, images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream(seed, "weights").integers(2**63)))
        body = CLASSICS[settings.network](**arguments)
        network = _Trainee(body, int(body.features), classes, settings.dropout)  # type: ignore[arg-type]
    plan = Plan(
        epochs=settings.epochs or epochs_for(len(images), images.shape[1]),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        label_smoothing=settings.label_smoothing,
        patience=settings.patience,
        keep=settings.keep,
    )
    trained = train(
        network,
        Pixels(images, y),
        Pixels(val_images, val_y),
        plan=plan,
        policy=policy,
        mean=MEAN,
        std=STD,
        seed=seed,
        class_weights=balanced_weights(y, classes) if settings.class_weight == "balanced" else None,
        device=device,
        budget_s=budget_s,
        progress=progress,
    )
    network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    arrays = {
        "weights": network.linear.weight.detach().numpy().copy(),
        "bias": network.linear.bias.detach().numpy().copy(),
    }
    return ScratchFit(
        network=body,
        head=Head("logistic", classes, {}, arrays),
        history=trained.history,
        epochs=len(trained.history),
        best_epoch=trained.best_epoch,
        steps=trained.steps,
        seconds=time.monotonic() - began,
        precision=trained.precision,
        cut_by_time=trained.cut_by_time,
        notes=(f"augmentation: {name}", *trained.notes),
        arguments=arguments,
    )


def _check(images: np.ndarray, y: np.ndarray, classes: int) -> None:
    """Refuse arrays that no network can learn from."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise DataError(
            f"images of shape {images.shape} and type {images.dtype} cannot be learnt from", "give uint8 (n, s, s, 3)"
        )
    if len(images) and images.shape[1] != images.shape[2]:
        raise DataError(f"images of {images.shape[1]}×{images.shape[2]} pixels are not square", "decode them to a square size")
    if len(y) != len(images):
        raise DataError(f"{len(images)} images came with {len(y)} labels")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise DataError(f"a label lies outside 0 to {classes - 1}: {int(y.min())} to {int(y.max())}")
