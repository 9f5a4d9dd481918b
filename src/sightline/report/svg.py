"""SVG figures: coloured by the style sheet of the report, with escaped text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from sightline.report.format import percent, short

WIDTH, HEIGHT = 480, 330
LEFT, RIGHT, TOP, BOTTOM = 54, 22, 30, 48


@dataclass(frozen=True, slots=True)
class Series:
    """Line of a plot.

    Args:
        name: Name in the legend.
        points: (x, y) in data units.
        style: Line style of the style sheet, 0 to 5.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0


@dataclass(frozen=True, slots=True)
class Ranged:
    """Mean and range of repeated measurements at one x.

    Args:
        x: Position in data units.
        name: Tick label.
        mean, low, high: Fractions, 0–1.
        each: Single measurements, 0–1.
        chosen: Whether it is highlighted.
    """

    x: float
    name: str
    mean: float
    low: float
    high: float
    each: Sequence[float] = ()
    chosen: bool = False


def svg(width: float, height: float, body: Markup, title: str, kind: str = "figure") -> Markup:
    """Return the SVG element around a drawing, with its text alternative."""
    start = Markup('<svg class="{}" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">')
    return start.format(kind, _n(width), _n(height), _n(width), _n(height), title) + body + Markup("</svg>")


def _n(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(_n(x1), _n(y1), _n(x2), _n(y2), kind)


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    text = '<rect x="{}" y="{}" width="{}" height="{}" class="{}"/>'
    return Markup(text).format(_n(x), _n(y), _n(max(width, 0)), _n(max(height, 0)), kind)


def _text(x: float, y: float, text: str, kind: str = "tick", anchor: str = "middle") -> Markup:
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(_n(x), _n(y), kind, anchor, text)


def label(x: float, y: float, text: str) -> Markup:
    """Return a small centred text at a position in drawing units."""
    return _text(x, y, text)


def _dot(x: float, y: float, radius: float, kind: str) -> Markup:
    return Markup('<circle cx="{}" cy="{}" r="{}" class="{}"/>').format(_n(x), _n(y), _n(radius), kind)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about `about` round numbers from `low` to `high`.

    Example:
        >>> ticks(0, 1)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def floor_of(lows: Sequence[float | None]) -> float:
    """Return the start of an axis of accuracies: a multiple of 0.1 below the lowest value, at most 0.9.

    Example:
        >>> floor_of([0.97, 0.52]), floor_of([0.995])
        (0.5, 0.9)
    """
    known = [v for v in lows if v is not None]
    return max(0.0, min(0.9, math.floor(min(known, default=0.0) * 10 - 1e-9) / 10))


# ------------------------------------------------------------------------------------------------- dots with whiskers


def scale(value: float, low: float, high: float, marks: Sequence[tuple[float, str]], title: str, start: float = 0.0) -> Markup:
    """Draw an accuracy with its interval on an axis, with named reference values below it.

    Args:
        value, low, high: 0–1.
        marks: Reference values as (0–1, name).
        title: Text alternative of the figure.
        start: Start of the axis, 0–1.
    """
    width, left, right, y = 720.0, 14.0, 26.0, 24.0

    def x(v: float) -> float:
        return left + (max(v, start) - start) / (1 - start) * (width - left - right)

    parts = [_line(x(start), y, x(1), y, "axis")]
    for t in ticks(start, 1.0, 5):
        edge = {start: ("start", left), 1.0: ("end", -right)}.get(t, ("middle", 0.0))
        parts += [_line(x(t), y - 4, x(t), y + 4, "axis"), _text(x(t) - edge[1], y + 20, percent(t, 0), "tick", edge[0])]
    levels: list[float] = []  # right end of the last name in each line of names
    for v, name in sorted(marks):
        size = 6.6 * len(name) / 2 + 4
        centre = min(max(x(v), size), width - size)
        level = next((i for i, end in enumerate(levels) if centre - size > end), len(levels))
        levels[level : level + 1] = [centre + size]
        below = y + 42 + 17 * level
        parts += [_line(x(v), y - 8, x(v), below - 12, "mark"), _text(centre, below, name, "marked")]
    parts += [_rect(x(low), y - 7, x(high) - x(low), 14, "interval"), _dot(x(value), y, 7, "point")]
    return svg(width, y + 32 + 17 * len(levels), Markup("").join(parts), title, "scale")


def whisker(value: float | None, low: float | None, high: float | None, start: float, kind: str = "") -> Markup:
    """Draw a value with its interval for a table cell, on an axis from `start` to 1."""
    width, height, pad = 240.0, 22.0, 7.0

    def x(v: float) -> float:
        return pad + (max(v, start) - start) / (1 - start) * (width - 2 * pad)

    parts = [_line(x(t), 0, x(t), height, "grid") for t in ticks(start, 1.0, 5)]
    if value is not None:
        if low is not None and high is not None:
            parts.append(_line(x(low), height / 2, x(high), height / 2, f"whisker {kind}"))
        parts.append(_dot(x(value), height / 2, 4.5, f"point {kind}"))
    return svg(width, height, Markup("").join(parts), percent(value), "strip")


def ruler(start: float) -> Markup:
    """Draw the axis above a column of whiskers."""
    width, pad = 240.0, 7.0
    marks = ticks(start, 1.0, 5)
    parts = []
    for t in marks:
        at = pad + (t - start) / (1 - start) * (width - 2 * pad)
        anchor = "start" if t == marks[0] else "end" if t == marks[-1] else "middle"
        edge = at - pad if anchor == "start" else at + pad if anchor == "end" else at
        name = percent(t, 0) if t == marks[-1] else f"{100 * t:.0f}"
        parts.append(_text(edge, 12, name, "tick", anchor))
    return svg(width, 16, Markup("").join(parts), f"from {percent(start, 0)} to 100 %", "strip")


def stacked(counts: Sequence[int], most: int) -> Markup:
    """Draw counts as one stacked bar, of full width if they sum to `most`."""
    width, x, parts = 240.0, 0.0, []
    for i, n in enumerate(counts):
        w = width * n / max(most, 1)
        parts.append(_rect(x, 3, w, 12, f"fill{i}"))
        x += w
    return svg(width, 18, Markup("").join(parts), " + ".join(map(str, counts)), "strip")


def share_bar(share: float) -> Markup:
    """Draw a fraction (0–1) as a bar."""
    body = _rect(0, 3, 240, 12, "track") + _rect(0, 3, 240 * share, 12, "fill0")
    return svg(240, 18, body, percent(share), "strip")


# ---------------------------------------------------------------------------------------------------------- plots


class Axes:
    """Axes of a plot: map data to drawing units, draw ticks, labels and shapes."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], names: tuple[str, str], share: tuple[bool, bool]):
        self.x_range, self.y_range, self.names, self.share = x, y, names, share

    def x(self, value: float) -> float:
        """Return the horizontal position of a value in drawing units."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the vertical position of a value in drawing units."""
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low or 1) * (HEIGHT - TOP - BOTTOM)

    def frame(self, x_ticks: Sequence[float] | None = None, y_ticks: Sequence[float] | None = None) -> Markup:
        """Draw grid, ticks and axis labels."""
        parts = []
        for t in ticks(*self.y_range) if y_ticks is None else y_ticks:
            parts += [_line(LEFT, self.y(t), WIDTH - RIGHT, self.y(t), "grid")]
            parts += [_text(LEFT - 7, self.y(t) + 5, percent(t, 0) if self.share[1] else f"{t:g}", "tick", "end")]
        for t in ticks(*self.x_range) if x_ticks is None else x_ticks:
            parts.append(_text(self.x(t), HEIGHT - BOTTOM + 19, percent(t, 0) if self.share[0] else f"{t:,g}"))
        parts.append(_line(LEFT, self.y(self.y_range[0]), WIDTH - RIGHT, self.y(self.y_range[0]), "axis"))
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, self.names[0]))
        parts.append(_text(4, 14, self.names[1], "tick", "start"))
        return Markup("").join(parts)

    def rule(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
        """Draw a straight line between two points in data units."""
        return _line(self.x(x1), self.y(y1), self.x(x2), self.y(y2), kind)

    def dot(self, x: float, y: float, radius: float, kind: str) -> Markup:
        """Draw a dot at a point in data units, with a radius in drawing units."""
        return _dot(self.x(x), self.y(y), radius, kind)

    def text(self, x: float, y: float, text: str, shift: tuple[float, float] = (0, 0), anchor: str = "middle") -> Markup:
        """Draw a text at a point in data units, shifted in drawing units."""
        return _text(self.x(x) + shift[0], self.y(y) + shift[1], text, "tick", anchor)

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> Markup:
        """Draw a line through points in data units."""
        at = "L".join(f"{_n(self.x(x))} {_n(self.y(y))}" for x, y in points)
        return Markup('<path d="M{}" class="{}"/>').format(at, kind) if points else Markup("")


def lines(
    series: Sequence[Series],
    names: tuple[str, str],
    title: str,
    *,
    share: bool = False,
    whole: bool = True,
    log: bool = False,
) -> Markup:
    """Draw lines over a common x axis, such as a training history.

    Args:
        series: The lines.
        names: Labels of the x and the y axis.
        title: Text alternative of the figure.
        share: Whether y is a fraction (0–1), printed in percent.
        whole: Whether x has whole numbers only.
        log: Whether y is the decadic logarithm of the values that the axis names.
    """
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for _, y in s.points if math.isfinite(y)]
    low, high = (math.floor(min(ys) * 10) / 10, 1.0) if share else (min(0.0, *ys), max(ys) * 1.05 or 1.0)
    if log:
        low, high = min(ys) - 0.05, max(ys) + 0.05
    axes = Axes((min(xs), max(xs)), (low, high), names, (False, share))
    marks = sorted({round(t) for t in ticks(min(xs), max(xs), 6)}) if whole else None
    body = axes.frame([float(m) for m in marks] if marks is not None else None, [] if log else None)
    for value in _log_ticks(low, high) if log else ():
        at = math.log10(value)
        body += axes.rule(min(xs), at, max(xs), at, "grid") + axes.text(min(xs), at, f"{value:g}", (-7, 5), "end")
    for s in series:
        points = [(x, y) for x, y in s.points if math.isfinite(y)]
        body += axes.path(points, f"line s{s.style}")
        if len(points) == 1:
            body += _dot(axes.x(points[0][0]), axes.y(points[0][1]), 3.5, f"dot s{s.style}")
    return svg(WIDTH, HEIGHT, body, title)


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten between 10**low and 10**high; only powers of ten if there are more than two.

    Example:
        >>> _log_ticks(-1.1, 0.2)
        [0.1, 0.2, 0.5, 1.0]
    """
    powers = range(math.floor(low), math.ceil(high) + 1)
    steps = (1,) if high - low > 2 else (1, 2, 5)
    return [round(m * 10.0**p, 12) for p in powers for m in steps if low <= math.log10(m) + p <= high]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis of accuracies: multiples of 0.05 around the values.

    Example:
        >>> spread([0.912, 0.934]), spread([0.3, 0.99])
        ((0.9, 0.95), (0.3, 1.0))
    """
    low, high = math.floor(min(values) * 20 + 1e-9) / 20, math.ceil(max(values) * 20 - 1e-9) / 20
    low = min(low, 0.95)
    return low, round(max(high, low + 0.05), 2)


