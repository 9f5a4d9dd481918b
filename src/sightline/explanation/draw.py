"""Heat over its photograph, with its scale in numbers and a caption, as a picture that can stand alone."""

from __future__ import annotations

import functools
import importlib.util
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.errors import RequestError
from sightline.explanation.colours import colours_of
from sightline.explanation.methods import METHODS
from sightline.records import Explanation

if TYPE_CHECKING:
    from PIL import Image

SIDE_PX = 420
_BAR_PX = 72
_CAPTION_PX, _VERDICT_PX = 54, 18
_INK, _QUIET, _PAPER = (20, 20, 20), (95, 95, 95), (255, 255, 255)
_CONTOUR_AT = 0.5
_PIXEL_ART_PX = 64
"""An image whose longer side is at most this is enlarged with its pixels to be seen."""
_LEAST_BAR_PX = 150
_GAP_PX = 8
_TEXT_PX, _SMALL_PX, _TITLE_PX = 14, 11, 17
_TWO_SIDED = ("contribution", "integrated-gradients", "gradient-input", "occlusion")
"""Methods whose heat below zero is drawn too: theirs is a share of the score, not a sum that a bias shifts."""


def title_of(method: str) -> str:
    """A method's name in the field; those of an ensemble's members one after the other."""
    return ", ".join(METHODS[m].title if m in METHODS else m for m in method.split(", "))


def unit_of(method: str) -> str:
    """What heat is measured in."""
    return METHODS[method].unit if method in METHODS else ""


def two_sided(explanation: Explanation) -> bool:
    """Whether heat that speaks against the target is drawn as well: of shares, and of one class against another."""
    return explanation.method in _TWO_SIDED or bool(explanation.contrast)


# ------------------------------------------------------------------------------------------------------------------- text


@functools.cache
def font(size_px: int) -> Any:
    """A font that is there on every system: the one that matplotlib brings, for its many scripts, else Pillow's own."""
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")
    if found is not None and found.origin is not None:
        file = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size_px, layout_engine=ImageFont.Layout.BASIC)
    return ImageFont.load_default(size_px)


def clean(text: str) -> str:
    """Text as one line without control characters, marks of direction or half characters.

    Example:
        >>> clean("a\\tb\\u202ec\\nd")
        'a b�c d'
    """
    spaced = (" " if c.isspace() else c for c in text)
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in spaced)


def shorten(text: str, width_px: float, size_px: int) -> str:
    """Text that fits a width, its middle replaced by an ellipsis where it must: the ends tell names apart."""
    text = clean(text[:4000])
    if _width(text, size_px) <= width_px:
        return text
    low, high = 0, len(text) - 1
    while low < high:  # the most characters that fit
        kept = (low + high + 1) // 2
        low, high = (kept, high) if _width(_cut(text, kept), size_px) <= width_px else (low, kept - 1)
    return _cut(text, low)


