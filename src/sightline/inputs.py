"""User-supplied files: read recipes (TOML) and tables of predictions (CSV) in any common encoding."""

from __future__ import annotations

import codecs
import csv
import io
import math
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from sightline import files
from sightline.errors import DataError, RequestError
from sightline.records import Predictions, Recipe
from sightline.schema import csv_unescape, from_json
from sightline.store import log

_Row = tuple[int, list[str]]
"""A row of a table: its number as in a spreadsheet, and one cell per column."""


def read_recipe(file: Path) -> Recipe:
    """Read a recipe from TOML.

    `augment` is a setting of the method, and may also be written as a top-level key of the recipe.

    Args:
        file: The TOML file.

    Raises:
        RequestError: If the file is missing or is not TOML, or a key or value is invalid.
    """
    try:
        value = tomllib.loads(files.read_text(file))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RequestError(f"the recipe {file} does not exist", "name a .toml file") from error
    except ValueError as error:  # not TOML, or not UTF-8
        hint = 'a recipe is a UTF-8 file of lines such as: method = "features" (text needs quotation marks)'
        raise RequestError(f"the recipe {file} is not valid TOML ({error})", hint) from error
    settings = value.get("settings", {})
    if "augment" in value and isinstance(settings, dict):
        if "augment" in settings:
            raise RequestError(f"the recipe {file} sets augment twice, at top level and in [settings]", "remove one of them")
        value["settings"] = {**settings, "augment": value.pop("augment")}
    return from_json(Recipe, value, f"recipe {file.name}")


# ------------------------------------------------------------------------------------------------------------- text files


def read_text(file: Path) -> tuple[str, str]:
    """Return a file's text and its encoding: by its byte order mark, else UTF-8, else Windows-1252.

    Raises:
        UnicodeError: If the text is not valid in the encoding of its byte order mark.
    """
    data = files.read_bytes(file)
    for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            return data.decode(name), "utf-8" if name == "utf-8-sig" else name
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace"), "Windows-1252"


def separator_of(text: str, columns: Collection[str] = ("path", "label")) -> str:
    """Return the separator of a table's cells, which may also occur in class names and paths.

    Prefer the separator that splits the first line into the most known column names (`columns` and `p:CLASS`), then the one
    that splits most of the first lines into equally many cells, more than one. Return a comma if no separator does.

    Args:
        text: The table.
        columns: Names of known columns, in lower case.
    """
    sample = text[:65536].splitlines()[:50]
    if len(text) > 65536:
        sample = sample[:-1] or sample
    best = (0, 0.0, 0, ",")
    for separator in (",", ";", "\t", "|"):
        rows = [cells for cells in csv.reader(sample, delimiter=separator) if cells]
        if rows and len(rows[0]) > 1:
            names = [cell.strip().lower().replace(" ", "_") for cell in rows[0]]
            known = sum(name in columns or name.startswith("p:") for name in names)
            same = sum(len(cells) == len(rows[0]) for cells in rows) / len(rows)
            best = max(best, (known, same, len(rows[0]), separator), key=lambda candidate: candidate[:3])
    return best[3]


# --------------------------------------------------------------------------------------------------------------- names


def find_by_name(names: Sequence[str], paths: Sequence[str]) -> list[int | None]:
    """Return the index of the path that equals each name, None if there is none.

    Letters such as `ä` have a composed Unicode form (NFC) and a decomposed one (NFD, common on macOS). A name that is not
    literally among the paths matches the only path that is equal to it in NFC; it matches none if several are.
    """
    exact = {path: i for i, path in enumerate(paths)}
    composed: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        composed.setdefault(unicodedata.normalize("NFC", path), []).append(i)
    matches: list[int | None] = []
    for name in names:
        same = composed.get(unicodedata.normalize("NFC", name), [])
        matches.append(exact.get(name, same[0] if len(same) == 1 else None))
    return matches