def ranges(points: Sequence[Ranged], names: tuple[str, str], title: str, *, log: bool = False) -> Markup:
    """Draw fractions with their ranges over a number; single measurements are small dots, means are joined by a line.

    Args:
        points: Measurements in rising x.
        names: Labels of the x and the y axis.
        title: Text alternative of the figure.
        log: Whether the x axis is logarithmic; every x is positive then.
    """
    at = [math.log10(p.x) if log else p.x for p in points]
    room = 0.04 * (at[-1] - at[0]) or 0.5
    low, high = spread([v for p in points for v in (p.low, p.high, *p.each)])
    axes = Axes((at[0] - room, at[-1] + room), (low, high), names, (False, True))
    body, end = axes.frame([]), -math.inf
    body += axes.path([(x, p.mean) for x, p in zip(at, points, strict=True)], "line s0")
    for x, p in zip(at, points, strict=True):
        half = 4 * len(p.name) + 3
        if axes.x(x) - half > end:
            body += _text(axes.x(x), HEIGHT - BOTTOM + 19, p.name)
            end = axes.x(x) + half
        kind = "on" if p.chosen else ""
        body += _line(axes.x(x), axes.y(p.low), axes.x(x), axes.y(p.high), f"whisker {kind}")
        for each in p.each if len(p.each) > 1 else ():
            body += _dot(axes.x(x), axes.y(each), 2.2, "each")
        body += _dot(axes.x(x), axes.y(p.mean), 5, f"point {kind}")
    return svg(WIDTH, HEIGHT, body, title)


