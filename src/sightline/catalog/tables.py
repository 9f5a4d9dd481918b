"""Image tables: read user-defined CSV or Parquet tables of paths and labels; read and write catalogs."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline import pixels, store
from sightline.catalog.layout import Entry, matched, pattern, split_name
from sightline.catalog.paths import Files
from sightline.catalog.walking import writable
from sightline.errors import DataError, RequestError, SightlineError, closest
from sightline.files import is_file, open_regular
from sightline.inputs import read_text, separator_of
from sightline.records import CATALOG_COLUMNS, Catalog
from sightline.schema import csv_escape, csv_unescape, relative_posix

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
_PATH_NAMES = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "img",
    "image_name",
    "name",
)
_LABEL_NAMES = ("label", "class", "class_name", "category", "target", "species", "y")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_QUOTED = re.compile(r'[",\r\n]')


# ------------------------------------------------------------------------------------------------------------- reading


def read_table(file: Path) -> tuple[pa.Table, list[str]]:
    """A CSV (separator and encoding found out) or Parquet file; every column of a CSV is text, empty cells are null.

    Returns:
        The table, and notes on what was odd.

    Raises:
        RequestError: The file is missing.
        DataError: It is no such table, or has no rows.
    """
    if not is_file(file):
        raise RequestError(f"{file} does not exist", "name a folder of photographs, or a .csv or .parquet table")
    import pyarrow as pa

    notes: list[str] = []
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            import pyarrow.parquet

            table = pa.parquet.read_table(open_regular(file))
        else:
            table, notes = _read_csv(file)
    except (pa.ArrowException, UnicodeError) as error:
        why = str(error).splitlines()[0][:200]
        hint = "name a folder of photographs, or a .csv or .parquet table with one row per image"
        raise DataError(f"{file} cannot be read as a table ({why})", hint) from error
    if table.num_rows == 0:
        why = f": {notes[-1]}" if notes else ""
        raise DataError(f"{file} has no rows{why}", "name the columns in the first line, and one image in each further line")
    return table, notes


def _read_csv(file: Path) -> tuple[pa.Table, list[str]]:
    """A CSV file by pyarrow, with what `sniff` found."""
    import pyarrow as pa
    import pyarrow.csv

    text, encoding = read_text(file)
    separator = separator_of(text, {*_PATH_NAMES, *_LABEL_NAMES})
    lines = text.splitlines()
    names = next(csv.reader(lines[:1], delimiter=separator), []) if lines else []
    names = [n.strip() for n in names]
    double = next((n for n in names if names.count(n) > 1 and n), None)
    if double is not None:
        raise DataError(f"{file} has two columns named {double!r}", "give each column a different name")
    skipped: list[str] = []

    def odd(row: Any) -> str:
        skipped.append(row.text or "")
        return "skip"

    table = pa.csv.read_csv(
        io.BytesIO(text.encode("utf-8")),
        pa.csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
        pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=odd),
        pa.csv.ConvertOptions(column_types={n: pa.string() for n in names}, strings_can_be_null=True, null_values=[""]),
    )
    notes = [] if encoding == "utf-8" else [f"{file.name} is not UTF-8; it was read as {encoding}"]
    if skipped:
        shown = "; ".join(repr(row[:60]) for row in skipped[:3])
        notes.append(f"{len(skipped)} lines of {file.name} were left out: they do not have {len(names)} cells: {shown}")
    return table, notes + _swallowed(file, table, lines, skipped, separator)


def _swallowed(file: Path, table: pa.Table, lines: Sequence[str], skipped: Sequence[str], separator: str) -> list[str]:
    """Return a note on lines that became part of one cell, since a quotation mark before them is not closed.

    A cell may hold several lines of text, so only lines that look like rows are counted: as many cells as there are columns,
    one of them an image's name; or any such line where the table's quotation marks do not come in pairs.
    """
    import pyarrow.compute

    if len(lines) <= table.num_rows + len(skipped) + 1:
        return []
    cells = [text for text in skipped if "\n" in text]
    for column in table.columns:
        cells += column.filter(pyarrow.compute.match_substring(column, "\n")).to_pylist()
    unpaired = sum(line.count('"') for line in lines) % 2 == 1

    def is_row(line: str) -> bool:
        parts = [os.path.splitext(part.strip(' "'))[1].lower() for part in line.split(separator)]
        return len(parts) == table.num_columns and (unpaired or not pixels.KNOWN_SUFFIXES.isdisjoint(parts))

    found = [(cell, n) for cell in cells if (n := sum(map(is_row, cell.splitlines()[1:])))]
    if not found:
        return []
    start = found[0][0].splitlines()[0]
    number = next((i for i, line in enumerate(lines, 1) if '"' in line and start.strip('"') in line), 1)
    total = sum(n for _, n in found)
    many = "1 line was" if total == 1 else f"{total:,} lines were"
    return [
        f"{many} lost in {file.name}: a quotation mark in line {number} ({lines[number - 1][:60]!r}) is not closed, so "
        "the lines after it became part of one cell; close it, or remove it"
    ]


# -------------------------------------------------------------------------------------------------- a user's own table


def of_table(
    file: Path, path_column: str | None, label_column: str | None, label_from: str | None
) -> tuple[Path, list[Entry], pa.Table, list[str]]:
    """Class and split of every image that a user's table names.

    Paths are relative to the table's folder, or absolute. A row that stands there twice counts once; an image under two
    labels is a problem. The class may come from the file's name instead of a column.

    Returns:
        The root; an entry per image; the user's other columns, by `Entry.row`; notes.

    Raises:
        RequestError: A named column is not there, or the file is missing.
        DataError: No column looks like a path or a label; or each class has a column of 0 and 1, and a row has several ones.
    """
    table, notes = read_table(file)
    rule = None if label_from is None else pattern(label_from, "--label-from")
    path_name = _column(table, path_column, _PATH_NAMES, "path", file)
    paths = _strings(table, path_name, file)
    indicators = [] if rule or label_column is not None else _indicators(table, path_name, file)
    label_name = None
    labels: list[str | None] = [None] * len(paths)
    if indicators:
        labels = _of_indicators(table, indicators, paths, file)
        notes.append(f"{file.name} has a column of 0 and 1 for each class (one-hot): the column with 1 is the class")
    elif rule is None or label_column is not None:
        label_name = _column(table, label_column, _LABEL_NAMES, "label", file)
        labels = _strings(table, label_name, file)
    if rule is not None:
        labels = [label or (matched(rule, p.replace("\\", "/")) if p else None) for p, label in zip(paths, labels, strict=True)]
    splits, split_notes = _splits(table, file)
    names = [(None, None) if p is None else writable(p) for p in paths]
    root, keys, path_notes = _keys(file, [shown for shown, _ in names])
    entries, row_notes = _entries(keys, labels, splits, file)
    entries = [replace(e, problem=names[e.row][1] or e.problem) for e in entries]
    ours = {path_name, label_name, *CATALOG_COLUMNS} - {"group"}
    keep = [n for n in table.column_names if n not in ours]
    return root, entries, table.select(keep), [*notes, *split_notes, *path_notes, *row_notes]


def _column(table: pa.Table, asked: str | None, usual: Sequence[str], what: str, file: Path) -> str:
    """The name of the column that holds paths or labels."""
    names: list[str] = table.column_names
    if asked is not None:
        if asked not in names:
            match = closest(asked, names)
            hint = f"did you mean {match!r}?" if match else f"its columns: {', '.join(names)}"
            raise RequestError(f"{file} has no column {asked!r}", hint)
        return asked
    by_name = {n.lower().strip().replace(" ", "_"): n for n in reversed(names)}
    for name in usual:
        if name in by_name:
            return by_name[name]
    raise DataError(
        f"{file} has no {what} column; its columns: {', '.join(repr(n) for n in names)}",
        f"name it with --{what}-column, or call it {what!r}",
    )


_ZEROS, _ONES = frozenset(("0", "0.0", "false")), frozenset(("1", "1.0", "true"))


def _indicators(table: pa.Table, path_name: str, file: Path) -> list[str]:
    """Return the columns of 0 and 1, where there are several of them and no column of labels."""
    names = [n for n in table.column_names if n != path_name and n not in CATALOG_COLUMNS]
    if any(n.lower().strip().replace(" ", "_") in _LABEL_NAMES for n in table.column_names):
        return []
    import pyarrow as pa

    plain = [n for n in names if not pa.types.is_nested(table.column(n).type)]
    found = [n for n in plain if {str(v).lower() for v in _strings(table, n, file)} <= _ZEROS | _ONES]
    return found if len(found) > 1 else []


def _of_indicators(table: pa.Table, names: Sequence[str], paths: Sequence[str | None], file: Path) -> list[str | None]:
    """Return the class of each row: the column that holds 1.

    Raises:
        DataError: A row has several ones, or none.
    """
    columns = [[str(v).lower() in _ONES for v in _strings(table, n, file)] for n in names]
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


def _escaped(file: Path) -> bool:
    """Whether cells may bear a spreadsheet's apostrophe: Parquet's are what they are."""
    return file.suffix.lower() not in (".parquet", ".pq")


def _strings(table: pa.Table, name: str, file: Path, *, own: bool = False) -> list[str | None]:
    """A column as text, a spreadsheet's apostrophe and (but in `own` tables) spaces at the ends taken off, empty as None."""
    import pyarrow as pa

    try:
        values = table.column(name).cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"the column {name!r} of {file} cannot be read as text ({table.column(name).type})") from error
    cells = [v if own or v is None else v.strip() for v in values]
    return [(v and (csv_unescape(v) if _escaped(file) else v)) or None for v in cells]


