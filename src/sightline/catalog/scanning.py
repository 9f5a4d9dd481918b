"""Scanning: build a catalog of images with class, size and problem from a folder, a table or a list."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.catalog import layout, tables
from sightline.catalog.layout import Entry
from sightline.catalog.notes import of_class_names
from sightline.catalog.paths import Files
from sightline.catalog.reading import Reading, read_files
from sightline.catalog.walking import walk, writable
from sightline.errors import DataError, RequestError
from sightline.records import CATALOG_COLUMNS, Catalog, Progress, silent
from sightline.schema import relative_posix

if TYPE_CHECKING:
    import pyarrow as pa

Photos = str | Path | Sequence[str | Path] | Sequence[tuple[str | Path, str]]


def scan(
    photos: Photos,
    *,
    classes: Mapping[str, str] | Sequence[str] | None = None,
    limit: int | None = None,
    label_from: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    allow_truncated: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> Catalog:
    """List images with their class, hash, size and problems. Each file is read once; no pixels are decoded.

    Args:
        photos: A folder of class folders; `train`, `val` and `test` folders of class folders; a folder of images with
            `label_from`; a CSV or Parquet file with a column of paths and a column of labels; a list of paths, or of
            (path, label).
        classes: Classes to use, as a list or as new name → name in the data; None uses all.
        limit: Maximum number of usable images per class, selected by content hash, so that a later scan selects the same ones.
        label_from: Regular expression for file names whose first group is the class.
        path_column, label_column: Columns of the table, if they do not have a usual name.
        allow_truncated: Whether to use a JPEG without its end.
        seed: Random seed for the selection with `limit`.
        progress: Progress callback.

    Returns:
        Catalog with one row per file, sorted by path. Unusable files are included, with a `problem`.

    Raises:
        RequestError: If the folder, table, column or class does not exist, or the pattern is invalid.
        DataError: If there are no images, or none has a class.
    """
    root, entries, extras, notes = _list(photos, label_from, path_column, label_column, progress)
    if classes:
        new_names = dict(classes) if isinstance(classes, Mapping) else {name: name for name in classes}
        entries, class_notes = layout.choose(entries, new_names)
        notes += class_notes
    entries = sorted(entries, key=lambda e: e.path)
    _check(entries, photos, label_from)
    readings = _read(root, entries, allow_truncated, progress)
    if limit is not None:
        entries, readings, limit_notes = _limited(entries, readings, limit, seed)
        notes += limit_notes
    notes += _class_notes(entries, readings)
    remedy = "give the folders one name" if extras is None and isinstance(photos, str | Path) else "use one name in the table"
    notes += of_class_names({e.label for e in entries if e.label is not None}, remedy)
    return Catalog(_table(entries, readings, extras), root, tuple(dict.fromkeys(notes)))


def _list(
    photos: Photos, label_from: str | None, path_column: str | None, label_column: str | None, progress: Progress
) -> tuple[Path, list[Entry], pa.Table | None, list[str]]:
    """Return (root, entries, user-defined columns, notes) for any supported form of `photos`."""
    if not isinstance(photos, str | Path):
        return _of_list(photos, label_from)
    source = Path(photos).expanduser()
    if source.suffix.lower() in tables.SUFFIXES and not source.is_dir():
        return tables.of_table(source, path_column, label_column, label_from)
    if path_column is not None or label_column is not None:
        raise RequestError(f"{photos} is not a table, so it has no columns", "omit --path-column and --label-column")
    root = Path(os.path.abspath(source))
    seen = walk(root, progress)
    entries, notes = layout.of_folder(seen, label_from)
    return root, entries, None, notes


def _of_list(photos: Sequence[Any], label_from: str | None) -> tuple[Path, list[Entry], None, list[str]]:
    """Return the entries of a list of paths or of (path, label). The root is the folder that contains all of them."""
    rule = None if label_from is None else layout.pattern(label_from, "label_from")
    if not len(photos):
        raise DataError("the list of images is empty", "pass paths, or pairs of path and label")
    pairs = [(Path(p[0]), str(p[1])) if isinstance(p, tuple | list) else (Path(p), None) for p in photos]
    names = [writable(str(p)) for p, _ in pairs]
    existing = Files()
    absolute = [os.path.normpath(Path(shown).expanduser().absolute()) for shown, _ in names]
    files = [Path(existing.same_path_in_any_unicode_form(f) or f) for f in absolute]
    root = tables.common_root(Path.cwd(), [str(f) for f in files])
    keys = [relative_posix(f, root) for f in files]
    labels = [
        label if label is not None else layout.matched(rule, key) if rule else (file.parent.name or None)
        for (_, label), key, file in zip(pairs, keys, files, strict=True)
    ]
    entries: dict[str, Entry] = {}
    for key, label in zip(keys, labels, strict=True):
        name = None if label is None else unicodedata.normalize("NFC", label)
        before = entries.get(key)
        if before is None:
            entries[key] = Entry(key, name, None, None if name is not None else "no class: its name does not match")
        elif before.label != name:
            entries[key] = replace(before, problem=f"conflict: the list says {before.label!r} and {name!r}")
    twice = len(keys) - len(entries)
    unwritable = {key: problem for key, (_, problem) in zip(keys, names, strict=True) if problem is not None}
    listed = [replace(e, problem=unwritable.get(e.path, e.problem)) for e in entries.values()]
    return root, listed, None, [f"{twice:,} repeated images in the list are counted once"] if twice else []


def _check(entries: Sequence[Entry], photos: Photos, label_from: str | None) -> None:
    """Check that there are images and that at least one has a class.

    Raises:
        DataError: If there are no images, or none has a class.
    """
    where = photos if isinstance(photos, str | Path) else "the list"
    if not entries:
        raise DataError(f"there are no images in {where}", "pass a folder with one folder per class, a table, or --label-from")
    if any(e.label is not None for e in entries):
        return
    if label_from is not None:
        first = entries[0].path
        raise DataError(f"--label-from {label_from!r} matches no file name, such as {first!r}", r"for cat.12.jpg: '^(\w+)\.'")
    hint = "put each class in its own folder, or pass --label-from REGEX, such as '^([a-z]+)' for cat.12.jpg"
    raise DataError(f"none of the {len(entries):,} files in {where} has a class: they are not in class folders", hint)


def _read(root: Path, entries: Sequence[Entry], allow_truncated: bool, progress: Progress) -> list[Reading]:
    """Read each entry's file, except entries that are known to be unreadable."""
    skip = ("name:", "link:", "not a file:", "unreadable:")
    rows = [i for i, e in enumerate(entries) if e.problem is None or not e.problem.startswith(skip)]
    files = [root.joinpath(*entries[i].path.split("/")) for i in rows]
    names = [entries[i].path.rpartition("/")[2] for i in rows]
    out = [Reading()] * len(entries)
    for i, reading in zip(rows, read_files(files, names, allow_truncated=allow_truncated, progress=progress), strict=True):
        out[i] = reading
    return out


