"""Text on images: fonts, cleaning, shortening and wrapping."""

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
    """Return a font that exists on every system: matplotlib's DejaVu Sans, which covers many scripts, else Pillow's own."""
    from PIL import ImageFont

    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size_px, layout_engine=ImageFont.Layout.BASIC)
    return ImageFont.load_default(size_px)


def width(text: str, size_px: int) -> float:
    """Return the width of a line of text in pixels."""
    return float(font(size_px).getlength(text))


def clean(text: str) -> str:
    """Return text as one line without control characters, direction marks or surrogates.

    Example:
        >>> clean("a\\tb\\u202ec\\nd")
        'a b�c d'
    """
    spaced = (" " if c.isspace() else c for c in text)
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in spaced)


def shorten(text: str, room_px: float, size_px: int) -> str:
    """Shorten text to a width by replacing its middle with an ellipsis, since names differ at their ends."""
    text = clean(text[:_MOST_CHARACTERS])
    if width(text, size_px) <= room_px:
        return text
    low, high = 0, len(text) - 1
    while low < high:  # the most characters that fit
        length = (low + high + 1) // 2
        low, high = (length, high) if width(_cut(text, length), size_px) <= room_px else (low, length - 1)
    return _cut(text, low)


def _cut(text: str, length: int) -> str:
    return text[: length - length // 2].rstrip() + "…" + (text[-(length // 2) :].lstrip() if length // 2 else "")


def wrap(text: str, room_px: float, size_px: int, most: int) -> list[str]:
    """Wrap text between words into at most `most` lines; the rest is cut.

    A word wider than a line is shortened in its middle.

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
    """Return the beginning of a text that does not fit, with an ellipsis."""
    low, high = 0, len(text)
    while low < high:  # the most characters that fit
        length = (low + high + 1) // 2
        low, high = (length, high) if width(text[:length] + "…", size_px) <= room_px else (low, length - 1)
    return text[:low].rstrip() + "…"


def number(value: float) -> str:
    """Format a number with two significant digits.

    Example:
        >>> number(0.0312), number(12.3), number(0), number(-4.5e-7)
        ('0.031', '12', '0', '-4.5e-07')
    """
    if value == 0:
        return "0"
    digits = 1 - math.floor(math.log10(abs(value)))
    return f"{value:.1e}" if not -3 < digits <= 5 else f"{value:.{max(digits, 0)}f}"
