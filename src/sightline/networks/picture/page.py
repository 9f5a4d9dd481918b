"""A network's picture on a page: what is long is broken into columns, like a newspaper, or into rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sightline.networks.picture.folding import merged
from sightline.networks.picture.layout import GAP, SMALL, Line, Measure, Pen, Placed, Point, Setter, Words
from sightline.networks.picture.operations import times
from sightline.networks.picture.parts import Box, Panel, Part, shape_of

_GUTTER, _TURN = 0.42, 0.15
_WIDEST_ROW = 8.4
"""Inches: at the width of a page, the small type is still about 5 points high."""
_LOWEST = 0.3
"""Inches: a shape stands above the line that leaves the middle of a box."""
_OPENING, _TURNING = 0.03, 0.03
"""What it costs to take a stage apart and to begin a column, against the logarithm of the page's form."""
_LENIENT = 0.15
"""How far a page may be from the wanted form (in the logarithm) before it costs anything."""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole picture; its upper left corner is (0, 0)."""

    width: float
    height: float
    boxes: tuple[Placed, ...]
    panels: tuple[Placed, ...]
    lines: tuple[Line, ...]
    words: tuple[Words, ...]


def arrange(parts: Sequence[Part], measure: Measure, *, ratio: float = 1.5) -> Page:
    """A whole picture of parts that follow each other, about as wide as a page for its height.

    Args:
        parts: From the image to the output.
        measure: How wide words are.
        ratio: Width by height of a page.
    """
    setter = Setter(measure)
    opened = merged(_opened(parts, 0.0, setter))
    single = [p for p in opened if isinstance(p, Box)]
    if len(single) == len(opened):
        return _in_rows(single, setter)
    whole = setter.stack(parts, ()).height
    tries: dict[tuple[tuple[int, ...], ...], tuple[float, Page]] = {}
    for limit in (whole / count * more for count in range(1, 13) for more in (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5)):
        for opened in (_opened(parts, limit, setter), _opened(parts, limit / 2, setter)):
            columns = _columns(opened, limit, setter)
            key = tuple(tuple(id(p) for p in column) for column in columns)
            if key in tries:
                continue
            page, filled = _in_columns(columns, setter)
            effort = _OPENING * _count(opened, parts) + _TURNING * len(columns)
            form = abs(math.log(page.width / page.height / ratio))
            cost = max(0.0, form - _LENIENT) - filled + effort
            tries[key] = round(cost, 6), page
    return min(tries.values(), key=lambda t: t[0])[1]


def _count(opened: Sequence[Part], parts: Sequence[Part]) -> int:
    """How many panels with panels inside have been opened."""
    kept = {id(p) for p in opened}
    nested = [p for p in parts if isinstance(p, Panel) and id(p) not in kept]
    inner = sum(_count(opened, p.items) for p in nested)
    return inner + sum(sum(isinstance(i, Panel) for i in p.items) > 1 for p in nested)


def _opened(parts: Sequence[Part], limit: float, setter: Setter) -> list[Part]:
    """Parts without the panels that are higher than a limit, other than those that stand for several."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Panel) and part.times == 1 and not part.loose and setter.part(part, ()).height > limit:
            found += _opened(part.items, limit, setter)
        else:
            found.append(part)
    return found


def _columns(parts: Sequence[Part], limit: float, setter: Setter) -> list[list[Part]]:
    """Parts in columns that are no higher than a limit, where a part alone is not."""
    columns: list[list[Part]] = [[]]
    height = 0.0
    for part, taken in zip(parts, setter.taken(parts, ()), strict=True):
        own = setter.part(part, taken).height + GAP
        last = isinstance(part, Box) and part.kind == "output"
        if columns[-1] and height + own > limit + GAP and not last:
            columns.append([])
            height = 0.0
        columns[-1].append(part)
        height += own
    return columns


def _in_columns(columns: Sequence[Sequence[Part]], setter: Setter) -> tuple[Page, float]:
    """A page of columns, and how much of it is filled."""
    pen = Pen()
    left = right = bottom = 0.0
    covered = 0.0
    taken: tuple[int, ...] = ()
    leave: tuple[Point, float] | None = None
    for column in columns:
        body = setter.stack(column, taken)
        axis = left + body.left
        pen.put(body, axis, 0.0)
        right = left + body.right + body.left
        if leave is not None:
            (x, y), low = leave
            turn, high = left - _GUTTER / 2, -GAP - 0.05
            pen.line((x, y), (x, low), (turn, low), (turn, high), (axis, high), (axis, body.enter), arrow=body.arrow)
            right = max(right, setter.label(pen, taken, axis, -GAP / 2))
        leave = (axis, body.leave), body.height + _TURN
        taken = shape_of(column[-1])
        covered += body.width * body.height
        bottom = max(bottom, body.height + (_TURN if column is not columns[-1] else 0.0))
        left = right + _GUTTER
    return _page(pen, right, bottom, GAP + 0.06 if len(columns) > 1 else 0.0), covered / (right * bottom)


def _in_rows(boxes: Sequence[Box], setter: Setter) -> Page:
    """Rows from left to right, all boxes of one size."""
    sizes = [setter.size(b) for b in boxes]
    w, h = max(s[0] for s in sizes), max(_LOWEST, *(s[1] for s in sizes))
    shown = [times(b.shape) if b.shape != a.shape else "" for a, b in zip([Box("image", ""), *boxes], boxes, strict=False)]
    step = w + max(0.3, 0.2 + max(setter.measure(t, SMALL, False) for t in shown))
    most = max(2, int((_WIDEST_ROW + step - w) / step))
    count = most - 1 if len(boxes) % most == 1 and 2 < most < len(boxes) else min(most, len(boxes))
    pen = Pen()
    for i, (box, text) in enumerate(zip(boxes, shown, strict=True)):
        x, y = (i % count) * step, (i // count) * (h + 0.5)
        pen.boxes.append(Placed(x, y, w, h, box))
        middle, right = y + h / 2, x + w
        if i + 1 == len(boxes):
            break
        wide = setter.measure(text, SMALL, False)
        if (i + 1) % count:
            pen.line((right, middle), (x + step, middle), arrow=True)
            where = (right + (step - w - wide) / 2 - 0.02, middle - 0.08)
        else:
            low = y + h + 0.28
            ends = ((right, middle), (right + _TURN, middle), (right + _TURN, low), (-_TURN, low))
            pen.line(*ends, (-_TURN, middle + h + 0.5), (0.0, middle + h + 0.5), arrow=True)
            where = (right - wide, low - 0.08)
        if text:
            pen.words.append(Words(*where, text))
    rows = math.ceil(len(boxes) / count)
    wrapped = _TURN if rows > 1 else 0.0
    moved = Pen()
    moved.put(pen.fragment(0.0, 0.0, 0.0, 0.0, 0.0, False), wrapped, 0.0)
    return _page(moved, (count - 1) * step + w + 2 * wrapped, rows * h + (rows - 1) * 0.5, 0.0)


def _page(pen: Pen, width: float, height: float, above: float) -> Page:
    """All of it, moved down by what lies above 0."""
    moved = Pen()
    moved.put(pen.fragment(0.0, 0.0, 0.0, 0.0, 0.0, False), 0.0, above)
    return Page(width, height + above, tuple(moved.boxes), tuple(moved.panels), tuple(moved.lines), tuple(moved.words))
