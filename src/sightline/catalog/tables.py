"""Image tables: read user-defined CSV or Parquet tables of paths and labels; read and write catalogs."""

from __future__ import annotations

import csv
import functools
import io
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline import containers, pixels, remote, store
from sightline.catalog import columns
from sightline.catalog.layout import Entry, matched, pattern, split_name
from sightline.catalog.paths import ImagePlaces
from sightline.catalog.walking import writable
from sightline.containers.array_sets import order_of
from sightline.errors import DataError, RequestError, SightlineError
from sightline.files import is_file, open_regular
from sightline.inputs import read_text, separator_of
from sightline.records import CATALOG_COLUMNS, Catalog
from sightline.schema import csv_escape, csv_unescape, relative_posix

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
_KNOWN = frozenset((*columns.PATH_NAMES, *columns.LABEL_NAMES, "split", "group"))
_FIRST_BYTES = 1 << 20
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_QUOTED = re.compile(r'[",\r\n]')


# ------------------------------------------------------------------------------------------------------------- reading


def read_table(file: Path) -> tuple[pa.Table, list[str]]:
    """Read a CSV file (separator and encoding are detected) or a Parquet file. CSV columns are text, with null for empty cells.

    Returns:
        The table, and notes on irregularities.

    Raises:
        RequestError: If the file is missing.
        DataError: If it is not such a table, or has no rows.
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
    """Read a CSV file with pyarrow, with the detected separator and encoding."""
    import pyarrow as pa
    import pyarrow.csv

    text, encoding = read_text(file)
    declared = _DECLARED.match(text)  # Excel's first line sep=;
    text = text[declared.end() :] if declared else text
    separator = declared[1] if declared else separator_of(text, _KNOWN)
    lines = text.splitlines()
    names = [n.strip() for n in next(csv.reader(lines[:1], delimiter=separator), [])] if lines else []
    if len(names) == 1 and _SPACED.match(lines[0]):
        separator, names = " ", lines[0].split()
    notes = [] if encoding == "utf-8" else [f"{file.name} is not UTF-8; read as {encoding}"]
    headed = not any(os.path.splitext(n)[1].lower() in pixels.KNOWN_SUFFIXES for n in names)
    if not headed:
        names = _invented(names)
        notes.append(f"{file.name} has no line of column names; its columns are read as {', '.join(names)}")
    empty = iter(range(1, len(names) + 1))
    names = [n or f"column_{next(empty)}" for n in names]
    double = next((n for n in names if names.count(n) > 1 and n), None)
    if double is not None:
        raise DataError(f"{file} has two columns named {double!r}", "give each column a different name")
    skipped: list[str] = []

    def odd(row: Any) -> str:
        skipped.append(row.text or "")
        return "skip"

    table = pa.csv.read_csv(
        io.BytesIO(text.encode("utf-8")),
        pa.csv.ReadOptions(column_names=names, skip_rows=int(headed), use_threads=False),
        pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=odd),
        pa.csv.ConvertOptions(column_types={n: pa.string() for n in names}, strings_can_be_null=True, null_values=[""]),
    )
    if skipped:
        shown = "; ".join(repr(row[:60]) for row in skipped[:3])
        notes.append(f"{len(skipped)} lines of {file.name} were left out: they do not have {len(names)} cells: {shown}")
    return table, notes + _swallowed(file, table, lines, skipped, separator)


_DECLARED = re.compile(r'"?sep=(.)"?\r?\n')
_SPACED = re.compile(rf"\S+({'|'.join(re.escape(s) for s in sorted(pixels.KNOWN_SUFFIXES))})[ \t]+\S+$", re.IGNORECASE)


def _invented(cells: Sequence[str]) -> list[str]:
    """Return column names for a table whose first line is an image: path, and label if there is one other column."""
    path = next(i for i, c in enumerate(cells) if os.path.splitext(c)[1].lower() in pixels.KNOWN_SUFFIXES)
    other = "label" if len(cells) == 2 else ""
    return ["path" if i == path else other or f"column_{i + 1}" for i in range(len(cells))]


def _swallowed(file: Path, table: pa.Table, lines: Sequence[str], skipped: Sequence[str], separator: str) -> list[str]:
    """Return a note on lines that became part of one cell because a quotation mark before them is not closed.

    A cell may contain several lines of text, so only lines that look like rows are counted: lines with one cell per column, one
    of which is an image's name unless the number of quotation marks in the table is odd.
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

    swallowing = [(cell, n) for cell in cells if (n := sum(map(is_row, cell.splitlines()[1:])))]
    if not swallowing:
        return []
    start = swallowing[0][0].splitlines()[0]
    number = next((i for i, line in enumerate(lines, 1) if '"' in line and start.strip('"') in line), 1)
    total = sum(n for _, n in swallowing)
    many = "1 line was" if total == 1 else f"{total:,} lines were"
    return [
        f"{many} lost in {file.name}: a quotation mark in line {number} ({lines[number - 1][:60]!r}) is not closed, so "
        "the lines after it became part of one cell; close it, or remove it"
    ]


