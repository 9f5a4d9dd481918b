"""Scanning: build a catalog of images with class, size and problem from a folder, a table or a list."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.catalog import layout
from sightline.catalog.datasets import is_dataset, store_dataset
from sightline.catalog.layout import Entry
from sightline.catalog.notes import of_class_names, several_labels
from sightline.catalog.reading import Reading, read_files
from sightline.catalog.sources import Listing, Options, list_sequence, list_source
from sightline.containers.array_sets import order_of
from sightline.errors import DataError, RequestError
from sightline.records import CATALOG_COLUMNS, Catalog, Progress, silent

if TYPE_CHECKING:
    import pyarrow as pa

Photos = Any
"""Path, sequence of paths or of (path, label), or data set; see `scan`."""


def scan(
    photos: Photos,
    *,
    classes: Mapping[str, str] | Sequence[str] | None = None,
    limit: int | None = None,
    label_from: str | None = None,
    label_level: int | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    follow_links: bool = False,
    allow_truncated: bool = False,
    seed: int = 0,
    read: Callable[..., list[Reading]] | None = None,
    progress: Progress = silent,
) -> Catalog:
    """List images with their class, hash, size and problems. Each file is read once; no pixels are decoded.

    Args:
        photos: A folder of class folders; `train`, `val` and `test` folders of class folders; a folder of images with
            `label_from`; an archive (.zip, .tar, .tar.gz, …) of any of these; a CSV or Parquet file with a column of paths and
            a column of labels; a file of arrays (.npz, HDF5) with images and labels; a list of paths, or of (path, label); a
            data set of Hugging Face or torchvision, or a mapping split → data set.
        classes: Classes to use, as a list or as new name → name in the data; None uses all.
        limit: Maximum number of usable images per class, selected by content hash, so that a later scan selects the same ones.
        label_from: Regular expression for file names whose first group is the class.
        label_level: Level of the folder that is the class: 1 for the top folder, -1 for the one directly above the image.
        path_column, label_column: Columns of the table, or arrays of the file, if they do not have a usual name.
        follow_links: Whether to follow links to files outside the folder, and to folders.
        allow_truncated: Whether to use a JPEG without its end.
        seed: Random seed for the selection with `limit`.
        read: Function that reads the files, as `reading.read_files` does; an executor passes its own.
        progress: Progress callback.

    Returns:
        Catalog with one row per file, sorted by path. Unusable files are included, with a `problem`.

    Raises:
        RequestError: If the source, column or class does not exist, or an option is invalid.
        DataError: If there are no images, none has a class, or a table gives images several classes; if an archive is refused.
    """
    options = Options(label_from, label_level, path_column, label_column, follow_links)
    listing = _list(photos, options, progress)
    root, entries, extras, notes = listing.root, listing.entries, listing.extras, listing.notes
    if classes:
        new_names = dict(classes) if isinstance(classes, Mapping) else {name: name for name in classes}
        entries, class_notes = layout.choose(entries, new_names)
        notes += class_notes
    entries = sorted(entries, key=lambda e: order_of(e.path))
    if listing.user_table:
        _check_one_label(entries, photos)
    _check(entries, photos, label_from, notes)
    readings = _read(root, entries, read or read_files, allow_truncated=allow_truncated, progress=progress)
    if limit is not None:
        entries, readings, limit_notes = _limited(entries, readings, limit, seed)
        notes += limit_notes
    notes += _class_notes(entries, readings)
    remedy = "give the folders one name" if extras is None and isinstance(photos, str | Path) else "use one name in the table"
    notes += of_class_names({e.label for e in entries if e.label is not None}, remedy)
    return Catalog(table_of(entries, readings, extras), root, tuple(dict.fromkeys(notes)))


def _list(photos: Any, options: Options, progress: Progress) -> Listing:
    """List the images of any supported form of `photos`."""
    if is_dataset(photos):
        photos = store_dataset(photos, progress)
    if isinstance(photos, str | Path):
        return list_source(Path(photos).expanduser(), options, progress)
    return list_sequence(photos, options)


def _check(entries: Sequence[Entry], photos: Photos, label_from: str | None, notes: Sequence[str]) -> None:
    """Check that there are images and that at least one has a class.

    Raises:
        DataError: If there are no images, or none has a class.
    """
    where = photos if isinstance(photos, str | Path) else "the list"
    other = next((note for note in notes if note.startswith("the folder also contains")), None)
    if not entries:
        hint = other or "pass a folder with one folder per class, a table, or --label-from"
        raise DataError(f"there are no images in {where}", hint)
    if any(e.label is not None for e in entries):
        return
    if label_from is not None:
        first = entries[0].path
        raise DataError(f"--label-from {label_from!r} matches no file name, such as {first!r}", r"for cat.12.jpg: '^(\w+)\.'")
    hint = other or "put each class in its own folder, or pass --label-from REGEX, such as '^([a-z]+)' for cat.12.jpg"
    raise DataError(f"none of the {len(entries):,} files in {where} has a class: they are not in class folders", hint)


def _check_one_label(entries: Sequence[Entry], photos: Any) -> None:
    """Check that the cells of a user-defined table hold one label each.

    Raises:
        DataError: If some hold several, such as `cat,dog` beside `cat` and `dog`.
    """
    sure = {
        name for name, listed in several_labels(sorted({e.label for e in entries if e.label is not None})).items() if listed
    }
    rows = [e for e in entries if e.label in sure]
    if not rows:
        return
    many = "1 image has" if len(rows) == 1 else f"{len(rows):,} images have"
    what = f"{many} more than one label in {photos}, such as {rows[0].label!r} for {rows[0].path}"
    others = ",".join(sorted({e.label for e in entries if e.label is not None} - sure)[:4])
    leave = f", or leave those images out: --classes {others}" if others else ""
    raise DataError(f"{what}: Sightline supports one class per image", f"keep one label per image{leave}")


def _read(root: Path, entries: Sequence[Entry], read: Callable[..., list[Reading]], **options: Any) -> list[Reading]:
    """Read each entry's file, except entries that are known to be unreadable."""
    skip = ("name:", "link:", "not a file:", "unreadable:")
    rows = [i for i, e in enumerate(entries) if e.problem is None or not e.problem.startswith(skip)]
    files = [root.joinpath(*entries[i].path.split("/")) for i in rows]
    names = [entries[i].path.rpartition("/")[2] for i in rows]
    out = [Reading()] * len(entries)
    for i, reading in zip(rows, read(files, names, **options), strict=True):
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
    without = sum(r.problem is not None and r.problem.startswith("decoder missing") for r in readings)
    if without:
        many = "1 HEIC image was" if without == 1 else f"{without:,} HEIC images were"
        notes.append(f'{many} left out: pip install "sightline[heic]" to read them')
    if sum(n > 0 for n in usable.values()) == 1:
        notes.append("there is only one class; a classifier needs two")
    return notes


def table_of(entries: Sequence[Entry], readings: Sequence[Reading], extras: pa.Table | None) -> pa.Table:
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
