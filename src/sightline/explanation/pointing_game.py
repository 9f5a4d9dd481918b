"""The pointing game: does the peak of a heatmap lie on the object that the data set marks?"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sightline import pixels
from sightline.containers import read_bytes
from sightline.errors import DataError, SightlineError
from sightline.explanation.checks import measures, verdict
from sightline.explanation.checks.verdict import Finding
from sightline.records import Catalog, Explanation

Column = Literal["box", "mask"]
Box = tuple[float, float, float, float]
"""(x, y, width, height) in pixels of the upright original."""
COLUMNS: tuple[Column, ...] = ("box", "mask")
"""The columns that are read; the first with a value for an image counts."""
_PLURAL: Mapping[Column, str] = {"box": "boxes", "mask": "masks"}
_LACKS: Mapping[Column, str] = {"box": "contains no x,y,width,height in pixels", "mask": "names no mask file beside its image"}
_BETWEEN = re.compile(r"\s*[,;]\s*|\s+")
_LONGEST = 40
_FAULTS = (SightlineError, OSError, ValueError)
"""Exceptions from reading a cell of a table; a name that no file can have raises ValueError."""


@dataclass(frozen=True, slots=True)
class Place:
    """The position of an image's object as a table gives it.

    Args:
        column: The column.
        cell: The text of the cell.
    """

    column: Column
    cell: str


def read_places(catalog: Catalog) -> tuple[dict[str, Place], list[str]]:
    """Return path → place of the images with a marked object, and at most one note on columns with another meaning.

    A column with no box, or with no mask file beside its image, is the user's own and means something else, such as whether a
    face wears a mask.
    """
    places: dict[str, Place] = {}
    odd = []
    for column in COLUMNS:
        if column not in catalog.table.column_names:
            continue
        cells = {path: _text(v) for path, v in zip(catalog.paths, catalog.column(column), strict=True) if _text(v)}
        if any(_meant(column, catalog.file(path), cell) for path, cell in _different(cells).items()):
            places = {path: Place(column, cell) for path, cell in cells.items()} | places
        elif cells:
            path, cell = next(iter(cells.items()))
            odd.append(f"the column `{column}` {_LACKS[column]} (the first is {_short(cell)} of {path})")
    return places, [f"{', '.join(odd)}: not used for the pointing game"] if odd else []


def _text(value: object) -> str:
    """Return a cell as text, "" where it is empty."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()


def _different(cells: Mapping[str, str]) -> dict[str, str]:
    """Return one image per folder and cell text, so that a column with two words is not looked up for each image."""
    return {path: cell for (_, cell), path in {(p.rpartition("/")[0], c): p for p, c in cells.items()}.items()}


def _meant(column: Column, file: Path, cell: str) -> bool:
    """Return whether a cell is a box, or the name of a mask file beside its image."""
    try:
        if column == "box":
            parse_box(cell)
        else:
            other = file.parent / cell
            pixels.read_header(read_bytes(other), other.name)
    except _FAULTS:
        return False
    return True


def _short(cell: str) -> str:
    """Return a cell in quotes, shortened where it is long."""
    return repr(cell if len(cell) <= _LONGEST else cell[: _LONGEST - 1] + "…")


def parse_box(cell: str) -> Box:
    """Parse a box: four numbers, with fractions or brackets, separated by commas, semicolons or spaces.

    Raises:
        DataError: If it is not four numbers, has no area, or is given in shares of the image instead of pixels.

    Example:
        >>> parse_box("[10.5, 20, 30, 40]")
        (10.5, 20.0, 30.0, 40.0)
    """
    try:
        x, y, width, height = (float(part) for part in _BETWEEN.split(cell.strip("[]() \t")))
    except ValueError:
        raise DataError("it is not x,y,width,height", "write four numbers, in pixels of the upright photograph") from None
    if not all(map(math.isfinite, (x, y, width, height))) or width <= 0 or height <= 0:
        raise DataError("it has no area", "write x,y,width,height, in pixels of the upright photograph")
    if max(x, y, width, height) <= 1:
        raise DataError("it is in shares of the image", "write it in pixels of the upright photograph")
    return x, y, width, height


def play(explanations: Sequence[Explanation], places: Mapping[str, Place], files: Mapping[str, Path]) -> Finding | None:
    """Play the pointing game on the images with a marked object; unreadable cells are skipped, counted and reported.

    Args:
        explanations: One per image, for its predicted class.
        places: Path → place, of some of them.
        files: Path → file, of all.

    Returns:
        The finding; None where no image has a readable place.
    """
    hits, shares, faults = [], [], []
    marked = [item for item in explanations if item.path in places]
    for item in marked:
        place, file = places[item.path], files[item.path]
        try:
            hit, share = _hit(file, item.peak(), place)
        except _FAULTS as error:
            why = error.message if isinstance(error, SightlineError) else str(error)
            faults.append(f"{_short(place.cell)} of {file.name} ({why})")
            continue
        hits.append(hit and not item.flat)
        shares.append(share)
    if not hits:
        return None
    finding = verdict.judge_pointing(np.array(hits, dtype=bool), np.array(shares))
    text = finding.text
    if faults:
        kinds = " and ".join(_PLURAL[c] for c in COLUMNS if any(places[item.path].column == c for item in marked))
        text += f"; {len(faults):,} of {len(marked):,} {kinds} cannot be read, the first: {faults[0]}"
    return dataclasses.replace(finding, text=text, numbers={**finding.numbers, "unread": len(faults)})


def _hit(file: Path, peak: tuple[int, int], place: Place) -> tuple[bool, float]:
    """Return whether a peak lies on the object, and the object's share of the image's area.

    Raises:
        DataError: If the place is not a box or mask of this image.
        ImageError, OSError, ValueError: If the image or the mask cannot be read.
    """
    header = pixels.read_header(read_bytes(file), file.name)
    size = f"{header.width}×{header.height} px"
    if place.column == "box":
        x, y, width, height = box = parse_box(place.cell)
        across, down = min(x + width, header.width) - max(x, 0), min(y + height, header.height) - max(y, 0)
        if across <= 0 or down <= 0:
            raise DataError(f"it lies beyond the image of {size}", "write it in pixels of the upright photograph")
        return bool(measures.pointing([peak], [box])[0]), across * down / (header.width * header.height)
    mask = pixels.upright(file.parent / place.cell)[..., 0] >= 128
    if mask.shape != (header.height, header.width):
        what = f"it is {mask.shape[1]}×{mask.shape[0]} px, its image {size}"
        raise DataError(what, "a mask has the size of the upright image")
    if not mask.any():
        raise DataError("it is black everywhere", "a mask is white where the object is")
    return bool(mask[min(peak[0], mask.shape[0] - 1), min(peak[1], mask.shape[1] - 1)]), float(mask.mean())
