"""Fold a network's data flow into the parts of a diagram: boxes, parallel branches, panels, and repetitions ("× n").

The graph of units is cut at every unit through which all data flow. What lies between two such units is split into parallel
branches; nearly every network is such a series-parallel graph. Panels for the modules are put around them, and equal
neighbours are merged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import TypeAlias

from sightline.networks.picture.dataflow import Call, Flow
from sightline.networks.picture.operations import readable
from sightline.networks.picture.parts import Arcs, Box, Fork, Panel, Part, boxes, shape_of
from sightline.networks.picture.units import Unit, common, contents, join, units

MOST_ROWS, MOST_ARCS, MOST_BRANCHES = 12, 9, 6
"""Upper limits for a readable diagram."""

Item: TypeAlias = tuple[Part, tuple[int, ...]]
"""A part and the calls that enclose all of it."""


def fold(flow: Flow, limit: int = 120) -> tuple[Part, ...]:
    """Return the parts of a diagram, from the image to the output.

    Args:
        flow: Data flow of the network.
        limit: Maximum number of boxes; the innermost modules are closed until it is met.
    """
    found = units(flow)
    image, *members = sorted(found)
    items = Series(found, flow.calls).chain(members, image, None) or []
    parts = (_box(found[image]), *panels(items, 1, flow.calls))
    if boxes(parts) > limit:
        parts = tuple(merged(_first_open(parts, set())))
    while boxes(parts) > limit and (depth := _depth(parts)) > 0:
        parts = tuple(merged([_closed(p, depth) for p in parts]))
    return parts


def _box(unit: Unit) -> Box:
    return Box(unit.kind, unit.title, tuple(unit.before), tuple(unit.after), unit.shape)


# --------------------------------------------------------------------------------------------------------- series-parallel


class Series:
    """Decomposition of a graph into a series of parts.

    Args:
        found: Units by index; every edge leads from a lower index to a higher one.
        calls: Calls of modules.
    """

    def __init__(self, found: dict[int, Unit], calls: Sequence[Call]) -> None:
        self.units = found
        self.calls = calls

    def chain(self, members: Sequence[int], source: int, sink: int | None) -> list[Item] | None:
        """Return the parts between two units; None if they do not end in a single unit.

        Args:
            members: The units between them in order, connected to other units only through `source` and `sink`.
            source: The unit before them.
            sink: The unit after them; None if the last member is the output.
        """
        knots = self._knots(members, source, sink)
        if not knots or knots[-1] != members[-1]:
            return None
        items: list[Item] = []
        for start, end in pairwise([source, *knots]):
            items += self._region([m for m in members if start < m < end], start, end)
        return items

    def _knots(self, members: Sequence[int], source: int, sink: int | None) -> list[int]:
        """Return the members through which all data flow: those that no edge skips."""
        place = {unit: i for i, unit in enumerate([source, *members])}
        change = [0] * (len(place) + 1)
        for unit in [*members, *([] if sink is None else [sink])]:
            for start in self.units[unit].inputs:
                if start in place and not (start == source and unit == sink):
                    change[place[start] + 1] += 1
                    change[place.get(unit, len(place))] -= 1
        depth, knots = 0, []
        for unit, i in place.items():
            depth += change[i]
            if depth == 0 and unit != source:
                knots.append(unit)
        return knots

    def _region(self, between: list[int], start: int, end: int) -> list[Item]:
        """Return the parts after `start` up to `end`, with everything between them in parallel branches."""
        merge = self.units[end]
        if not between:
            return [(_box(merge), merge.within)]
        chains = [self.chain(members, start, end) for members in self._components(between)]
        around = common([*(self.units[m].within for m in between), *([merge.within] if merge.within else [])])
        branches: list[tuple[Part, ...]] = []
        for chain in chains:
            if chain is None:
                return self._tangle(between, start, end)
            branches.append(tuple(_flat(panels(chain, max(1, len(around)), self.calls))))
        if start in merge.inputs:
            branches.append(())
        fork = Fork(_few(branches), _box(merge))
        return [(_gate(fork) or fork, around)]

    def _components(self, members: Sequence[int]) -> list[list[int]]:
        """Return the connected components of the members, in order."""
        owner = {m: m for m in members}
        for member in members:
            for start in self.units[member].inputs:
                if start in owner and owner[start] != owner[member]:
                    old, new = owner[member], owner[start]
                    owner = {m: new if o == old else o for m, o in owner.items()}
        return [[m for m in members if owner[m] == o] for o in dict.fromkeys(owner.values())]

    def _tangle(self, between: list[int], start: int, end: int) -> list[Item]:
        """Return the parts of a graph that is not series-parallel: with its modules closed, as arcs, or as one panel."""
        rows = [*between, end]
        around = common([u for m in rows if (u := self.units[m].within)])
        groups: dict[int, list[int]] = {}
        for row in rows:
            within = self.units[row].within
            groups.setdefault(within[len(around)] if len(within) > len(around) else -1 - row, []).append(row)
        if any(len(g) > 1 for g in groups.values()):
            smaller = dict(self.units)
            ends = [self._close(smaller, key, group, around) if len(group) > 1 else group[0] for key, group in groups.items()]
            series = Series(smaller, self.calls)
            return series.chain(sorted(ends), start, None) or series.loose(sorted(ends), start, around)
        return self.loose(rows, start, around)

    def loose(self, rows: Sequence[int], start: int, around: tuple[int, ...]) -> list[Item]:
        """Return units in order with arcs for skipping edges or, if there are too many of these, as a panel without arcs."""
        places = {start: -1, **{row: i for i, row in enumerate(rows)}}
        edges = [(places[s], i) for i, row in enumerate(rows) for s in self.units[row].inputs if s in places]
        drawn = tuple(_box(self.units[r]) for r in rows)
        if len(rows) <= MOST_ROWS and sum(b - a > 1 for a, b in edges) <= MOST_ARCS:
            return [(Arcs(drawn, tuple(edges)), around)]
        call = self.calls[around[-1]] if around else self.calls[0]
        dense = len(edges) == len(rows) * (len(rows) + 1) // 2
        note = "each takes the outputs of all before it" if dense else "in order; not all edges are drawn"
        return [(Panel(_title(call), note, tuple(merged(drawn)), loose=True), around)]

    def _close(self, found: dict[int, Unit], call: int, members: list[int], around: tuple[int, ...]) -> int:
        """Replace the units of a module by one unit and return its index."""
        inside = [self.units[m] for m in members]
        title = _title(self.calls[call])
        found.update({i: replace(u, inputs=list(u.inputs)) for i, u in found.items()})
        return join(found, members, Unit("module", title, inside[-1].shape, around, [], after=contents(inside)))


def _few(branches: Sequence[tuple[Part, ...]]) -> tuple[tuple[Part, ...], ...]:
    """Merge equal branches if there are many, such as the 32 paths of a ResNeXt built as separate branches."""
    if len(branches) <= MOST_BRANCHES:
        return tuple(branches)
    few: list[tuple[Part, ...]] = []
    for branch, same in groupby(branches):
        count = len(list(same))
        few.append((Panel("equal branches", "", branch, count),) if count > 1 and branch else branch)
    return tuple(few)


def _gate(fork: Fork) -> Box | None:
    """Return a box for a map multiplied by a function of itself: squeeze-and-excitation, or an activation such as swish."""
    full = [b for b in fork.branches if b]
    if fork.merge.title != "multiply" or len(full) != 1 or len(fork.branches) != 2:
        return None
    inner = [p for p in full[0] if isinstance(p, Box)]
    if len(inner) != len(full[0]):
        return None
    if all(p.kind == "activation" for p in inner):
        name = "swish" if inner[0].title == "sigmoid" else f"x · {inner[0].title}"
        return replace(fork.merge, kind="activation", title=name)
    if inner[0].kind == "pool" and inner[0].title.startswith("global"):
        return replace(fork.merge, kind="attention", title="squeeze-and-excitation")
    return None


# ----------------------------------------------------------------------------------------------------------------- panels


def panels(items: Sequence[Item], depth: int, calls: Sequence[Call]) -> list[Part]:
    """Put panels of modules around the parts that ran in them, and merge equal neighbours.

    Args:
        items: Consecutive parts.
        depth: Number of outer calls that need no further panel.
        calls: All calls.
    """
    found: list[Part] = []
    keyed = [(w[depth] if len(w) > depth else -1 - i, (p, w)) for i, (p, w) in enumerate(items)]
    for key, run in groupby(keyed, key=lambda pair: pair[0]):
        members = [item for _, item in run]
        if key < 0:
            found.append(members[0][0])
            continue
        inner = panels(members, depth + 1, calls)
        if len(inner) == 1 and isinstance(inner[0], Box | Panel):
            found += inner
        else:
            found.append(_panel(calls[key], inner))
    return merged(found)


def _title(call: Call) -> str:
    """Return the class of a module, or its path if the class is a mere container."""
    return call.name if call.type in _CONTAINERS and call.name else readable(call.type)


_CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict", "Module"})
_RESIDUAL = re.compile(r"(Bottleneck|BasicBlock|Block|Residual\w*)")


def _panel(call: Call, inner: Sequence[Part]) -> Panel:
    name = readable(call.type)
    if call.type in _CONTAINERS:
        return Panel(call.name, "", tuple(inner))
    path = call.name
    if len(inner) == 1 and isinstance(inner[0], Fork) and _RESIDUAL.fullmatch(name) and len(inner[0].branches) == 2:
        skips = not all(inner[0].branches)
        return Panel("identity block" if skips else "convolutional block", f"{path} · {name}", tuple(inner))
    return Panel(name, path, tuple(inner))


def merged(parts: Sequence[Part]) -> list[Part]:
    """Merge equal neighbours into one part with a repetition count."""
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Box) and isinstance(last, Box) and replace(part, times=last.times) == last:
            found[-1] = replace(last, times=last.times + part.times)
        elif isinstance(part, Panel) and isinstance(last, Panel) and _equal_but_for_path(part, last):
            found[-1] = replace(last, path=_range(last.path, part.path), times=last.times + part.times)
        else:
            found.append(part)
    return found


def _equal_but_for_path(a: Panel, b: Panel) -> bool:
    """Return whether two panels differ only in their paths and repetition counts."""
    return _pathless(a, keep_times=False) == _pathless(b, keep_times=False)


def _pathless(part: Part, *, keep_times: bool = True) -> Part:
    if isinstance(part, Fork):
        return replace(part, branches=tuple(tuple(_pathless(p) for p in b) for b in part.branches))
    if not isinstance(part, Panel):
        return part
    title = part.title if part.path else ""  # without a path the title itself is one
    items = tuple(_pathless(p) for p in part.items)
    return replace(part, title=title, path="", items=items, times=part.times if keep_times else 1)


def _range(first: str, last: str) -> str:
    """Join the paths of several modules into one.

    Example:
        >>> _range("layer1.1 · Bottleneck", "layer1.2 · Bottleneck"), _range("block4–5", "block6")
        ('layer1.1–2 · Bottleneck', 'block4–6')
    """
    start, _, rest = first.partition(" · ")
    end = re.search(r"(\d+)$", last.partition(" · ")[0])
    start = re.sub(r"–\d+$", "", start)
    if not end or not re.search(r"\d$", start):
        return first
    return f"{start}–{end[1]}" + (f" · {rest}" if rest else "")


def _flat(parts: Sequence[Part]) -> list[Part]:
    """Remove the panels of a branch that neither contain branches nor stand for several modules."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Panel) and part.times == 1 and all(isinstance(p, Box) for p in part.items):
            found += part.items
        else:
            found.append(part)
    return merged(found)


