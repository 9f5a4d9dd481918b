"""Backbone with head: one module that the training loop trains, and its conversion back to a backbone and a head."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from sightline import engine, heads, networks
from sightline.deadline import Clock, Deadline
from sightline.heads.mlp import folded
from sightline.heads.problem import Scale, scale_of
from sightline.networks.backbones import seeded
from sightline.networks.network import Network
from sightline.networks.transfer import dense
from sightline.records import Backbone, Head
from sightline.store import stream
from sightline.training import augment, loop, lr_finder, precision
from sightline.training.lr_finder import LrCurve

if TYPE_CHECKING:
    from sightline.training.context import Context
    from sightline.training.pretrained import Material, PretrainedStart

_BATCH = 16
_MEAN_IMAGES = 256
"""Number of training images for the mean features of a fine-tuned network."""
_CONVERTED_S = 5.0
"""Estimate of the duration of converting a network after training, in seconds."""


class BackboneHead(nn.Module):
    """Backbone and head. The backbone is always in eval mode: its BatchNorm statistics stay fixed.

    Args:
        base: Images → features.
        head: Scaled features → logits.
        scale: Standardisation of features: mean 0 and mean squared length d over the training images. Loading weights
            replaces it.

    Attributes:
        quick: Images → features, a faster equivalent of a frozen backbone; None without one.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, base: Network, head: nn.Sequential, scale: Scale) -> None:
        super().__init__()
        self.base, self.head = base, head
        self.register_buffer("mean", torch.from_numpy(scale.mean.astype(np.float32)))
        self.register_buffer("factor", torch.tensor(self.unit / scale.length, dtype=torch.float32))
        self.quick: Callable[[Tensor], Tensor] | None = None

    @property
    def unit(self) -> float:
        """Square root of the number of features."""
        return float(max(self.base.features, 1) ** 0.5)

    @property
    def scale(self) -> Scale:
        """Standardisation of features that belongs to the present weights, on the CPU."""
        return Scale(self.mean.double().numpy(), self.unit / float(self.factor))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, k) of normalised images (n, 3, h, w)."""
        features = self.base(x)[1].float() if self.quick is None else self.quick(x)
        logits: Tensor = self.head((features - self.mean) * self.factor)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head; the backbone stays in eval mode."""
        super().train(mode)
        self.base.eval()
        return self

    def layers(self) -> list[nn.Linear]:
        """Return the linear layers of the head."""
        return [layer for layer in self.head if isinstance(layer, nn.Linear)]

    def set_layers(self, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Set the weights of the head to those of a head fitted on unscaled features.

        Args:
            layers: Weights (out, in) and bias (out,) of each linear layer of the head.
        """
        scale = self.scale
        with torch.no_grad():
            for number, (layer, (weights, bias)) in enumerate(zip(self.layers(), layers, strict=True)):
                w, b = weights.astype(np.float64), bias.astype(np.float64)
                if number == 0:  # this module scales the features
                    w, b = w * (scale.length / self.unit), b + w @ scale.mean
                layer.weight.copy_(torch.from_numpy(w))
                layer.bias.copy_(torch.from_numpy(b))


def assemble(
    start: PretrainedStart, features: np.ndarray, units: Sequence[tuple[int, float]], classes: int, seed: int, frozen: bool
) -> BackboneHead:
    """Build a network, frozen or trainable, with a new head.

    Args:
        start: The network.
        features: float32 (n, d), features of the training images, for the standardisation.
        units: (width, dropout) of each hidden layer of the head.
        classes: Number of classes.
        seed: Random seed of the initial weights of the head.
        frozen: Whether the network is frozen.
    """
    base = networks.build(start.backbone, tensors=start.tensors)
    base = base.freeze() if frozen else base.unfreeze()
    with seeded(int(stream(seed, "head").integers(2**63))):
        head = dense(base.features, units, classes)
    if frozen:
        base.requires_grad_(False)  # also the layers after the features
    return BackboneHead(base, head, scale_of(features))


def use_fast_engine(stack: BackboneHead, material: Material, backbone: Backbone, device: str) -> None:
    """Use the fastest engine for a frozen backbone, if it agrees with torch on the user's images."""
    if device == "cpu":
        some = torch.from_numpy(np.ascontiguousarray(material.train_images[:_BATCH]))
        stack.quick = engine.quick_features(stack.base.eval(), _normal(some, backbone), material.precision)


def head_of(stack: BackboneHead, units: Sequence[tuple[int, float]], classes: int, mean: np.ndarray) -> Head:
    """Return the head as arrays for unscaled features: `logistic` for one linear layer, else `mlp`.

    Args:
        stack: Backbone with head, on the CPU.
        units: (width, dropout) of its hidden layers.
        classes: Number of classes.
        mean: float32 (d,), mean features of the training images.
    """
    layers = [(a.weight.detach().double().numpy(), a.bias.detach().double().numpy()) for a in stack.layers()]
    if units:
        arrays: Mapping[str, np.ndarray] = folded(layers, stack.scale, stack.unit)
    else:
        ((weights, bias),) = layers
        arrays = stack.scale.fold(weights * stack.unit, bias)
    kind, settings = heads.with_units(units)
    return Head(kind, classes, settings, {**arrays, "feature_mean": mean.astype(np.float32)})


@torch.no_grad()
def mean_features(stack: BackboneHead, images: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Return the mean features of a sample of images, uint8 (n, h, w, 3): float32 (d,)."""
    some = images[:: max(1, len(images) // _MEAN_IMAGES)][:_MEAN_IMAGES]
    features = []
    for start in range(0, len(some), _BATCH):
        part = torch.from_numpy(np.ascontiguousarray(some[start : start + _BATCH]))
        features.append(stack.base(_normal(part, backbone))[1])
    return np.asarray(torch.cat(features).mean(dim=0).numpy())


def _normal(images: Tensor, backbone: Backbone) -> Tensor:
    """Normalise images for the network: float32 (n, 3, h, w)."""
    seen = backbone.preprocess
    return augment.apply(images, augment.unchanged(len(images), seen.mean, seen.std).to(images.device))


def learn(
    context: Context,
    stack: BackboneHead,
    material: Material,
    backbone: Backbone,
    plan: loop.Plan,
    *,
    policy: str | Mapping[str, Any],
    seed: int,
    deadline: Deadline,
    groups: Sequence[dict[str, Any]] | None = None,
) -> loop.Trained:
    """Train the trainable parts of a backbone with head, in place; it ends on the CPU. A note names the augmentation."""
    name, changes = augment.policy_for(policy, material.train_images)
    trained = loop.train(
        stack,
        loop.Pixels(material.train_images, context.labels[material.train]),
        loop.Pixels(material.val_images, context.labels[material.val]),
        plan=plan,
        policy=changes,
        mean=backbone.preprocess.mean,
        std=backbone.preprocess.std,
        seed=seed,
        groups=groups,
        device=context.device,
        deadline=deadline,
        progress=context.progress,
        watch=context.watch,
        checkpoint=context.checkpoint,
    )
    stack.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return trained if name == "none" else _noted(trained, f"augmentation: {name}")


def find_rate(
    context: Context,
    stack: BackboneHead,
    material: Material,
    backbone: Backbone,
    plan: loop.Plan,
    *,
    policy: str | Mapping[str, Any],
    seed: int,
    groups: Sequence[dict[str, Any]] | None = None,
) -> LrCurve:
    """Run a learning-rate range test for the training of `learn` with the same arguments; the weights are restored."""
    return lr_finder.find_rate(
        stack,
        loop.Pixels(material.train_images, context.labels[material.train]),
        plan=plan,
        policy=augment.policy_for(policy, material.train_images)[1],
        mean=backbone.preprocess.mean,
        std=backbone.preprocess.std,
        seed=seed,
        groups=groups,
        device=context.device,
        progress=context.progress,
    )


def _noted(trained: loop.Trained, note: str) -> loop.Trained:
    import dataclasses

    return dataclasses.replace(trained, notes=(note, *trained.notes))


@dataclass(frozen=True, slots=True)
class Cost:
    """Measured duration of a training on this machine.

    Args:
        epoch_s: Duration of one epoch with validation, in seconds.
        behind_s: Duration of the steps after training, in seconds: mean features, conversion of the network, check of its fast
            precision, validation.
    """

    epoch_s: float
    behind_s: float


def cost(
    stack: BackboneHead, material: Material, backbone: Backbone, batch_size: int, device: str, clock: Clock = time.perf_counter
) -> Cost:
    """Measure the forward and backward pass of one batch, after a warm-up, and estimate the duration of a training.

    The weights do not change; the module stays on the device.
    """
    where = torch.device(device)
    stack.to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.from_numpy(np.ascontiguousarray(material.train_images[:batch_size])).to(where)
    learns = any(p.requires_grad for p in stack.parameters())
    step_s = forward_s = 0.0
    for _ in range(2):
        began = clock()
        with torch.autocast(where.type, dtype=torch.bfloat16, enabled=loop.half_precision(where)):
            loss = stack(_normal(images, backbone)).float().square().mean()
        if learns:
            loss.backward()
        stack.zero_grad(set_to_none=True)
        loss.item()  # wait for the accelerator
        step_s = clock() - began
        began = clock()
        with torch.no_grad():
            stack(_normal(images, backbone)).sum().item()
        forward_s = clock() - began
    train, val = len(material.train), len(material.val)
    behind = _MEAN_IMAGES + 2 * min(precision.JUDGED_IMAGES, train + val) + val
    return Cost((step_s * train + forward_s * val) / len(images), _CONVERTED_S + behind * forward_s / len(images))


def training_ends(context: Context, stack: BackboneHead, material: Material, backbone: Backbone, batch_size: int) -> Deadline:
    """Return the deadline of training, which leaves time for the steps after it."""
    if not context.deadline.limited:
        return context.deadline
    return context.deadline.sooner(cost(stack, material, backbone, batch_size, context.device, context.deadline.clock).behind_s)
