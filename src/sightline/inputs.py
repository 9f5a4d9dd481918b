"""What people hand over as files: recipes in TOML, tables of predictions in CSV, in whatever encoding they come."""

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
"""A line of a table: its number, as a spreadsheet counts, and as many cells as there are columns."""


def read_recipe(file: Path) -> Recipe:
    """Read a recipe from TOML.

    `augment` may stand among the recipe's keys, as people write what is about images; it is a setting of the method.

    Args:
        file: The TOML file.

    Raises:
        RequestError: The file is missing or is no TOML, or a key or a value is wrong.
    """
    try:
        value = tomllib.loads(files.read_text(file))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RequestError(f"there is no recipe {file}", "name a .toml file") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise RequestError(f"the recipe {file} cannot be read ({error})", "see the documentation of TOML, toml.io") from error
    settings = value.get("settings", {})
    if "augment" in value and isinstance(settings, dict):
        if "augment" in settings:
            raise RequestError(f"the recipe {file} has augment twice, above and among the settings", "leave one of them out")
        value["settings"] = {**settings, "augment": value.pop("augment")}
    return from_json(Recipe, value, f"recipe {file.name}")


# ------------------------------------------------------------------------------------------------------ any tool's text


def read_text(file: Path) -> tuple[str, str]:
    """A file as text, and its encoding: by its mark, else UTF-8, else Windows' western one, which nearly everything is.

    Raises:
        UnicodeError: It is not what its mark says.
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
    """Return the separator of a table's cells, which class names and paths may hold as well.

    The first line decides where splitting it gives names of known columns: those in `columns`, and `p:CLASS`. Otherwise the
    separator is the one that splits the first lines into the same number of cells, more than one; a comma where none does.

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
            best = max(best, (known, same, len(rows[0]), separator), key=lambda found: found[:3])
    return best[3]


# --------------------------------------------------------------------------------------------------------------- names


def find_by_name(names: Sequence[str], paths: Sequence[str]) -> list[int | None]:
    """Return the index of the path that each name spells, None where there is none.

    Letters such as `ä` have a composed Unicode form (NFC) and a decomposed one (NFD, common on macOS): a name that is not
    among the paths letter by letter is the only path that is equal to it in NFC. Of several such paths none is taken.
    """
    exact = {path: i for i, path in enumerate(paths)}
    composed: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        composed.setdefault(unicodedata.normalize("NFC", path), []).append(i)
    found: list[int | None] = []
    for name in names:
        same = composed.get(unicodedata.normalize("NFC", name), [])
        found.append(exact.get(name, same[0] if len(same) == 1 else None))
    return found


