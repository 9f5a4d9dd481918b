"""Sources of images: list the entries of a folder, an archive, a file of arrays, a table, or a list, before files are read."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline import containers, remote
from sightline.catalog import layout, tables
from sightline.catalog.layout import Entry
from sightline.catalog.paths import Files
from sightline.catalog.walking import PHOTOS_HINT, Walk, walk, walk_remote, writable
from sightline.containers import array_sets
from sightline.errors import DataError, RequestError
from sightline.files import is_file
from sightline.records import Progress
from sightline.schema import relative_posix
from sightline.store import log

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_NAMED = 3
_HINTS = {
    (".xls", ".xlsx", ".ods"): "save the spreadsheet as CSV",
    (
        ".pkl",
        ".pickle",
        ".pt",
        ".pth",
    ): "pickles can execute code, so Sightline never loads them: save .npz or HDF5 files",
    (".npy",): "save images and labels together: numpy.savez('photos.npz', images=images, labels=labels)",
    (".mat",): "save the images as .npz or HDF5",
    (".json", ".jsonl"): "write a CSV table with the columns path and label",
}


@dataclass(frozen=True, slots=True)
class Options:
    """Options that say where classes come from.

    Args:
        label_from: Regular expression on file names.
        label_level: Level of the folder that is the class.
        path_column, label_column: Columns of a table, or arrays of a file.
        follow_links: Whether links out of a folder are followed.
    """

    label_from: str | None = None
    label_level: int | None = None
    path_column: str | None = None
    label_column: str | None = None
    follow_links: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries of a source.

    Args:
        root: Folder that paths are relative to.
        entries: One entry per image.
        extras: User-defined columns, indexed by `Entry.row`; None without a table.
        notes: Notes for the user.
        user_table: Whether the labels are those of a table that Sightline did not write.
    """

    root: Path
    entries: list[Entry]
    extras: pa.Table | None
    notes: list[str]
    user_table: bool = False


def list_source(source: Path, options: Options, progress: Progress) -> Listing:
    """List the images of a folder, an archive, a file of arrays, or a table; each may also lie inside an archive.

    Raises:
        RequestError: If it does not exist, or an option does not fit it.
        DataError: If it is refused, or its layout is not clear.
    """
    if remote.is_uri(source):
        return _of_remote(source, options)
    if os.path.isdir(source):
        return _of_folder(Path(os.path.abspath(source)), options, progress)
    inside = None if os.path.lexists(source) else containers.split_inside(source)
    if inside is None and source.suffix.lower() in tables.SUFFIXES:
        return _of_table(source, options)
    if inside is None and not is_file(source):
        raise RequestError(f"{source} does not exist", PHOTOS_HINT)
    if containers.is_array_file(source):
        if inside is None:
            return _of_arrays(Path(os.path.abspath(source)), options)
    elif inside is None and containers.is_archive(source):
        inside = Path(os.path.abspath(source)), ""
    if inside is None:
        suffix = source.suffix.lower()
        hint = next((hint for suffixes, hint in _HINTS.items() if suffix in suffixes), PHOTOS_HINT)
        raise RequestError(f"{source} is a file, not a folder", hint)
    folder = containers.unpacked(inside[0])
    real = folder.joinpath(*inside[1].split("/")) if inside[1] else folder
    if not os.path.lexists(real):
        raise RequestError(f"{inside[0]} contains no {inside[1]!r}", f"`sightline scan {inside[0]}` lists what it contains")
    return _named_inside(list_source(real, options, progress), inside[0], folder)


def _named_inside(listing: Listing, archive: Path, folder: Path) -> Listing:
    """Return the listing of an unpacked archive with paths such as `photos.zip/cat/1.jpg`."""
    prefix = relative_posix(listing.root, folder)
    before = archive.name if prefix == "." else f"{archive.name}/{prefix}"
    entries = [replace(e, path=os.path.normpath(f"{before}/{e.path}").replace(os.sep, "/")) for e in listing.entries]
    missing = "missing: it is not in the archive"
    entries = [e if e.path.startswith(f"{archive.name}/") else replace(e, problem=missing) for e in entries]
    return replace(listing, root=archive.parent, entries=entries)


# ---------------------------------------------------------------------------------------------------------------- folders


def _of_folder(root: Path, options: Options, progress: Progress) -> Listing:
    """List the images of a folder; a folder without images, but with files of arrays, is read as those."""
    _refuse(options, root, "path_column", "label_column", what="is a folder, so it has no columns")
    seen = walk(root, progress, follow_links=options.follow_links)
    if seen.arrays and not seen.rows:
        return _of_several(root, seen, options)
    entries, notes = layout.of_folder(seen, options.label_from, options.label_level)
    return Listing(root, entries, None, notes + _other_sources(root, seen, entries))


def _of_remote(source: Path, options: Options) -> Listing:
    """List the images of a folder on an object store.

    Raises:
        RequestError: If it does not exist or cannot be opened, or is a file.
    """
    shown = remote.uri_of(source)
    _refuse(options, source, "path_column", "label_column", "follow_links", what="is a folder on an object store")
    try:
        seen = walk_remote(source)
        if not seen.folders:
            what = "is a file, not a folder" if remote.is_file(source) else "does not exist"
            raise RequestError(f"{shown} {what}", "name a folder, or a local table whose paths are URIs")
    except OSError as error:
        raise RequestError(f"{shown} cannot be listed ({str(error).splitlines()[0]})", "check the credentials") from error
    entries, notes = layout.of_folder(seen, options.label_from, options.label_level)
    return Listing(source, entries, None, notes)