def _problem(entry: Entry, reading: Reading) -> str | None:
    """Return the problem of a row: that of reading the file, else that of its location."""
    return reading.problem or entry.problem


def _limited(
    entries: Sequence[Entry], readings: Sequence[Reading], limit: int, seed: int
) -> tuple[list[Entry], list[Reading], list[str]]:
    """Keep at most `limit` usable rows per class, those with the lowest hash of seed and content, and all rows with a problem.

    Raises:
        RequestError: If `limit` is below 1.
    """
    if limit < 1:
        raise RequestError(f"a limit of {limit} images per class leaves no images", "set it to 1 or more")
    by_class: dict[str, list[tuple[bytes, str, int]]] = defaultdict(list)
    for row, (entry, reading) in enumerate(zip(entries, readings, strict=True)):
        if _problem(entry, reading) is None and entry.label is not None:
            draw = hashlib.sha256(f"limit {seed} {reading.content}".encode("ascii")).digest()
            by_class[entry.label].append((draw, entry.path, row))
    left = {row for draws in by_class.values() for _, _, row in sorted(draws)[limit:]}
    if not left:
        return list(entries), list(readings), []
    rows = [i for i in range(len(entries)) if i not in left]
    note = f"limit: {len(left):,} images were left out, so that no class has more than {limit:,} (selected by content hash)"
    return [entries[i] for i in rows], [readings[i] for i in rows], [note]


def _class_notes(entries: Sequence[Entry], readings: Sequence[Reading]) -> list[str]:
    """Return notes on classes with too few usable images."""
    usable: dict[str, int] = {}
    for entry, reading in zip(entries, readings, strict=True):
        if entry.label is not None:
            usable[entry.label] = usable.get(entry.label, 0) + (_problem(entry, reading) is None)
    notes = [f"class {c!r} has no usable image" for c, n in sorted(usable.items()) if n == 0]
    single = [repr(c) for c, n in sorted(usable.items()) if n == 1]
    if single:
        more = f" and {len(single) - 5:,} more" if len(single) > 5 else ""
        notes.append(f"classes with a single image: {', '.join(single[:5])}{more}")
    if sum(n > 0 for n in usable.values()) == 1:
        notes.append("there is only one class; a classifier needs two")
    return notes


def _table(entries: Sequence[Entry], readings: Sequence[Reading], extras: pa.Table | None) -> pa.Table:
    """Return the table of the catalog's columns, followed by the user-defined columns."""
    import pyarrow as pa

    headers = [r.header for r in readings]
    values: dict[str, list[Any]] = {
        "path": [e.path for e in entries],
        "content": [r.content for r in readings],
        "label": [e.label for e in entries],
        "split": [e.split for e in entries],
        "group": [None] * len(entries),
        "width": [h and h.width for h in headers],
        "height": [h and h.height for h in headers],
        "format": [h and h.format for h in headers],
        "mode": [h and h.mode for h in headers],
        "orientation": [h and h.orientation for h in headers],
        "size_bytes": [r.size_bytes for r in readings],
        "problem": [_problem(e, r) for e, r in zip(entries, readings, strict=True)],
        "note": ["; ".join(h.notes) or None if h else None for h in headers],
    }
    columns = {name: pa.array(values[name], pa.type_for_alias(kind)) for name, kind in CATALOG_COLUMNS.items()}
    if extras is not None:
        rows = pa.array([e.row for e in entries], pa.int64())
        for name in extras.column_names:
            column = extras.column(name).take(rows)
            columns[name] = column.cast(pa.string()) if name == "group" else column
    return pa.table(columns)
