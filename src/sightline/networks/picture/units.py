"""Units of a diagram: operations merged into one, such as a convolution with its BatchNorm and ReLU."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from sightline.networks.picture import operations
from sightline.networks.picture.dataflow import Call, Flow
from sightline.networks.picture.operations import Kind

_SMALL = frozenset({"norm", "activation", "embedding", "dropout", "pad", "flatten"})
"""Kinds that are shown in small type before or after a main operation."""
_PREPARING = frozenset({"pad", "flatten"})
"""Small kinds that belong to the operation after them."""
_SPLITS = frozenset({"chunk", "split", "split_with_sizes", "tensor_split", "unbind"})


@dataclass(slots=True)
class Unit:
    """One or several operations with their edges. Modified in place while units are merged.

    Args:
        kind, title: Kind and label of the main operation.
        shape: Output shape without the batch dimension.
        within: Indices of the enclosing calls, outermost first.
        inputs: Indices of the units whose outputs it takes.
        before, after: Labels of the small operations before and after the main one.
    """

    kind: Kind
    title: str
    shape: tuple[int, ...]
    within: tuple[int, ...]
    inputs: list[int]
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def units(flow: Flow) -> dict[int, Unit]:
    """Return the units by index; every edge leads from a lower index to a higher one.

    The first unit is the image, the last one the output. Operations that do not lie on a path from the image to the output
    are left out.
    """
    found = _connected(flow)
    for index, call in enumerate(flow.calls):
        if re.search("[Aa]tt|SA$", call.type):
            _close_attention(found, index, call)
    _contract(found)
    _attach_after(found)
    _attach_before(found)
    _separable(found)
    return found


def common(paths: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the longest common prefix.

    Example:
        >>> common([(0, 1, 2), (0, 1, 5, 6)])
        (0, 1)
    """
    every = list(paths)
    shortest = min(every, key=len, default=())
    for i, index in enumerate(shortest):
        if any(p[i] != index for p in every):
            return shortest[:i]
    return shortest


def _takers(found: dict[int, Unit]) -> dict[int, list[int]]:
    """Return the units that take the output of each unit."""
    takers: dict[int, list[int]] = {u: [] for u in found}
    for index, unit in found.items():
        for start in unit.inputs:
            takers[start].append(index)
    return takers


def _remove(found: dict[int, Unit], takers: dict[int, list[int]], gone: int, other: int) -> None:
    """Remove a unit and connect the units that took its output to another one."""
    del found[gone]
    for index in takers.pop(gone):
        found[index].inputs = list(dict.fromkeys(other if i == gone else i for i in found[index].inputs))
        takers[other].append(index)
    takers[other] = [t for t in dict.fromkeys(takers[other]) if t != gone]


def join(found: dict[int, Unit], members: Collection[int], unit: Unit) -> int:
    """Replace several consecutive units by one and return its index, the last of theirs."""
    members = set(members)
    last = max(members)
    outside: list[int] = []
    for member in sorted(members):
        outside += [i for i in found[member].inputs if i not in members]
    unit.inputs = list(dict.fromkeys(outside))
    for member in members:
        del found[member]
    for other in found.values():
        if any(i in members for i in other.inputs):
            other.inputs = list(dict.fromkeys(last if i in members else i for i in other.inputs))
    found[last] = unit
    return last


def contents(members: Sequence[Unit]) -> list[str]:
    """Return lines that summarise a closed module: "6 × DenseLayer" and its contents, or the number of convolutions."""
    held = [u for u in members if u.kind == "module" and u.after]
    if len(held) > 1 and all((u.title, u.after) == (held[0].title, held[0].after) for u in held):
        return [f"{len(held)} × {held[0].title}", *held[0].after]
    large = [u.title for u in members if u.kind in {"conv", "depthwise", "linear", "attention", "module"}]
    if 0 < len(large) <= 3:
        return large
    for kinds, name in (({"conv", "depthwise"}, "convolution"), ({"linear"}, "linear layer"), (None, "operation")):
        count = sum(kinds is None or u.kind in kinds for u in members)
        if count:
            return [f"{count} {name}{'s' if count > 1 else ''}"]
    return []


def _connected(flow: Flow) -> dict[int, Unit]:
    """Return a unit for every operation on a path from the image to the output."""
    forward = {0}
    for index, node in enumerate(flow.nodes):
        if any(i in forward for i in node.inputs):
            forward.add(index)
    backward, stack = set(flow.outputs), list(flow.outputs)
    while stack:
        for start in flow.nodes[stack.pop()].inputs:
            if start not in backward:
                backward.add(start)
                stack.append(start)
    found = {}
    for index in sorted(forward & (backward | {0})):
        node = flow.nodes[index]
        found[index] = Unit(node.kind, node.label, node.shape, node.within, [i for i in node.inputs if i in forward])
    ends = [i for i in flow.outputs if i in found] or [0]
    found[len(flow.nodes)] = Unit("output", "output", flow.nodes[ends[0]].shape, (), ends)
    return found