# -------------------------------------------------------------------------------------------------- user-defined tables


def of_table(
    file: Path, path_column: str | None, label_column: str | None, label_from: str | None
) -> tuple[Path, list[Entry], pa.Table, list[str]]:
    """Return class and split of every image in a user-defined table.

    Paths are absolute or relative to the table's folder. Repeated rows are counted once; an image with two labels has a
    problem. The class may come from the file's name instead of a column.

    Args:
        file: CSV or Parquet file.
        path_column, label_column: Names of the columns; None detects them.
        label_from: Regular expression for file names whose first group is the class.

    Returns:
        Root folder; one entry per image; table of the other columns, indexed by `Entry.row`; notes.

    Raises:
        RequestError: If the file or a named column is missing.
        DataError: If no path or label column is detected, or the labels are one-hot and a row has not exactly one 1.
    """
    table, notes = read_table(file)
    rule = None if label_from is None else pattern(label_from, "--label-from")
    cells = functools.cache(lambda name: _strings(table, name, file))
    places = ImagePlaces(file)
    if path_column is not None:
        path_name = columns.requested(table, path_column, file)
    else:
        path_name, path_notes = columns.path_column(table, cells, places.has, file)
        notes += path_notes
    paths = cells(path_name)
    label_name, labels, label_notes = _labels(table, path_name, label_column, rule, file)
    notes += label_notes
    splits, split_notes = _splits(table, file)
    names = [(None, None) if p is None else writable(p) for p in paths]
    root, keys, path_notes = _keys(file, [shown for shown, _ in names], places)
    entries, row_notes = _entries(keys, labels, splits, file)
    entries = [replace(e, problem=names[e.row][1] or e.problem) for e in entries]
    ours = {path_name, label_name, *CATALOG_COLUMNS} - {"group"}
    keep = [n for n in table.column_names if n not in ours]
    return root, entries, table.select(keep), [*notes, *split_notes, *path_notes, *row_notes]


def _labels(
    table: pa.Table, path_name: str, label_column: str | None, rule: re.Pattern[str] | None, file: Path
) -> tuple[str | None, list[str | None], list[str]]:
    """Return the column of labels (None without one), the label of each row, and notes."""
    cells = functools.cache(lambda name: _strings(table, name, file))
    paths = cells(path_name)
    one_hot = [] if rule or label_column is not None else columns.indicators(table, path_name, cells)
    if one_hot:
        note = f"{file.name} has a column of 0 and 1 for each class (one-hot): the column with 1 is the class"
        return None, columns.of_indicators(one_hot, cells, paths, file), [note]
    if rule is not None and label_column is None:
        return None, [matched(rule, p.replace("\\", "/")) if p else None for p in paths], []
    if label_column is not None:
        name, notes = columns.requested(table, label_column, file), list[str]()
    else:
        name, notes = columns.label_column(table, path_name, cells, file)
    columns.check_single(table, name, file)
    labels = cells(name)
    if rule is not None:
        labels = [label or (matched(rule, p.replace("\\", "/")) if p else None) for p, label in zip(paths, labels, strict=True)]
    raw = [None if v is None else v.strip("'") for v in _strings(table, name, file, keep_spaces=True)]
    return name, labels, notes + _joined_labels(raw, labels, file)


def files_of(table: pa.Table, file: Path, path_column: str | None) -> tuple[str, list[str | None]]:
    """Return the name of the column of paths, and the file of each row: absolute, or relative to the working folder as the
    table is; None for an empty cell.

    Raises:
        RequestError: If the named column is missing.
        DataError: If no column of paths is detected.
    """
    places = ImagePlaces(file)
    if path_column is not None:
        name = columns.requested(table, path_column, file)
    else:
        name, _ = columns.path_column(table, functools.cache(lambda n: _strings(table, n, file)), places.has, file)
    cells = _strings(table, name, file)
    root, keys, notes = _keys(file, cells, places)
    for note in notes:
        store.log.warning("%s", note)
    folder, files = file.absolute().parent, list[str | None]()
    for cell, key in zip(cells, keys, strict=True):
        if cell is None or key is None:
            files.append(None)
        elif os.path.isabs(cell):
            files.append(os.path.normpath(root / key))
        else:
            files.append(os.path.normpath(file.parent / relative_posix(root / key, folder)))
    return name, files


