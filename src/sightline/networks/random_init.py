"""Any network by name, whole and with its own classifier, its weights at random: what is trained, counted and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sightline.errors import RequestError
from sightline.networks import backbones, building, names, user
from sightline.networks.classics import CLASSICS
from sightline.networks.index import NetworkEntry
from sightline.store import Cache


@dataclass(frozen=True, slots=True)
class RandomNetwork:
    """A network that has not learnt anything, and what it takes and gives.

    Args:
        net: It, in evaluation mode: normalised images float32 (n, channels, height, width) → logits (n, classes).
        name: As `names.spell` writes it.
        source: Who builds it.
        size: (height, width) of the images, in pixels.
        channels: Of the images.
        classes: How many logits it gives; 1 is one sigmoid unit for two classes, 0 is none: it ends in features.
        arguments: Those given beside size, channels and classes.
        entry: What the library says of it, for timm's and torchvision's own names.
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
    """Build a network without published weights.

    Args:
        name: timm's or torchvision's name, one of ours, with arguments or not (`cnn(filters=[32, 64])`), `file.py:function`,
            or a callable that returns an `nn.Module`.
        image_size: Side of the square that it sees, in pixels; None takes its own.
        classes: Logits; None takes its own number, 1 is one sigmoid unit, and so is 2 for a network that ends in one.
        channels: Of the images; None takes its own number.
        seed: The weights are a function of it.
        meta: On torch's meta device: shapes and counts without memory or time, and without numbers.
        cache: Where the lists of networks are kept; the user's own cache if None.

    Raises:
        RequestError: The name is not known, an argument is wrong, or it cannot see such images.
    """
    bare, arguments = names.parse(name if isinstance(name, str) else user.register(name))
    source, entry = names.source_of(bare, arguments, Cache() if cache is None else cache)
    if source == "pixels":
        raise RequestError(f"the backbone {bare!r} is no network", "name one that `sightline networks` lists")
    with backbones.seeded(seed):
        if bare in CLASSICS:
            return _classic(bare, arguments, image_size, classes, channels, meta, entry)
        if source == "user":
            return _users(bare, image_size, classes, meta)
        assert entry is not None
        return _librarys(entry, image_size, classes, channels, meta)


def _classic(
    name: str,
    arguments: dict[str, Any],
    image_size: int | None,
    classes: int | None,
    channels: int | None,
    meta: bool,
    entry: NetworkEntry | None,
) -> RandomNetwork:
    """One of `CLASSICS`, as in its paper where nobody says otherwise."""
    classic = CLASSICS[name]
    own = {"image_size": classic.image_size, "channels": classic.channels, "classes": classic.classes} | arguments
    given = {"image_size": image_size, "channels": channels, "classes": classes}
    if classes == 2 and own["classes"] == 1:
        given["classes"] = 1  # one sigmoid unit tells two classes apart
    own |= {k: v for k, v in given.items() if v is not None}
    net = _on(meta, lambda: building.classic(name, own))
    rest = {k: v for k, v in own.items() if k not in given}
    size = (int(own["image_size"]), int(own["image_size"]))
    spelled = names.spell(name, rest)
    return RandomNetwork(net, spelled, "sightline", size, int(own["channels"]), int(own["classes"]), rest, entry)


def _users(name: str, image_size: int | None, classes: int | None, meta: bool) -> RandomNetwork:
    """The user's own."""
    net = user.build(name, image_size, classes).eval()
    size = (image_size, image_size) if image_size else building.own_size(net) or (224, 224)
    channels = int(getattr(net, "channels", 3))
    given = _logits(net, size, channels)
    if classes is not None and given not in (classes, 1 if classes == 2 else classes):
        hint = "let its function take a parameter `classes`"
        raise RequestError(f"{name} gives {given} numbers for one image where {classes} are needed", hint)
    return RandomNetwork(net.to("meta") if meta else net, name, "user", size, channels, given)


def _logits(net: nn.Module, size: tuple[int, int], channels: int) -> int:
    """How many numbers a network gives for an image."""
    with torch.no_grad():
        x = torch.zeros((1, channels, *size), device=next((p.device for p in net.parameters()), None))
        try:
            given = net(x)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise RequestError(f"{type(net).__name__} cannot see images of {size[0]}×{size[1]} px ({line})") from error
    if isinstance(given, tuple):
        given = given[-1]
    return int(given.shape[1])


def _librarys(
    entry: NetworkEntry, image_size: int | None, classes: int | None, channels: int | None, meta: bool
) -> RandomNetwork:
    """timm's or torchvision's."""
    size = (image_size, image_size) if image_size else entry.preprocess.size
    net = _on(meta, lambda: backbones.create_whole(entry, size, classes=classes, channels=channels, drawn=not meta))
    own = entry.classes or (1000 if entry.source == "torchvision" else 0)
    given = own if classes is None else classes
    return RandomNetwork(net, entry.architecture, entry.source, size, channels or 3, given, {}, entry)


def _on(meta: bool, build: Callable[[], nn.Module]) -> nn.Module:
    """What a builder gives, in evaluation mode, built on the meta device where it can be."""
    if not meta:
        return build().eval()
    try:
        with torch.device("meta"):
            return build().eval()
    except RequestError:
        raise
    except (RuntimeError, NotImplementedError):  # its constructor looks at numbers
        return build().eval().to("meta")
