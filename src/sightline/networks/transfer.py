"""A bare base and a new head on it: as one network, and as rows of a layer table."""

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
        net: The network itself; what its features do not need may be there.
        cut: Where its last map is.
        flat: Whether the features are all of the map instead of what its tail makes of it.
        size: (height, width) of the images, in pixels.
        channels: Of the images that the network itself takes.
        features: The width d.
    """

    net: nn.Module
    cut: Cut
    flat: bool
    size: tuple[int, int]
    channels: int
    features: int


def base_of(network: Network) -> Base:
    """The base of a network that was cut."""
    return Base(network.net, network.cut, network.pool == "flatten", network.size, network.channels, network.features)


def declared(net: nn.Module, size: tuple[int, int], *, flat: bool) -> Base | None:
    """The base of a network that says itself what its map and tail are, from shapes alone; None for any other.

    Args:
        net: On torch's meta device.
        size: (height, width) of the images, in pixels.
        flat: Whether the features are all of the map.
    """
    if not (callable(getattr(net, "map", None)) and callable(getattr(net, "tail", None))):
        return None
    cut, channels = Declared(), channels_of(net)
    with evaluation_mode(net):
        last = cut.map(net, torch.zeros((1, channels, *size), device="meta"))
        width = last[0].numel() if flat else cut.tail(net, last).shape[1]
    return Base(net, cut, flat, size, channels, int(width))


class Transfer(nn.Module):
    """A base and a head on it. What the features do not need of the network is there, but never runs.

    Args:
        base: The network up to its features.
        head: Features (n, d) → logits; None gives the features themselves.
    """

    def __init__(self, base: Base, head: nn.Module | None = None) -> None:
        super().__init__()
        self.net = base.net
        self.flat = nn.Flatten() if base.flat else None
        self.top = head
        cut = base.cut
        # Its tail runs the network a second time, on nothing, only to put the map in.
        self.cut = Replay("", cut.classifier, cut.size, cut.mean) if isinstance(cut, Replay) and not base.flat else cut

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, channels, h, w), with as many channels as the network itself takes → logits, or features."""
        last = self.cut.map(self.net, x)
        features: Tensor = self.cut.tail(self.net, last) if self.flat is None else self.flat(last)
        return features if self.top is None else self.top(features)


def dense(inputs: int, units: Sequence[tuple[int, float]], classes: int) -> nn.Sequential:
    """A head for transfer: linear layers with ReLU and dropout, then one with the classes.

    Parameters: Σ (uᵢ₋₁ + 1)·uᵢ, with u₀ = `inputs` and the last u = `classes`.

    Args:
        inputs: The width of the features.
        units: (width, dropout) of each layer before the last.
        classes: Logits; 1 is one sigmoid unit.

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
    """The network without what never runs, on torch's meta device where it can be, and its layers.

    Args:
        net: A base with or without a head.
        base: The same.

    Returns:
        A copy, and its layers with names as the network itself has them.
    """
    found = anatomy(net, base.size, base.channels)
    kept = [layer for layer in found.layers if layer.output is not None]
    trimmed = on_meta(net)
    for layer in found.layers[len(kept) :]:
        owner, _, name = layer.name.rpartition(".")
        parent = trimmed.get_submodule(owner)
        if layer.type == "parameter":
            parent._parameters[name] = None
        else:
            setattr(parent, name, nn.Identity())
    rows = [replace(layer, name=layer.name.removeprefix("net.")) for layer in kept]
    return trimmed, Anatomy.of(rows, found.macs, found.activation_bytes)
