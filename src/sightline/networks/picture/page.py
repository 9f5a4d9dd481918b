"""Page layout of a network diagram: long diagrams are broken into columns, as in a newspaper, or into rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sightline.networks.picture.folding import merged
from sightline.networks.picture.layout import GAP, SMALL, Label, Layouter, Line, Measure, Pen, Placed, Point
from sightline.networks.picture.operations import shape_text
from sightline.networks.picture.parts import Box, Panel, Part, shape_of

_GUTTER, _TURN = 0.42, 0.15
_WIDEST_ROW = 8.4
"""Maximum width of a row in inches: scaled to the width of a page, small type is still about 5 points high."""
_LOWEST = 0.3
"""Minimum height of a box in inches, so that a label fits above the line that leaves its middle."""
_OPENING, _TURNING = 0.03, 0.03
"""Costs of opening a panel and of starting a column, compared with the log of the aspect ratio's error."""
_RATIO = 1.5
"""Width / height of the page."""
_LENIENT = 0.15
"""Error of the log aspect ratio that costs nothing."""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole diagram in inches; its upper left corner is (0, 0)."""

    width: float
    height: float
    boxes: tuple[Placed, ...]
    panels: tuple[Placed, ...]
    lines: tuple[Line, ...]
    labels: tuple[Label, ...]


def arrange(parts: Sequence[Part], measure: Measure) -> Page:
    """Lay out consecutive parts on a page of about the aspect ratio `_RATIO`.

    Args:
        parts: Parts from the image to the output.
        measure: Function that returns the width of a text.
    """
    layouter = Layouter(measure)
    opened = merged(_opened(parts, 0.0, layouter))
    single = [p for p in opened if isinstance(p, Box)]
    if len(single) == len(opened):
        return _in_rows(single, layouter)
    whole = layouter.stack(parts, ()).height
    tries: dict[tuple[tuple[int, ...], ...], tuple[float, Page]] = {}
    for limit in (whole / count * more for count in range(1, 13) for more in (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5)):
        for opened in (_opened(parts, limit, layouter), _opened(parts, limit / 2, layouter)):
            columns = _columns(opened, limit, layouter)
            key = tuple(tuple(id(p) for p in column) for column in columns)
            if key in tries:
                continue
            page, filled = _in_columns(columns, layouter)
            effort = _OPENING * _count(opened, parts) + _TURNING * len(columns)
            form = abs(math.log(page.width / page.height / _RATIO))
            cost = max(0.0, form - _LENIENT) - filled + effort
            tries[key] = round(cost, 6), page
    return min(tries.values(), key=lambda t: t[0])[1]


def _count(opened: Sequence[Part], parts: Sequence[Part]) -> int:
    """Return how many panels that contain panels were opened."""
    ids = {id(p) for p in opened}
    nested = [p for p in parts if isinstance(p, Panel) and id(p) not in ids]
    inner = sum(_count(opened, p.items) for p in nested)
    return inner + sum(sum(isinstance(i, Panel) for i in p.items) > 1 for p in nested)


def _opened(parts: Sequence[Part], limit: float, layouter: Layouter) -> list[Part]:
    """Replace single panels that are higher than a limit by their items."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Panel) and part.times == 1 and not part.loose and layouter.part(part, ()).height > limit:
            found += _opened(part.items, limit, layouter)
        else:
            found.append(part)
    return found


def _columns(parts: Sequence[Part], limit: float, layouter: Layouter) -> list[list[Part]]:
    """Split parts into columns no higher than a limit, unless a single part is."""
    columns: list[list[Part]] = [[]]
    height = 0.0
    for part, input_shape in zip(parts, layouter.input_shapes(parts, ()), strict=True):
        part_height = layouter.part(part, input_shape).height + GAP
        last = isinstance(part, Box) and part.kind == "output"
        if columns[-1] and height + part_height > limit + GAP and not last:
            columns.append([])
            height = 0.0
        columns[-1].append(part)
        height += part_height
    return columns


def _in_columns(columns: Sequence[Sequence[Part]], layouter: Layouter) -> tuple[Page, float]:
    """Return a page of columns and the fraction of its area that is filled."""
    pen = Pen()
    left = right = bottom = 0.0
    covered = 0.0
    input_shape: tuple[int, ...] = ()
    leave: tuple[Point, float] | None = None
    for column in columns:
        body = layouter.stack(column, input_shape)
        axis = left + body.left
        pen.put(body, axis, 0.0)
        right = left + body.right + body.left
        if leave is not None:
            (x, y), low = leave
            turn, high = left - _GUTTER / 2, -GAP - 0.05
            pen.line((x, y), (x, low), (turn, low), (turn, high), (axis, high), (axis, body.enter), arrow=body.arrow)
            right = max(right, layouter.label(pen, input_shape, axis, -GAP / 2))
        leave = (axis, body.leave), body.height + _TURN
        input_shape = shape_of(column[-1])
        covered += body.width * body.height
        bottom = max(bottom, body.height + (_TURN if column is not columns[-1] else 0.0))
        left = right + _GUTTER
    return _page(pen, right, bottom, GAP + 0.06 if len(columns) > 1 else 0.0), covered / (right * bottom)


def _in_rows(boxes: Sequence[Box], layouter: Layouter) -> Page:
    """Return a page of rows from left to right, with all boxes of one size."""
    sizes = [layouter.size(b) for b in boxes]
    w, h = max(s[0] for s in sizes), max(_LOWEST, *(s[1] for s in sizes))
    shown = [shape_text(b.shape) if b.shape != a.shape else "" for a, b in zip([Box("image", ""), *boxes], boxes, strict=False)]
    step = w + max(0.3, 0.2 + max(layouter.measure(t, SMALL, False) for t in shown))
    most = max(2, int((_WIDEST_ROW + step - w) / step))
    count = most - 1 if len(boxes) % most == 1 and 2 < most < len(boxes) else min(most, len(boxes))
    pen = Pen()
    for i, (box, text) in enumerate(zip(boxes, shown, strict=True)):
        x, y = (i % count) * step, (i // count) * (h + 0.5)
        pen.boxes.append(Placed(x, y, w, h, box))
        middle, right = y + h / 2, x + w
        if i + 1 == len(boxes):
            break
        wide = layouter.measure(text, SMALL, False)
        if (i + 1) % count:
            pen.line((right, middle), (x + step, middle), arrow=True)
            where = (right + (step - w - wide) / 2 - 0.02, middle - 0.08)
        else:
            low = y + h + 0.28
            ends = ((right, middle), (right + _TURN, middle), (right + _TURN, low), (-_TURN, low))
            pen.line(*ends, (-_TURN, middle + h + 0.5), (0.0, middle + h + 0.5), arrow=True)
            where = (right - wide, low - 0.08)
        if text:
            pen.labels.append(Label(*where, text))
    rows = math.ceil(len(boxes) / count)
    wrapped = _TURN if rows > 1 else 0.0
    moved = Pen()
    moved.put(pen.fragment(0.0, 0.0, 0.0, 0.0, 0.0, False), wrapped, 0.0)
    return _page(moved, (count - 1) * step + w + 2 * wrapped, rows * h + (rows - 1) * 0.5, 0.0)


def _page(pen: Pen, width: float, height: float, above: float) -> Page:
    """Return the page of everything collected, moved down by `above`."""
    moved = Pen()
    moved.put(pen.fragment(0.0, 0.0, 0.0, 0.0, 0.0, False), 0.0, above)
    return Page(width, height + above, tuple(moved.boxes), tuple(moved.panels), tuple(moved.lines), tuple(moved.labels))