def _cut(text: str, kept: int) -> str:
    return text[: kept - kept // 2].rstrip() + "…" + (text[-(kept // 2) :].lstrip() if kept // 2 else "")


def _width(text: str, size_px: int) -> float:
    return float(font(size_px).getlength(text))


def number(value: float) -> str:
    """A number for a scale, in two digits that count.

    Example:
        >>> number(0.0312), number(12.3), number(0), number(-4.5e-7)
        ('0.031', '12', '0', '-4.5e-07')
    """
    if value == 0:
        return "0"
    digits = 1 - math.floor(math.log10(abs(value)))
    return f"{value:.1e}" if not -3 < digits <= 5 else f"{value:.{max(digits, 0)}f}"


# ------------------------------------------------------------------------------------------------------------------- heat


def place(
    heat: np.ndarray, box: tuple[float, float, float, float], original: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
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


def blend(picture: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Lay heat over a picture.

    The photograph is drawn in grey, so that every colour in it is heat, and with less contrast, so that heat shows on black
    fur too. A line runs
    where half of the scale is reached. What the network did not see is dimmed.

    Args:
        picture: uint8 (h, w, 3).
        share: float (h, w), heat as a share of the scale, NaN where nothing was seen.

    Returns:
        uint8 (h, w, 3).
    """
    grey = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
    base = np.float32(0.12) + np.float32(0.76) * grey[..., None]
    unseen = np.isnan(share)
    colours, opacity = colours_of(np.where(unseen, 0, share))
    drawn = base * (1 - opacity[..., None]) + colours * opacity[..., None]
    drawn[unseen] = np.float32(0.35) * base[unseen] + np.float32(0.35)
    for inside in (np.nan_to_num(share) >= _CONTOUR_AT, np.nan_to_num(share) <= -_CONTOUR_AT):
        line = edges(inside)
        drawn[edges(inside | line)] = 0.05
        drawn[line] = 1.0
    drawn[edges(unseen)] = 1.0
    return np.asarray(np.rint(drawn * 255), dtype=np.uint8)


# ---------------------------------------------------------------------------------------------------------------- picture


def evidence(explanation: Explanation) -> np.ndarray:
    """float32 (h, w): what is drawn. Zero is where a cell is undecided; for all but shares only what speaks for the target."""
    if not explanation.heat.any():  # an empty map: the answer comes from the head's bias, which lies nowhere
        return np.zeros_like(explanation.heat)
    heat = explanation.heat - np.float32(explanation.neutral)
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


def answer(label: str | None, predicted: str, probability: float, side_px: int = SIDE_PX) -> str:
    """A caption: the true label if it is known, what was predicted, and how sure; long names lose their middle.

    Example:
        >>> answer("cat", "dog", 0.934), answer(None, "dog", 1.0)
        ('cat → dog (93%)', 'dog (100%)')
    """
    share = f" ({probability:.0%})"
    room = side_px - 2 * _GAP_PX - _width(share, _TEXT_PX)
    if label is None:
        return shorten(predicted, room, _TEXT_PX) + share
    room = (room - _width(" → ", _TEXT_PX)) / 2
    return f"{shorten(label, room, _TEXT_PX)} → {shorten(predicted, room, _TEXT_PX)}{share}"


def overlay(
    image: np.ndarray,
    explanation: Explanation,
    *,
    caption: str = "",
    verdict: tuple[str, str] | None = None,
    vmax: float | None = None,
    original: tuple[int, int] | None = None,
    side_px: int = SIDE_PX,
) -> Image.Image:
    """One heatmap over its photograph, with a colour bar and a caption.

    Args:
        image: uint8 (h, w, 3), upright; the whole photograph, at any size.
        explanation: What to draw.
        caption: A line in ink below the picture; `answer` makes one. Text of any kind, shortened to fit.
        verdict: What the checks say, and why; a line of its own below.
        vmax: The evidence that gets the strongest colour; None takes this picture's own largest, and the picture says so.
        original: (height, width) of the upright original that the explanation's box speaks of; None where `image` is it.
        side_px: Neither side is longer.

    Returns:
        An RGB picture.
    """
    from PIL import Image, ImageDraw

    foot = _CAPTION_PX + (_VERDICT_PX if verdict else 0)
    room = (side_px - _BAR_PX, side_px - foot)
    picture = fit(image, room)
    heat = evidence(explanation)
    own = vmax is None
    scale = float(np.abs(heat).max()) if vmax is None else vmax
    placed = place(heat, explanation.box, original or image.shape[:2], picture.shape[:2])
    share = placed / scale if scale > 0 else placed * 0.0
    height = max(picture.shape[0], _LEAST_BAR_PX)
    width = max(picture.shape[1], side_px // 2)
    page = Image.new("RGB", (width + _BAR_PX, height + foot), _PAPER)
    page.paste(Image.fromarray(blend(picture, share)), ((width - picture.shape[1]) // 2, (height - picture.shape[0]) // 2))
    pen = ImageDraw.Draw(page)
    if explanation.flat or not np.abs(heat).max() > 0:
        _note(pen, "flat: nothing to see" if explanation.flat else "no evidence anywhere", width / 2, height / 2)
    _bar(page, pen, explanation, scale, own, width + _GAP_PX, height)
    _lines(pen, explanation, caption, width + _BAR_PX, height)
    if verdict is not None:
        _verdict(pen, verdict, width + _BAR_PX, height + _CAPTION_PX - 4)
    return page


def fit(image: np.ndarray, room: tuple[int, int]) -> np.ndarray:
    """An image enlarged or reduced to fit into (width, height); a tiny one keeps its pixels to be seen."""
    from PIL import Image

    height, width = image.shape[:2]
    factor = min(room[0] / width, room[1] / height)
    tiny = max(height, width) <= _PIXEL_ART_PX
    if tiny:
        factor = max(math.floor(factor), 1)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    filter_ = Image.Resampling.NEAREST if tiny else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize(size, filter_))


def _bar(page: Image.Image, pen: Any, explanation: Explanation, scale: float, own: bool, left: int, height: int) -> None:
    """The colour bar: the colours as they lie over mid-grey, the scale in numbers, its unit, and whose scale it is."""
    from PIL import Image

    signed = two_sided(explanation)
    top, bottom = 6, height - 34
    share = np.linspace(1, -1 if signed else 0, bottom - top)
    colours, opacity = colours_of(share)
    column = 0.5 * (1 - opacity[:, None]) + colours * opacity[:, None]
    bar = np.repeat(np.rint(column * 255).astype(np.uint8)[:, None], 12, axis=1)
    page.paste(Image.fromarray(bar), (left, top))
    pen.rectangle((left - 1, top - 1, left + 12, bottom), outline=_QUIET)
    values = [scale, 0.0, -scale] if signed else [scale, scale / 2, 0.0]
    passed = "≥" if float(np.abs(evidence(explanation)).max()) > scale * (1 + 1e-6) else ""
    for value, y in zip(values, (top + 4, (top + bottom) / 2, bottom - 4), strict=True):
        if scale > 0 or value == 0:
            text = f"{passed if value == scale else ''}{number(value)}"
            pen.text((left + 16, y), text, fill=_INK, font=font(_SMALL_PX), anchor="lm")
    pen.text((left - 1, bottom + 4), unit_of(explanation.method), fill=_QUIET, font=font(_SMALL_PX), anchor="la")
    whose = "own scale" if own else "one scale"
    pen.text((left - 1, bottom + 17), whose, fill=_QUIET, font=font(_SMALL_PX), anchor="la")


def _lines(pen: Any, explanation: Explanation, caption: str, width: int, top: int) -> None:
    """The caption, and below it what the colours mean."""
    room = width - 2 * _GAP_PX
    pen.text((_GAP_PX, top + 8), shorten(caption, room, _TEXT_PX), fill=_INK, font=font(_TEXT_PX), anchor="la")
    before, after = "evidence for ", f" · {title_of(explanation.method)}"
    if two_sided(explanation):
        before, after = "for ", f" (blue: against){after}"
    target = shorten(explanation.target, max(room - _width(before + after, _SMALL_PX), 40), _SMALL_PX)
    line = before + target + after
    pen.text((_GAP_PX, top + 30), shorten(line, room, _SMALL_PX), fill=_QUIET, font=font(_SMALL_PX), anchor="la")


def _verdict(pen: Any, verdict: tuple[str, str], width: int, top: int) -> None:
    """What the checks say, with a sign that needs no colour; the reason is shortened to what fits."""
    word, why = verdict
    sign = {"passes": "✓", "weak": "≈"}.get(word, "✗")
    said = f"{sign} {word}: "
    pen.text((_GAP_PX, top), said, fill=_INK, font=font(_SMALL_PX), anchor="la")
    pen.text(
        (_GAP_PX + _width(said, _SMALL_PX), top),
        _beginning(why, width - 2 * _GAP_PX - _width(said, _SMALL_PX), _SMALL_PX),
        fill=_QUIET,
        font=font(_SMALL_PX),
        anchor="la",
    )


def _beginning(text: str, room_px: float, size_px: int) -> str:
    """A sentence that fits, its end left out where it must: what it says first counts."""
    text = clean(text[:4000])
    if _width(text, size_px) <= room_px:
        return text
    while text and _width(text + "…", size_px) > room_px:
        text = text[: max(len(text) - 1, 0) if len(text) < 80 else len(text) * 3 // 4]
    return text.rstrip() + "…" if text else ""


def _note(pen: Any, text: str, x: float, y: float) -> None:
    """A note on the picture, on a light ground of its own."""
    half = _width(text, _TEXT_PX) / 2
    pen.rectangle((x - half - 6, y - 12, x + half + 6, y + 12), fill=_PAPER)
    pen.text((x, y), text, fill=_INK, font=font(_TEXT_PX), anchor="mm")


def contact_sheet(pictures: Sequence[Image.Image], *, columns: int | None = None, title: str = "") -> Image.Image:
    """Pictures side by side in rows, each in a cell of the largest one's size.

    Args:
        pictures: At least one.
        columns: In a row; None makes the sheet about as wide as it is high.
        title: A line above them.

    Returns:
        An RGB picture.
    """
    from PIL import Image, ImageDraw

    if not pictures:
        raise RequestError("a contact sheet of no pictures was asked for")
    width = max(p.width for p in pictures) + _GAP_PX
    height = max(p.height for p in pictures) + _GAP_PX
    columns = columns or math.ceil(math.sqrt(len(pictures) * height / width))
    columns = min(columns, len(pictures))
    head = 34 if title else _GAP_PX
    sheet = Image.new("RGB", (columns * width + _GAP_PX, -(-len(pictures) // columns) * height + head), _PAPER)
    if title:
        text = shorten(title, sheet.width - 2 * _GAP_PX, _TITLE_PX)
        ImageDraw.Draw(sheet).text((_GAP_PX, 9), text, fill=_INK, font=font(_TITLE_PX), anchor="la")
    for place_, picture in enumerate(pictures):
        sheet.paste(picture, (_GAP_PX + place_ % columns * width, head + place_ // columns * height))
    return sheet
