"""Overlays: a heatmap over its photograph with a colour bar and a caption."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import pixels
from sightline.containers import read_bytes
from sightline.explanation.cover_region import Hidden
from sightline.explanation.draw.caption import MEANING_LINES, Caption, answer, judgement, meaning, smoothed, two_sided, unit_of
from sightline.explanation.draw.colours import colours_of
from sightline.explanation.draw.lettering import (
    GAP_PX,
    INK,
    PAPER,
    QUIET,
    SMALL_PX,
    TEXT_PX,
    font,
    number,
    shorten,
    width,
    wrap,
)
from sightline.records import Explanation, Preprocess
from sightline.store import write_bytes

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
"""(top, left, height, width) in pixels of the upright original."""

SIDE_PX = 420
BAR_PX = 76
CONTOUR_AT = 0.5
"""Share of the scale at which the contour is drawn."""
SMOOTH = 1 / 40
"""Standard deviation of the Gaussian that smooths heatmaps of single pixels, as a share of the shorter side."""
_LINE_PX, _SMALL_LINE_PX, _FOOT_PX = 22, 16, 8
_LEAST_WIDTH = 0.8
"""Minimum width of the page as a share of the side, so that the caption of a narrow image has room."""
_LEAST_SEEN = 0.35
"""Minimum side of the network's input as a share of the room, 120 px of an overlay; a smaller input is enlarged."""
_WHOLE = 0.22
"""Maximum share of the room for the whole photograph beside an enlarged input."""
PIXEL_ART_PX = 64
"""Images whose longer side is at most this are enlarged by an integer factor with square pixels."""
_LEAST_BAR_PX = 150
_NOTHING = Caption()


# ---------------------------------------------------------------------------------------------------------------- heatmap


