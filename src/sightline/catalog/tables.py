"""Tables of images: a user's CSV or Parquet with a path and a label column, and Sightline's own catalogs, read and written."""

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

from sightline import store
from sightline.catalog.layout import Entry, matched, pattern, split_name
from sightline.catalog.walking import writable
from sightline.errors import DataError, RequestError, SightlineError, closest
from sightline.files import is_file, open_regular
from sightline.inputs import read_text, separator_of
from sightline.plain import csv_plain, csv_safe, relative_posix
from sightline.records import CATALOG_COLUMNS, Catalog

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
        hint = "name a folder of photographs, or a .csv or .parquet table with a line or row per image"
        raise DataError(f"{file} is not a table that can be read ({why})", hint) from error
    if table.num_rows == 0:
        raise DataError(f"{file} has no rows", "its first line names the columns, every further line is one image")
    return table, notes


def _read_csv(file: Path) -> tuple[pa.Table, list[str]]:
    """A CSV file by pyarrow, with what `sniff` found."""
    import pyarrow as pa
    import pyarrow.csv

    text, encoding = read_text(file)
    separator = separator_of(text)
    lines = text.splitlines()
    names = next(csv.reader(lines[:1], delimiter=separator), []) if lines else []
    names = [n.strip() for n in names]
    double = next((n for n in names if names.count(n) > 1 and n), None)
    if double is not None:
        raise DataError(f"{file} has two columns named {double!r}", "give each column a name of its own")
    skipped: list[str] = []

    def odd(row: Any) -> str:
        skipped.append(f"{row.text[:60]!r}" if row.text else "one")
        return "skip"

    table = pa.csv.read_csv(
        io.BytesIO(text.encode("utf-8")),
        pa.csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
        pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=odd),
        pa.csv.ConvertOptions(column_types={n: pa.string() for n in names}, strings_can_be_null=True, null_values=[""]),
    )
    notes = [] if encoding == "utf-8" else [f"{file.name} is not UTF-8; it was read as {encoding}"]
    if skipped:
        notes.append(
            f"{len(skipped)} lines of {file.name} have not {len(names)} cells and are left out: {'; '.join(skipped[:3])}"
        )
    return table, notes


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
        DataError: No column looks like a path or a label.
    """
    table, notes = read_table(file)
    rule = None if label_from is None else pattern(label_from, "--label-from")
    path_name = _column(table, path_column, _PATH_NAMES, "path", file)
    label_name = None if rule and label_column is None else _column(table, label_column, _LABEL_NAMES, "label", file)
    paths = _strings(table, path_name, file)
    labels = [None] * len(paths) if label_name is None else _strings(table, label_name, file)
    if rule is not None:
        labels = [label or (matched(rule, p.replace("\\", "/")) if p else None) for p, label in zip(paths, labels, strict=True)]
    splits, split_notes = _splits(table, file)
    names = [(None, None) if p is None else writable(p) for p in paths]
    root, keys = _keys(file.absolute().parent, [shown for shown, _ in names])
    entries, row_notes = _entries(keys, labels, splits, file)
    entries = [replace(e, problem=names[e.row][1] or e.problem) for e in entries]
    ours = {path_name, label_name, *CATALOG_COLUMNS} - {"group"}
    keep = [n for n in table.column_names if n not in ours]
    return root, entries, table.select(keep), [*notes, *split_notes, *row_notes]


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


def _escaped(file: Path) -> bool:
    """Whether cells may bear a spreadsheet's apostrophe: Parquet's are what they are."""
    return file.suffix.lower() not in (".parquet", ".pq")


def _strings(table: pa.Table, name: str, file: Path, *, own: bool = False) -> list[str | None]:
    """A column as text, a spreadsheet's apostrophe and (but in `own` tables) spaces at the ends taken off, empty as None."""
    import pyarrow as pa

    try:
        values = table.column(name).cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"the column {name!r} holds no text ({table.column(name).type})") from error
    cells = [v if own or v is None else v.strip() for v in values]
    return [(v and (csv_plain(v) if _escaped(file) else v)) or None for v in cells]


