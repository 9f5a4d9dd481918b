"""Transfer learning: a pretrained base without its classifier and a new head, as one network and as rows of a layer table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sightline.networks.anatomy import Anatomy, anatomy, on_meta
from sightline.networks.feature_cut import Cut, Declared, Replay, evaluation_mode
from sightline.networks.find_feature_map import channels_of
from sightline.networks.network import Network


@dataclass(frozen=True, slots=True)
class Base:
    """A network up to its features.

    Args:
        net: The network; it may contain modules that the features do not need.
        cut: Cut at its last feature map.
        flat: Whether the features are the flattened map instead of the output of the tail.
        size: (height, width) of the images in px.
        channels: Number of input channels.
        features: Number of features d.
    """

    net: nn.Module
    cut: Cut
    flat: bool
    size: tuple[int, int]
    channels: int
    features: int


def base_of(network: Network) -> Base:
    """Return the base of a `Network`."""
    return Base(
        net=network.net,
        cut=network.cut,
        flat=network.pool == "flatten",
        size=network.size,
        channels=network.channels,
        features=network.features,
    )


def declared(net: nn.Module, size: tuple[int, int], *, flat: bool) -> Base | None:
    """Return the base of a network with methods `map` and `tail`, computed from shapes alone; None for any other network.

    Args:
        net: A network on torch's meta device.
        size: (height, width) of the images in px.
        flat: Whether the features are the flattened map.
    """
    if not (callable(getattr(net, "map", None)) and callable(getattr(net, "tail", None))):
        return None
    cut, channels = Declared(), channels_of(net)
    with evaluation_mode(net):
        last = cut.map(net, torch.zeros((1, channels, *size), device="meta"))
        width = last[0].numel() if flat else cut.tail(net, last).shape[1]
    return Base(net, cut, flat, size, channels, int(width))


class Transfer(nn.Module):
    """A base followed by a head. Modules of the network that the features do not need are kept, but never run.

    Args:
        base: The network up to its features.
        head: Features (n, d) → logits; None to return the features.
    """

    def __init__(self, base: Base, head: nn.Module | None = None) -> None:
        super().__init__()
        self.net = base.net
        self.flat = nn.Flatten() if base.flat else None
        self.top = head
        cut = base.cut
        # With the image itself as map, `Replay` runs the network once instead of twice.
        self.cut = Replay("", cut.classifier, cut.size, cut.mean) if isinstance(cut, Replay) and not base.flat else cut

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (or features, without a head) of images (n, channels, h, w)."""
        last = self.cut.map(self.net, x)
        features: Tensor = self.cut.tail(self.net, last) if self.flat is None else self.flat(last)
        return features if self.top is None else self.top(features)


def dense(inputs: int, units: Sequence[tuple[int, float]], classes: int) -> nn.Sequential:
    """Return a head: linear layers with ReLU and dropout, then a linear classifier.

    Parameters: Σ (uᵢ₋₁ + 1)·uᵢ, with u₀ = `inputs` and the last u = `classes`.

    Args:
        inputs: Number of features.
        units: (width, dropout) of each hidden layer.
        classes: Number of logits; 1 is a single sigmoid unit.

    Example:
        >>> sum(p.numel() for p in dense(3 * 3 * 2048, [(256, 0.5)], 5).parameters())
        4720133
    """
    layers: list[nn.Module] = []
    for width, dropout in units:
        layers += [nn.Linear(inputs, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def taken_apart(net: Transfer, base: Base) -> tuple[nn.Module, Anatomy]:
    """Return a copy of a network without the modules that never run, and its layers.

    Args:
        net: A base with or without a head.
        base: The base of `net`.

    Returns:
        The copy on torch's meta device, and the layers under the names in the original network.
    """
    table = anatomy(net, base.size, base.channels)
    used = [layer for layer in table.layers if layer.output is not None]
    trimmed = on_meta(net)
    for layer in table.layers[len(used) :]:
        owner, _, name = layer.name.rpartition(".")
        parent = trimmed.get_submodule(owner)
        if layer.type == "parameter":
            parent._parameters[name] = None
        else:
            setattr(parent, name, nn.Identity())
    rows = [replace(layer, name=layer.name.removeprefix("net.")) for layer in used]
    return trimmed, Anatomy.of(rows, table.macs, table.activation_bytes)