def best_so_far(points: Sequence[tuple[int, float, float]], names: tuple[str, str], title: str) -> Markup:
    """Draw the value of each trial as a dot and the best value so far as a step line.

    Args:
        points: (trial number, value, best value so far), values 0–1.
        names: Labels of the x and the y axis.
        title: Text alternative of the figure.
    """
    floor = sorted(v for _, v, _ in points)[len(points) // 10]  # the worst tenth does not set the scale
    axes = Axes((0, max(points[-1][0], 1)), spread([floor, *(b for _, _, b in points)]), names, (False, True))
    marks = sorted({float(round(t)) for t in ticks(0, max(points[-1][0], 1), 6)})
    body, steps = axes.frame(marks), []
    for i, (number, _, best) in enumerate(points):
        steps += [(number, points[i - 1][2])] * (i > 0) + [(number, best)]
    body += axes.path(steps, "line s0")
    for number, value, best in points:
        if value >= axes.y_range[0]:
            body += _dot(axes.x(number), axes.y(value), 4, "point on" if value == best else "point")
    return svg(WIDTH, HEIGHT, body, title)


def roc(series: Sequence[Series], title: str, equal_error: float | None, names: tuple[str, str]) -> Markup:
    """Draw ROC curves: true positive rate over false positive rate."""
    axes = Axes((0, 1), (0, 1), names, (True, True))
    body = axes.frame() + axes.path([(0, 0), (1, 1)], "chance")
    for s in series:
        body += axes.path(s.points, f"line s{s.style}")
    if equal_error is not None:
        x, y = equal_error, 1 - equal_error
        body += axes.dot(x, y, 4.5, "ring") + axes.text(x, y, f"EER {percent(equal_error)}", (10, 16), "start")
    return svg(WIDTH, HEIGHT, body, title)


def calibration(bins: Sequence[tuple[float, float, int]], title: str) -> Markup:
    """Draw accuracy over confidence; dot areas are proportional to the number of images, the diagonal is perfect calibration.

    Args:
        bins: (mean confidence, accuracy, number of images) of each bin.
        title: Text alternative of the figure.
    """
    start = max(0.0, math.floor(min(min(c, a) for c, a, _ in bins) * 10) / 10) if bins else 0.0
    start = min(start, 0.8)
    axes = Axes((start, 1), (start, 1), ("confidence", "accuracy"), (True, True))
    body = axes.frame() + axes.path([(start, start), (1, 1)], "chance")
    total = sum(n for _, _, n in bins) or 1
    for confidence, accuracy, n in bins:
        x, y = axes.x(confidence), axes.y(accuracy)
        radius = 3 + 15 * math.sqrt(n / total)
        body += _line(x, axes.y(confidence), x, y, "gap") + _dot(x, y, radius, "bubble")
        beside = max(y - radius - 5, 10) if accuracy >= confidence else y + radius + 13  # on the side away from the diagonal
        low = beside > HEIGHT - BOTTOM - 2
        body += _text(x + low * (radius + 8), y - 4 if low else beside, f"{n:,}", "count")
    return svg(WIDTH, HEIGHT, body, title)


def histogram(edges: Sequence[float], counts: Sequence[int], name: str, title: str) -> Markup:
    """Draw a histogram with columns of equal width, whatever the widths of the bins."""
    height, bottom = 250, 44
    n, most = len(counts), max(counts, default=1) or 1
    step = (WIDTH - 2 * RIGHT) / max(n, 1)
    every = max(1, math.ceil(n / 8))
    parts = [_line(RIGHT, height - bottom, WIDTH - RIGHT, height - bottom, "axis")]
    for i, c in enumerate(counts):
        tall = (height - bottom - 22) * c / most
        parts.append(_rect(RIGHT + i * step + 1, height - bottom - tall, step - 2, tall, "fill0"))
        if c and n <= 16:
            parts.append(_text(RIGHT + (i + 0.5) * step, height - bottom - tall - 5, f"{c:,}"))
    parts += [_text(RIGHT + i * step, height - bottom + 17, f"{edges[i]:g}") for i in range(0, len(edges), every)]
    parts.append(_text(WIDTH / 2, height - 6, name))
    return svg(WIDTH, height, Markup("").join(parts), title)


def matrix(confusion: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Markup:
    """Draw a confusion matrix of many classes as coloured cells, with the numbers as tooltips."""
    k = len(classes)
    side = max(3.0, min(18.0, 560 / k))
    label = 110 if side >= 9 else 0
    parts = [_rect(label, 0, side * k, side * k, "track")]
    for r, row in enumerate(confusion):
        total = sum(row) or 1
        for c, n in enumerate(row):
            if n:
                level = max(1, math.ceil(10 * n / total))
                kind = f"{'hit' if r == c else 'miss'}{level}"
                rect = _rect(label + c * side, r * side, side - 0.5, side - 0.5, kind)
                tooltip = f"true: {short(classes[r], 40)}, predicted: {short(classes[c], 40)}: {n:,} of {total:,}"
                show = Markup(' data-show="{}-{}"').format(r, c) if r != c else ""
                parts.append(Markup("<g{}>{}<title>{}</title></g>").format(show, rect, tooltip))
        if label:
            parts.append(_text(label - 6, r * side + side * 0.75, short(classes[r], 18), "tiny", "end"))
    return svg(label + side * k, side * k, Markup("").join(parts), title, "matrix")


def legend(series: Sequence[Series]) -> Markup:
    """Return the legend of the lines as an HTML list."""
    items = [
        Markup('<li><svg class="key" viewBox="0 0 26 10" width="26" height="10" aria-hidden="true">{}</svg>{}</li>').format(
            _line(1, 5, 25, 5, f"line s{s.style}"), escape(s.name)
        )
        for s in series
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))
