"""Train any network from random weights on the user's images."""

from __future__ import annotations

import dataclasses
import inspect
import time
from dataclasses import dataclass
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
from sightline.records import Head, Preprocess, Progress, silent
from sightline.store import stream
from sightline.training import augment, hardware, lr_finder, progressive_resizing
from sightline.training.loop import Epoch, GradientNorm, Pixels, Plan, train
from sightline.training.lr_finder import LrCurve
from sightline.training.scratch_settings import ScratchSettings

AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Names of auxiliary heads, which only training uses, in torchvision and timm."""
IMAGE_SIZE = 64
"""Default image side, in pixels."""
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
"""Normalisation of networks that are trained from scratch."""
MAP_SIDE = 8
"""Smallest side of the feature map of `cnn`: a heatmap with fewer cells would be too coarse."""
EFFORT_PIXELS = 80_000 * 64 * 64
"""Number of pixels of all epochs together if the recipe has no number of epochs: about a minute on two cores."""
FEWEST_EPOCHS, ENOUGH_EPOCHS, MOST_EPOCHS = 8, 50, 120
_DEEP_BYTES = 4_000
"""Upper bound of the memory per input pixel; batches that fit by this bound are not examined further."""
SMALL_SET = 500
"""Smaller data sets get more epochs than `ENOUGH_EPOCHS`, since their epochs have few steps."""


@dataclass(frozen=True, slots=True)
class ScratchFit:
    """Network trained from scratch, split into backbone and linear head.

    Args:
        network: The backbone, in eval mode, on the CPU, float32.
        made: The whole network, and the arguments that it was built from.
        head: The last linear layer as a logistic head: `weights` float32 (k, d), `bias` float32 (k,).
        history: Scores of every epoch.
        gradients: Gradient norm of every layer in every epoch.
        epochs: Number of completed epochs.
        best_epoch: Epoch of these weights.
        steps: Number of optimizer steps.
        seconds: Duration of the training.
        precision: Precision of the training.
        stopped: Sentence on how the deadline ended training; None if it did not.
        notes: Notes for the user.
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
class TrainingInputs:
    """Inputs of a training.

    Args:
        made: The whole network, untrained.
        network: The module to train, which wraps it.
        train: Training images.
        plan: Plan with a number of epochs.
        augmentation: Description of `policy`.
        policy: Augmentation.
        sides: Side of the images in each epoch, in pixels; None uses the full size.
    """

    made: RandomNetwork
    network: nn.Module
    train: Pixels
    plan: Plan
    augmentation: str
    policy: augment.Policy
    sides: tuple[int, ...] | None = None