def _splits(table: pa.Table, file: Path) -> tuple[list[str | None], list[str]]:
    """The given split of every row, and a note on values that are none."""
    name = next((n for n in table.column_names if n.lower() == "split"), None)
    if name is None:
        return [None] * table.num_rows, []
    values = _strings(table, name, file)
    odd = sorted({v for v in values if v is not None and split_name(v) is None})
    notes = [
        f"the column {name!r} of {file.name} contains {v!r}, which is not a split; these rows are assigned a split at random"
        for v in odd[:3]
    ]
    return [split_name(v) for v in values], notes


def _keys(table: Path, paths: Sequence[str | None]) -> tuple[Path, list[str | None], list[str]]:
    """Return the root, every path relative to it, and notes: the root is the table's folder, or one that holds all images."""
    folder, there = table.absolute().parent, Files()
    files: list[str | None] = []
    completed, several = [], []
    for path in paths:
        if path is None:
            files.append(None)
            continue
        file = os.path.normpath(os.path.join(folder, path))
        if "\\" in path and os.sep != "\\" and not os.path.exists(file):
            file = os.path.normpath(os.path.join(folder, path.replace("\\", "/")))
        found = there.same_path_in_any_unicode_form(file)
        if found is None:
            images = there.images_named(file)
            if len(images) == 1:
                found = images[0]
                completed.append((path, images))
            elif images:
                several.append((path, images))
        files.append(found or file)
    root = common_root(folder, [f for f in files if f is not None])
    inside = os.path.join(root, "")
    keys = [
        None if f is None else f[len(inside) :].replace(os.sep, "/") if f.startswith(inside) else relative_posix(Path(f), root)
        for f in files
    ]
    return (
        root,
        keys,
        [
            *_extension_notes(table, completed, "used the only image of that name"),
            *_extension_notes(table, several, "several images have that name: add the extension"),
        ],
    )