def find_by_ending(names: Sequence[str], paths: Sequence[str]) -> list[int | None]:
    """Return the index of the path that matches each name, None if no path or more than one path matches.

    A name that equals a path (`find_by_name`) matches that path. Any other name matches the only path with which it shares
    its longest ending, because another tool may write paths relative to another folder: `/data/cats/1.jpg` matches
    `cats/1.jpg`. It matches no path if its next folder is one of the paths' folders, so that `dogs/1.jpg` never matches
    `cats/1.jpg`, or if another name shares a longer ending with that path.
    """
    whole, plain = find_by_name(names, paths), [unicodedata.normalize("NFC", path) for path in paths]
    ends: dict[str, list[int]] = {}
    for i, path in enumerate(plain):
        parts = PurePosixPath(path).parts
        for cut in range(len(parts)):
            ends.setdefault("/".join(parts[cut:]), []).append(i)
    folders = {part for path in plain for part in PurePosixPath(path).parts[:-1]}
    places, shared = list(whole), [0.0 if place is None else math.inf for place in whole]
    for row, name in enumerate(names):
        if whole[row] is not None:
            continue
        parts = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/"))).parts
        start = next((i for i in range(len(parts)) if "/".join(parts[i:]) in ends), None)
        if start is None:
            continue
        ending = "/".join(parts[start:])
        first, *more = ends[ending]
        contained = start == 0 or plain[first] == ending  # one of the two is an ending of the other
        if not more and (contained or parts[start - 1] not in folders):
            places[row], shared[row] = first, math.inf if contained else float(len(parts) - start)
    longest: dict[int, float] = {}
    for known, length in zip(places, shared, strict=True):
        if known is not None:
            longest[known] = max(length, longest.get(known, 0.0))
    return [p if p is not None and n == longest[p] else None for p, n in zip(places, shared, strict=True)]


# --------------------------------------------------------------------------------------------------------- predictions


def is_predictions(file: Path) -> bool:
    """Return whether the first line of a table names a column `p:CLASS`."""
    try:
        text, _ = read_text(file)
        return any(name.startswith("p:") for name in next(_lines(text), []))
    except (UnicodeError, csv.Error):
        return False


def read_predictions(file: Path) -> Predictions:
    """Read a table of predictions, written by Sightline or another tool, with the columns `path` and one `p:CLASS` per class.

    `label` may be absent or empty. For two classes, a column `bar:CLASS` contains the decision threshold, which may differ
    between rows. Rows of probabilities whose sum is within 1 % of 1 are rescaled to sum to 1. Encoding and separator are
    detected.

    Raises:
        RequestError: If the file is missing.
        DataError: If a column is missing, there are no rows, a value is not a number, a row does not sum to 1, or a path is
            repeated.
    """
    return read_labelled(file)[0]


def read_labelled(file: Path) -> tuple[Predictions, tuple[str, ...]]:
    """Read a table of predictions and the label of each row, "" if absent; a label need not be one of the classes.

    Raises:
        RequestError, DataError: As `read_predictions`.
    """
    names, rows = _read_rows(file)
    columns = [i for i, n in enumerate(names) if n.startswith("p:")]
    if "path" not in names or not columns:
        hint = "it needs the columns path, label (may be empty), and p:CLASS for every class"
        raise DataError(f"{file} is not a table of predictions", hint)
    if not rows:
        raise DataError(f"{file} has no rows", "name the columns in the first line, and one image in each further line")
    rows, errors = _predicted(names, rows, columns)
    if not rows:
        raise DataError(f"{file} has no predictions: every image has a problem", "correct the problems in its column problem")
    classes = tuple(names[i].removeprefix("p:") for i in columns)
    index = {c: i for i, c in enumerate(classes)}
    place = names.index("path")
    paths = tuple(csv_unescape(cells[place]) for _, cells in rows)
    where = [
        f"row {number} of {file} ({path})" if path else f"row {number} of {file}"
        for (number, _), path in zip(rows, paths, strict=True)
    ]
    probs = _probs(rows, columns, classes, where)
    if "" in paths:
        raise DataError(f"{where[paths.index('')]} has no path", "add the image's path, or remove the row")
    twice = next((path for path, n in Counter(paths).items() if n > 1), None)
    if twice is not None:
        raise DataError(f"{twice} has more than one row in {file}", "keep one row per image")
    labels = tuple(csv_unescape(cells[names.index("label")]) for _, cells in rows) if "label" in names else ("",) * len(rows)
    true = np.array([index.get(label, -1) for label in labels], dtype=np.int64)
    return Predictions(paths, classes, true, probs, errors, threshold=_threshold(file, names, rows, classes)), labels


