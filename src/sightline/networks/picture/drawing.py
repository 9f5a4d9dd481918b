"""Draw a network diagram as SVG or PNG."""

from __future__ import annotations

import functools
import io
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from sightline.errors import RequestError
from sightline.networks.picture.dataflow import Flow, dataflow
from sightline.networks.picture.folding import fold
from sightline.networks.picture.layout import LEADING, NORMAL, SMALL, Line, Placed, heads_of, lines_of, short
from sightline.networks.picture.operations import shape_text
from sightline.networks.picture.page import Page, arrange
from sightline.networks.picture.parts import Box, Panel
from sightline.store import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LARGE = 11.0
_MARGIN, _HEAD, _LEGEND_ROW, _SWATCH = 0.2, 0.5, 0.18, 0.16
_ROUND = 0.06
_INK, _FAINT, _LINE = "#1f1f1f", "#555555", "#4a4a4a"
_DPI = 200
"""Resolution of PNG files."""
_LIMITS = (120, 70, 40, 20)
"""Maximum numbers of boxes to try, from most to least detail."""
_LARGEST = 260.0
"""Maximum area in square inches; GoogLeNet has 180, Inception-V3 235."""

_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.style": "normal",
    "text.usetex": False,
    "path.sketch": None,
    "path.effects": [],
    "path.simplify": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "sightline",
    "savefig.bbox": None,
}
"""Matplotlib settings, independent of the user's. Text stays text in SVG, for search and screen readers."""


def draw(net: nn.Module, size: tuple[int, int], file: Path, *, channels: int = 3, title: str = "") -> None:
    """Draw the diagram of a network to a file: layers as boxes, skip connections and branches as lines.

    With the same versions of the libraries, the same network gives the same bytes.

    Args:
        net: A network on any device, including the meta device. It is not changed.
        size: (height, width) of the image in px.
        file: Path that ends in .svg or .png, in an existing folder.
        channels: Number of channels of the image.
        title: Title above the diagram; the class of the network if empty.

    Raises:
        RequestError: If the file has another suffix, or the network does not accept such an image.
    """
    kind = file.suffix.lower().lstrip(".")
    if kind not in {"svg", "png"}:
        raise RequestError(f"a network diagram cannot be written to {file.name!r}", "end its name in .svg or .png")
    page = picture(dataflow(net, size, channels))
    parameters = sum(p.numel() for p in net.parameters())
    subtitle = f"image {shape_text((channels, *size))}  ·  {parameters:,} parameters"
    write_bytes(file, render(page, title or type(net).__name__, subtitle, kind))


def picture(flow: Flow) -> Page:
    """Lay out a network's page with as many boxes as fit into the maximum area."""
    for limit in _LIMITS:
        page = arrange(fold(flow, limit), text_width)
        if page.width * page.height <= _LARGEST:
            break
    return page


def render(page: Page, title: str, subtitle: str, kind: str) -> bytes:
    """Render a page to the bytes of an SVG or PNG file.

    Args:
        page: The layout.
        title: Title above the diagram, one line.
        subtitle: Line below the title.
        kind: `svg` or `png`.
    """
    import matplotlib

    target = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        drawn = figure(page, title, subtitle)
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        drawn.savefig(target, format=kind, dpi=_DPI if kind == "png" else 72, metadata=metadata)
    return target.getvalue()