def _extension_notes(table: Path, names: Sequence[tuple[str, list[str]]], what: str) -> list[str]:
    """Return a note on names without extension, and the images that have such a name."""
    if not names:
        return []
    path, images = names[0]
    many = "1 file" if len(names) == 1 else f"{len(names):,} files"
    shown = " and ".join(map(os.path.basename, images))
    return [f"{table.name} names {many} without extension; {what}, such as {shown} for {path}"]


def common_root(folder: Path, files: Sequence[str]) -> Path:
    """`folder` where all files lie in it, else the deepest folder that holds all of those that exist."""
    inside = os.path.join(folder, "")
    if all(f.startswith(inside) for f in files):
        return folder
    real = [os.path.dirname(f) for f in files if os.path.exists(f)]
    try:
        return Path(os.path.commonpath(real)) if real else folder
    except ValueError as error:
        raise DataError("the table names images on several drives", "copy the images to one drive") from error


def _entries(
    keys: Sequence[str | None], labels: Sequence[str | None], splits: Sequence[str | None], file: Path
) -> tuple[list[Entry], list[str]]:
    """One entry per path; rows that say the same twice count once, and rows that contradict each other are a problem."""
    entries: dict[str, Entry] = {}
    notes, twice, nameless = [], 0, 0
    for row, (key, label, split) in enumerate(zip(keys, labels, splits, strict=True)):
        if key is None:
            nameless += 1
            continue
        label = None if label is None else unicodedata.normalize("NFC", label)
        before = entries.get(key)
        if before is not None:
            twice += 1
            if before.problem is None and (before.label, before.split) != (label, split):
                values = f"{before.label!r} and {label!r}" if before.label != label else f"{before.split} and {split}"
                entries[key] = Entry(key, before.label, None, f"conflict: the table says {values}", before.row)
            continue
        problem = None if label is not None else "no class: the label is empty in the table"
        entries[key] = Entry(key, label, split, problem, row)
    if twice:
        notes.append(f"{twice:,} rows of {file.name} repeat an image of an earlier row; each image counts once")
    if nameless:
        notes.append(f"{nameless:,} rows of {file.name} have no path and were left out")
    return list(entries.values()), notes


# ------------------------------------------------------------------------------------------------------ our own tables


def check_name(file: Path) -> None:
    """Refuse a name under which no catalog can be written.

    Raises:
        RequestError: Its suffix is neither of CSV nor of Parquet.
    """
    if file.suffix.lower() not in (".csv", ".parquet", ".pq"):
        raise RequestError(f"cannot write a catalog as {file.name!r}", "use a name that ends with .csv or .parquet")


