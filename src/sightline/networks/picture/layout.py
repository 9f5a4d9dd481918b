"""Layout of a network diagram: positions of boxes, panels, lines and labels, in inches, with y downwards.

Every part becomes a fragment with a point for the incoming line and one for the outgoing line. Fragments are placed below
each other or side by side, so that nothing overlaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from sightline.networks.picture.operations import shape_text
from sightline.networks.picture.parts import Arcs, Box, Fork, Panel, Part, boxes, shape_of

Point: TypeAlias = tuple[float, float]
Measure: TypeAlias = Callable[[str, float, bool], float]
"""(text, size in points, whether bold) → width in inches."""

NORMAL, SMALL = 7.0, 5.8
"""The two font sizes, in points."""

LEADING = {NORMAL: 0.125, SMALL: 0.1}
"""Font size → height of a line of text, in inches."""

GAP, _FORK, _LANE, _BETWEEN, _PADDING = 0.2, 0.14, 0.17, 0.16, 0.11
_LONGEST = 34
"""Maximum length of a name in characters."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A placed box or panel.

    Args:
        x, y: Upper left corner of its rectangle.
        w, h: Size of its rectangle.
        part: A `Box`, or the `Panel` whose frame the rectangle is.
        head: Distance of a panel's title from its left side.
    """

    x: float
    y: float
    w: float
    h: float
    part: Box | Panel
    head: float = 0.08


@dataclass(frozen=True, slots=True)
class Line:
    """A line with right angles, with or without an arrow at its end."""

    points: tuple[Point, ...]
    arrow: bool


@dataclass(frozen=True, slots=True)
class Label:
    """The shape of a tensor beside a line. `x` is the left end of the text, `y` its vertical middle."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """The layout of a part in its own coordinates: top at y = 0, axis of the incoming and outgoing lines at x = 0.

    Args:
        left, right: Extent to the left and right of the axis.
        height: Height.
        enter, leave: y of the ends of the incoming and the outgoing line.
        arrow: Whether the incoming line ends in an arrow.
        boxes, panels, lines, labels: Its contents.
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
    labels: tuple[Label, ...] = ()

    @property
    def width(self) -> float:
        """Total width."""
        return self.left + self.right


def short(text: str, longest: int = _LONGEST) -> str:
    """Shorten a name to a maximum length and put it on one line.

    Example:
        >>> short("x" * 40)[-3:], len(short("x" * 40))
        ('xx…', 34)
    """
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def lines_of(box: Box) -> list[tuple[str, float]]:
    """Return the (text, font size) of each line in a box: small operations before, title, small operations after."""
    title = short(box.title) + (f"  ×  {box.times}" if box.times > 1 else "")
    small = [[(t, SMALL) for t in _wrapped(names)] for names in (box.before, box.after)]
    return [*small[0], (title, NORMAL), *small[1]]


def _wrapped(names: Sequence[str]) -> list[str]:
    """Join names with dots into lines of limited length."""
    lines: list[str] = []
    for word in (short(n) for n in names if n):
        if lines and len(lines[-1]) + 3 + len(word) <= _LONGEST:
            lines[-1] += f" · {word}"
        else:
            lines.append(word)
    return lines


def heads_of(panel: Panel) -> tuple[str, str]:
    """Return the two lines at the head of a panel: title and path."""
    return short(panel.title) + (f"  ×  {panel.times}" if panel.times > 1 else ""), short(panel.path)


# --------------------------------------------------------------------------------------------------------------- fragments


@dataclass(slots=True)
class Pen:
    """Collector of placed boxes, panels, lines and labels."""

    boxes: list[Placed] = field(default_factory=list)
    panels: list[Placed] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def put(self, fragment: Fragment, x: float, y: float) -> None:
        """Add a fragment with its axis at x and its top at y."""
        self.boxes += [replace(b, x=b.x + x, y=b.y + y) for b in fragment.boxes]
        self.panels += [replace(p, x=p.x + x, y=p.y + y) for p in fragment.panels]
        self.lines += [replace(r, points=tuple((a + x, b + y) for a, b in r.points)) for r in fragment.lines]
        self.labels += [replace(w, x=w.x + x, y=w.y + y) for w in fragment.labels]

    def line(self, *points: Point, arrow: bool) -> None:
        """Add a line through points."""
        if math.dist(points[0], points[-1]) > 1e-6:
            self.lines.append(Line(tuple(points), arrow))

    def fragment(self, left: float, right: float, height: float, enter: float, leave: float, arrow: bool) -> Fragment:
        """Return everything collected as a fragment."""
        return Fragment(
            left=left,
            right=right,
            height=height,
            enter=enter,
            leave=leave,
            arrow=arrow,
            boxes=tuple(self.boxes),
            panels=tuple(self.panels),
            lines=tuple(self.lines),
            labels=tuple(self.labels),
        )


