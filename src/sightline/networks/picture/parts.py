"""Parts of a network diagram: boxes, branches, arcs and panels, which may contain each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sightline.networks.picture.operations import Kind


@dataclass(frozen=True, slots=True)
class Box:
    """A main operation with the small operations around it.

    Args:
        kind: Kind of the main operation, which determines the colour.
        title: Label of the main operation.
        before, after: Labels of the small operations before and after it, such as BatchNorm and ReLU.
        shape: Output shape without the batch dimension.
        times: Number of consecutive repetitions.
    """

    kind: Kind
    title: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    times: int = 1


@dataclass(frozen=True, slots=True)
class Fork:
    """Parallel branches that start at the same point and are merged.

    Args:
        branches: Parts of each branch in order; an empty branch is a skip connection.
        merge: The operation that merges them.
    """

    branches: tuple[tuple[Part, ...], ...]
    merge: Box


@dataclass(frozen=True, slots=True)
class Arcs:
    """Operations in order, with arcs for edges that skip some of them: for graphs that are not series-parallel.

    Args:
        rows: The operations.
        edges: (from, to) as indices of rows; -1 is the input.
    """

    rows: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """A module and its parts.

    Args:
        title: Class of the module, or its path if the class is a mere container.
        path: Path in the network; for several modules such as "blocks.0–11".
        items: Its parts in order.
        times: Number of consecutive repetitions.
        loose: Whether there are more edges between the items than from each to the next; `path` then says so.
    """

    title: str
    path: str
    items: tuple[Part, ...]
    times: int = 1
    loose: bool = False


Part: TypeAlias = Box | Fork | Arcs | Panel


def boxes(parts: Sequence[Part]) -> int:
    """Return the number of boxes to draw."""
    count = 0
    for part in parts:
        if isinstance(part, Fork):
            count += 1 + sum(boxes(b) for b in part.branches)
        elif isinstance(part, Arcs):
            count += len(part.rows)
        else:
            count += boxes(part.items) if isinstance(part, Panel) else 1
    return count


def shape_of(part: Part) -> tuple[int, ...]:
    """Return the output shape of a part."""
    if isinstance(part, Box):
        return part.shape
    if isinstance(part, Fork):
        return part.merge.shape
    return part.rows[-1].shape if isinstance(part, Arcs) else shape_of(part.items[-1])
