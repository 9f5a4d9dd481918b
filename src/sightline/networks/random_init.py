"""Networks with random weights and their own classifier, by name: for training from scratch, layer tables and diagrams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sightline.errors import RequestError
from sightline.networks import backbones, building, names, user
from sightline.networks.classics import CLASSICS
from sightline.networks.entry import NetworkEntry
from sightline.store import Cache


@dataclass(frozen=True, slots=True)
class _Shape:
    """Requested shape of a network; None for the network's default.

    Args:
        image_size: Side of the square input in px.
        classes: Number of logits.
        channels: Number of input channels.
        meta: Whether to build on torch's meta device.
    """

    image_size: int | None
    classes: int | None
    channels: int | None
    meta: bool


@dataclass(frozen=True, slots=True)
class RandomNetwork:
    """An untrained network with the shapes of its input and output.

    Args:
        net: The network in evaluation mode: normalised images float32 (n, channels, height, width) → logits (n, classes).
        name: Name and arguments, as `names.spell` writes them.
        source: What builds it.
        size: (height, width) of the images in px.
        channels: Number of input channels.
        classes: Number of logits; 1 is a single sigmoid unit for two classes, 0 a network without classifier.
        arguments: Arguments other than size, channels and classes.
        entry: Library entry, for timm's and torchvision's networks.
    """

    net: nn.Module
    name: str
    source: names.Source
    size: tuple[int, int]
    channels: int
    classes: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    entry: NetworkEntry | None = None


def random_network(
    name: str | Callable[..., Any],
    *,
    image_size: int | None = None,
    classes: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    meta: bool = False,
    cache: Cache | None = None,
) -> RandomNetwork:
    """Build a network with random weights and its own classifier.

    Args:
        name: timm's or torchvision's name, a classic network with or without arguments (`cnn(filters=[32, 64])`),
            `file.py:function`, or a callable that returns an `nn.Module`.
        image_size: Side of the square input in px; None for the network's default.
        classes: Number of logits; None for the network's default. 1 is a single sigmoid unit, and so is 2 for a network whose
            default is 1.
        channels: Number of input channels; None for the network's default.
        seed: Random seed of the weights.
        meta: Whether to build on torch's meta device: shapes and counts, but no values, in little time and memory.
        cache: Cache of the lists of networks; the user's cache if None.

    Raises:
        RequestError: If the name is unknown, an argument is wrong, or the network does not accept such images.
    """
    bare, arguments = names.parse(name if isinstance(name, str) else user.register(name))
    source, entry = names.source_of(bare, arguments, Cache() if cache is None else cache)
    if source == "pixels":
        raise RequestError(f"the backbone {bare!r} is not a network", "choose one that `sightline networks` lists")
    shape = _Shape(image_size, classes, channels, meta)
    with backbones.seeded(seed):
        if bare in CLASSICS:
            return _classic_network(bare, arguments, shape, entry)
        if source == "user":
            return _user_network(bare, shape)
        assert entry is not None
        return _library_network(entry, shape)


def _classic_network(name: str, arguments: dict[str, Any], shape: _Shape, entry: NetworkEntry | None) -> RandomNetwork:
    """Build one of `CLASSICS`; arguments that are not given have the values of its paper."""
    classic = CLASSICS[name]
    settings = {"image_size": classic.image_size, "channels": classic.channels, "classes": classic.classes} | arguments
    requested = {"image_size": shape.image_size, "channels": shape.channels, "classes": shape.classes}
    if shape.classes == 2 and settings["classes"] == 1:
        requested["classes"] = 1  # a single sigmoid unit is enough for two classes
    settings |= {k: v for k, v in requested.items() if v is not None}
    rest = {k: v for k, v in settings.items() if k not in requested}
    return RandomNetwork(
        net=_build(lambda: building.classic(name, settings), meta=shape.meta),
        name=names.spell(name, rest),
        source="sightline",
        size=(int(settings["image_size"]), int(settings["image_size"])),
        channels=int(settings["channels"]),
        classes=int(settings["classes"]),
        arguments=rest,
        entry=entry,
    )


def _user_network(name: str, shape: _Shape) -> RandomNetwork:
    """Build a user-defined network."""
    net = user.build(name, shape.image_size, shape.classes).eval()
    size = (shape.image_size, shape.image_size) if shape.image_size else building.own_size(net) or (224, 224)
    channels = int(getattr(net, "channels", 3))
    outputs, classes = _count_outputs(net, size, channels), shape.classes
    if classes is not None and outputs not in (classes, 1 if classes == 2 else classes):
        hint = "give its function a parameter `classes`"
        raise RequestError(f"{name} returns {outputs} numbers per image instead of {classes}", hint)
    return RandomNetwork(net.to("meta") if shape.meta else net, name, "user", size, channels, outputs)


def _count_outputs(net: nn.Module, size: tuple[int, int], channels: int) -> int:
    """Return how many numbers a network returns for one image."""
    with torch.no_grad():
        x = torch.zeros((1, channels, *size), device=next((p.device for p in net.parameters()), None))
        try:
            output = net(x)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise RequestError(f"{type(net).__name__} does not accept images of {size[0]}×{size[1]} px ({line})") from error
    if isinstance(output, tuple):
        output = output[-1]
    return int(output.shape[1])


def _library_network(entry: NetworkEntry, shape: _Shape) -> RandomNetwork:
    """Build a network of timm or torchvision."""
    size = (shape.image_size, shape.image_size) if shape.image_size else entry.preprocess.size
    default_classes = entry.classes or (1000 if entry.source == "torchvision" else 0)

    def build() -> nn.Module:
        return backbones.create_with_classifier(
            entry, size, classes=shape.classes, channels=shape.channels, drawn=not shape.meta
        )

    return RandomNetwork(
        net=_build(build, meta=shape.meta),
        name=entry.architecture,
        source=entry.source,
        size=size,
        channels=shape.channels or 3,
        classes=default_classes if shape.classes is None else shape.classes,
        entry=entry,
    )


def _build(build: Callable[[], nn.Module], *, meta: bool) -> nn.Module:
    """Call a builder and return the network in evaluation mode, on the meta device if `meta`."""
    if not meta:
        return build().eval()
    try:
        with torch.device("meta"):
            return build().eval()
    except RequestError:
        raise
    except (RuntimeError, NotImplementedError):  # its constructor needs values
        return build().eval().to("meta")