def _depth(parts: Sequence[Part]) -> int:
    """Return the maximum nesting depth of panels."""
    depths = [0]
    for part in parts:
        if isinstance(part, Fork):
            depths += [_depth(b) for b in part.branches]
        elif isinstance(part, Panel):
            depths.append(1 + _depth(part.items))
    return max(depths)


def _first_open(parts: Sequence[Part], seen: set[str]) -> list[Part]:
    """Close innermost panels whose title occurred before, so that only the first one of each title stays open."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Fork):
            part = replace(part, branches=tuple(tuple(_first_open(b, seen)) for b in part.branches))
        elif isinstance(part, Panel) and _depth(part.items):
            part = replace(part, items=tuple(merged(_first_open(part.items, seen))))
        elif isinstance(part, Panel) and part.title in seen:
            part = _closed(part, 1)
        elif isinstance(part, Panel):
            seen.add(part.title)
        found.append(part)
    return found


def _closed(part: Part, depth: int) -> Part:
    """Replace the panels at a depth by boxes."""
    if isinstance(part, Fork):
        return replace(part, branches=tuple(tuple(merged([_closed(p, depth) for p in b])) for b in part.branches))
    if not isinstance(part, Panel):
        return part
    if depth > 1:
        return replace(part, items=tuple(merged([_closed(p, depth - 1) for p in part.items])))
    count = boxes(part.items)
    summary = [p.title for p in part.items if isinstance(p, Box)][:1] if count == 1 else [f"{count} operations"]
    return Box("module", part.title, after=(*summary,), shape=shape_of(part), times=part.times)