def figure(page: Page, title: str, subtitle: str) -> Figure:
    """Draw a page as a matplotlib figure whose units are inches, with y downwards."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    head = short(title, 72)
    widest = max(page.width, text_width(head, _LARGE, True), text_width(subtitle, NORMAL, False), 3.0)
    keys = _legend(page, widest)
    width, left = widest + 2 * _MARGIN, _MARGIN + (widest - page.width) / 2
    top = _MARGIN + _HEAD
    height = top + page.height + 0.2 + _LEGEND_ROW * (1 + max((row for _, row, *_ in keys), default=-1)) + _MARGIN
    drawn = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(drawn)
    axes = drawn.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    _write(axes, _MARGIN, _MARGIN + 0.09, head, _LARGE, bold=True)
    _write(axes, _MARGIN, _MARGIN + 0.29, subtitle, NORMAL, colour=_FAINT)
    _content(axes, page, left, top)
    for x, row, colour, name in keys:
        y = top + page.height + 0.2 + row * _LEGEND_ROW
        _rectangle(axes, _MARGIN + x, y, _SWATCH, 0.11, colour, zorder=3)
        _write(axes, _MARGIN + x + _SWATCH + 0.06, y + 0.055, name, SMALL, colour=_FAINT)
    return drawn


def _legend(page: Page, width: float) -> list[tuple[float, int, tuple[str, str], str]]:
    """Return the legend as (x, row, colours, name) of every named colour on a page."""
    shown = {COLOURS[b.part.kind] for b in page.boxes if isinstance(b.part, Box)}
    entries = []
    x, row = 0.0, 0
    for colours, name in _NAMES.items():
        if colours not in shown:
            continue
        wide = _SWATCH + 0.06 + text_width(name, SMALL, False) + 0.2
        if x and x + wide - 0.2 > width:
            x, row = 0.0, row + 1
        entries.append((x, row, colours, name))
        x += wide
    return entries


# ------------------------------------------------------------------------------------------------------------------- marks


def _content(axes: Axes, page: Page, left: float, top: float) -> None:
    """Draw panels, lines, boxes and labels, in this order."""
    for placed in page.panels:
        _panel(axes, placed, left, top)
    for line in page.lines:
        _line(axes, line, left, top)
    for placed in page.boxes:
        _box(axes, placed, left, top)
    for label in page.labels:
        _write(axes, left + label.x, top + label.y, label.text, SMALL, colour=_FAINT)


def _panel(axes: Axes, placed: Placed, left: float, top: float) -> None:
    assert isinstance(placed.part, Panel)
    x, y = left + placed.x, top + placed.y
    _rectangle(axes, x, y, placed.w, placed.h, ("#00000009", "#b5b5b5"), zorder=1)
    title, path = heads_of(placed.part)
    _write(axes, x + placed.head, y + 0.12, title, NORMAL, bold=True)
    _write(axes, x + placed.head, y + 0.235, path, SMALL, colour=_FAINT)


def _box(axes: Axes, placed: Placed, left: float, top: float) -> None:
    assert isinstance(placed.part, Box)
    x, y = left + placed.x, top + placed.y
    if placed.part.times > 1:  # a second box behind it
        _rectangle(axes, x + 0.03, y + 0.03, placed.w, placed.h, COLOURS[placed.part.kind], zorder=3)
    _rectangle(axes, x, y, placed.w, placed.h, COLOURS[placed.part.kind], zorder=3)
    lines = lines_of(placed.part)
    line = y + (placed.h - sum(LEADING[size] for _, size in lines)) / 2
    for text, size in lines:
        middle = line + LEADING[size] / 2
        _write(axes, x + placed.w / 2, middle, text, size, centred=True, colour=_INK if size == NORMAL else _FAINT)
        line += LEADING[size]


def _rectangle(axes: Axes, x: float, y: float, w: float, h: float, colours: tuple[str, str], *, zorder: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = f"round,pad=0,rounding_size={min(_ROUND, h / 3)}"
    axes.add_patch(FancyBboxPatch((x, y), w, h, style, fc=colours[0], ec=colours[1], lw=0.7, zorder=zorder))


def _line(axes: Axes, line: Line, left: float, top: float) -> None:
    """Draw a line with round corners."""
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Outline

    points = [(left + x, top + y) for x, y in line.points]
    points = [p for i, p in enumerate(points) if i == 0 or math.dist(p, points[i - 1]) > 1e-6]
    (x0, y0), (x1, y1) = points[-2:]
    length = math.dist((x0, y0), (x1, y1))
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    if line.arrow:
        tip = [(x1, y1), (x1 - 0.06 * dx - 0.028 * dy, y1 - 0.06 * dy + 0.028 * dx)]
        tip.append((x1 - 0.06 * dx + 0.028 * dy, y1 - 0.06 * dy - 0.028 * dx))
        axes.add_patch(Polygon(tip, closed=True, fc=_LINE, ec="none", lw=0, zorder=2.5))
        points[-1] = (x1 - 0.05 * dx, y1 - 0.05 * dy)
    corners, codes = [points[0]], [Outline.MOVETO]
    for before, corner, after in zip(points[:-2], points[1:-1], points[2:], strict=True):
        corners += [_toward(corner, before), corner, _toward(corner, after)]
        codes += [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    outline = Outline([*corners, points[-1]], [*codes, Outline.LINETO])
    axes.add_patch(PathPatch(outline, fc="none", ec=_LINE, lw=0.9, zorder=2, capstyle="butt"))


def _toward(corner: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return a point near a corner in the direction of another point."""
    length = math.dist(corner, other)
    part = min(0.08, length / 2) / length
    return corner[0] + (other[0] - corner[0]) * part, corner[1] + (other[1] - corner[1]) * part


def _write(
    axes: Axes, x: float, y: float, text: str, size: float, *, bold: bool = False, centred: bool = False, colour: str = _INK
) -> None:
    """Write a line of text; y is the middle of its capital letters."""
    if not text:
        return
    baseline = y + 0.365 * size / 72
    style: dict[str, Any] = {"fontsize": size, "fontweight": "bold" if bold else "normal", "color": colour, "zorder": 4}
    axes.text(x, baseline, text, ha="center" if centred else "left", va="baseline", parse_math=False, **style)


@functools.lru_cache(maxsize=20_000)
def text_width(text: str, size: float, bold: bool) -> float:
    """Return the width of a line of text in inches, in the diagram's font."""
    from matplotlib import font_manager

    face = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    font = font_manager.get_font(font_manager.findfont(face))
    font.set_size(size, 72)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        font.set_text(text, 0.0)
    return float(font.get_width_height()[0]) / 64 / 72


_BLUE, _TEAL, _ORANGE = ("#cfe1f5", "#5b86b5"), ("#b5ddd0", "#4c9580"), ("#fbdcb4", "#c98f3f")
_YELLOW, _VIOLET, _ROSE = ("#fdf3c4", "#bfa63c"), ("#d8cbee", "#8369b3"), ("#f5c5cf", "#bd6578")
_GREY, _WHITE, _SAND = ("#e2e2e2", "#808080"), ("#ffffff", "#808080"), ("#efe9dd", "#9c8f74")
_NAMES: dict[tuple[str, str], str] = {
    _BLUE: "convolution",
    _TEAL: "depthwise or separable convolution",
    _ORANGE: "pooling",
    _YELLOW: "normalisation, activation",
    _VIOLET: "linear",
    _ROSE: "attention",
    _GREY: "add, concat, split",
    _SAND: "other, or a closed module",
}
COLOURS: dict[str, tuple[str, str]] = {
    "image": _WHITE,
    "output": _WHITE,
    "conv": _BLUE,
    "depthwise": _TEAL,
    "linear": _VIOLET,
    "attention": _ROSE,
    "pool": _ORANGE,
    "norm": _YELLOW,
    "activation": _YELLOW,
    "embedding": _YELLOW,
    "dropout": _YELLOW,
    "merge": _GREY,
    "pad": _SAND,
    "flatten": _SAND,
    "shape": _SAND,
    "identity": _SAND,
    "module": _SAND,
}
