"""Heat over its photograph, with its scale in numbers and a caption, as a picture that can stand alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.errors import RequestError
from sightline.explanation.draw.caption import MEANING_LINES, Caption, answer, judgement, meaning, smoothed, two_sided, unit_of
from sightline.explanation.draw.colours import colours_of
from sightline.explanation.draw.lettering import (
    GAP_PX,
    INK,
    PAPER,
    QUIET,
    SMALL_PX,
    TEXT_PX,
    TITLE_PX,
    font,
    number,
    shorten,
    width,
    wrap,
)
from sightline.records import Explanation

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
"""(top, left, height, width) in pixels of the upright original."""

SIDE_PX = 420
BAR_PX = 76
CONTOUR_AT = 0.5
"""The share of the scale where the line runs."""
SMOOTH = 1 / 40
"""The Gaussian that heat of single pixels is drawn under: its standard deviation as a share of the shorter side."""
_LINE_PX, _SMALL_LINE_PX, _FOOT_PX = 22, 16, 8
_LEAST_WIDTH = 0.8
"""A narrow picture's page is so much of the side wide, so that its caption has room."""
_LEAST_SEEN = 0.35
"""Where what the network saw would have a side shorter than this share of the room, 120 px of an overlay, it is enlarged."""
_WHOLE = 0.22
"""The share of the room that the whole photograph takes beside it at most."""
_PIXEL_ART_PX = 64
"""An image whose longer side is at most this is enlarged with its pixels to be seen."""
_LEAST_BAR_PX = 150
_TITLE_LINES = 3
_NOTHING = Caption()


# ------------------------------------------------------------------------------------------------------------------- heat


def place(heat: np.ndarray, box: Box, original: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Heat enlarged bilinearly to where it lies in the upright image.

    Args:
        heat: float (h, w).
        box: (top, left, height, width) that it covers, in pixels of the upright original.
        original: (height, width) of the upright original.
        size: (height, width) of the picture that is drawn.

    Returns:
        float32 (height, width), NaN where the network saw nothing.
    """
    top, left, height, width = box
    down, seen_down = _spread(heat.shape[0], top / original[0], height / original[0], size[0])
    across, seen_across = _spread(heat.shape[1], left / original[1], width / original[1], size[1])
    return np.where(seen_down[:, None] & seen_across, down @ heat.astype(np.float32) @ across.T, np.float32(np.nan))


def _spread(cells: int, start: float, length: float, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear weights (pixels, cells) of the cells of a stretch, given as shares of the side, and which pixels it covers."""
    at = ((np.arange(pixels) + 0.5) / pixels - start) / length
    position = np.clip(at * cells - 0.5, 0, cells - 1)
    weights = np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0)
    return weights.astype(np.float32), (at >= 0) & (at <= 1)


def edges(inside: np.ndarray) -> np.ndarray:
    """bool (h, w): pixels outside an area that touch it."""
    grown = inside.copy()
    grown[1:] |= inside[:-1]
    grown[:-1] |= inside[1:]
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    return np.asarray(grown & ~inside)


def blend(picture: np.ndarray, share: np.ndarray, *, contour: bool = True) -> np.ndarray:
    """Lay heat over a picture.

    The photograph is drawn in grey, so that every colour in it is heat, and with less contrast, so that heat shows on black
    fur too. A line runs where heat for the target reaches half of the scale. What the network did not see is dimmed.

    Args:
        picture: uint8 (h, w, 3).
        share: float (h, w), heat as a share of the scale, NaN where nothing was seen.
        contour: Whether to draw the line.

    Returns:
        uint8 (h, w, 3).
    """
    grey = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
    base = np.float32(0.12) + np.float32(0.76) * grey[..., None]
    unseen = np.isnan(share)
    colours, opacity = colours_of(np.where(unseen, 0, share))
    drawn = base * (1 - opacity[..., None]) + colours * opacity[..., None]
    drawn[unseen] = np.float32(0.35) * base[unseen] + np.float32(0.35)
    if contour:
        inside = np.nan_to_num(share) >= CONTOUR_AT
        line = edges(inside)
        drawn[edges(inside | line)] = 0.05
        drawn[line] = 1.0
    drawn[edges(unseen)] = 1.0
    return np.asarray(np.rint(drawn * 255), dtype=np.uint8)


# ---------------------------------------------------------------------------------------------------------------- picture


def evidence(explanation: Explanation) -> np.ndarray:
    """float32 (h, w): what is drawn. Zero is where a cell is undecided; for all but shares only what speaks for the target.

    Heat that jumps from pixel to pixel is smoothed: what a place adds up to is seen, where single pixels would not be.
    """
    if not explanation.heat.any():  # an empty map: the answer comes from the head's bias, which lies nowhere
        return np.zeros_like(explanation.heat)
    heat = explanation.heat - np.float32(explanation.neutral)
    if smoothed(explanation):
        from scipy.ndimage import gaussian_filter

        heat = gaussian_filter(heat, SMOOTH * min(heat.shape), mode="nearest")
    return heat if two_sided(explanation) else np.maximum(heat, 0)