def _splits(table: pa.Table, file: Path) -> tuple[list[str | None], list[str]]:
    """The given split of every row, and a note on values that are none."""
    name = next((n for n in table.column_names if n.lower() == "split"), None)
    if name is None:
        return [None] * table.num_rows, []
    values = _strings(table, name, file)
    odd = sorted({v for v in values if v is not None and split_name(v) is None})
    notes = [f"the column {name!r} of {file.name} holds {v!r}, which is no split; those rows are split anew" for v in odd[:3]]
    return [split_name(v) for v in values], notes


def _keys(folder: Path, paths: Sequence[str | None]) -> tuple[Path, list[str | None]]:
    """The root, and every path relative to it: the table's folder, or the images' common one where some lie outside."""
    files: list[str | None] = []
    for path in paths:
        if path is None:
            files.append(None)
            continue
        file = os.path.normpath(os.path.join(folder, path))
        if "\\" in path and os.sep != "\\" and not os.path.exists(file):
            file = os.path.normpath(os.path.join(folder, path.replace("\\", "/")))
        files.append(file)
    root = common_root(folder, [f for f in files if f is not None])
    inside = os.path.join(root, "")
    return root, [
        None if f is None else f[len(inside) :].replace(os.sep, "/") if f.startswith(inside) else relative_posix(Path(f), root)
        for f in files
    ]


def common_root(folder: Path, files: Sequence[str]) -> Path:
    """`folder` where all files lie in it, else the deepest folder that holds all of those that exist."""
    inside = os.path.join(folder, "")
    if all(f.startswith(inside) for f in files):
        return folder
    real = [os.path.dirname(f) for f in files if os.path.exists(f)]
    try:
        return Path(os.path.commonpath(real)) if real else folder
    except ValueError as error:
        raise DataError("the table names images on several drives", "bring them to one drive") from error


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
                said = f"{before.label!r} and {label!r}" if before.label != label else f"{before.split} and {split}"
                entries[key] = Entry(key, before.label, None, f"conflict: the table says {said}", before.row)
            continue
        problem = None if label is not None else "no class: the table gives none"
        entries[key] = Entry(key, label, split, problem, row)
    if twice:
        notes.append(f"{twice:,} rows of {file.name} name an image that an earlier row names; each image counts once")
    if nameless:
        notes.append(f"{nameless:,} rows of {file.name} have no path and are left out")
    return list(entries.values()), notes


# ------------------------------------------------------------------------------------------------------ our own tables


def check_name(file: Path) -> None:
    """Refuse a name under which no catalog can be written.

    Raises:
        RequestError: Its suffix is neither of CSV nor of Parquet.
    """
    if file.suffix.lower() not in (".csv", ".parquet", ".pq"):
        raise RequestError(f"a catalog cannot be written as {file.name!r}", "end the name with .csv or .parquet")


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
    text = text if _NUMBER.fullmatch(text) else csv_safe(text)
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
            f"{file} is no catalog: it has no column {missing[0]!r}", "make one with `sightline scan`, which reads other tables"
        )
    paths = _strings(table, "path", file, own=True)
    if None in paths or len(set(paths)) < len(paths):
        raise DataError(f"{file} is no catalog: a path is empty or stands there twice", "make one with `sightline scan`")
    folder = file.absolute().parent
    files = [os.path.normpath(os.path.join(folder, p)) for p in paths if p is not None]
    base = common_root(folder, files) if root is None else Path(os.path.abspath(root))
    columns: dict[str, Any] = {"path": pa.array([relative_posix(Path(f), base) for f in files], pa.string())}
    for name, kind in CATALOG_COLUMNS.items():
        if name != "path":
            columns[name] = _typed(table, name, pa.type_for_alias(kind), file)
    extras = [n for n in table.column_names if n not in CATALOG_COLUMNS]
    if _escaped(file):
        columns |= {csv_plain(n): pa.array(_strings(table, n, file, own=True), pa.string()) for n in extras}
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
        raise DataError(f"the column {name!r} of {file} holds something else than numbers") from error
