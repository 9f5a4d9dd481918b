"""Any network trained from nothing on the user's own images."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sightline import networks
from sightline.deadline import UNLIMITED, Deadline
from sightline.errors import DataError, RequestError
from sightline.heads.problem import Watch
from sightline.networks import names, user
from sightline.networks.anatomy import anatomy
from sightline.networks.classics import CLASSICS
from sightline.networks.find_feature_map import channels_of
from sightline.networks.network import Network, grey, two_columns
from sightline.networks.random_init import RandomNetwork
from sightline.pixels import check_crops
from sightline.records import Head, Preprocess, Progress, silent
from sightline.schema import BESIDE
from sightline.store import stream
from sightline.training import augment, hardware, lr_finder, progressive_resizing
from sightline.training.loop import Epoch, GradientNorm, Pixels, Plan, train
from sightline.training.lr_finder import LrCurve

_AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Heads that only training uses, by the names that torchvision and timm give them."""
IMAGE_SIZE = 64
"""What the network sees where nobody says otherwise, in pixels."""
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
"""The normalisation of networks that are trained here."""
MAP_SIDE = 8
"""No block pools below a map of this side: a heatmap of fewer cells shows nothing."""
EFFORT_PIXELS = 80_000 * 64 * 64
"""How many pixels are learnt from, all epochs together, where no number of epochs is given: about a minute on two cores."""
FEWEST_EPOCHS, ENOUGH_EPOCHS, MOST_EPOCHS = 8, 50, 120
LEAST_SHARE = 0.25
"""Of the side: what progressive resizing may begin with."""
_DEEP_BYTES = 4_000
"""More than networks keep of a pixel of its input: what is small by this needs no look at the network."""
SMALL_SET = 500
"""Smaller sets get more than enough epochs: an epoch of few steps teaches little, and costs little."""


@dataclass(frozen=True, slots=True)
class ScratchSettings:
    """The settings of method `scratch`.

    Args:
        network: Any network, as `sightline networks` lists them, with arguments or not, such as `resnet18` or
            `cnn(filters=[32, 64], kernel=5)`. `cnn` gets BatchNorm, and pools only as far as a heatmap allows, where its
            arguments don't say otherwise.
        dropout: The share of features that is dropped before the last layer in training, 0 to 0.9, for networks of ours;
            None takes 0.1 for `cnn` and none for others.
        augment: A policy of `sightline.training.augment.POLICIES`, or `auto`: `light` for grey images, else `photo`; or
            settings that change one, such as `{"policy": "photo", "rotation": 30}`.
        plan: How it is trained; in a recipe its keys stand beside the others. Where it names no number of epochs, it is as
            many as `epochs_for` says, by the number and size of images.
        resize_from: Progressive resizing: the share of the side that training begins with, 0.25 to 1; images grow in up to
            three steps, and the last third of the epochs sees them whole. Validation always does. 1 does without.
        crops: Looks at each image when it is asked about: 1, 5 or 10.
    """

    network: str = "cnn"
    dropout: float | None = None
    augment: str | Mapping[str, Any] = "auto"
    plan: Plan = field(default=Plan(), metadata=BESIDE)
    resize_from: float = 1.0
    crops: int = 1

    def __post_init__(self) -> None:
        check_crops(self.crops)
        if self.dropout is not None and not 0 <= self.dropout <= 0.9:
            raise RequestError(f"dropout cannot be {self.dropout}", "it lies between 0 and 0.9")
        if not LEAST_SHARE <= self.resize_from <= 1:
            raise RequestError(f"resize_from cannot be {self.resize_from}", f"it lies between {LEAST_SHARE} and 1")


@dataclass(frozen=True, slots=True)
class ScratchFit:
    """A network trained from scratch: body and linear head, like a pretrained backbone and its logistic head.

    Args:
        network: The body, in eval mode, on the CPU, float32.
        made: The whole network, and what it was built from.
        head: The last linear layer as a logistic head: `weights` float32 (k, d), `bias` float32 (k,).
        history: One line an epoch.
        gradients: The gradient norm of every layer in every epoch.
        epochs: How many were finished.
        best_epoch: The one whose weights these are.
        steps: Of the optimizer.
        seconds: In all.
        precision: What training was computed in.
        stopped: How the deadline ended it, in words; None where it came to its end.
        notes: What a reader should know, in sentences.
    """

    network: Network
    made: RandomNetwork
    head: Head
    history: tuple[Epoch, ...]
    gradients: tuple[GradientNorm, ...]
    epochs: int
    best_epoch: int
    steps: int
    seconds: float
    precision: Literal["bf16", "f32"]
    stopped: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a training begins with.

    Args:
        made: The whole network, untrained.
        network: The same as it learns.
        train: The images.
        plan: With a number of epochs.
        augmentation: What `policy` is called.
        policy: How images are changed.
        sides: Of the images in each epoch, in pixels; None leaves them as they are.
    """

    made: RandomNetwork
    network: nn.Module
    train: Pixels
    plan: Plan
    augmentation: str
    policy: augment.Policy
    sides: tuple[int, ...] | None = None


class _Trainee(nn.Module):
    """A network as it is while it learns: with dropout before its last layer, and two columns for one sigmoid unit."""

    def __init__(self, net: nn.Module, dropout: float) -> None:
        super().__init__()
        self.net = net
        self.dropout = nn.Dropout(dropout) if dropout else None
        last = getattr(net, "classifier", None)
        if isinstance(last, nn.Linear):  # all classes equally likely at first, whatever comes before
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits (n, k) of normalised images (n, 3, h, w); in training those of auxiliary heads behind them."""
        net: Any = self.net
        if channels_of(net) == 1:
            x = grey(x)
        output = net(x) if self.dropout is None else net.classifier(self.dropout(net.tail(net.map(x))))
        parts = [t for t in output if t is not None] if isinstance(output, tuple) else [output]
        columns = tuple(two_columns(t) if t.shape[1] == 1 else t for t in parts)
        return columns if len(columns) > 1 else columns[0]