class Layouter:
    """Converter of parts to fragments.

    Args:
        measure: Function that returns the width of a text.
    """

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self._fragments: dict[tuple[int, tuple[int, ...]], tuple[Part, Fragment]] = {}

    def part(self, part: Part, input_shape: tuple[int, ...]) -> Fragment:
        """Return the fragment of a part whose input has the shape `input_shape`, cached."""
        key = id(part), input_shape
        if key not in self._fragments:  # the stored part keeps its id from being reused
            self._fragments[key] = part, self._part(part, input_shape)
        return self._fragments[key][1]

    def _part(self, part: Part, input_shape: tuple[int, ...]) -> Fragment:
        if isinstance(part, Box):
            return self.box(part)
        if isinstance(part, Panel):
            return self.panel(part, input_shape)
        if isinstance(part, Arcs):
            return self.arcs(part, input_shape)
        if len(part.branches) == 2 and part.merge.title != "concat" and part.merge.kind != "output":
            return self.beside(part, input_shape)
        return self.parallel(part, input_shape)

    def size(self, box: Box) -> tuple[float, float]:
        """Return the (width, height) of a box."""
        lines = lines_of(box)
        return max(self.measure(t, s, False) for t, s in lines) + 0.16, sum(LEADING[s] for _, s in lines) + 0.09

    def box(self, box: Box) -> Fragment:
        """Return the fragment of a box."""
        w, h = self.size(box)
        return Fragment(w / 2, w / 2, h, 0.0, h, True, boxes=(Placed(-w / 2, 0.0, w, h, box),))

    def stack(self, parts: Sequence[Part], input_shape: tuple[int, ...]) -> Fragment:
        """Place parts below each other, single boxes with equal widths."""
        pen = Pen()
        fragments = self.even([self.part(p, t) for p, t in zip(parts, self.input_shapes(parts, input_shape), strict=True)])
        y = left = right = 0.0
        leave: float | None = None
        for part, fragment, shape in zip(parts, fragments, self.input_shapes(parts, input_shape), strict=True):
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

    def input_shapes(self, parts: Sequence[Part], input_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the input shape of each part."""
        return [input_shape, *(shape_of(p) for p in parts)][: len(parts)]

    def even(self, fragments: Sequence[Fragment]) -> list[Fragment]:
        """Widen single boxes to the width of the widest."""
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
        """Add the label of a shape beside a line and return its right end."""
        text = shape_text(shape)
        pen.labels.append(Label(x + 0.05, y, text))
        return x + 0.09 + self.measure(text, SMALL, False)

    # ------------------------------------------------------------------------------------------------------------- panels

    def panel(self, panel: Panel, input_shape: tuple[int, ...]) -> Fragment:
        """Return the fragment of a panel: a frame with a head around the items."""
        inner = self.stack(panel.items, input_shape)
        title, path = heads_of(panel)
        head = 0.16 + LEADING[NORMAL] + (LEADING[SMALL] if path else 0.0)
        wide = max(self.measure(title, NORMAL, True), self.measure(path, SMALL, False))
        left, right = inner.left + _PADDING, inner.right + _PADDING
        begin = 0.08
        if left < begin + wide + 0.06:  # the incoming line would cross the text
            begin = left + 0.09
            right = max(right, 0.09 + wide + 0.08)
        pen = Pen()
        height = head + inner.height + _PADDING
        pen.panels.append(Placed(-left, 0.0, left + right, height, panel, begin))
        pen.put(inner, 0.0, head)
        return pen.fragment(left, right, height, head + inner.enter, head + inner.leave, inner.arrow)

    # ----------------------------------------------------------------------------------------------------------- branches

    def beside(self, fork: Fork, input_shape: tuple[int, ...]) -> Fragment:
        """Place two branches: the longer one on the axis, the other one (often a skip connection) to its right."""
        main, side = sorted(fork.branches, key=lambda b: -boxes(b))
        pen = Pen()
        body = self.stack(main, input_shape)
        merge = self.box(fork.merge)
        pen.put(body, 0.0, _FORK)
        pen.line((0.0, 0.0), (0.0, _FORK + body.enter), arrow=body.arrow)
        top = _FORK + body.height + GAP
        pen.line((0.0, _FORK + body.leave), (0.0, top), arrow=True)
        reach = body.right
        if shape_of(main[-1]) != input_shape:
            reach = max(reach, self.label(pen, shape_of(main[-1]), 0.0, top - GAP / 2))
        pen.put(merge, 0.0, top)
        middle = top + merge.height / 2
        edge = (merge.right, middle)
        if not side:
            x = max(reach, merge.right + 0.1) + _LANE
            pen.line((0.0, 0.0), (x, 0.0), (x, middle), edge, arrow=True)
            return pen.fragment(max(body.left, merge.left), x + 0.06, top + merge.height, 0.0, top + merge.height, False)
        other = self.stack(side, input_shape)
        x = max(reach + _BETWEEN, merge.right + 0.25 - other.left) + other.left
        pen.put(other, x, _FORK)
        pen.line((0.0, 0.0), (x, 0.0), (x, _FORK + other.enter), arrow=other.arrow)
        pen.line((x, _FORK + other.leave), (x, middle), edge, arrow=True)
        right = x + other.right
        if shape_of(side[-1]) != input_shape:
            right = max(right, self.label(pen, shape_of(side[-1]), x, _FORK + other.height + GAP / 2))
        left = max(body.left, merge.left)
        return pen.fragment(left, right, top + merge.height, 0.0, top + merge.height, False)

    def parallel(self, fork: Fork, input_shape: tuple[int, ...]) -> Fragment:
        """Place branches side by side, above one wide box that merges them."""
        bodies = [self.stack(b, input_shape) if b else None for b in fork.branches]
        ends = [shape_of(b[-1]) if b else input_shape for b in fork.branches]
        axes: list[float] = []
        x = 0.0
        for body, end in zip(bodies, ends, strict=True):
            left, right = (body.left, body.right) if body else (0.08, 0.08)
            label = 0.09 + self.measure(shape_text(end), SMALL, False) if end != input_shape else 0.0
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
            if end != input_shape:
                self.label(pen, end, axis, top - GAP / 2)
        pen.boxes.append(Placed(-total / 2, top, total, bar[1], fork.merge))
        return pen.fragment(total / 2, total / 2, top + bar[1], 0.0, top + bar[1], False)

    def arcs(self, part: Arcs, input_shape: tuple[int, ...]) -> Fragment:
        """Place boxes in order, with a lane to their right for every edge that skips some of them."""
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
            before = part.rows[i - 1].shape if i else input_shape
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
