"""A network that has learnt something with a new head: one module that the loop trains, and back as backbone and head."""

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
_LOOKED_AT = 256
"""Training images that the mean features of a network that has changed are taken from."""
_CONVERTED_S = 5.0
"""About how long it takes to convert a network after training, in seconds."""


class BackboneHead(nn.Module):
    """Base and head. The base is always in inference mode: its BatchNorm keeps the statistics that it came with.

    Args:
        base: Images → features.
        head: Scaled features → logits.
        scale: What brings the features of the training images to mean 0 and squared length d, about 1 each. Weights that are
            loaded later bring their own.

    Attributes:
        quick: Images → features, faster than the base and to the same effect, where the base learns nothing.
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
        """The root of the number of features."""
        return float(max(self.base.features, 1) ** 0.5)

    @property
    def scale(self) -> Scale:
        """What features are brought to before the head: that of the weights as they are, on the CPU."""
        return Scale(self.mean.double().numpy(), self.unit / float(self.factor))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (n, 3, h, w) → logits (n, k)."""
        features = self.base(x)[1].float() if self.quick is None else self.quick(x)
        logits: Tensor = self.head((features - self.mean) * self.factor)
        return logits

    def train(self, mode: bool = True) -> Self:
        """As of any module, but the base stays in inference mode."""
        super().train(mode)
        self.base.eval()
        return self

    def layers(self) -> list[nn.Linear]:
        """The head's linear layers."""
        return [layer for layer in self.head if isinstance(layer, nn.Linear)]

    def set_layers(self, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Begin with a fitted head on the features themselves.

        Args:
            layers: Weights (out, in) and bias (out,) of each linear layer, as many as the head has.
        """
        scale = self.scale
        with torch.no_grad():
            for number, (layer, (weights, bias)) in enumerate(zip(self.layers(), layers, strict=True)):
                w, b = weights.astype(np.float64), bias.astype(np.float64)
                if number == 0:  # the stack scales the features
                    w, b = w * (scale.length / self.unit), b + w @ scale.mean
                layer.weight.copy_(torch.from_numpy(w))
                layer.bias.copy_(torch.from_numpy(b))


def assemble(
    start: PretrainedStart, features: np.ndarray, units: Sequence[tuple[int, float]], classes: int, seed: int, frozen: bool
) -> BackboneHead:
    """The network, all of it learning or none, with a new head.

    Args:
        start: The network.
        features: float32 (n, d), its features of the training images, for the scale.
        units: (width, dropout) of each layer before the last.
        classes: k.
        seed: The head's first weights are a function of it.
        frozen: Whether the network learns nothing.
    """
    base = networks.build(start.backbone, tensors=start.tensors)
    base = base.freeze() if frozen else base.unfreeze()
    with seeded(int(stream(seed, "head").integers(2**63))):
        head = dense(base.features, units, classes)
    if frozen:
        base.requires_grad_(False)  # what lies behind the features too
    return BackboneHead(base, head, scale_of(features))


def hasten(stack: BackboneHead, material: Material, backbone: Backbone, device: str) -> None:
    """Let a frozen base run in what is fastest here, where it agrees with torch on the user's own images."""
    if device == "cpu":
        some = torch.from_numpy(np.ascontiguousarray(material.train_images[:_BATCH]))
        stack.quick = engine.quick_features(stack.base.eval(), _normal(some, backbone), material.precision)


def head_of(stack: BackboneHead, units: Sequence[tuple[int, float]], classes: int, mean: np.ndarray) -> Head:
    """The head as arrays on the features themselves: `logistic` where it is one linear layer, else `mlp`.

    Args:
        stack: On the CPU.
        units: As it was made with.
        classes: k.
        mean: float32 (d,), the mean features of training images.
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
    """The mean of what the base makes of some images uint8 (n, h, w, 3): float32 (d,)."""
    some = images[:: max(1, len(images) // _LOOKED_AT)][:_LOOKED_AT]
    found = []
    for start in range(0, len(some), _BATCH):
        part = torch.from_numpy(np.ascontiguousarray(some[start : start + _BATCH]))
        found.append(stack.base(_normal(part, backbone))[1])
    return np.asarray(torch.cat(found).mean(dim=0).numpy())


def _normal(images: Tensor, backbone: Backbone) -> Tensor:
    """The network's normalised input, unchanged images: float32 (n, 3, h, w)."""
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
    """Train what learns of a stack, in place; it comes back to the CPU. A note says which augmentation was used."""
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


def look_for_rate(
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
    """Losses by learning rate of the training that `learn` would begin with the same arguments. The stack stays as it is."""
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
    """The measured cost of training a stack here.

    Args:
        epoch_s: One epoch, validation included, in seconds.
        behind_s: What comes behind training: mean features, the network converted, its fast precision judged, validation.
    """

    epoch_s: float
    behind_s: float


def cost(
    stack: BackboneHead, material: Material, backbone: Backbone, batch_size: int, device: str, clock: Clock = time.perf_counter
) -> Cost:
    """Measure one batch forward and back, after one to warm up, and predict what a training will take here.

    The stack keeps its weights; it is left on the device.
    """
    where = torch.device(device)
    stack.to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.from_numpy(np.ascontiguousarray(material.train_images[:batch_size])).to(where)
    learns = any(p.requires_grad for p in stack.parameters())
    step_s = look_s = 0.0
    for _ in range(2):
        began = clock()
        with torch.autocast(where.type, dtype=torch.bfloat16, enabled=loop.half_precision(where)):
            loss = stack(_normal(images, backbone)).float().square().mean()
        if learns:
            loss.backward()
        stack.zero_grad(set_to_none=True)
        loss.item()  # waits for an accelerator
        step_s = clock() - began
        began = clock()
        with torch.no_grad():
            stack(_normal(images, backbone)).sum().item()
        look_s = clock() - began
    train, val = len(material.train), len(material.val)
    behind = _LOOKED_AT + 2 * min(precision.JUDGED_IMAGES, train + val) + val
    return Cost((step_s * train + look_s * val) / len(images), _CONVERTED_S + behind * look_s / len(images))


def training_ends(context: Context, stack: BackboneHead, material: Material, backbone: Backbone, batch_size: int) -> Deadline:
    """Return when training has to end, so that what comes behind it fits into the time as well."""
    if not context.deadline.limited:
        return context.deadline
    return context.deadline.sooner(cost(stack, material, backbone, batch_size, context.device, context.deadline.clock).behind_s)