def _other_sources(root: Path, seen: Walk, entries: Sequence[Entry]) -> list[str]:
    """Return a note on tables, archives and arrays in a folder whose images have fewer than two classes."""
    if len({e.label for e in entries if e.label is not None}) > 1:
        return []
    found = [f.name for f in sorted(root.iterdir()) if f.suffix.lower() in (".csv", ".tsv", ".parquet") and f.is_file()]
    found = [f for f in found if f not in ("catalog.csv", "catalog.parquet")] + sorted(seen.arrays + seen.archives)
    if not found:
        return []
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    shown = f"{', '.join(found[:_MOST_NAMED])}{more}"
    return [
        f"the folder also contains {shown}: to take images and classes from there, name that file, as in {root.name}/{found[0]}"
    ]


def _refuse(options: Options, source: Path, *names: str, what: str) -> None:
    """Refuse options that do not fit a source.

    Raises:
        RequestError: If one of these options is set.
    """
    chosen = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, False)]
    if chosen:
        raise RequestError(f"{source} {what}", f"omit {' and '.join(chosen)}")


# ----------------------------------------------------------------------------------------------------------------- arrays


def _of_arrays(file: Path, options: Options) -> Listing:
    """List the images of a file of arrays, as `x.h5#12`."""
    _refuse(options, file, "label_from", "label_level", what="contains arrays, so its images have no names or folders")
    entries, notes = _array_entries(file, file.name, options)
    return Listing(file.parent, entries, None, notes)


def _array_entries(file: Path, key: str, options: Options) -> tuple[list[Entry], list[str]]:
    """Return the entries of a file of arrays, and notes."""
    found = array_sets.recognise(file, options.path_column, options.label_column)
    entries: list[Entry] = []
    for array in found.images:
        labels = array_sets.labels_of(file, found, array)
        start = 0 if options.path_column else len(entries)
        inner = f"{array.name}/" if options.path_column else ""
        why = "its label is empty or not in the list of classes" if array.labels else f"there are no labels for {array.name}"
        for row, label in enumerate(labels, start):
            name = None if label is None else unicodedata.normalize("NFC", label)
            problem = None if name is not None else f"no class: {why}"
            entries.append(Entry(f"{key}#{inner}{row}", name, array.split, problem))
    return entries, list(found.notes)


def _of_several(root: Path, seen: Walk, options: Options) -> Listing:
    """List the images of a folder of files of arrays; names such as train_happy.h5 and test_happy.h5 are splits."""
    _refuse(options, root, "label_from", "label_level", what="contains files of arrays, so its images have no names or folders")
    splits = {name: array_sets.split_of(Path(name).stem) for name in seen.arrays}
    divided = "train" in splits.values() and len(set(splits.values())) > 1
    entries: list[Entry] = []
    notes = [f"the folder contains no image files, but {len(splits)} file{'s' if len(splits) > 1 else ''} of arrays"]
    for name in sorted(seen.arrays):
        own, own_notes = _array_entries(root.joinpath(*name.split("/")), name, options)
        notes += own_notes
        if divided and not any(e.split for e in own):
            own = [replace(e, split=splits[name]) for e in own]
            notes.append(f"{name}: split {splits[name] or 'none'}, by its name")
        entries += own
    return Listing(root, entries, None, notes)


# ------------------------------------------------------------------------------------------------------- tables and lists


def _of_table(source: Path, options: Options) -> Listing:
    """List the images of a table."""
    _refuse(options, source, "label_level", "follow_links", what="is a table, so its classes are not folders")
    root, entries, extras, notes = tables.of_table(source, options.path_column, options.label_column, options.label_from)
    return Listing(root, entries, extras, notes, user_table=not tables.is_catalog(source))


def list_sequence(photos: Sequence[Any], options: Options) -> Listing:
    """List a sequence of paths or of (path, label). The root is the folder that contains all of them."""
    rule = None if options.label_from is None else layout.pattern(options.label_from, "label_from")
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
    return Listing(root, listed, None, [f"{twice:,} repeated images in the list are counted once"] if twice else [])


# ------------------------------------------------------------------------------------------------------ images to predict


def image_files(source: Path) -> tuple[list[Path], dict[str, str]]:
    """Return the images in a folder, an archive or a file of arrays, and file → problem for unusable ones, as in `scan`.

    Files that are ignored because of their names are counted in a warning.

    Raises:
        RequestError: If the source does not exist or cannot be opened.
        DataError: If it is refused.
    """
    if remote.is_uri(source):
        return [source.joinpath(*path.split("/")) for path, _ in walk_remote(source).rows], {}
    real = source if os.path.isdir(source) else containers.real_file(source)
    if containers.is_archive(real):
        real = containers.unpacked(real)
    if not os.path.isdir(real):
        return _array_items(real, source), {}
    seen = walk(real)
    for note in seen.notes():
        log.warning("%s: %s", source, note)
    listed = [(source.joinpath(*path.split("/")), problem) for path, problem in seen.rows]
    images = [f for f, problem in listed if problem is None]
    if not images and seen.arrays:
        names = [name.split("/") for name in seen.arrays]
        images = [item for n in names for item in _array_items(real.joinpath(*n), source.joinpath(*n))]
    return images, {str(f): problem for f, problem in listed if problem is not None}


def _array_items(file: Path, shown: Path) -> list[Path]:
    """Return the paths of all images of a file of arrays."""
    found = array_sets.recognise(file)
    return [Path(f"{shown}#{number}") for number in range(sum(a.count for a in found.images))]
