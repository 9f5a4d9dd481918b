"""Where each part of a network's picture lies: boxes, panels, lines and words, in inches, y downwards.

Every part becomes a fragment with a place for the line that comes in and one for the line that goes out; fragments are
put below each other or side by side, so that nothing can overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from sightline.networks.picture.operations import times
from sightline.networks.picture.parts import Arcs, Box, Fork, Panel, Part, boxes, shape_of

Point: TypeAlias = tuple[float, float]
Measure: TypeAlias = Callable[[str, float, bool], float]
"""(words, size in points, whether bold) → width in inches."""

NORMAL, SMALL = 7.0, 5.8
"""The two sizes of type, in points."""

LEADING = {NORMAL: 0.125, SMALL: 0.1}
"""How high a line of text is, in inches."""

GAP, _FORK, _LANE, _BETWEEN, _PADDING = 0.2, 0.14, 0.17, 0.16, 0.11
_LONGEST = 34
"""Letters of a name before it is cut."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A rectangle with its part.

    Args:
        x, y: Its upper left corner.
        w, h: Its size.
        part: A `Box`, or the `Panel` whose frame it is.
        head: Of a panel: how far from its left side its words begin.
    """

    x: float
    y: float
    w: float
    h: float
    part: Box | Panel
    head: float = 0.08


@dataclass(frozen=True, slots=True)
class Line:
    """A line with right angles, and perhaps an arrow at its end."""

    points: tuple[Point, ...]
    arrow: bool


@dataclass(frozen=True, slots=True)
class Words:
    """A tensor's shape beside a line. `x` is where it begins, `y` its middle."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part with its place in itself.

    Args:
        left, right: How far it reaches from the axis, on which lines come in and go out.
        height: From its top at 0.
        enter, leave: How far down the line comes in, and goes out.
        arrow: Whether the line that comes in ends there.
        boxes, panels, lines, words: With the axis at x = 0.
    """

    left: float
    right: float
    height: float
    enter: float
    leave: float
    arrow: bool
    boxes: tuple[Placed, ...] = ()
    panels: tuple[Placed, ...] = ()
    lines: tuple[Line, ...] = ()
    words: tuple[Words, ...] = ()

    @property
    def width(self) -> float:
        """From left to right."""
        return self.left + self.right


def short(text: str, longest: int = _LONGEST) -> str:
    """A name that is not too long, in one line.

    Example:
        >>> short("x" * 40)[-3:], len(short("x" * 40))
        ('xx…', 34)
    """
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def lines_of(box: Box) -> list[tuple[str, float]]:
    """(text, size) of what stands in a box: small before, its title, small after."""
    title = short(box.title) + (f"  ×  {box.times}" if box.times > 1 else "")
    small = [[(t, SMALL) for t in _wrapped(words)] for words in (box.before, box.after)]
    return [*small[0], (title, NORMAL), *small[1]]


def _wrapped(words: Sequence[str]) -> list[str]:
    """Words with dots between, in lines that are not too long."""
    lines: list[str] = []
    for word in (short(w) for w in words if w):
        if lines and len(lines[-1]) + 3 + len(word) <= _LONGEST:
            lines[-1] += f" · {word}"
        else:
            lines.append(word)
    return lines


def heads_of(panel: Panel) -> tuple[str, str]:
    """What stands at the head of a panel: its title, and below it where it is."""
    return short(panel.title) + (f"  ×  {panel.times}" if panel.times > 1 else ""), short(panel.path)


# --------------------------------------------------------------------------------------------------------------- the parts


@dataclass(slots=True)
class Pen:
    """Collects what is drawn, moved to where it belongs."""

    boxes: list[Placed] = field(default_factory=list)
    panels: list[Placed] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)

    def put(self, fragment: Fragment, x: float, y: float) -> None:
        """A fragment with its axis at x and its top at y."""
        self.boxes += [replace(b, x=b.x + x, y=b.y + y) for b in fragment.boxes]
        self.panels += [replace(p, x=p.x + x, y=p.y + y) for p in fragment.panels]
        self.lines += [replace(r, points=tuple((a + x, b + y) for a, b in r.points)) for r in fragment.lines]
        self.words += [replace(w, x=w.x + x, y=w.y + y) for w in fragment.words]

    def line(self, *points: Point, arrow: bool) -> None:
        """A line through points."""
        if math.dist(points[0], points[-1]) > 1e-6:
            self.lines.append(Line(tuple(points), arrow))

    def fragment(self, left: float, right: float, height: float, enter: float, leave: float, arrow: bool) -> Fragment:
        """All of it."""
        parts = (tuple(self.boxes), tuple(self.panels), tuple(self.lines), tuple(self.words))
        return Fragment(left, right, height, enter, leave, arrow, *parts)


class Setter:
    """Makes fragments of parts.

    Args:
        measure: How wide words are.
    """

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self._known: dict[tuple[int, tuple[int, ...]], tuple[Part, Fragment]] = {}

    def part(self, part: Part, taken: tuple[int, ...]) -> Fragment:
        """A fragment of any part, which takes a tensor of shape `taken`."""
        key = id(part), taken
        if key not in self._known:  # the part beside it keeps its identity from being given twice
            self._known[key] = part, self._part(part, taken)
        return self._known[key][1]

    def _part(self, part: Part, taken: tuple[int, ...]) -> Fragment:
        if isinstance(part, Box):
            return self.box(part)
        if isinstance(part, Panel):
            return self.panel(part, taken)
        if isinstance(part, Arcs):
            return self.arcs(part, taken)
        if len(part.branches) == 2 and part.merge.title != "concat" and part.merge.kind != "output":
            return self.beside(part, taken)
        return self.parallel(part, taken)

    def size(self, box: Box) -> tuple[float, float]:
        """How wide and high a box must be."""
        lines = lines_of(box)
        return max(self.measure(t, s, False) for t, s in lines) + 0.16, sum(LEADING[s] for _, s in lines) + 0.09

    def box(self, box: Box) -> Fragment:
        """A box on its axis."""
        w, h = self.size(box)
        return Fragment(w / 2, w / 2, h, 0.0, h, True, boxes=(Placed(-w / 2, 0.0, w, h, box),))

    def stack(self, parts: Sequence[Part], taken: tuple[int, ...]) -> Fragment:
        """Parts below each other; the boxes that follow each other are equally wide."""
        pen = Pen()
        fragments = self.even([self.part(p, t) for p, t in zip(parts, self.taken(parts, taken), strict=True)])
        y = left = right = 0.0
        leave: float | None = None
        for part, fragment, shape in zip(parts, fragments, self.taken(parts, taken), strict=True):
            if leave is not None:
                pen.line((0.0, leave), (0.0, y + fragment.enter), arrow=fragment.arrow)
            pen.put(fragment, 0.0, y)
            left, right = max(left, fragment.left), max(right, fragment.right)
            leave = y + fragment.leave
            y += fragment.height + GAP
            if part is not parts[-1] and shape_of(part) != shape:
                right = max(right, self.label(pen, shape_of(part), 0.0, y - GAP / 2))
        first = fragments[0]
        return pen.fragment(left, right, y - GAP, first.enter, leave or 0.0, first.arrow)

    def taken(self, parts: Sequence[Part], taken: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shape that each of the parts takes."""
        return [taken, *(shape_of(p) for p in parts)][: len(parts)]

    def even(self, fragments: Sequence[Fragment]) -> list[Fragment]:
        """Single boxes as wide as the widest of them."""
        single = [f.width for f in fragments if len(f.boxes) == 1 and not f.panels]
        wide = max(single, default=0.0)
        found = []
        for fragment in fragments:
            if len(fragment.boxes) == 1 and not fragment.panels:
                placed = replace(fragment.boxes[0], x=-wide / 2, w=wide)
                fragment = replace(fragment, left=wide / 2, right=wide / 2, boxes=(placed,))
            found.append(fragment)
        return found

    def label(self, pen: Pen, shape: tuple[int, ...], x: float, y: float) -> float:
        """A shape beside a line; how far it reaches to the right is returned."""
        text = times(shape)
        pen.words.append(Words(x + 0.05, y, text))
        return x + 0.09 + self.measure(text, SMALL, False)

    # ------------------------------------------------------------------------------------------------------------- panels

    def panel(self, panel: Panel, taken: tuple[int, ...]) -> Fragment:
        """A frame with a head around what happens in a module."""
        inner = self.stack(panel.items, taken)
        title, path = heads_of(panel)
        head = 0.16 + LEADING[NORMAL] + (LEADING[SMALL] if path else 0.0)
        wide = max(self.measure(title, NORMAL, True), self.measure(path, SMALL, False))
        left, right = inner.left + _PADDING, inner.right + _PADDING
        begin = 0.08
        if left < begin + wide + 0.06:  # the line that comes in would cross the words
            begin = left + 0.09
            right = max(right, 0.09 + wide + 0.08)
        pen = Pen()
        height = head + inner.height + _PADDING
        pen.panels.append(Placed(-left, 0.0, left + right, height, panel, begin))
        pen.put(inner, 0.0, head)
        return pen.fragment(left, right, height, head + inner.enter, head + inner.leave, inner.arrow)

    # ----------------------------------------------------------------------------------------------------------- branches

    def beside(self, fork: Fork, taken: tuple[int, ...]) -> Fragment:
        """Two branches: the longer on the axis, the other, often a skip connection, to its right."""
        main, side = sorted(fork.branches, key=lambda b: -boxes(b))
        pen = Pen()
        body = self.stack(main, taken)
        merge = self.box(fork.merge)
        pen.put(body, 0.0, _FORK)
        pen.line((0.0, 0.0), (0.0, _FORK + body.enter), arrow=body.arrow)
        top = _FORK + body.height + GAP
        pen.line((0.0, _FORK + body.leave), (0.0, top), arrow=True)
        reach = body.right
        if shape_of(main[-1]) != taken:
            reach = max(reach, self.label(pen, shape_of(main[-1]), 0.0, top - GAP / 2))
        pen.put(merge, 0.0, top)
        middle = top + merge.height / 2
        edge = (merge.right, middle)
        if not side:
            x = max(reach, merge.right + 0.1) + _LANE
            pen.line((0.0, 0.0), (x, 0.0), (x, middle), edge, arrow=True)
            return pen.fragment(max(body.left, merge.left), x + 0.06, top + merge.height, 0.0, top + merge.height, False)
        other = self.stack(side, taken)
        x = max(reach + _BETWEEN, merge.right + 0.25 - other.left) + other.left
        pen.put(other, x, _FORK)
        pen.line((0.0, 0.0), (x, 0.0), (x, _FORK + other.enter), arrow=other.arrow)
        pen.line((x, _FORK + other.leave), (x, middle), edge, arrow=True)
        right = x + other.right
        if shape_of(side[-1]) != taken:
            right = max(right, self.label(pen, shape_of(side[-1]), x, _FORK + other.height + GAP / 2))
        left = max(body.left, merge.left)
        return pen.fragment(left, right, top + merge.height, 0.0, top + merge.height, False)

    def parallel(self, fork: Fork, taken: tuple[int, ...]) -> Fragment:
        """Branches side by side, all of them into the top of one wide box."""
        bodies = [self.stack(b, taken) if b else None for b in fork.branches]
        ends = [shape_of(b[-1]) if b else taken for b in fork.branches]
        axes: list[float] = []
        x = 0.0
        for body, end in zip(bodies, ends, strict=True):
            left, right = (body.left, body.right) if body else (0.08, 0.08)
            label = 0.09 + self.measure(times(end), SMALL, False) if end != taken else 0.0
            axes.append(x + left)
            x += left + max(right, label) + _BETWEEN
        wide = x - _BETWEEN
        bar = self.size(fork.merge)
        total = max(wide, bar[0])
        shift = (total - wide) / 2 - total / 2
        axes = [a + shift for a in axes]
        top = _FORK + max((b.height for b in bodies if b), default=0.0) + GAP
        pen = Pen()
        for body, end, axis in zip(bodies, ends, axes, strict=True):
            start = _FORK + (body.enter if body else 0.0)
            pen.line((0.0, 0.0), (axis, 0.0), (axis, start if body else top), arrow=not body or body.arrow)
            if body:
                pen.put(body, axis, _FORK)
                pen.line((axis, _FORK + body.leave), (axis, top), arrow=True)
            if end != taken:
                self.label(pen, end, axis, top - GAP / 2)
        pen.boxes.append(Placed(-total / 2, top, total, bar[1], fork.merge))
        return pen.fragment(total / 2, total / 2, top + bar[1], 0.0, top + bar[1], False)

    def arcs(self, part: Arcs, taken: tuple[int, ...]) -> Fragment:
        """Boxes in their order, and to their right a lane for every edge that passes some of them by."""
        rows = self.even([self.box(b) for b in part.rows])
        pen = Pen()
        tops: list[float] = []
        y, reach = _FORK, max(r.right for r in rows)
        for i, row in enumerate(rows):
            tops.append(y)
            pen.put(row, 0.0, y)
            if (i - 1, i) in part.edges:
                pen.line((0.0, tops[i - 1] + rows[i - 1].height if i else 0.0), (0.0, y), arrow=True)
            y += row.height + GAP
            before = part.rows[i - 1].shape if i else taken
            if i + 1 < len(rows) and part.rows[i].shape != before and (i, i + 1) in part.edges:
                reach = max(reach, self.label(pen, part.rows[i].shape, 0.0, y - GAP / 2))
        free: list[float] = []
        for start, end in sorted((e for e in part.edges if e[1] - e[0] > 1), key=lambda e: (e[1] - e[0], e)):
            high = 0.0 if start < 0 else tops[start] + rows[start].height * 0.7
            low = tops[end] + rows[end].height * 0.3
            free.append(high)
            x = reach + _LANE * len(free)
            edge = 0.0 if start < 0 else rows[start].right
            pen.line((edge, high), (x, high), (x, low), (rows[end].right, low), arrow=True)
        height = y - GAP
        return pen.fragment(max(r.left for r in rows), reach + _LANE * len(free) + 0.06, height, 0.0, height, False)