def shared_scale(explanations: Sequence[Explanation]) -> float:
    """One scale for a set, for `vmax`, so that its pictures can be compared: the evidence that 1 in 200 cells passes.

    Not the largest: one odd cell would make all others pale. Where a picture passes the scale, its colour bar says so. 0 where
    there is no evidence in the whole set.
    """
    cells = [np.abs(evidence(e)).ravel() for e in explanations]
    if not cells:
        return 0.0
    every = np.concatenate(cells)
    return float(np.quantile(every, 0.995, method="higher")) or float(every.max())


def overlay(
    image: np.ndarray,
    explanation: Explanation,
    caption: Caption = _NOTHING,
    *,
    vmax: float | None = None,
    original: tuple[int, int] | None = None,
    side_px: int = SIDE_PX,
) -> Image.Image:
    """One heatmap over its photograph, with a colour bar and a caption.

    Args:
        image: uint8 (h, w, 3), upright; the whole photograph, at any size.
        explanation: What to draw.
        caption: What is written below it.
        vmax: The evidence that gets the strongest colour; None takes this picture's own largest, and the picture says so.
        original: (height, width) of the upright original that the explanation's box speaks of; None where `image` is it.
        side_px: Neither side is longer; a file's name and a verdict come below and add to the height.

    Returns:
        An RGB picture.
    """
    from PIL import Image, ImageDraw

    heat = evidence(explanation)
    scale = float(np.abs(heat).max()) if vmax is None else vmax
    shown = heat / scale if scale > 0 else heat * 0.0
    foot = _LINE_PX + MEANING_LINES * _SMALL_LINE_PX + _FOOT_PX
    contour = not smoothed(explanation)
    drawn, note = _drawn(
        image, shown, explanation.box, original or image.shape[:2], (side_px - BAR_PX, side_px - foot), contour=contour
    )
    high = max(drawn.shape[0], _LEAST_BAR_PX)
    wide = max(drawn.shape[1], round(_LEAST_WIDTH * side_px) - BAR_PX)
    lines = _lines(explanation, caption, wide + BAR_PX - 2 * GAP_PX, note)
    page = Image.new("RGB", (wide + BAR_PX, high + _FOOT_PX + sum(step for _, _, _, step in lines)), PAPER)
    page.paste(Image.fromarray(drawn), ((wide - drawn.shape[1]) // 2, (high - drawn.shape[0]) // 2))
    pen = ImageDraw.Draw(page)
    if explanation.flat or not np.abs(heat).max() > 0:
        _note(pen, "flat: nothing to see" if explanation.flat else "no evidence anywhere", wide / 2, high / 2)
    bar = colour_bar(
        high,
        scale,
        unit=unit_of(explanation.method),
        whose="own scale" if vmax is None else "one scale",
        both=two_sided(explanation),
        passed=float(np.abs(heat).max()) > scale * (1 + 1e-6),
        contour=contour,
    )
    page.paste(bar, (wide, 0))
    y = high + _FOOT_PX // 2
    for text, size, ink, step in lines:
        pen.text((GAP_PX, y + step / 2), text, fill=ink, font=font(size), anchor="lm")
        y += step
    return page


def _drawn(
    image: np.ndarray, share: np.ndarray, box: Box, original: tuple[int, int], room: tuple[int, int], *, contour: bool
) -> tuple[np.ndarray, str]:
    """Heat over its photograph in (width, height) pixels, uint8 (h, w, 3), and a note for the caption.

    Where that would show what the network saw too small, it is drawn large, beside the whole photograph with it framed.
    """
    if not too_small(box, original, room):
        picture = fit(image, room)
        return blend(picture, place(share, box, original, picture.shape[:2]), contour=contour), ""
    across = image.shape[1] >= image.shape[0]
    wide, high = room[0], room[1] - _SMALL_LINE_PX  # the caption has a line more
    whole = fit(image, (wide, round(_WHOLE * high)) if across else (round(_WHOLE * wide), high))
    seen = place(np.zeros_like(share), box, original, whole.shape[:2])
    whole = blend(whole, seen, contour=False)
    whole[edges(edges(np.isnan(seen)))] = 0  # a frame that shows on white too
    part, inside, size = seen_part(image, box, original)
    left = (wide, high - whole.shape[0] - GAP_PX) if across else (wide - whole.shape[1] - GAP_PX, high)
    large = fit(part, left, least_px=round(_LEAST_SEEN * max(room)))
    stretched = abs(math.log(large.shape[0] * part.shape[1] / (large.shape[1] * part.shape[0]))) > 0.1
    large = blend(large, place(share, inside, size, large.shape[:2]), contour=contour)
    note = f"large: what the network saw{', stretched' if stretched else ''}"
    return _beside(whole, large, across), note


def _beside(first: np.ndarray, second: np.ndarray, above: bool) -> np.ndarray:
    """Two pictures, the first above the second or to its left, with a gap, their middles on one line."""
    axis = 1 if above else 0
    most = max(first.shape[axis], second.shape[axis])
    parts = []
    for picture in (first, second):
        spare = most - picture.shape[axis]
        margin = [(0, 0), (0, 0), (0, 0)]
        margin[axis] = (spare // 2, spare - spare // 2)
        parts.append(np.pad(picture, margin, constant_values=255))
    gap = np.full((GAP_PX, most, 3) if above else (most, GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([parts[0], gap, parts[1]], axis=1 - axis)


def too_small(box: Box, original: tuple[int, int], room: tuple[int, int]) -> bool:
    """Whether what the network saw cannot be read where the whole photograph is drawn in (width, height) pixels.

    Args:
        box, original: As in `place`.

    Example:
        >>> too_small((4, 574, 52, 52), (60, 1200), (344, 342)), too_small((0, 50, 300, 300), (300, 400), (344, 342))
        (True, False)
    """
    seen = min(_within(box[axis], box[axis + 2], original[axis]) for axis in (0, 1))
    return seen * min(room[0] / original[1], room[1] / original[0]) < _LEAST_SEEN * max(room)


def _within(start: float, length: float, side: float) -> float:
    """How much of a stretch lies on a side."""
    return max(min(start + length, side) - max(start, 0), 0)


def longest_px(box: Box, original: tuple[int, int], side_px: int = SIDE_PX) -> int:
    """How long the longer side of a photograph has to be read for `overlay`: more where only a small part of it was seen.

    Example:
        >>> longest_px((0, 50, 300, 300), (300, 400)), longest_px((0, 570, 60, 60), (60, 1200))
        (420, 8400)
    """
    if not too_small(box, original, (side_px, side_px)):
        return side_px
    seen = min(_within(box[axis], box[axis + 2], original[axis]) for axis in (0, 1))
    return math.ceil(side_px * max(original) / max(seen, 1))


def seen_part(image: np.ndarray, box: Box, original: tuple[int, int]) -> tuple[np.ndarray, Box, tuple[float, float]]:
    """The part of a photograph that the network saw.

    Args:
        image: uint8 (h, w, 3), upright, at any size.
        box, original: As in `place`.

    Returns:
        uint8 (height, width, 3), a pixel at least; where the box lies in it, and its own (height, width), both in pixels of the
        upright original.
    """
    rows, columns = (_pixels(box[axis], box[axis + 2], original[axis], image.shape[axis]) for axis in (0, 1))
    part = image[rows, columns]
    down, right = original[0] / image.shape[0], original[1] / image.shape[1]
    inside = (box[0] - rows.start * down, box[1] - columns.start * right, box[2], box[3])
    return part, inside, (part.shape[0] * down, part.shape[1] * right)


def _pixels(start: float, length: float, side: float, count: int) -> slice:
    """Those of `count` pixels of a side that lie in a stretch of it, one at least."""
    first = min(max(math.ceil(start * count / side - 1e-6), 0), count - 1)
    return slice(first, min(max(math.floor((start + length) * count / side + 1e-6), first + 1), count))


def _lines(
    explanation: Explanation, caption: Caption, room: int, note: str
) -> list[tuple[str, int, tuple[int, int, int], int]]:
    """The lines below a picture: text, size, colour, and height."""
    found = []
    if caption.predicted is not None:
        said = answer(caption.label, caption.predicted, caption.probability, room)
        found.append((said, TEXT_PX, INK, _LINE_PX))
    if caption.name:
        found.append((shorten(caption.name, room, SMALL_PX), SMALL_PX, QUIET, _SMALL_LINE_PX))
    if note:
        found.append((shorten(note, room, SMALL_PX), SMALL_PX, QUIET, _SMALL_LINE_PX))
    found += [(t, SMALL_PX, QUIET, _SMALL_LINE_PX) for t in meaning(explanation, caption.target_probability, room)]
    if caption.verdict is not None:
        found += [(t, SMALL_PX, INK, _SMALL_LINE_PX) for t in judgement(caption.verdict, room)]
    return found


def fit(image: np.ndarray, room: tuple[int, int], least_px: int = 1) -> np.ndarray:
    """An image enlarged or reduced to fit into (width, height); a tiny one keeps its pixels to be seen.

    A side that would be shorter than `least_px` is stretched to it.
    """
    from PIL import Image

    height, width = image.shape[:2]
    factor = min(room[0] / width, room[1] / height)
    tiny = max(height, width) <= _PIXEL_ART_PX
    if tiny:
        factor = max(math.floor(factor), 1)
    size = (max(round(width * factor), least_px), max(round(height * factor), least_px))
    filter_ = Image.Resampling.NEAREST if tiny else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize(size, filter_))


def colour_bar(
    height: int, scale: float, *, unit: str, whose: str, both: bool = False, passed: bool = False, contour: bool = True
) -> Image.Image:
    """The colour bar: the colours as they lie over mid-grey, the scale in numbers, its unit, whose scale it is, and the line.

    Args:
        height: In pixels.
        scale: What gets the strongest colour.
        unit: What the numbers measure.
        whose: Whether the scale is the picture's own.
        both: Whether it goes down to minus the scale.
        passed: Whether the picture has values beyond the scale.
        contour: Whether the picture has a line where half of the scale is reached.

    Returns:
        `BAR_PX` wide.
    """
    from PIL import Image, ImageDraw

    page = Image.new("RGB", (BAR_PX, height), PAPER)
    pen = ImageDraw.Draw(page)
    below = wrap(unit, BAR_PX - GAP_PX, SMALL_PX, 3) + [whose] + (["line: half"] if contour else [])
    top, bottom = 6, height - 13 * len(below) - 8
    shares = np.linspace(1, -1 if both else 0, bottom - top)
    colours, opacity = colours_of(shares)
    column = 0.5 * (1 - opacity[:, None]) + colours * opacity[:, None]
    bar = np.repeat(np.rint(column * 255).astype(np.uint8)[:, None], 12, axis=1)
    page.paste(Image.fromarray(bar), (GAP_PX, top))
    marks = [(1.0, top + 4), (0.0, (top + bottom) // 2 if both else bottom - 4)] + ([(-1.0, bottom - 4)] if both else [])
    half = top + int(np.argmin(np.abs(shares - CONTOUR_AT)))
    marks.append((CONTOUR_AT, half))
    if contour:
        pen.line((GAP_PX, half, GAP_PX + 11, half), fill=(13, 13, 13), width=3)
        pen.line((GAP_PX, half, GAP_PX + 11, half), fill=PAPER)
    pen.rectangle((GAP_PX - 1, top - 1, GAP_PX + 12, bottom), outline=QUIET)
    for at, y in marks:
        if scale > 0 or at == 0:
            text = f"{'≥' if passed and at == 1 else ''}{number(at * scale)}"
            pen.text((GAP_PX + 17, y), text, fill=INK, font=font(SMALL_PX), anchor="lm")
    for row, text in enumerate(below):
        pen.text((GAP_PX - 1, bottom + 4 + 13 * row), text, fill=QUIET, font=font(SMALL_PX), anchor="la")
    return page


def _note(pen: Any, text: str, x: float, y: float) -> None:
    """A note on the picture, on a light ground of its own."""
    half = width(text, TEXT_PX) / 2
    pen.rectangle((x - half - 6, y - 12, x + half + 6, y + 12), fill=PAPER)
    pen.text((x, y), text, fill=INK, font=font(TEXT_PX), anchor="mm")


def contact_sheet(pictures: Sequence[Image.Image], *, columns: int | None = None, title: str = "") -> Image.Image:
    """Pictures side by side, each column as wide as the widest picture, each row as high as its highest.

    Args:
        pictures: At least one.
        columns: In a row; None makes the sheet about as wide as it is high.
        title: Above them, in at most three lines.

    Returns:
        An RGB picture.
    """
    from PIL import Image, ImageDraw

    if not pictures:
        raise RequestError("a contact sheet of no pictures was asked for")
    wide = max(p.width for p in pictures) + GAP_PX
    columns = columns or math.ceil(math.sqrt(sum(p.height + GAP_PX for p in pictures) / wide))
    columns = min(columns, len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    heights = [max(p.height for p in row) + GAP_PX for row in rows]
    across = columns * wide + GAP_PX
    lines = wrap(title, across - 2 * GAP_PX, TITLE_PX, _TITLE_LINES)
    top = GAP_PX + (TITLE_PX + 6) * len(lines)
    sheet = Image.new("RGB", (across, top + sum(heights)), PAPER)
    for number_, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((GAP_PX, 6 + (TITLE_PX + 6) * number_), line, fill=INK, font=font(TITLE_PX), anchor="la")
    for row, height in zip(rows, heights, strict=True):
        for place_, picture in enumerate(row):
            sheet.paste(picture, (GAP_PX + place_ * wide, top))
        top += height
    return sheet