def _close_attention(found: dict[int, Unit], index: int, call: Call) -> None:
    """Merge the operations of an attention module into one unit."""
    members = [i for i, u in found.items() if index in u.within]
    kinds = {found[i].kind for i in members}
    softmax = any(found[i].title.lower() == "softmax" for i in members)
    if "attention" not in kinds and not (softmax and any(found[i].title == "matrix product" for i in members)):
        return
    last = found[max(members)]
    title = operations.attention(call.type, call.heads)
    around = last.within[: last.within.index(index)]
    join(found, members, Unit("attention", title, last.shape, around, []))


def _contract(found: dict[int, Unit]) -> None:
    """Remove operations that change no values; their output shape becomes that of the unit before them."""
    takers = _takers(found)
    for index in sorted(found):
        unit = found[index]
        if unit.kind not in {"shape", "identity"} or len(unit.inputs) != 1:
            continue
        before = found[unit.inputs[0]]
        if _flattens(before, unit):
            unit.kind, unit.title = "flatten", "flatten"
            continue
        if unit.title in _SPLITS and len(takers[index]) > 1:
            unit.kind, unit.title = "merge", "split"
            continue
        alone = len(takers[unit.inputs[0]]) == 1
        if alone and before.kind != "image" and _together(before, unit):
            before.shape = unit.shape
        _remove(found, takers, index, unit.inputs[0])


def _flattens(before: Unit, after: Unit) -> bool:
    """Return whether an operation flattens a map that has more than one position."""
    numbers = math.prod(before.shape)
    return after.kind == "shape" and len(after.shape) == 1 and after.shape[0] == numbers > before.shape[0]


def _attach_after(found: dict[int, Unit]) -> None:
    """Merge small operations into the unit before them if nothing else takes its output and it ran in the same module."""
    takers = _takers(found)
    for index in sorted(found):
        unit = found[index]
        if unit.kind not in _SMALL - _PREPARING or len(unit.inputs) != 1:
            continue
        start = unit.inputs[0]
        before = found[start]
        if before.kind in {"image", "pad"} or len(takers[start]) > 1 or not _together(before, unit):
            continue
        before.after += [unit.title, *unit.after]
        before.shape = unit.shape
        _remove(found, takers, index, start)


def _together(before: Unit, small: Unit) -> bool:
    """Return whether a small operation belongs to the unit before it, by the modules in which they ran."""
    shared = len(common([before.within, small.within]))
    if shared >= len(before.within):
        return True
    # For example a convolution inside a separable convolution's module, and its BatchNorm outside that module.
    return before.kind != "merge" and shared >= len(before.within) - 1 and shared == len(small.within)


def _attach_before(found: dict[int, Unit]) -> None:
    """Merge the remaining small operations into the unit after them."""
    takers = _takers(found)
    for index in sorted(found):
        unit = found[index]
        if unit.kind not in _SMALL or len(unit.inputs) != 1 or len(takers[index]) != 1:
            continue
        following = found[takers[index][0]]
        if following.kind in {*_SMALL - {"pad"}, "output", "merge"} or len(following.inputs) != 1:
            continue
        following.before = [*unit.before, unit.title, *unit.after, *following.before]
        _remove(found, takers, index, unit.inputs[0])


def _separable(found: dict[int, Unit]) -> None:
    """Merge a depthwise convolution and a pointwise one directly after it into a separable convolution."""
    takers = _takers(found)
    for index in [i for i, u in found.items() if u.kind == "depthwise"]:
        depthwise = found[index]
        if depthwise.after or len(takers[index]) != 1:
            continue
        following = takers[index][0]
        pointwise = found[following]
        if pointwise.kind != "conv" or pointwise.before or not re.fullmatch(r"1×1 conv, \d+", pointwise.title):
            continue
        width = pointwise.title.split(", ")[1]
        kernel, *rest = depthwise.title.replace("depthwise", "separable").split(", ")
        depthwise.title = ", ".join([kernel, width, *rest[1:]])
        depthwise.after, depthwise.shape = pointwise.after, pointwise.shape
        depthwise.within = common([depthwise.within, pointwise.within])
        _remove(found, takers, following, index)