class _Trainee(nn.Module):
    """Network in training: with dropout before its last layer, and two columns for one sigmoid unit."""

    def __init__(self, net: nn.Module, dropout: float) -> None:
        super().__init__()
        self.net = net
        self.dropout = nn.Dropout(dropout) if dropout else None
        last = getattr(net, "classifier", None)
        if isinstance(last, nn.Linear):  # equal initial probabilities of all classes
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits (n, k) of normalised images (n, 3, h, w); in training, those of auxiliary heads follow."""
        net: Any = self.net
        if channels_of(net) == 1:
            x = grey(x)
        output = net(x) if self.dropout is None else net.classifier(self.dropout(net.tail(net.map(x))))
        parts = [t for t in output if t is not None] if isinstance(output, tuple) else [output]
        columns = tuple(two_columns(t) if t.shape[1] == 1 else t for t in parts)
        return columns if len(columns) > 1 else columns[0]


def preprocess(image_size: int | None = None) -> Preprocess:
    """Return the preprocessing of networks that are trained from scratch."""
    side = IMAGE_SIZE if image_size is None else image_size
    return Preprocess(size=(side, side), fit="crop", crop_fraction=1.0, interpolation="bicubic", mean=MEAN, std=STD)


def called(network: str, image_size: int) -> str:
    """Return the network name with all arguments.

    `cnn` gets BatchNorm and pools by 2 while the feature map keeps `MAP_SIDE` cells a side; networks that can have auxiliary
    heads get them.

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
        return network  # building it reports the error
    side, pool = image_size, []
    for _ in blocks:
        pool.append(2 if side // 2 >= MAP_SIDE else 1)
        side //= pool[-1]
    return names.spell(name, {"batch_norm": True, "pool": pool, **given})


def epochs_for(images: int, image_size: int) -> int:
    """Return the default number of epochs by the number and size of images: 8 to 50, up to 120 for small data sets."""
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
    """Train a network from scratch, and split it into backbone and linear head.

    Args:
        images: uint8 (n, s, s, 3), decoded with `preprocess(s)`.
        y: int64 (n,), 0 to classes - 1.
        val_images: uint8 (m, s, s, 3), validation images, which choose the epoch; m may be 0.
        val_y: int64 (m,), their class indices.
        classes: Number of classes.
        settings: Settings of `scratch`.
        seed: Random seed.
        device: Device of torch.
        deadline: Time to stop.
        progress: Called after each step.
        watch: Called with the score after each epoch; may raise to stop training.
        checkpoint: Folder for checkpoints; a training whose checkpoint it holds is resumed.

    Raises:
        DataError: If images and labels do not match, or there are fewer than two images.
        RequestError: If the network is not known, does not have such an argument, or is too deep for this image size or the
            smaller ones of progressive resizing.
    """
    began = time.monotonic()
    _check(val_images, val_y, classes)
    inputs = prepare(images, y, classes, settings=settings, seed=seed)
    trained = train(
        inputs.network,
        inputs.train,
        Pixels(val_images, val_y),
        plan=inputs.plan,
        policy=inputs.policy,
        mean=MEAN,
        std=STD,
        seed=seed,
        sides=inputs.sides,
        device=device,
        deadline=deadline,
        progress=progress,
        watch=watch,
        checkpoint=checkpoint,
    )
    inputs.network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    body, head = split(inputs.made, classes)
    return ScratchFit(
        network=body,
        made=inputs.made,
        head=head,
        history=trained.history,
        gradients=tuple(dataclasses.replace(g, layer=g.layer.removeprefix("net.")) for g in trained.gradients),
        epochs=len(trained.history),
        best_epoch=trained.best_epoch,
        steps=trained.steps,
        seconds=time.monotonic() - began,
        precision=trained.precision,
        stopped=trained.stopped,
        notes=(f"augmentation: {inputs.augmentation}", *progressive_resizing.notes(inputs.sides), *trained.notes),
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
    """Run a learning-rate range test for the training of `fit` with the same arguments."""
    inputs = prepare(images, y, classes, settings=settings, seed=seed)
    return lr_finder.find_rate(
        inputs.network,
        inputs.train,
        plan=inputs.plan,
        policy=inputs.policy,
        mean=MEAN,
        std=STD,
        seed=seed,
        device=device,
        progress=progress,
    )


def prepare(images: np.ndarray, y: np.ndarray, classes: int, *, settings: ScratchSettings, seed: int) -> TrainingInputs:
    """Build the network and the inputs of its training; arguments as in `fit`."""
    _check(images, y, classes)
    augmentation, policy = augment.policy_for(settings.augment, images)
    seeded, side = int(stream(seed, "weights").integers(2**63)), int(images.shape[1])
    made = networks.random_network(
        called(settings.network, side), image_size=side, classes=classes, channels=_channels(settings.network), seed=seeded
    )
    plan = dataclasses.replace(settings.plan, epochs=settings.plan.epochs or epochs_for(len(images), side))
    trainee = _Trainee(made.net, _dropout(settings, made))
    return TrainingInputs(
        made=made,
        network=trainee,
        train=Pixels(images, y),
        plan=plan,
        augmentation=augmentation,
        policy=policy,
        sides=_sides(settings, trainee, plan, made),
    )


def split(made: RandomNetwork, classes: int) -> tuple[Network, Head]:
    """Split a network into backbone and linear head; if it does not end in a linear layer, its scores are the features.

    Args:
        made: The whole network, trained, in eval mode.
        classes: Number of classes; 2 for one sigmoid unit.

    Returns:
        The backbone, and a head that gives the logits of the network.
    """
    made.net.eval()
    for name in AUXILIARY:
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
    """Return whether the output of the network is this layer applied to its features, tested on noise."""
    x = torch.randn((1, 3, *made.size), generator=torch.Generator().manual_seed(0))
    direct = made.net(grey(x) if made.channels == 1 else x)
    again = last(body(x)[1])
    return bool(again.shape == direct.shape and torch.allclose(again, direct, rtol=1e-4, atol=1e-5))


def check_sides(settings: ScratchSettings, image_size: int, classes: int) -> None:
    """Check that progressive resizing is possible, before any image is read.

    Raises:
        RequestError: If there is no smaller side, or the network cannot train on a smaller one.
    """
    built, channels = called(settings.network, image_size), _channels(settings.network)
    made = networks.random_network(built, image_size=image_size, classes=classes, channels=channels, meta=True)
    _sides(settings, _Trainee(made.net, 0.0), settings.plan, made)


def check_memory(network: str, image_size: int, batch: int, classes: int) -> None:
    """Check that a training fits into the memory of this machine, before any image is read.

    The estimate counts half of all layer outputs for one batch, which the backward pass needs at least, and weights, gradients
    and the state of the optimizer. Without this check the operating system would kill the process.

    Raises:
        RequestError: If memory is too small.
    """
    memory = hardware.memory_bytes()
    if memory is None or batch * image_size**2 * _DEEP_BYTES < memory:
        return
    made = networks.random_network(called(network, image_size), image_size=image_size, classes=classes, meta=True)
    layers = anatomy(made.net, made.size, made.channels)
    needed = batch * layers.activation_bytes // 2 + 16 * layers.parameters
    if needed > memory:
        what = f"training {network} on batches of {batch} images of {image_size}×{image_size} px needs {needed / 1e9:,.0f} GB"
        raise RequestError(
            f"{what} of memory, and this machine has {memory / 1e9:,.0f} GB", "use a smaller image_size, batch_size or network"
        )


def _sides(settings: ScratchSettings, trainee: nn.Module, plan: Plan, made: RandomNetwork) -> tuple[int, ...] | None:
    """Return the side of the images in each epoch; None if it is always the same."""
    if settings.resize_from == 1:
        return None
    sides = progressive_resizing.sides(made.size[0], plan.epochs or FEWEST_EPOCHS, settings.resize_from)
    progressive_resizing.check(trainee, f"{made.name} for {made.size[0]} px", sides)
    return sides


def _channels(network: str) -> int | None:
    """Return 3 input channels (colour), or None if the arguments of the network set them."""
    name, given = names.parse(network)
    return None if "channels" in given or user.is_user(name) else 3


def _dropout(settings: ScratchSettings, made: RandomNetwork) -> float:
    """Return the dropout rate before the last layer.

    Raises:
        RequestError: If it is set for a network that is not one of Sightline's.
    """
    if settings.dropout is None:
        return 0.1 if names.parse(made.name)[0] == "cnn" else 0.0
    if settings.dropout and not all(hasattr(made.net, n) for n in ("map", "tail", "classifier")):
        raise RequestError(f"dropout cannot be set for {made.name}, which has its own", "leave dropout out")
    return settings.dropout


def _check(images: np.ndarray, y: np.ndarray, classes: int) -> None:
    """Check the arrays of images and labels."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise DataError(
            f"images of shape {images.shape} and type {images.dtype} cannot be used for training", "give uint8 (n, s, s, 3)"
        )
    if len(images) and images.shape[1] != images.shape[2]:
        raise DataError(f"images of {images.shape[1]}×{images.shape[2]} pixels are not square", "decode them to a square size")
    if len(y) != len(images):
        raise DataError(f"{len(images)} images came with {len(y)} labels")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise DataError(f"a label lies outside 0 to {classes - 1}: {int(y.min())} to {int(y.max())}")
