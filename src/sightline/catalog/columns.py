"""Columns of a user-defined table: find the image, the class, or one-hot classes by names and by values."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sightline import pixels
from sightline.errors import DataError, RequestError, closest
from sightline.records import CATALOG_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

PATH_NAMES = (
    *("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "image_name", "name"),
    *("img_path", "img_name", "image_file", "image_filename", "images", "filenames", "fname", "photo", "picture"),
)
LABEL_NAMES = (
    *("label", "class", "class_name", "category", "target", "species", "y", "labels", "classes", "label_name", "category_name"),
    *("diagnosis", "dx", "ground_truth", "groundtruth", "breed", "annotation", "tag", "tags", "class_label"),
)
_SURROUNDINGS = frozenset(
    ("index", "idx", "fold", "is_train", "is_test", "is_valid", "is_val", "sex", "gender", "weight", "width", "height")
)
_SAMPLE = 200
_ZEROS, _ONES = frozenset(("0", "0.0", "false")), frozenset(("1", "1.0", "true"))

Column = Callable[[str], list[str | None]]
"""Function that returns the cells of a column as text."""


def normal(name: str) -> str:
    """Return the form of a column name in which usual names are written.

    Example:
        >>> normal(" File Name ")
        'file_name'
    """
    return name.lower().strip().replace(" ", "_").replace("-", "_")


def requested(table: pa.Table, name: str, file: Path) -> str:
    """Return the name of a column that the user named.

    Raises:
        RequestError: If there is no such column.
    """
    names: list[str] = table.column_names
    if name not in names:
        match = closest(name, names)
        raise RequestError(
            f"{file} has no column {name!r}", f"did you mean {match!r}?" if match else f"its columns: {', '.join(names)}"
        )
    return name


def _usual(table: pa.Table, usual: Sequence[str]) -> str | None:
    """Return the first column with a usual name, None without one."""
    by_name = {normal(n): n for n in reversed(table.column_names)}
    return next((by_name[name] for name in usual if name in by_name), None)


def path_column(table: pa.Table, cells: Column, exists: Callable[[str], bool], file: Path) -> tuple[str, list[str]]:
    """Return the column of image files, and a note if its values, not its name, gave it away.

    Args:
        table: The table.
        cells: Function that returns a column as text.
        exists: Whether a path, with or without extension, is an image.
        file: The table's file, for messages.

    Raises:
        DataError: If there is none.
    """
    name = _usual(table, PATH_NAMES)
    if name is not None:
        return name, []
    import pyarrow as pa

    for column in table.column_names:
        if pa.types.is_nested(table.column(column).type):
            continue
        values = [v for v in cells(column)[:_SAMPLE] if v]
        suffixed = sum(os.path.splitext(v)[1].lower() in pixels.KNOWN_SUFFIXES for v in values)
        if values and (2 * suffixed > len(values) or 2 * sum(map(exists, values)) > len(values)):
            return column, [f"{file.name}: the column {column!r} names the images"]
    raise _no_column(table, "path", file)


def label_column(table: pa.Table, path: str, cells: Column, file: Path) -> tuple[str, list[str]]:
    """Return the column of classes: one with a usual name, else the only other column whose values recur.

    Returns:
        The column, and a note if its values, not its name, gave it away.

    Raises:
        DataError: If there is none.
    """
    name = _usual(table, LABEL_NAMES)
    if name is not None and name != path:
        return name, []
    import pyarrow as pa

    outside = {"split", "group", "dataset"}
    others = [
        n for n in table.column_names if n not in {path, *CATALOG_COLUMNS} and not is_side(n) and normal(n) not in outside
    ]
    others = [n for n in others if not pa.types.is_nested(table.column(n).type)]
    fitting = []
    for other in others:
        values = [v for v in cells(other) if v]
        distinct = len(set(values))
        if 1 < distinct < len(values) and not all("." in v and _is_number(v) for v in values):
            fitting.append(other)
    if len(fitting) == 1 and len(others) == 1:
        return fitting[0], [f"{file.name}: the column {fitting[0]!r} is the class"]
    raise _no_column(table, "label", file)


def _is_number(text: str) -> bool:
    """Return whether a cell is a number that is not whole."""
    try:
        return not float(text).is_integer()
    except ValueError:
        return False


def _no_column(table: pa.Table, what: str, file: Path) -> DataError:
    """Return the error for a table without a recognised column."""
    shown = ", ".join(repr(n) for n in table.column_names)
    hint = f"name the column with --{what}-column, or rename it to {what!r}"
    return DataError(f"{file} has no {what} column; its columns: {shown}", hint)


def is_side(name: str) -> bool:
    """Return whether a column is an index or another usual column that is no class.

    Example:
        >>> is_side("Unnamed: 0"), is_side(""), is_side("fold"), is_side("cat")
        (True, True, True, False)
    """
    return not name.strip() or name.startswith(("Unnamed:", "column_")) or normal(name) in _SURROUNDINGS


# ---------------------------------------------------------------------------------------------------------------- one-hot


def indicators(table: pa.Table, path: str, cells: Column) -> list[str]:
    """Return the columns of 0 and 1 if there are several of them and no column of labels (one-hot labels), else none."""
    if any(normal(n) in LABEL_NAMES for n in table.column_names):
        return []
    import pyarrow as pa

    names = [n for n in table.column_names if n != path and n not in CATALOG_COLUMNS and not is_side(n)]
    plain = [n for n in names if not pa.types.is_nested(table.column(n).type)]
    binary = [n for n in plain if {str(v).lower() for v in cells(n)} <= _ZEROS | _ONES]
    return binary if len(binary) > 1 else []


def of_indicators(names: Sequence[str], cells: Column, paths: Sequence[str | None], file: Path) -> list[str | None]:
    """Return the class of each row of one-hot labels: the column that contains 1.

    Raises:
        DataError: If a row has several ones, or none.
    """
    columns = [[str(v).lower() in _ONES for v in cells(n)] for n in names]
    ones = [[name for name, one in zip(names, row, strict=True) if one] for row in zip(*columns, strict=True)]
    several, none = sum(len(row) > 1 for row in ones), sum(not row for row in ones)
    if several or none:
        first = next(i for i, row in enumerate(ones) if len(row) != 1)
        shown = " and ".join(ones[first][:4]) or "none"
        counted = [
            f"{n:,} {'row has' if n == 1 else 'rows have'} {what}"
            for n, what in ((several, "several ones"), (none, "no 1"))
            if n
        ]
        raise DataError(
            f"{file} has a column of 0 and 1 for each class, and {' and '.join(counted)}, the first {paths[first]} ({shown}): "
            "Sightline supports one class per image",
            f"train one class against the rest with --label-column {names[0]!r} (classes 0 and 1), or write one class per "
            "image in a column 'label'",
        )
    return [row[0] for row in ones]


def check_single(table: pa.Table, name: str, file: Path) -> None:
    """Check that a column of labels does not hold lists, as Parquet tables may.

    Raises:
        DataError: If it does.
    """
    import pyarrow as pa

    if pa.types.is_nested(table.column(name).type):
        what = f"the column {name!r} of {file} holds lists of labels: Sightline supports one class per image"
        raise DataError(what, "write one class per image in a column 'label'")
