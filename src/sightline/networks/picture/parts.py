"""The parts of a network's picture: boxes, branches, arcs and panels, each of which may hold others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sightline.networks.picture.operations import Kind


@dataclass(frozen=True, slots=True)
class Box:
    """Operations under one name.

    Args:
        kind: Which decides the colour.
        title: The main operation.
        before, after: The small operations before and after it, such as BatchNorm and ReLU.
        shape: Of the result, without the batch.
        times: How many of it follow each other.
    """

    kind: Kind
    title: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    times: int = 1


@dataclass(frozen=True, slots=True)
class Fork:
    """Branches that start at the same place and meet again.

    Args:
        branches: Each from its start to its end; an empty one is a skip connection.
        merge: Where they meet.
    """

    branches: tuple[tuple[Part, ...], ...]
    merge: Box


@dataclass(frozen=True, slots=True)
class Arcs:
    """Operations in their order, with arcs over those that are passed by: for what is no series of parallels.

    Args:
        rows: The operations.
        edges: (from, to), indices of rows; -1 is where it all starts.
    """

    rows: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """A module and what happens in it.

    Args:
        title: Its class, or its path where the class says nothing.
        path: Where it is in the network; of several "blocks.0–11".
        items: What happens in it, one after the other.
        times: How many of it follow each other.
        loose: The items are in their order, but more flows between them than from each to the next; `path` says so.
    """

    title: str
    path: str
    items: tuple[Part, ...]
    times: int = 1
    loose: bool = False


Part: TypeAlias = Box | Fork | Arcs | Panel


def boxes(parts: Sequence[Part]) -> int:
    """How many boxes are drawn."""
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
    """The shape of what a part gives."""
    if isinstance(part, Box):
        return part.shape
    if isinstance(part, Fork):
        return part.merge.shape
    return part.rows[-1].shape if isinstance(part, Arcs) else shape_of(part.items[-1])
