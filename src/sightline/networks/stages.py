"""Stages of a network: its parts between changes of resolution, found by one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sightline.networks.feature_cut import evaluation_mode

_FALL = 1.5
"""A stage begins where the number of positions falls by more than this factor; an extra class token does not count."""
_FEW_STAGES, _MANY_UNITS = 2, 6
"""With at most so many stages and at least so many blocks, as in a ViT, every block is its own stage."""
_BODY_SHARE = 0.6
"""A module that holds containers and more than this share of all parameters is the network's body, not a block."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a network that works at one resolution.

    Args:
        name: Common prefix of its modules' names.
        modules: Names of the modules with parameters or statistics, in order of execution.
        parameters: Names of their parameters.
        cells: Number of positions of its output; 1 after the last feature map.
    """

    name: str
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    cells: int


def find_stages(net: nn.Module, size: tuple[int, int], channels: int, classifier: str, *, nhwc: bool) -> tuple[Stage, ...]:
    """Return the stages of a network, from the images to the features. Together they hold everything but the classifier.

    A unit is a block: the outermost module that is not a mere container. A new stage begins with the first unit whose output
    has fewer positions than any before it; everything after the last feature map is one more stage. If the resolution hardly
    changes, as in a ViT, every unit is a stage.

    Args:
        net: The network.
        size: (height, width) of the images in px.
        channels: Number of input channels.
        classifier: Name of the classifier module, which belongs to no stage; "" for none.
        nhwc: Whether feature maps have the layout (n, h, w, c).
    """
    owners = [n for n, m in net.named_modules() if _owns(m) and not _within(n, classifier)]
    unit_of = {n: _unit(net, n) for n in owners}
    units = {u for u in unit_of.values() if u and not any(other.startswith(f"{u}.") for other in unit_of.values())}
    called = _called(net, units, size, channels, nhwc)
    places = _places(called)
    if max(places.values(), default=0) + 1 <= _FEW_STAGES and len(called) >= _MANY_UNITS:
        places = _one_stage_per_block(net, called)
    groups: list[list[str]] = [[] for _ in range(max(places.values(), default=0) + 1)]
    order, cells = {unit: i for i, (unit, _) in enumerate(called)}, dict(called)
    for name in sorted(owners, key=lambda n: order.get(unit_of[n], len(order))):
        unit = unit_of[name]
        # Parameters of a container of blocks, such as a class token or position embeddings, are used before the blocks.
        # Modules that are never called come last.
        groups[places.get(unit, -1) if unit in units else 0].append(name)
    stage_names = _names([list(dict.fromkeys(unit_of[n] for n in group if unit_of[n] in places)) for group in groups])
    stages = []
    for name, group in zip(stage_names, groups, strict=True):
        positions = [cells[unit_of[n]] for n in group if unit_of[n] in places]
        stages.append(Stage(name, tuple(group), _parameters(net, group), min(positions, default=1)))
    return tuple(stages)


def _unit(net: nn.Module, name: str) -> str:
    """Return the name of the block that a module belongs to; "" for the network itself."""
    parts = name.split(".") if name else []
    total = sum(p.numel() for p in net.parameters()) or 1
    for end in range(1, len(parts) + 1):
        module = net.get_submodule(".".join(parts[:end]))
        has_containers = any(isinstance(m, _CONTAINERS) for m in module.children())
        is_body = has_containers and sum(p.numel() for p in module.parameters()) > _BODY_SHARE * total
        if not isinstance(module, _CONTAINERS) and not is_body:
            return ".".join(parts[:end])
    return name


def _owns(module: nn.Module) -> bool:
    """Return whether a module itself, without its children, has parameters or buffers."""
    return any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))


def _within(name: str, module: str) -> bool:
    return bool(module) and (name == module or name.startswith(f"{module}."))


def _parameters(net: nn.Module, modules: Sequence[str]) -> tuple[str, ...]:
    names = [f"{m}.{n}" if m else n for m in modules for n, _ in net.get_submodule(m).named_parameters(recurse=False)]
    return tuple(dict.fromkeys(names))


def _called(net: nn.Module, units: set[str], size: tuple[int, int], channels: int, nhwc: bool) -> list[tuple[str, int]]:
    """Run one forward pass and return the units in the order in which they finish, with their number of output positions.

    0 stands for an output that is not a map of this one image, such as windows of it or a row of features.
    """
    positions: dict[str, int] = {}
    handles = []

    def hook(name: str) -> Any:
        def record(module: nn.Module, _: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple | list) and output else output
            positions.setdefault(name, _positions(module, output, nhwc) if isinstance(output, Tensor) else 0)

        return record

    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        handles = [net.get_submodule(n).register_forward_hook(hook(n)) for n in sorted(units)]
        with evaluation_mode(net):
            net(torch.zeros((1, channels, *size), device=device))
    finally:
        for handle in handles:
            handle.remove()
    return list(positions.items())


def _positions(module: nn.Module, output: Tensor, nhwc: bool) -> int:
    """Return height × width of a map, or the number of tokens; 0 for any other output."""
    if output.shape[0] != 1 or output.ndim not in (3, 4):
        return 0
    if output.ndim == 3:
        return int(output.shape[1])
    width = getattr(module, "out_features", None) or (getattr(module, "normalized_shape", None) or (None,))[-1]
    channels_last = isinstance(module, nn.Linear | nn.LayerNorm) and output.shape[-1] == width != output.shape[1]
    if channels_last or (nhwc and not isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm)):
        return int(output.shape[1] * output.shape[2])
    return int(output.shape[2] * output.shape[3])


def _places(called: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Return the stage number of each unit."""
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


def _one_stage_per_block(net: nn.Module, called: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Return stage numbers with every block in its own stage; single layers between blocks join the block before them."""
    places: dict[str, int] = {}
    stage = -1
    for name, _ in called:
        block = any(True for _ in net.get_submodule(name).children())
        stage += block or stage < 0
        places[name] = stage
    return places


def _names(groups: Sequence[Sequence[str]]) -> list[str]:
    """Return a name for each stage: the prefix that only its blocks share, otherwise "FIRST to LAST" block."""
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
    """Return the common prefix of dotted names, in whole components."""
    if not names:
        return ""
    shared = names[0].split(".")
    for name in names[1:]:
        parts = name.split(".")
        same = next((i for i, (a, b) in enumerate(zip(shared, parts, strict=False)) if a != b), min(len(shared), len(parts)))
        shared = shared[:same]
    return ".".join(shared)