def place(heatmap: np.ndarray, box: Box, original: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """Interpolate a heatmap bilinearly at its position in the upright image.

    Args:
        heatmap: float (h, w).
        box: (top, left, height, width) that it covers, in pixels of the upright original.
        original: (height, width) of the upright original.
        size: (height, width) of the image that is drawn.

    Returns:
        float32 (height, width), NaN outside the network's input.
    """
    top, left, height, width = box
    down, seen_down = _spread(heatmap.shape[0], top / original[0], height / original[0], size[0])
    across, seen_across = _spread(heatmap.shape[1], left / original[1], width / original[1], size[1])
    return np.where(seen_down[:, None] & seen_across, down @ heatmap.astype(np.float32) @ across.T, np.float32(np.nan))


def _spread(cells: int, start: float, length: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bilinear weights (count, cells) of the cells of an interval (in shares of the side), and the pixels inside it."""
    at = ((np.arange(count) + 0.5) / count - start) / length
    position = np.clip(at * cells - 0.5, 0, cells - 1)
    weights = np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0)
    return weights.astype(np.float32), (at >= 0) & (at <= 1)


def edges(inside: np.ndarray) -> np.ndarray:
    """Return the pixels outside an area that touch it, bool (h, w)."""
    grown = inside.copy()
    grown[1:] |= inside[:-1]
    grown[:-1] |= inside[1:]
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    return np.asarray(grown & ~inside)


def tint(share: np.ndarray, *, contour: bool = True) -> np.ndarray:
    """Return a heatmap as a transparent layer, to be drawn over a grey image of reduced contrast, see `flatten`.

    A contour marks where evidence for the target reaches half of the scale. Pixels outside the network's input are dimmed.

    Args:
        share: float (h, w), the heatmap as a share of the scale, NaN outside the network's input.
        contour: Whether to draw the contour.

    Returns:
        uint8 (h, w, 4), RGB and opacity.
    """
    unseen = np.isnan(share)
    colours, opacity = colours_of(np.where(unseen, 0, share))
    layer = np.concatenate([colours, opacity[..., None]], axis=-1)
    layer[unseen] = (*[0.35 / 0.65] * 3, 0.65)
    if contour:
        inside = np.nan_to_num(share) >= CONTOUR_AT
        line = edges(inside)
        layer[edges(inside | line)] = (0.05, 0.05, 0.05, 1.0)
        layer[line] = 1.0
    layer[edges(unseen)] = 1.0
    return np.asarray(np.rint(layer * 255), dtype=np.uint8)


def flatten(picture: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Draw a heatmap layer over an image.

    The photograph is drawn in grey, so that every colour belongs to the heatmap, and with less contrast, so that the heatmap is
    visible on black fur too.

    Args:
        picture: uint8 (h, w, 3).
        layer: uint8 (h, w, 4), see `tint`.

    Returns:
        uint8 (h, w, 3).
    """
    grey = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
    base = np.float32(0.12) + np.float32(0.76) * grey[..., None]
    opacity = layer[..., 3:].astype(np.float32) / 255
    drawn = base * (1 - opacity) + layer[..., :3].astype(np.float32) / 255 * opacity
    return np.asarray(np.rint(drawn * 255), dtype=np.uint8)


def blend(picture: np.ndarray, share: np.ndarray, *, contour: bool = True) -> np.ndarray:
    """Draw a heatmap over an image: `flatten` of its `tint`.

    Args:
        picture: uint8 (h, w, 3).
        share: float (h, w), the heatmap as a share of the scale, NaN outside the network's input.
        contour: Whether to draw the contour.

    Returns:
        uint8 (h, w, 3).
    """
    return flatten(picture, tint(share, contour=contour))


# ---------------------------------------------------------------------------------------------------------------- picture


def evidence(explanation: Explanation) -> np.ndarray:
    """Return the values to draw, float32 (h, w): zero where neutral; without shares of the score only positive values.

    Heatmaps that jump from pixel to pixel are smoothed, so that the sum over a place is visible.
    """
    if not explanation.heat.any():  # an empty map: the prediction comes from the head's bias
        return np.zeros_like(explanation.heat)
    heatmap = explanation.heat - np.float32(explanation.neutral)
    if smoothed(explanation):
        from scipy.ndimage import gaussian_filter

        heatmap = gaussian_filter(heatmap, SMOOTH * min(heatmap.shape), mode="nearest")
    return heatmap if two_sided(explanation) else np.maximum(heatmap, 0)


def shared_scale(explanations: Sequence[Explanation]) -> float:
    """Return a common scale for the `vmax` of several heatmaps: the evidence that 1 in 200 cells exceeds.

    The maximum would let one extreme cell make all others pale. Where a heatmap exceeds the scale, its colour bar shows it. 0
    where there is no evidence at all.
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
    """Draw a heatmap over its photograph, with a colour bar and a caption.

    Args:
        image: uint8 (h, w, 3), upright; the whole photograph, at any size.
        explanation: The explanation to draw.
        caption: The text below it.
        vmax: The evidence with the strongest colour; None takes the maximum of this heatmap, and the colour bar says so.
        original: (height, width) of the upright original that the explanation's box refers to; None where `image` is the
            original.
        side_px: Maximum side of the photograph with its colour bar; a file's name and a verdict add to the height.

    Returns:
        An RGB image.
    """
    from PIL import Image, ImageDraw

    heatmap = evidence(explanation)
    scale = float(np.abs(heatmap).max()) if vmax is None else vmax
    shown = heatmap / scale if scale > 0 else heatmap * 0.0
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
    if explanation.flat or not np.abs(heatmap).max() > 0:
        _note(pen, "uniform: no evidence" if explanation.flat else "no evidence anywhere", wide / 2, high / 2)
    bar = colour_bar(
        high,
        scale,
        unit=unit_of(explanation.method),
        whose="own scale" if vmax is None else "one scale",
        both=two_sided(explanation),
        passed=float(np.abs(heatmap).max()) > scale * (1 + 1e-6),
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
    """Draw a heatmap over its photograph in (width, height) pixels; return uint8 (h, w, 3) and a note for the caption."""
    found = layers_of(image, share, box, original, (room[0], room[1]), contour=contour)
    return flatten(found.photo, found.heat), found.note


@dataclass(frozen=True, slots=True)
class Layers:
    """A photograph and its heatmap as two layers of the same size.

    Args:
        photo: uint8 (h, w, 3).
        heat: uint8 (h, w, 4), see `tint`.
        note: What is unusual about the drawing, in words; "" for nothing.
    """

    photo: np.ndarray
    heat: np.ndarray
    note: str = ""


def layers(
    image: np.ndarray, explanation: Explanation, *, original: tuple[int, int] | None = None, side_px: int = SIDE_PX
) -> Layers:
    """Return a photograph and its heatmap as two layers; the strongest colour is the maximum of this heatmap.

    Args:
        image, explanation, original: As in `overlay`.
        side_px: Maximum side of the layers.
    """
    heatmap = evidence(explanation)
    scale = float(np.abs(heatmap).max())
    shown = heatmap / scale if scale > 0 else heatmap * 0.0
    size = original or image.shape[:2]
    return layers_of(image, shown, explanation.box, size, (side_px, side_px), contour=scale > 0 and not smoothed(explanation))


def layers_of(
    image: np.ndarray, share: np.ndarray, box: Box, original: tuple[int, int], room: tuple[int, int], *, contour: bool
) -> Layers:
    """Return a photograph, fitted into (width, height) pixels, and its heatmap as two layers.

    Where the network's input would be too small, it is drawn enlarged beside the whole photograph with a frame around it.
    """
    if not too_small(box, original, room):
        picture = fit(image, room)
        return Layers(picture, tint(place(share, box, original, picture.shape[:2]), contour=contour))
    across = image.shape[1] >= image.shape[0]
    wide, high = room[0], room[1] - _SMALL_LINE_PX  # the caption has one more line
    whole = fit(image, (wide, round(_WHOLE * high)) if across else (round(_WHOLE * wide), high))
    seen = place(np.zeros_like(share), box, original, whole.shape[:2])
    frame = tint(seen, contour=False)
    frame[edges(edges(np.isnan(seen)))] = (0, 0, 0, 255)  # a frame that is visible on white too
    part, inside, size = seen_part(image, box, original)
    left = (wide, high - whole.shape[0] - GAP_PX) if across else (wide - whole.shape[1] - GAP_PX, high)
    large = fit(part, left, least_px=round(_LEAST_SEEN * max(room)))
    stretched = abs(math.log(large.shape[0] * part.shape[1] / (large.shape[1] * part.shape[0]))) > 0.1
    heat = tint(place(share, inside, size, large.shape[:2]), contour=contour)
    note = f"enlarged: the network's input{', stretched' if stretched else ''}"
    return Layers(_beside(whole, large, across), _beside(frame, heat, across), note)


def _beside(first: np.ndarray, second: np.ndarray, above: bool) -> np.ndarray:
    """Place two images with a gap, the first above the second or to its left, centred on each other."""
    axis = 1 if above else 0
    most = max(first.shape[axis], second.shape[axis])
    parts = []
    for picture in (first, second):
        spare = most - picture.shape[axis]
        margin = [(0, 0), (0, 0), (0, 0)]
        margin[axis] = (spare // 2, spare - spare // 2)
        parts.append(np.pad(picture, margin, constant_values=255))
    channels = first.shape[2]
    gap = np.full((GAP_PX, most, channels) if above else (most, GAP_PX, channels), 255, dtype=np.uint8)
    return np.concatenate([parts[0], gap, parts[1]], axis=1 - axis)


def too_small(box: Box, original: tuple[int, int], room: tuple[int, int]) -> bool:
    """Return whether the network's input would be too small if the whole photograph is drawn in (width, height) pixels.

    Args:
        box, original: As in `place`.
        room: (width, height) in pixels.

    Example:
        >>> too_small((4, 574, 52, 52), (60, 1200), (344, 342)), too_small((0, 50, 300, 300), (300, 400), (344, 342))
        (True, False)
    """
    seen = min(_within(box[axis], box[axis + 2], original[axis]) for axis in (0, 1))
    return seen * min(room[0] / original[1], room[1] / original[0]) < _LEAST_SEEN * max(room)


def _within(start: float, length: float, side: float) -> float:
    """Return the length of the part of an interval that lies on a side."""
    return max(min(start + length, side) - max(start, 0), 0)


def longest_px(box: Box, original: tuple[int, int], side_px: int = SIDE_PX) -> int:
    """Return the longer side at which a photograph is read for `overlay`: more where the network's input is a small part of it.

    Example:
        >>> longest_px((0, 50, 300, 300), (300, 400)), longest_px((0, 570, 60, 60), (60, 1200))
        (420, 8400)
    """
    if not too_small(box, original, (side_px, side_px)):
        return side_px
    seen = min(_within(box[axis], box[axis + 2], original[axis]) for axis in (0, 1))
    return math.ceil(side_px * max(original) / max(seen, 1))


def seen_part(image: np.ndarray, box: Box, original: tuple[int, int]) -> tuple[np.ndarray, Box, tuple[float, float]]:
    """Return the part of a photograph that is the network's input.

    Args:
        image: uint8 (h, w, 3), upright, at any size.
        box, original: As in `place`.

    Returns:
        uint8 (height, width, 3), at least one pixel; the position of the box in it, and its own (height, width), both in pixels
        of the upright original.
    """
    rows, columns = (_pixels(box[axis], box[axis + 2], original[axis], image.shape[axis]) for axis in (0, 1))
    part = image[rows, columns]
    down, right = original[0] / image.shape[0], original[1] / image.shape[1]
    inside = (box[0] - rows.start * down, box[1] - columns.start * right, box[2], box[3])
    return part, inside, (part.shape[0] * down, part.shape[1] * right)


def _pixels(start: float, length: float, side: float, count: int) -> slice:
    """Return the slice of `count` pixels of a side that lie in an interval of it, at least one."""
    first = min(max(math.ceil(start * count / side - 1e-6), 0), count - 1)
    return slice(first, min(max(math.floor((start + length) * count / side + 1e-6), first + 1), count))


def _lines(
    explanation: Explanation, caption: Caption, room: int, note: str
) -> list[tuple[str, int, tuple[int, int, int], int]]:
    """Return the lines below an image: text, size, colour, and height."""
    lines = []
    if caption.predicted is not None:
        prediction = answer(caption.label, caption.predicted, caption.probability, room)
        lines.append((prediction, TEXT_PX, INK, _LINE_PX))
    if caption.name:
        lines.append((shorten(caption.name, room, SMALL_PX), SMALL_PX, QUIET, _SMALL_LINE_PX))
    if note:
        lines.append((shorten(note, room, SMALL_PX), SMALL_PX, QUIET, _SMALL_LINE_PX))
    lines += [(t, SMALL_PX, QUIET, _SMALL_LINE_PX) for t in meaning(explanation, caption.target_probability, room)]
    if caption.verdict is not None:
        lines += [(t, SMALL_PX, INK, _SMALL_LINE_PX) for t in judgement(caption.verdict, room)]
    return lines


def fit(image: np.ndarray, room: tuple[int, int], least_px: int = 1) -> np.ndarray:
    """Resize an image to fit into (width, height); a tiny image is enlarged by an integer factor with square pixels.

    A side that would be shorter than `least_px` is stretched to it.
    """
    from PIL import Image

    height, width = image.shape[:2]
    factor = min(room[0] / width, room[1] / height)
    tiny = max(height, width) <= PIXEL_ART_PX
    if tiny:
        factor = max(math.floor(factor), 1)
    size = (max(round(width * factor), least_px), max(round(height * factor), least_px))
    filter_ = Image.Resampling.NEAREST if tiny else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize(size, filter_))


def colour_bar(
    height: int, scale: float, *, unit: str, whose: str, both: bool = False, passed: bool = False, contour: bool = True
) -> Image.Image:
    """Draw the colour bar: the colours over mid-grey, the scale in numbers, its unit, and the contour.

    Args:
        height: Height in pixels.
        scale: The value with the strongest colour.
        unit: Unit of the values.
        whose: Whether the scale is the image's own or shared.
        both: Whether it extends to minus the scale.
        passed: Whether the image has values beyond the scale.
        contour: Whether the image has a contour at half of the scale.

    Returns:
        An image, `BAR_PX` wide.
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
    """Draw a note on the image, on a light background."""
    half = width(text, TEXT_PX) / 2
    pen.rectangle((x - half - 6, y - 12, x + half + 6, y + 12), fill=PAPER)
    pen.text((x, y), text, fill=INK, font=font(TEXT_PX), anchor="mm")


# ------------------------------------------------------------------------------------------------------------------- files


def read_photo(file: Path, box: Box, preprocess: Preprocess, side_px: int = SIDE_PX) -> tuple[np.ndarray, tuple[int, int]]:
    """Return a photograph, upright and reduced to the size that `overlay` needs, and the (height, width) of the original."""
    header = pixels.read_header(read_bytes(file), file.name)
    size = (header.height, header.width)
    return pixels.upright(file, longest_px(box, size, side_px), preprocess), size


def overlay_file(
    file: Path,
    preprocess: Preprocess,
    explanation: Explanation,
    caption: Caption,
    *,
    vmax: float | None = None,
    side_px: int = SIDE_PX,
) -> Image.Image:
    """Draw a heatmap over the photograph in a file; `vmax` and `side_px` as in `overlay`."""
    image, size = read_photo(file, explanation.box, preprocess, side_px)
    return overlay(image, explanation, caption, vmax=vmax, original=size, side_px=side_px)


def layers_file(file: Path, preprocess: Preprocess, explanation: Explanation) -> Layers:
    """Return the photograph in a file and its heatmap as two layers."""
    image, size = read_photo(file, explanation.box, preprocess)
    return layers(image, explanation, original=size)


def covered_region(hidden: Hidden, name: str, index: int) -> Image.Image:
    """Draw a photograph with a region covered, and the probability of a class before and after.

    Args:
        hidden: The result of `cover_region.hide`.
        name: The class.
        index: Its index.

    Returns:
        An RGB image.
    """
    from PIL import Image, ImageDraw

    picture = fit(hidden.image, (SIDE_PX, SIDE_PX)).copy()
    mask = np.asarray(Image.fromarray(hidden.mask).resize((picture.shape[1], picture.shape[0]), Image.Resampling.NEAREST))
    picture[edges(mask)] = 255
    picture[edges(mask | edges(mask))] = 0
    wide = max(picture.shape[1], 260)
    page = Image.new("RGB", (wide, picture.shape[0] + 46), PAPER)
    page.paste(Image.fromarray(picture), ((wide - picture.shape[1]) // 2, 0))
    pen = ImageDraw.Draw(page)
    change = f": {hidden.before[index]:.0%} → {hidden.after[index]:.0%} with {hidden.share:.0%} covered"
    text = shorten(name, max(wide - 16 - width(change, TEXT_PX), 40), TEXT_PX) + change
    pen.text((8, picture.shape[0] + 6), text, fill=INK, font=font(TEXT_PX))
    pen.text((8, picture.shape[0] + 27), "covered with the mean colour of the rest", fill=QUIET, font=font(SMALL_PX))
    return page


def save_png(picture: Image.Image, file: Path, *, optimize: bool = False) -> Path:
    """Write an image as PNG, atomically, and return its path."""
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=optimize)
    write_bytes(file, data.getvalue())
    return file