def find_by_ending(names: Sequence[str], paths: Sequence[str]) -> list[int | None]:
    """Return the index of the path that each name means, None where none, or more than one, may be meant.

    A name that is a path (`find_by_name`) means that path alone. Any other name means the only path with which it shares
    its longest ending, as where another tool's table begins its paths at another folder: `/data/cats/1.jpg` is `cats/1.jpg`.
    It means no path where its next folder is one of the paths' folders, so that `dogs/1.jpg` is never `cats/1.jpg`, nor
    where another name shares a longer ending with that path.
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
    """Whether the first line of a table names a column `p:CLASS`."""
    try:
        text, _ = read_text(file)
        return any(name.startswith("p:") for name in next(_lines(text), []))
    except (UnicodeError, csv.Error):
        return False


def read_predictions(file: Path) -> Predictions:
    """Read a table of predictions: Sightline's own, or another tool's with the columns `path` and `p:CLASS` per class.

    `label` may be absent or empty; a column `bar:CLASS` holds the threshold of two classes, of all rows or each its own.
    Probabilities are taken as they are, rows rescaled to sum to 1 where they are within 1 % of it. Encoding and separator are
    found out.

    Raises:
        RequestError: The file is missing.
        DataError: A column is missing, there are no rows, a value is not a number, a row does not sum to 1, or a path stands
            there twice.
    """
    return read_labelled(file)[0]


def read_labelled(file: Path) -> tuple[Predictions, tuple[str, ...]]:
    """What `read_predictions` gives, and the label that each row has, "" without one, also where it is none of the classes.

    Raises:
        RequestError, DataError: As `read_predictions`.
    """
    names, rows = _read_rows(file)
    columns = [i for i, n in enumerate(names) if n.startswith("p:")]
    if "path" not in names or not columns:
        hint = "it needs the columns path, label (may be empty), and p:CLASS for every class"
        raise DataError(f"{file} is not a table of predictions", hint)
    if not rows:
        raise DataError(f"{file} has no rows", "its first line names the columns, every further line is one image")
    rows, errors = _answered(names, rows, columns)
    if not rows:
        raise DataError(f"{file} has no row with an answer: every image has a problem", "correct the problems that it names")
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
        raise DataError(f"{where[paths.index('')]} has no path", "every row names its image; take the others out")
    twice = next((path for path, n in Counter(paths).items() if n > 1), None)
    if twice is not None:
        raise DataError(f"{twice} has more than one row in {file}", "keep one row per image")
    labels = tuple(csv_unescape(cells[names.index("label")]) for _, cells in rows) if "label" in names else ("",) * len(rows)
    true = np.array([index.get(label, -1) for label in labels], dtype=np.int64)
    return Predictions(paths, classes, true, probs, errors, threshold=_bar(file, names, rows, classes)), labels


def _answered(names: Sequence[str], rows: list[_Row], columns: Sequence[int]) -> tuple[list[_Row], dict[str, str]]:
    """The rows with an answer; path → problem of the others, which `predict -o` writes with a `problem` and no probability."""
    if "problem" not in names:
        return rows, {}
    path, problem = names.index("path"), names.index("problem")
    failed = [bool(cells[problem].strip()) and not any(cells[c].strip() for c in columns) for _, cells in rows]
    errors = {csv_unescape(cells[path]): csv_unescape(cells[problem]) for (_, cells), f in zip(rows, failed, strict=True) if f}
    return [row for row, f in zip(rows, failed, strict=True) if not f], errors


def _lines(text: str) -> Iterator[list[str]]:
    """The cells of every line, with the separator that the text has."""
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text))


def _read_rows(file: Path) -> tuple[list[str], list[_Row]]:
    """The names of a table's columns, and its rows; empty lines are passed over.

    Raises:
        RequestError: The file is missing.
        DataError: It is no text, or has two columns of one name.
    """
    if not files.is_file(file):
        raise RequestError(f"{file} does not exist", "name a CSV with the columns path and p:CLASS for every class")
    try:
        text, encoding = read_text(file)
        lines = list(_lines(text))
    except (UnicodeError, csv.Error) as error:
        hint = "save it as CSV with the columns path and p:CLASS for every class"
        raise DataError(f"{file} is not a table that can be read ({error})", hint) from error
    if encoding != "utf-8":
        log.warning("%s is not UTF-8; it was read as %s", file, encoding)
    names = lines[0] if lines else []
    twice = next((name for name, n in Counter(names).items() if n > 1 and name), None)
    if twice is not None:
        raise DataError(f"{file} has two columns named {twice!r}", "give each column a name of its own")
    rows = enumerate(lines[1:], start=2)
    return names, [(number, cells + [""] * (len(names) - len(cells))) for number, cells in rows if cells]


def _probs(rows: Sequence[_Row], columns: Sequence[int], classes: Sequence[str], where: Sequence[str]) -> np.ndarray:
    """float64 (n, k), rows that sum to 1: what Sightline wrote bit by bit, what is within 1 % of it rescaled.

    Raises:
        DataError: A value is not a number, or a row does not sum to 1.
    """
    found = []
    for (_, cells), here in zip(rows, where, strict=True):
        try:
            found.append([float(cells[c]) for c in columns])
        except ValueError as error:
            name, cell = next((n, cells[c]) for n, c in zip(classes, columns, strict=True) if not _is_number(cells[c]))
            if not cell.strip():
                raise DataError(
                    f"{here} has no probability of {name!r}", "give one for every class, or take the row out"
                ) from error
            raise DataError(
                f"{here} has {cell!r} for {name!r}, which is no number", "write it with a point, as in 0.25"
            ) from error
    probs = np.array(found, dtype=np.float64)
    total = probs.sum(axis=1)
    wrong = np.flatnonzero(~(np.abs(total - 1) <= 0.01) | (probs < 0).any(axis=1))
    if wrong.size:
        said = f"the probabilities in {where[wrong[0]]} sum to {total[wrong[0]]:.4g}"
        raise DataError(said, "they must sum to 1, none below 0")
    exact = np.abs(total - 1) <= 1e-9
    return np.where(exact[:, None], probs, probs / total[:, None])


def _is_number(cell: str) -> bool:
    """Whether a cell can be read as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _bar(
    file: Path, names: Sequence[str], rows: Sequence[_Row], classes: Sequence[str]
) -> tuple[str, float | np.ndarray] | None:
    """The threshold in a column `bar:CLASS`, one number or each row's own; None without such a column.

    Raises:
        DataError: It holds other things than numbers from 0 to 1, or is not about one of two classes.
    """
    place = next((i for i, n in enumerate(names) if n.startswith("bar:")), None)
    if place is None:
        return None
    column = f"the column {names[place]} of {file}"
    positive = names[place].removeprefix("bar:")
    try:
        values = np.array([float(cells[place]) for _, cells in rows])
    except ValueError as error:
        raise DataError(f"{column} does not hold a number in each row", "leave the column out") from error
    if positive not in classes or len(classes) != 2:
        raise DataError(f"{column} is not about one of two classes", "leave the column out")
    wrong = values[~((values >= 0) & (values <= np.nextafter(1, 2)))]  # just above 1: no image is answered so
    if wrong.size:
        raise DataError(f"{column} holds {wrong[0]:g}", "it is a probability, from 0 to 1")
    return positive, float(values[0]) if (values == values[0]).all() else values