def preprocess(image_size: int | None = None) -> Preprocess:
    """What turns a file into what the network sees."""
    side = IMAGE_SIZE if image_size is None else image_size
    return Preprocess(size=(side, side), fit="crop", crop_fraction=1.0, interpolation="bicubic", mean=MEAN, std=STD)


def called(network: str, image_size: int) -> str:
    """The network as it is built: `cnn` with BatchNorm, blocks pooling by 2 as long as the map keeps `MAP_SIDE` cells a side;
    one that may have auxiliary heads with them.

    Example:
        >>> called("cnn(filters=[8, 16])", 16)
        'cnn(batch_norm=True, pool=[2, 1], filters=[8, 16])'
        >>> called("resnet18", 64)
        'resnet18'
    """
    name, given = names.parse(network)
    if name in CLASSICS and "auxiliary" in inspect.signature(CLASSICS[name].build).parameters:
        return names.spell(name, {"auxiliary": True, **given})
    if name != "cnn":
        return network
    blocks = given.get("filters") or inspect.signature(CLASSICS["cnn"].build).parameters["filters"].default
    if not isinstance(blocks, list | tuple):
        return network  # whoever builds it says what is wrong
    side, pool = image_size, []
    for _ in blocks:
        pool.append(2 if side // 2 >= MAP_SIDE else 1)
        side //= pool[-1]
    return names.spell(name, {"batch_norm": True, "pool": pool, **given})


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
    deadline: Deadline = UNLIMITED,
    progress: Progress = silent,
    watch: Watch | None = None,
    checkpoint: Path | None = None,
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
        deadline: When to stop.
        progress: Told after each step.
        watch: Told after each epoch how good it is; may raise to give up.
        checkpoint: A folder in which the training is kept on disk; where it holds one, that goes on.

    Raises:
        DataError: Images and labels don't fit, or fewer than two images.
        RequestError: The network is unknown, takes no such argument, is too deep for this image size, or for the smaller ones
            that its training begins with.
    """
    began = time.monotonic()
    _check(val_images, val_y, classes)
    lesson = prepare(images, y, classes, settings=settings, seed=seed)
    trained = train(
        lesson.network,
        lesson.train,
        Pixels(val_images, val_y),
        plan=lesson.plan,
        policy=lesson.policy,
        mean=MEAN,
        std=STD,
        seed=seed,
        sides=lesson.sides,
        device=device,
        deadline=deadline,
        progress=progress,
        watch=watch,
        checkpoint=checkpoint,
    )
    lesson.network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    body, head = split(lesson.made, classes)
    return ScratchFit(
        network=body,
        made=lesson.made,
        head=head,
        history=trained.history,
        gradients=tuple(dataclasses.replace(g, layer=g.layer.removeprefix("net.")) for g in trained.gradients),
        epochs=len(trained.history),
        best_epoch=trained.best_epoch,
        steps=trained.steps,
        seconds=time.monotonic() - began,
        precision=trained.precision,
        stopped=trained.stopped,
        notes=(f"augmentation: {lesson.augmentation}", *progressive_resizing.notes(lesson.sides), *trained.notes),
    )


def find_rate(
    images: np.ndarray,
    y: np.ndarray,
    classes: int,
    *,
    settings: ScratchSettings,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> LrCurve:
    """Losses by learning rate of the training that `fit` would begin with the same arguments."""
    lesson = prepare(images, y, classes, settings=settings, seed=seed)
    return lr_finder.find_rate(
        lesson.network,
        lesson.train,
        plan=lesson.plan,
        policy=lesson.policy,
        mean=MEAN,
        std=STD,
        seed=seed,
        device=device,
        progress=progress,
    )


def prepare(images: np.ndarray, y: np.ndarray, classes: int, *, settings: ScratchSettings, seed: int) -> Lesson:
    """What training begins with, of the same arguments as `fit` has."""
    _check(images, y, classes)
    augmentation, policy = augment.policy_for(settings.augment, images)
    seeded, side = int(stream(seed, "weights").integers(2**63)), int(images.shape[1])
    made = networks.random_network(
        called(settings.network, side), image_size=side, classes=classes, channels=_channels(settings.network), seed=seeded
    )
    plan = dataclasses.replace(settings.plan, epochs=settings.plan.epochs or epochs_for(len(images), side))
    learns = _Trainee(made.net, _dropout(settings, made))
    return Lesson(made, learns, Pixels(images, y), plan, augmentation, policy, _sides(settings, learns, plan, made))


def split(made: RandomNetwork, classes: int) -> tuple[Network, Head]:
    """A network as body and linear head. Where it does not end in a linear layer, its own scores are the features.

    Args:
        made: The whole network, trained, in eval mode.
        classes: k; 2 for one sigmoid unit.

    Returns:
        The body, and a head whose logits of the body's features are the network's own.
    """
    made.net.eval()
    for name in _AUXILIARY:
        if isinstance(getattr(made.net, name, None), nn.Module):
            setattr(made.net, name, None)
            made.net.aux_logits = False  # type: ignore[assignment]
    body = Network(made.net, made.size)
    last = made.net.get_submodule(body.classifier) if body.classifier else None
    if isinstance(last, nn.Linear) and _ends_in(made, body, last):
        weights, bias = last.weight.detach().numpy(), last.bias.detach().numpy()
    else:
        body = body if isinstance(last, nn.Identity) else Network(made.net, made.size, pool="scores")
        weights, bias = np.eye(body.features, dtype=np.float32), np.zeros(body.features, dtype=np.float32)
    if len(bias) == 1 and classes == 2:
        weights, bias = np.concatenate([np.zeros_like(weights), weights]), np.concatenate([np.zeros_like(bias), bias])
    return body.eval(), Head("logistic", classes, {}, {"weights": weights.copy(), "bias": bias.copy()})


@torch.no_grad()
def _ends_in(made: RandomNetwork, body: Network, last: nn.Linear) -> bool:
    """Whether the network's output is that layer of its features, and nothing else, as measured on noise."""
    x = torch.randn((1, 3, *made.size), generator=torch.Generator().manual_seed(0))
    direct = made.net(grey(x) if made.channels == 1 else x)
    again = last(body(x)[1])
    return bool(again.shape == direct.shape and torch.allclose(again, direct, rtol=1e-4, atol=1e-5))


def check_sides(settings: ScratchSettings, image_size: int, classes: int) -> None:
    """Refuse progressive resizing where it cannot be, before any image is looked at.

    Raises:
        RequestError: No side is smaller, or the network cannot learn from a smaller one.
    """
    built, channels = called(settings.network, image_size), _channels(settings.network)
    made = networks.random_network(built, image_size=image_size, classes=classes, channels=channels, meta=True)
    _sides(settings, _Trainee(made.net, 0.0), settings.plan, made)


def check_memory(network: str, image_size: int, batch: int, classes: int) -> None:
    """Refuse what this machine's memory cannot hold, before any image is looked at: the system would end the process.

    Counted are half of all layers' outputs for one batch, which learning keeps at least, and weights, gradients and what the
    optimizer remembers.

    Raises:
        RequestError: So it is.
    """
    memory = hardware.memory_bytes()
    if memory is None or batch * image_size**2 * _DEEP_BYTES < memory:
        return
    made = networks.random_network(called(network, image_size), image_size=image_size, classes=classes, meta=True)
    found = anatomy(made.net, made.size, made.channels)
    needed = batch * found.activation_bytes // 2 + 16 * found.parameters
    if needed > memory:
        what = f"to learn from {batch} images of {image_size}×{image_size} px at once {network} needs {needed / 1e9:,.0f} GB"
        raise RequestError(
            f"{what} of memory, and here are {memory / 1e9:,.0f} GB", "take a smaller image_size, batch_size, or network"
        )


def _sides(settings: ScratchSettings, learns: nn.Module, plan: Plan, made: RandomNetwork) -> tuple[int, ...] | None:
    """The side in each epoch; None where it is always the same."""
    if settings.resize_from == 1:
        return None
    found = progressive_resizing.sides(made.size[0], plan.epochs or FEWEST_EPOCHS, settings.resize_from)
    progressive_resizing.check(learns, f"{made.name} for {made.size[0]} px", found)
    return found


def _channels(network: str) -> int | None:
    """Colour, where the network's own arguments don't say otherwise."""
    name, given = names.parse(network)
    return None if "channels" in given or user.is_user(name) else 3


def _dropout(settings: ScratchSettings, made: RandomNetwork) -> float:
    """The share that is dropped before the last layer.

    Raises:
        RequestError: It was asked for, and the network is not one of ours.
    """
    if settings.dropout is None:
        return 0.1 if names.parse(made.name)[0] == "cnn" else 0.0
    if settings.dropout and not all(hasattr(made.net, n) for n in ("map", "tail", "classifier")):
        raise RequestError(f"dropout cannot be set for {made.name}, which has its own", "leave dropout out")
    return settings.dropout


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