def cells_of(table: pa.Table, name: str, file: Path) -> list[str | None]:
    """Return a column as text, None for empty cells."""
    return _strings(table, name, file, keep_spaces=True)


def _joined_labels(raw: Sequence[str | None], labels: Sequence[str | None], file: Path) -> list[str]:
    """Return a note on labels that are read as one class: they differ only by Unicode form or by spaces at their ends."""
    forms: dict[str, set[str]] = defaultdict(set)
    for written, label in zip(raw, labels, strict=True):
        if written is not None and label is not None:
            forms[unicodedata.normalize("NFC", label)].add(written)
    joined = [label for label, written in sorted(forms.items()) if len(written) > 1]
    if not joined:
        return []
    shown = ", ".join(map(repr, joined[:5]))
    return [f"{file.name}: labels that differ only by spaces at their ends or Unicode form are read as one class: {shown}"]


def _escaped(file: Path) -> bool:
    """Return whether cells may begin with a spreadsheet's apostrophe, as in text tables but not in Parquet."""
    return file.suffix.lower() not in (".parquet", ".pq")


def _strings(table: pa.Table, name: str, file: Path, *, keep_spaces: bool = False) -> list[str | None]:
    """Return a column as text without a spreadsheet's apostrophe, with None for empty cells.

    Args:
        keep_spaces: Whether to keep spaces at the ends of cells, as in catalogs that Sightline wrote.

    Raises:
        DataError: If the column cannot be converted to text.
    """
    import pyarrow as pa

    try:
        values = table.column(name).cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"the column {name!r} of {file} cannot be read as text ({table.column(name).type})") from error
    cells = [v if keep_spaces or v is None else v.strip() for v in values]
    return [(v and (csv_unescape(v) if _escaped(file) else v)) or None for v in cells]


def _splits(table: pa.Table, file: Path) -> tuple[list[str | None], list[str]]:
    """Return the given split of every row, and notes on values that are not splits."""
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


def _keys(table: Path, paths: Sequence[str | None], places: ImagePlaces) -> tuple[Path, list[str | None], list[str]]:
    """Return the root, every path relative to it, and notes. The root is the table's folder, or contains all images."""
    folder = table.absolute().parent
    files: list[str | None] = []
    completed, several = [], []
    inner, notes = places.subfolder(paths)
    for path in paths:
        if path is None:
            files.append(None)
            continue
        file = places.absolute(path, inner)
        match = places.files.same_path_in_any_unicode_form(file)
        if match is None:
            images = places.files.images_named(file)
            if len(images) == 1:
                match = images[0]
                completed.append((path, images))
            elif images:
                several.append((path, images))
        files.append(match or file)
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
            *notes,
            *_extension_notes(table, completed, "used the only image of that name"),
            *_extension_notes(table, several, "several images have that name: add the extension"),
        ],
    )


def _extension_notes(table: Path, names: Sequence[tuple[str, list[str]]], what: str) -> list[str]:
    """Return a note on paths without extension, with the images of the first one as an example."""
    if not names:
        return []
    path, images = names[0]
    many = "1 file" if len(names) == 1 else f"{len(names):,} files"
    shown = " and ".join(map(os.path.basename, images))
    return [f"{table.name} names {many} without extension; {what}, such as {shown} for {path}"]


def common_root(folder: Path, files: Sequence[str]) -> Path:
    """Return `folder` if it contains all files, else the deepest folder that contains all existing files.

    Raises:
        DataError: If the files are on several drives.
    """
    inside = os.path.join(folder, "")
    if all(f.startswith(inside) for f in files):
        return folder
    real = [os.path.dirname(f) for f in files if remote.is_uri(f) or os.path.exists(f)]
    try:
        return Path(os.path.commonpath(real)) if real else folder
    except ValueError as error:
        raise DataError("the table names images on several drives", "copy the images to one drive") from error


def _entries(
    keys: Sequence[str | None], labels: Sequence[str | None], splits: Sequence[str | None], file: Path
) -> tuple[list[Entry], list[str]]:
    """Return one entry per path, and notes; repeated rows are counted once, and contradictory rows are a problem."""
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


# ------------------------------------------------------------------------------------------------------------- catalogs


def check_name(file: Path) -> None:
    """Check the file name of a catalog.

    Raises:
        RequestError: If its suffix is not that of CSV or Parquet.
    """
    if file.suffix.lower() not in (".csv", ".parquet", ".pq"):
        raise RequestError(f"cannot write a catalog as {file.name!r}", "use a name that ends with .csv or .parquet")


