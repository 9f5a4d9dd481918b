"""Text on pictures: a font for every system, any text made fit to be drawn, cut or wrapped to its room."""

from __future__ import annotations

import functools
import importlib.util
import math
import unicodedata
from pathlib import Path
from typing import Any

INK, QUIET, PAPER = (20, 20, 20), (95, 95, 95), (255, 255, 255)
TEXT_PX, SMALL_PX, TITLE_PX = 14, 11, 17
GAP_PX = 8
_MOST_CHARACTERS = 4000


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


def width(text: str, size_px: int) -> float:
    """How many pixels a line of text is wide."""
    return float(font(size_px).getlength(text))


def clean(text: str) -> str:
    """Text as one line without control characters, marks of direction or half characters.

    Example:
        >>> clean("a\\tb\\u202ec\\nd")
        'a b�c d'
    """
    spaced = (" " if c.isspace() else c for c in text)
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in spaced)


def shorten(text: str, room_px: float, size_px: int) -> str:
    """Text that fits a width, its middle replaced by an ellipsis where it must: the ends tell names apart."""
    text = clean(text[:_MOST_CHARACTERS])
    if width(text, size_px) <= room_px:
        return text
    low, high = 0, len(text) - 1
    while low < high:  # the most characters that fit
        kept = (low + high + 1) // 2
        low, high = (kept, high) if width(_cut(text, kept), size_px) <= room_px else (low, kept - 1)
    return _cut(text, low)


def _cut(text: str, kept: int) -> str:
    return text[: kept - kept // 2].rstrip() + "…" + (text[-(kept // 2) :].lstrip() if kept // 2 else "")


def wrap(text: str, room_px: float, size_px: int, most: int) -> list[str]:
    """Text in at most so many lines, broken between words; where that is too little its end is left out.

    A word that fits no line loses its middle.

    Example:
        >>> wrap("one two three", 60, 11, 3)
        ['one two', 'three']
    """
    words = clean(text[:_MOST_CHARACTERS]).split()
    lines: list[str] = []
    for number, word in enumerate(words):
        word = shorten(word, room_px, size_px)
        if lines and width(f"{lines[-1]} {word}", size_px) <= room_px:
            lines[-1] += f" {word}"
        elif len(lines) < most:
            lines.append(word)
        else:
            lines[-1] = _beginning(" ".join([lines[-1], *words[number:]]), room_px, size_px)
            break
    return lines


def _beginning(text: str, room_px: float, size_px: int) -> str:
    """The beginning of a text that does not fit, with an ellipsis."""
    low, high = 0, len(text)
    while low < high:  # the most characters that fit
        kept = (low + high + 1) // 2
        low, high = (kept, high) if width(text[:kept] + "…", size_px) <= room_px else (low, kept - 1)
    return text[:low].rstrip() + "…"


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
