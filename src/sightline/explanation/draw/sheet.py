"""A sheet of small pictures in labelled rows, on white, as one PNG: layout alone, it knows nothing of what is shown."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sightline.explanation.draw.lettering import clean, font, shorten
from sightline.store import write_bytes

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_INK, _QUIET, _LINE, _PAPER = (20, 20, 20), (95, 95, 95), (222, 222, 222), (255, 255, 255)
_MARGIN_PX, _LABEL_PX, _GAP_PX, _GROUP_GAP_PX, _ROW_GAP_PX = 28, 236, 10, 30, 16
_CELL_PX, _CAPTION_PX = 136, 20
_TITLE_PX, _HEADING_PX, _NAME_PX, _TEXT_PX, _SMALL_PX = 22, 16, 15, 12, 12
_PIXEL_ART_PX = 64
"""Pictures whose side is at most this are enlarged with their pixels to be seen."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture.

    Args:
        picture: uint8 (s, s, 3).
        caption: What stands below it; longer ones lose their middle.
    """

    picture: np.ndarray
    caption: str


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures side by side.

    Args:
        name: What stands at its left, in one line.
        text: Below the name, smaller, in as many lines as fit.
        groups: The pictures; groups stand further apart, and a group has as many places as the longest of its section.
    """

    name: str
    text: str
    groups: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that belong together.

    Args:
        heading: Above them.
        columns: A heading for each group, or none.
        rows: At least one.
    """

    heading: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def places(self) -> int:
        """Cells of a group."""
        return max((len(group) for row in self.rows for group in row.groups), default=0)

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return max((len(row.groups) for row in self.rows), default=0)


def write_sheet(target: Path, title: str, text: str, sections: Sequence[Section]) -> tuple[int, int]:
    """Draw a sheet and write it.

    Args:
        target: A PNG.
        title, text: At the top.
        sections: From top to bottom.

    Returns:
        (height, width) in pixels.
    """
    from PIL import Image, ImageDraw

    side = _side(sections)
    width = _MARGIN_PX * 2 + _LABEL_PX + max((_width(section, side) for section in sections), default=0)
    height = _MARGIN_PX * 2 + 62 + sum(_height(section, side) for section in sections)
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    room = width - 2 * _MARGIN_PX
    pen.text((_MARGIN_PX, _MARGIN_PX), shorten(title, room, _TITLE_PX), fill=_INK, font=font(_TITLE_PX))
    pen.text((_MARGIN_PX, _MARGIN_PX + 32), shorten(text, room, _TEXT_PX + 1), fill=_QUIET, font=font(_TEXT_PX + 1))
    top = _MARGIN_PX + 62
    for section in sections:
        _draw_section(page, pen, section, top, side, width)
        top += _height(section, side)
    data = io.BytesIO()
    page.save(data, "PNG", optimize=True)
    write_bytes(target, data.getvalue())
    return height, width


def _side(sections: Sequence[Section]) -> int:
    """How large pictures are drawn: small ones by a whole factor, so that every pixel keeps its size."""
    sides = {cell.picture.shape[0] for s in sections for row in s.rows for group in row.groups for cell in group}
    largest = max(sides, default=_CELL_PX)
    return largest * max(1, round(_CELL_PX / largest)) if largest <= _PIXEL_ART_PX else _CELL_PX


def _width(section: Section, side: int) -> int:
    group = section.places * (side + _GAP_PX) - _GAP_PX
    return section.groups * (group + _GROUP_GAP_PX) - _GROUP_GAP_PX


def _height(section: Section, side: int) -> int:
    return 44 + (26 if section.columns else 0) + len(section.rows) * (side + _CAPTION_PX + _ROW_GAP_PX) + 12


def _draw_section(page: Image.Image, pen: ImageDraw.ImageDraw, section: Section, top: int, side: int, width: int) -> None:
    """A rule, the headings, then row by row."""
    pen.line([(_MARGIN_PX, top), (width - _MARGIN_PX, top)], fill=_LINE)
    pen.text((_MARGIN_PX, top + 12), section.heading, fill=_INK, font=font(_HEADING_PX))
    top += 44
    left = _MARGIN_PX + _LABEL_PX
    group = section.places * (side + _GAP_PX) - _GAP_PX
    for number, text in enumerate(section.columns):
        at = (left + number * (group + _GROUP_GAP_PX), top)
        pen.text(at, shorten(text, group, _TEXT_PX), fill=_QUIET, font=font(_TEXT_PX))
    top += 26 if section.columns else 0
    for row in section.rows:
        _draw_label(pen, row, top, side)
        for number, cells in enumerate(row.groups):
            for place, cell in enumerate(cells):
                x = left + number * (group + _GROUP_GAP_PX) + place * (side + _GAP_PX)
                page.paste(_picture(cell.picture, side), (x, top))
                pen.rectangle([x - 1, top - 1, x + side, top + side], outline=_LINE)
                caption = shorten(cell.caption, side + _GAP_PX - 2, _SMALL_PX)
                pen.text((x + side / 2, top + side + 5), caption, fill=_QUIET, font=font(_SMALL_PX), anchor="ma")
        top += side + _CAPTION_PX + _ROW_GAP_PX


def _draw_label(pen: ImageDraw.ImageDraw, row: Row, top: int, side: int) -> None:
    """A row's name, and below it its text, broken between words."""
    room = _LABEL_PX - 24
    pen.text((_MARGIN_PX, top), shorten(row.name, room, _NAME_PX), fill=_INK, font=font(_NAME_PX))
    for number, line in enumerate(_lines(row.text, room)[: max(1, (side - 24) // 18)]):
        pen.text((_MARGIN_PX, top + 24 + 18 * number), line, fill=_QUIET, font=font(_TEXT_PX))


def _lines(text: str, room: float) -> list[str]:
    """Text in lines that fit, broken between words and where it has a line break."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in clean(paragraph).split(" "):
            longer = f"{line} {word}".strip()
            if line and font(_TEXT_PX).getlength(longer) > room:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return [shorten(line, room, _TEXT_PX) for line in lines]


def _picture(pixels: np.ndarray, side: int) -> Image.Image:
    """A picture at the size at which it is drawn."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if image.width == side:
        return image
    small = image.width <= _PIXEL_ART_PX
    return image.resize((side, side), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