def _predicted(names: Sequence[str], rows: list[_Row], columns: Sequence[int]) -> tuple[list[_Row], dict[str, str]]:
    """Return the rows with probabilities, and path → problem of the others: `predict -o` writes those without probabilities."""
    if "problem" not in names:
        return rows, {}
    path, problem = names.index("path"), names.index("problem")
    failed = [bool(cells[problem].strip()) and not any(cells[c].strip() for c in columns) for _, cells in rows]
    errors = {csv_unescape(cells[path]): csv_unescape(cells[problem]) for (_, cells), f in zip(rows, failed, strict=True) if f}
    return [row for row, f in zip(rows, failed, strict=True) if not f], errors


def _lines(text: str) -> Iterator[list[str]]:
    """Return an iterator over the cells of each line, with the separator detected from the text."""
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text))


def _read_rows(file: Path) -> tuple[list[str], list[_Row]]:
    """Return the column names and the rows of a table, without empty lines.

    Raises:
        RequestError: If the file is missing.
        DataError: If it is not a text table, or two columns have the same name.
    """
    if not files.is_file(file):
        raise RequestError(f"{file} does not exist", "name a CSV file with the columns path and p:CLASS for every class")
    try:
        text, encoding = read_text(file)
        lines = list(_lines(text))
    except (UnicodeError, csv.Error) as error:
        hint = "save it as CSV with the columns path and p:CLASS for every class"
        raise DataError(f"{file} cannot be read as a table ({error})", hint) from error
    if encoding != "utf-8":
        log.warning("%s is not UTF-8; read as %s", file, encoding)
    names = lines[0] if lines else []
    twice = next((name for name, n in Counter(names).items() if n > 1 and name), None)
    if twice is not None:
        raise DataError(f"{file} has two columns named {twice!r}", "give each column a different name")
    rows = enumerate(lines[1:], start=2)
    return names, [(number, cells + [""] * (len(names) - len(cells))) for number, cells in rows if cells]


def _probs(rows: Sequence[_Row], columns: Sequence[int], classes: Sequence[str], where: Sequence[str]) -> np.ndarray:
    """Return probabilities as float64 (n, k); rows whose sum is within 1 % of 1, but not 1, are rescaled.

    Raises:
        DataError: If a value is not a number, or a row does not sum to 1.
    """
    values = []
    for (_, cells), here in zip(rows, where, strict=True):
        try:
            values.append([float(cells[c]) for c in columns])
        except ValueError as error:
            name, cell = next((n, cells[c]) for n, c in zip(classes, columns, strict=True) if not _is_number(cells[c]))
            if not cell.strip():
                raise DataError(
                    f"{here} has no probability of {name!r}", "add one for every class, or remove the row"
                ) from error
            raise DataError(
                f"{here} has {cell!r} for {name!r}, which is not a number", "use a decimal point, as in 0.25"
            ) from error
    probs = np.array(values, dtype=np.float64)
    total = probs.sum(axis=1)
    wrong = np.flatnonzero(~(np.abs(total - 1) <= 0.01) | (probs < 0).any(axis=1))
    if wrong.size:
        message = f"the probabilities in {where[wrong[0]]} sum to {total[wrong[0]]:.4g}"
        raise DataError(message, "they must be at least 0 and sum to 1")
    exact = np.abs(total - 1) <= 1e-9
    return np.where(exact[:, None], probs, probs / total[:, None])


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _threshold(
    file: Path, names: Sequence[str], rows: Sequence[_Row], classes: Sequence[str]
) -> tuple[str, float | np.ndarray] | None:
    """Return the positive class and the threshold of a column `bar:CLASS`, one number or one per row; None if it is absent.

    Raises:
        DataError: If a value is not a number from 0 to 1, or the column does not name one of two classes.
    """
    place = next((i for i, n in enumerate(names) if n.startswith("bar:")), None)
    if place is None:
        return None
    column = f"the column {names[place]} of {file}"
    positive = names[place].removeprefix("bar:")
    try:
        values = np.array([float(cells[place]) for _, cells in rows])
    except ValueError as error:
        raise DataError(f"{column} does not have a number in each row", "remove the column") from error
    if positive not in classes or len(classes) != 2:
        raise DataError(f"{column} does not name one of two classes", "remove the column")
    wrong = values[~((values >= 0) & (values <= np.nextafter(1, 2)))]  # just above 1: never predict the positive class
    if wrong.size:
        raise DataError(f"{column} contains {wrong[0]:g}", "a threshold is a probability from 0 to 1")
    return positive, float(values[0]) if (values == values[0]).all() else values
