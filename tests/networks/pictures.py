"""Checks for network diagrams: elements that overlap or lie outside the page."""

from __future__ import annotations

from itertools import combinations, pairwise

from matplotlib.figure import Figure

from sightline.networks.picture.drawing import text_width
from sightline.networks.picture.layout import SMALL, Placed
from sightline.networks.picture.page import Page
from sightline.networks.picture.parts import Panel

Rectangle = tuple[float, float, float, float]


def faults(page: Page) -> list[str]:
    """Return descriptions of overlaps and of elements outside the page; empty if there are none."""
    boxes = [(_name(b), _rectangle(b)) for b in page.boxes]
    panels = [(_name(p), _rectangle(p)) for p in page.panels]
    labels = [(w.text, (w.x, w.y - 0.04, w.x + text_width(w.text, SMALL, False), w.y + 0.04)) for w in page.labels]
    found = [f"{n!r} lies outside" for n, r in boxes + panels + labels if not _holds((0, 0, page.width, page.height), r)]
    for kind in (boxes, labels):
        found += [f"{n!r} lies on {m!r}" for (n, r), (m, s) in combinations(kind, 2) if _meet(r, s)]
    found += [f"the shape {n!r} lies on {m!r}" for n, r in labels for m, s in boxes if _meet(r, s)]
    for (n, r), (m, s) in combinations(panels, 2):
        if _meet(r, s) and not _holds(r, s) and not _holds(s, r):
            found.append(f"panel {n!r} cuts panel {m!r}")
    found += [f"panel {n!r} cuts {m!r}" for n, r in panels for m, s in boxes if _meet(r, s) and not _holds(r, s)]
    heads = [(p.part.title, _head(p)) for p in page.panels if isinstance(p.part, Panel)]
    found += [f"the head {n!r} lies on {m!r}" for n, r in heads for m, s in boxes + labels if _meet(r, s)]
    strokes = [stroke for line in page.lines for stroke in pairwise(line.points)]
    for (a, b), (c, d) in strokes:
        r = (min(a, c), min(b, d), max(a, c), max(b, d))
        found += [f"a line crosses {n!r}" for n, s in boxes + labels + heads if _meet(_wide(r), s)]
    return found


def outside(made: Figure) -> list[str]:
    """Return the texts of a figure that extend beyond its edges."""
    made.canvas.draw()
    width, height = made.canvas.get_width_height()
    found = []
    for text in made.axes[0].texts:
        box = text.get_window_extent()
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            found.append(text.get_text())
    return found


def _name(placed: Placed) -> str:
    return placed.part.title


def _rectangle(placed: Placed) -> Rectangle:
    return placed.x, placed.y, placed.x + placed.w, placed.y + placed.h


def _head(placed: Placed) -> Rectangle:
    """Return the rectangle of a panel's title."""
    assert isinstance(placed.part, Panel)
    x = placed.x + placed.head
    return x, placed.y + 0.06, x + text_width(placed.part.title[:34], 7.0, True), placed.y + 0.18


def _wide(r: Rectangle) -> Rectangle:
    """Shrink the rectangle of a line slightly, since it may touch the elements at its ends."""
    return r[0] - 1e-4, r[1] - 1e-4, r[2] + 1e-4, r[3] + 1e-4


def _meet(r: Rectangle, s: Rectangle, by: float = 1e-3) -> bool:
    return min(r[2], s[2]) - max(r[0], s[0]) > by * 0.15 and min(r[3], s[3]) - max(r[1], s[1]) > by * 0.15


def _holds(r: Rectangle, s: Rectangle) -> bool:
    return r[0] <= s[0] + 1e-6 and r[1] <= s[1] + 1e-6 and r[2] >= s[2] - 1e-6 and r[3] >= s[3] - 1e-6