def save(catalog: Catalog, file: Path) -> None:
    """Write a catalog atomically as CSV or Parquet, by its suffix. Paths are written relative to the table's folder.

    Cells of a CSV are escaped so that spreadsheets do not run them as formulas.

    Raises:
        RequestError: If the suffix is not that of CSV or Parquet.
    """
    file = Path(file)
    check_name(file)
    suffix, folder = file.suffix.lower(), file.absolute().parent
    prefix = remote.uri_of(catalog.root) if remote.is_uri(catalog.root) else relative_posix(catalog.root, folder)
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
    """Join a relative folder and a path, without `a/../b` in the result."""
    return os.path.normpath(f"{prefix}/{path}").replace(os.sep, "/") if path.startswith("../") else f"{prefix}/{path}"


def _cell(value: Any) -> str:
    """Return a value as a CSV cell, escaped and quoted if needed (Python's csv module leaves a lone return unquoted)."""
    text = "" if value is None else str(value)
    text = text if _NUMBER.fullmatch(text) else csv_escape(text)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def is_catalog(file: Path) -> bool:
    """Return whether a path is that of a table written by `save`, by its columns.

    Raises:
        DataError: If it is no Parquet file, in spite of its name.
    """
    if file.suffix.lower() not in SUFFIXES or file.is_dir() or containers.holds_images(file):
        return False
    if not os.path.lexists(file) and containers.is_file(file):
        return False  # in an archive
    if not is_file(file):
        return False
    if file.suffix.lower() in (".parquet", ".pq"):
        return {"path", "content", "label"} <= set(read_table(file)[0].column_names)
    with open_regular(file) as stream:
        first = (stream.read(_FIRST_BYTES) or b"").splitlines()[:1]
    return bool(first) and {b"path", b"content", b"label"} <= set(first[0].removeprefix(b"\xef\xbb\xbf").split(b","))


def load(file: Path, root: Path | None = None) -> Catalog:
    """Read a catalog written by `save`, without opening the images.

    Args:
        file: CSV or Parquet file.
        root: Folder that `path` is relative to in the result; None uses the table's folder, or the images' common folder
            if they are elsewhere.

    Raises:
        RequestError: If the file is missing.
        DataError: If it is not a catalog: a column is missing, or has values of another type.
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
    paths = _strings(table, "path", file, keep_spaces=True)
    if None in paths or len(set(paths)) < len(paths):
        raise DataError(f"{file} is not a catalog: a path is empty or repeated", "create a catalog with `sightline scan`")
    folder = file.absolute().parent
    files = [os.path.normpath(p if remote.is_uri(p) else os.path.join(folder, p)) for p in paths if p is not None]
    base = common_root(folder, files) if root is None else root if remote.is_uri(root) else Path(os.path.abspath(root))
    columns: dict[str, Any] = {"path": pa.array([relative_posix(Path(f), base) for f in files], pa.string())}
    for name, kind in CATALOG_COLUMNS.items():
        if name != "path":
            columns[name] = _typed(table, name, pa.type_for_alias(kind), file)
    extras = [n for n in table.column_names if n not in CATALOG_COLUMNS]
    if _escaped(file):
        columns |= {csv_unescape(n): pa.array(_strings(table, n, file, keep_spaces=True), pa.string()) for n in extras}
    else:
        columns |= {n: table.column(n) for n in extras}
    ordered = pa.table(columns).take(pa.array(sorted(range(len(files)), key=lambda i: order_of(columns["path"][i].as_py()))))
    return Catalog(ordered, base)


def load_beside(file: Path, root: str | None, paths: Iterable[str]) -> Catalog | None:
    """Load the catalog of a run, with the root for which it contains the run's paths.

    Args:
        file: As in `load`.
        root: Root at the time of the run; another root is tried in case the run folder and the images were moved together.
        paths: Paths of the run's images.

    Returns:
        The catalog, None if it cannot be read or does not contain all paths.
    """
    required = set(paths)
    for base in (root, None):
        try:
            catalog = load(file, None if base is None else Path(base))
        except (SightlineError, OSError):
            return None
        if required <= set(catalog.paths):
            return catalog
    return None


def _typed(table: pa.Table, name: str, kind: Any, file: Path) -> Any:
    """Return a catalog's column with its type; nulls if the column is absent.

    Raises:
        DataError: If a column of numbers contains other values.
    """
    import pyarrow as pa

    if name not in table.column_names:
        return pa.nulls(table.num_rows, kind)
    if kind == pa.string():
        values: list[str | None] = _strings(table, name, file, keep_spaces=True)
        return pa.array([v or "" for v in values] if name == "content" else values, kind)
    try:
        return table.column(name).cast(kind)
    except pa.ArrowException as error:
        raise DataError(f"the column {name!r} of {file} contains values that are not numbers") from error
