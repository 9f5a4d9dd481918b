"""The stages of a network: its parts between two changes of resolution, found by one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sightline.networks.feature_cut import quiet

_FALL = 1.5
"""A stage begins where the number of positions falls by more than this; a class token more or less is no change."""
_FEW_STAGES, _MANY_UNITS = 2, 6
"""With so few stages and so many blocks, as in a ViT, every block is a stage of its own."""
_MOST = 0.6
"""A module with more than this share of all parameters and containers inside is no block but the network's body."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a network that works at one resolution.

    Args:
        name: What its modules' names have in common.
        modules: The modules in it that have parameters or statistics of their own, in order of execution.
        parameters: Their trainable tensors, by name.
        cells: How many positions its output has; 1 behind the last map.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    cells: int


def find_stages(net: nn.Module, size: tuple[int, int], channels: int, classifier: str, nhwc: bool) -> tuple[Stage, ...]:
    """The stages of a network, from the images to the features; together they hold all of it but its classifier.

    A unit is a block: the first module on the way down from the network that is no mere container. A new stage begins with
    the first unit whose output has fewer positions than anything before it; what comes behind the last map is a stage of its
    own. Where the resolution hardly changes, as in a ViT, every unit is a stage.

    Args:
        net: The network.
        size: (height, width) of the images.
        channels: Of the images.
        classifier: The name of its last module, which belongs to no stage; "" for none.
        nhwc: Whether its maps lie as (n, h, w, c).
    """
    owners = [n for n, m in net.named_modules() if _owns(m) and not _within(n, classifier)]
    unit_of = {n: _unit(net, n) for n in owners}
    units = {u for u in unit_of.values() if u and not any(other.startswith(f"{u}.") for other in unit_of.values())}
    called = _called(net, units, size, channels, nhwc)
    places = _places(called)
    if max(places.values(), default=0) + 1 <= _FEW_STAGES and len(called) >= _MANY_UNITS:
        places = _each(net, called)
    groups: list[list[str]] = [[] for _ in range(max(places.values(), default=0) + 1)]
    order, cells = {unit: i for i, (unit, _) in enumerate(called)}, dict(called)
    for name in sorted(owners, key=lambda n: order.get(unit_of[n], len(order))):
        unit = unit_of[name]
        # What a container of blocks owns, such as tokens and positions, is used before them; what is never called comes last.
        groups[places.get(unit, -1) if unit in units else 0].append(name)
    named = _names([list(dict.fromkeys(unit_of[n] for n in group if unit_of[n] in places)) for group in groups])
    found = []
    for name, group in zip(named, groups, strict=True):
        reached = [cells[unit_of[n]] for n in group if unit_of[n] in places]
        found.append(Stage(name, tuple(group), _parameters(net, group), min(reached, default=1)))
    return tuple(found)


def _unit(net: nn.Module, name: str) -> str:
    """The block that a module belongs to; "" for the network itself."""
    parts = name.split(".") if name else []
    total = sum(p.numel() for p in net.parameters()) or 1
    for end in range(1, len(parts) + 1):
        module = net.get_submodule(".".join(parts[:end]))
        inner = any(isinstance(m, _CONTAINERS) for m in module.children())
        most = inner and sum(p.numel() for p in module.parameters()) > _MOST * total
        if not isinstance(module, _CONTAINERS) and not most:
            return ".".join(parts[:end])
    return name


def _owns(module: nn.Module) -> bool:
    """Whether a module has parameters or statistics of its own."""
    return any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))


def _within(name: str, module: str) -> bool:
    return bool(module) and (name == module or name.startswith(f"{module}."))


def _parameters(net: nn.Module, modules: Sequence[str]) -> tuple[str, ...]:
    found = [f"{m}.{n}" if m else n for m in modules for n, _ in net.get_submodule(m).named_parameters(recurse=False)]
    return tuple(dict.fromkeys(found))


def _called(net: nn.Module, units: set[str], size: tuple[int, int], channels: int, nhwc: bool) -> list[tuple[str, int]]:
    """The units in the order in which they end, and how many positions each one's output has.

    0 stands for an output that is no map of this image: windows of it, or one row.
    """
    found: dict[str, int] = {}
    handles = []

    def hook(name: str) -> Any:
        def look(module: nn.Module, _: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple | list) and output else output
            found.setdefault(name, _positions(module, output, nhwc) if isinstance(output, Tensor) else 0)

        return look

    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        handles = [net.get_submodule(n).register_forward_hook(hook(n)) for n in sorted(units)]
        with quiet(net):
            net(torch.zeros((1, channels, *size), device=device))
    finally:
        for handle in handles:
            handle.remove()
    return list(found.items())


def _positions(module: nn.Module, output: Tensor, nhwc: bool) -> int:
    """Height times width of a map, the number of tokens, or 0."""
    if output.shape[0] != 1 or output.ndim not in (3, 4):
        return 0
    if output.ndim == 3:
        return int(output.shape[1])
    width = getattr(module, "out_features", None) or (getattr(module, "normalized_shape", None) or (None,))[-1]
    last = isinstance(module, nn.Linear | nn.LayerNorm) and output.shape[-1] == width != output.shape[1]
    if last or (nhwc and not isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm)):
        return int(output.shape[1] * output.shape[2])
    return int(output.shape[2] * output.shape[3])


def _places(called: Sequence[tuple[str, int]]) -> dict[str, int]:
    """The number of the stage of each module."""
    last_map = max((i for i, (_, cells) in enumerate(called) if cells > 1), default=len(called) - 1)
    places: dict[str, int] = {}
    stage, lowest = 0, None
    for i, (name, cells) in enumerate(called):
        if i > last_map:
            places[name] = stage + 1
            continue
        if cells > 1:
            if lowest is not None and cells * _FALL < lowest:
                stage += 1
            lowest = cells if lowest is None else min(lowest, cells)
        places[name] = stage
    return places


def _each(net: nn.Module, called: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Every block a stage of its own; single layers between them go with the block before."""
    places: dict[str, int] = {}
    stage = -1
    for name, _ in called:
        block = any(True for _ in net.get_submodule(name).children())
        stage += block or stage < 0
        places[name] = stage
    return places


def _names(groups: Sequence[Sequence[str]]) -> list[str]:
    """A short name for each stage: what its blocks share where no other stage's block does, else its first and last one."""
    names = []
    for i, group in enumerate(groups):
        units = [u for u in group if u]
        shared = _common(units)
        others = [u for j, other in enumerate(groups) if j != i for u in other]
        if shared and not any(_within(u, shared) for u in others):
            while "." in shared and not any(_within(u, shared.rpartition(".")[0]) for u in others):
                shared = shared.rpartition(".")[0]  # the only block of its container
            names.append(shared)
        else:
            first, last = (units[0], units[-1]) if units else ("tokens", "tokens")
            names.append(first if first == last else f"{first} to {last}")
    return names


def _common(names: Sequence[str]) -> str:
    """The part of dotted names that all share."""
    if not names:
        return ""
    shared = names[0].split(".")
    for name in names[1:]:
        parts = name.split(".")
        same = next((i for i, (a, b) in enumerate(zip(shared, parts, strict=False)) if a != b), min(len(shared), len(parts)))
        shared = shared[:same]
    return ".".join(shared)