def save(catalog: Catalog, file: Path) -> None:
    """Write a catalog as CSV, or Parquet by its suffix. Paths become relative to the table's own folder.

    In CSV no cell is a formula for a spreadsheet. Written whole or not at all.

    Raises:
        RequestError: Another suffix.
    """
    file = Path(file)
    check_name(file)
    suffix, folder = file.suffix.lower(), file.absolute().parent
    prefix = relative_posix(catalog.root, folder)
    paths = [p if prefix == "." else _joined(prefix, p) for p in catalog.paths]
    table = catalog.with_column("path", paths).table
    with store.atomic_file(file) as stream:
        if suffix != ".csv":
            import pyarrow.parquet

            pyarrow.parquet.write_table(table, stream)
            return
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        text.write(",".join(_cell(n) for n in table.column_names) + "\n")
        for batch in table.to_batches(max_chunksize=10_000):
            columns = [[_cell(v) for v in column.to_pylist()] for column in batch.columns]
            text.writelines(",".join(cells) + "\n" for cells in zip(*columns, strict=True))
        text.detach()


def _joined(prefix: str, path: str) -> str:
    """A path below a folder that is itself relative, without `a/../b`."""
    return os.path.normpath(f"{prefix}/{path}").replace(os.sep, "/") if path.startswith("../") else f"{prefix}/{path}"


def _cell(value: Any) -> str:
    """A value as a cell, quoted where it must be (Python's csv leaves a lone return bare); numbers may begin with a minus."""
    text = "" if value is None else str(value)
    text = text if _NUMBER.fullmatch(text) else csv_escape(text)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def load(file: Path, root: Path | None = None) -> Catalog:
    """Read a catalog that `save` wrote. No image is opened.

    Args:
        file: CSV or Parquet.
        root: The folder that `path` shall be relative to; None takes the table's folder, or the images' common one where
            they lie elsewhere.

    Raises:
        RequestError: The file is missing.
        DataError: It is no catalog of ours: a column is missing, or holds something else.
    """
    import pyarrow as pa

    file = Path(file)
    table, _ = read_table(file)
    missing = [n for n in ("path", "content", "label") if n not in table.column_names]
    if missing:
        raise DataError(
            f"{file} is not a catalog: it has no column {missing[0]!r}",
            f"create a catalog from it with `sightline scan {file}`",
        )
    paths = _strings(table, "path", file, own=True)
    if None in paths or len(set(paths)) < len(paths):
        raise DataError(f"{file} is not a catalog: a path is empty or repeated", "create a catalog with `sightline scan`")
    folder = file.absolute().parent
    files = [os.path.normpath(os.path.join(folder, p)) for p in paths if p is not None]
    base = common_root(folder, files) if root is None else Path(os.path.abspath(root))
    columns: dict[str, Any] = {"path": pa.array([relative_posix(Path(f), base) for f in files], pa.string())}
    for name, kind in CATALOG_COLUMNS.items():
        if name != "path":
            columns[name] = _typed(table, name, pa.type_for_alias(kind), file)
    extras = [n for n in table.column_names if n not in CATALOG_COLUMNS]
    if _escaped(file):
        columns |= {csv_unescape(n): pa.array(_strings(table, n, file, own=True), pa.string()) for n in extras}
    else:
        columns |= {n: table.column(n) for n in extras}
    ordered = pa.table(columns).take(pa.array(sorted(range(len(files)), key=lambda i: columns["path"][i].as_py())))
    return Catalog(ordered, base)


def load_beside(file: Path, root: str | None, paths: Iterable[str]) -> Catalog | None:
    """The table of a run, with the root under which it knows the paths that were written down beside it.

    Args:
        file: As of `load`.
        root: The root that the run had; where its folder and the images have moved together, that is another one now.
        paths: Of the run's images.

    Returns:
        None where the table cannot be read or does not know the paths.
    """
    asked = set(paths)
    for base in (root, None):
        try:
            found = load(file, None if base is None else Path(base))
        except (SightlineError, OSError):
            return None
        if asked <= set(found.paths):
            return found
    return None


def _typed(table: pa.Table, name: str, kind: Any, file: Path) -> Any:
    """A catalog's column with its type; null where it is absent."""
    import pyarrow as pa

    if name not in table.column_names:
        return pa.nulls(table.num_rows, kind)
    if kind == pa.string():
        values: list[str | None] = _strings(table, name, file, own=True)
        return pa.array([v or "" for v in values] if name == "content" else values, kind)
    try:
        return table.column(name).cast(kind)
    except pa.ArrowException as error:
        raise DataError(f"the column {name!r} of {file} contains values that are not numbers") from error
