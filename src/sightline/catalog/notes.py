"""Notes for the user about a data set: suspicious class names, duplicates, files left out, and cropped area."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np

from sightline import pixels
from sightline.catalog.near_duplicates import Duplicates
from sightline.records import Catalog, Preprocess
from sightline.store import log

CAUTION = "CAUTION"
"""First word of notes about wrong data."""
MOST_NAMED = 10
_MOST_CUT = 1 / 3
_SEPARATORS = (",", ";", "|", "/", "+", "&", "\t", " ")
_DECIMAL = re.compile(r"[+-]?\d+([.,]\d+)?")
_BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")


def line_of(note: str) -> str:
    """Return a note as it is printed: a caution as it is, any other note after `note:`."""
    return note if note.startswith(CAUTION) else f"note: {note}"


def warn(notes: Iterable[str]) -> None:
    """Log notes as warnings; the command line prints them as `note:` lines, Python on standard error."""
    for note in notes:
        log.warning("%s", note)


# --------------------------------------------------------------------------------------------------------- class names


def of_class_names(labels: Iterable[str], remedy: str) -> list[str]:
    """Return notes on class names that probably mean the same class, and on names that look like several labels.

    Args:
        labels: Class names.
        remedy: Instruction for merging two classes, such as `give the folders one name`.
    """
    names = sorted(set(labels))
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[_normal(name)].append(name)
    groups = [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]
    notes = []
    if groups:
        notes.append(
            f"possibly the same class: {_some(groups)} differ only by case, spaces, Unicode form or number format, and are "
            f"treated as different classes; if they are one class, {remedy}"
        )
    several = several_labels(names)
    if several:
        many = "1 class looks" if len(several) == 1 else f"{len(several):,} classes look"
        notes.append(
            f"{many} like several labels in one: {_some([repr(name) for name in several])}; "
            "Sightline supports one class per image: keep one label per image, or select classes with --classes"
        )
    return notes


def _normal(name: str) -> str:
    """Return the normalised form of a class name, equal for names that differ only in spelling.

    Example:
        >>> _normal("Polar_bear") == _normal("polar bear "), _normal("1.0") == _normal("01"), _normal("-1") == _normal("1")
        (True, True, False)
    """
    text = _BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFKC", name)).strip().casefold()
    return format(Decimal(text.replace(",", ".")).normalize(), "f") if _DECIMAL.fullmatch(text) else text


def several_labels(names: Sequence[str]) -> dict[str, bool]:
    """Return the names made of other classes' names: each part is a class, or also occurs in another such name.

    Returns:
        Name → whether it surely is a list of labels: its parts are separated by a comma, a semicolon or a bar, or are numbers,
        and they are not the parts of compound names, which always stand at the same position (`salt, fine`, `salt, coarse`).
    """
    several: dict[str, bool] = {}
    for separator in _SEPARATORS:
        parts = {name: [p.strip(" \t'\"[](){}") for p in name.split(separator)] for name in names}
        joined = {name: p for name, p in parts.items() if len(set(p)) > 1 and all(p)}
        single = {p[0] for p in parts.values() if len(p) == 1}
        recurring = Counter(part for p in joined.values() for part in set(p))
        positions: dict[str, set[int]] = defaultdict(set)
        for p in joined.values():
            for position, part in enumerate(p):
                positions[part].add(position)
        for name, p in joined.items():
            if all(part in single or (separator != " " and recurring[part] > 1) for part in p):
                listed = separator in ",;|" or all(part.isdigit() for part in p) or name.startswith("[")
                sure = listed and any(part in single or len(positions[part]) > 1 for part in p)
                several[name] = sure or several.get(name, False)
    return dict(sorted(several.items()))


# ---------------------------------------------------------------------------------------------------------- duplicates


def with_duplicates(catalog: Catalog, duplicates: Duplicates) -> Catalog:
    """Return the catalog with notes on its duplicates; those with different labels are also named in the column `note`.

    Args:
        catalog: n rows.
        duplicates: Result of `find_duplicates` for this catalog.
    """
    labels = dict(zip(catalog.paths, catalog.column("label"), strict=True))
    notes = []
    sets = [
        (len(duplicates.exact), "identical files"),
        (len(duplicates.near), "nearly identical images"),
        (len(duplicates.same_scene), "images of one scene"),
    ]
    if any(n for n, _ in sets):
        counted = _listed([f"{n:,} set{'s' if n > 1 else ''} of {what}" for n, what in sets if n])
        notes.append(f"duplicates: {counted}; a split keeps each set together")
    notes += [
        f"{len(paths):,} images, such as {paths[0]} and {paths[1]}, show one scene with different objects; they are too "
        "many to keep in one split: if your classifier must work in other scenes, name the scenes with --group-by"
        for paths in duplicates.crowded_scenes
    ]
    remarks: dict[str, str] = {}
    for number, paths in enumerate(duplicates.conflicts):
        first = {labels[p]: p for p in reversed(paths) if labels[p] is not None}  # the first image of each label
        shown = sorted(first, key=lambda label: paths.index(first[label]))
        if number < MOST_NAMED:
            images = _listed([first[label] for label in shown])
            notes.append(f"{CAUTION}: {images} are the same image with different labels ({_listed([repr(c) for c in shown])})")
        for path in paths:
            other = next(label for label in shown if label != labels[path])
            remarks[path] = f"the same image as {first[other]}, which is labelled {other}"
    more = len(duplicates.conflicts) - MOST_NAMED
    if more > 0:
        many = "1 more image has" if more == 1 else f"{more:,} more images have"
        notes.append(f"{CAUTION}: {many} copies with different labels; the catalog's column note lists all of them")
    if remarks:
        notes.append("copies of one image must have the same label: correct the wrong labels, or remove those copies")
    kinds = (
        (duplicates.exact, "the same file as"),
        (duplicates.near, "the same image as"),
        (duplicates.same_scene, "the same scene as"),
        (duplicates.crowded_scenes, "the same scene as"),
    )
    for sets_of_kind, words in kinds:
        for paths in sets_of_kind:
            for path in paths[1:]:
                remarks.setdefault(path, f"{words} {paths[0]}")
    if remarks:
        before = catalog.column("note")
        added = [_joined(note, remarks.get(path)) for note, path in zip(before, catalog.paths, strict=True)]
        catalog = catalog.with_column("note", added)
    return catalog.with_notes(*notes)


def _joined(note: str | None, remark: str | None) -> str | None:
    """Append a remark to a cell of the column `note`, unless the cell already contains it."""
    if remark is None or (note is not None and remark in note):
        return note
    return remark if note is None else f"{note}; {remark}"


# --------------------------------------------------------------------------------------------------------------- images


def left_out(catalog: Catalog) -> list[str]:
    """Return one line for each of the first `MOST_NAMED` files with a problem, and one line with the number of the others."""
    pairs = zip(catalog.paths, catalog.column("problem"), strict=True)
    lines = [_named(path, problem) for path, problem in pairs if problem is not None]
    more = len(lines) - MOST_NAMED
    rest = "1 more file" if more == 1 else f"{more:,} more files"
    return lines[:MOST_NAMED] + ([f"{rest}; the catalog's column problem lists all of them"] if more > 0 else [])


def _named(path: str, problem: str) -> str:
    """Return a line with a file's path and problem that names the file only once.

    Example:
        >>> _named("cat/7.jpg", "empty: 7.jpg is empty (0 bytes)"), _named("cat/8.jpg", "missing: there is no such file")
        ('cat/7.jpg is empty (0 bytes)', 'cat/8.jpg: missing: there is no such file')
    """
    name, message = path.rpartition("/")[2], problem.partition(": ")[2]
    return path + message.removeprefix(name) if message.startswith(f"{name} ") else f"{path}: {problem}"


def of_crop(catalog: Catalog, preprocess: Preprocess) -> str | None:
    """Return a note if the centre crop removes a third or more of the median image because of its aspect ratio, else None.

    The area that `crop_fraction` removes from every image is ignored in this test, but included in the reported fraction.

    Args:
        catalog: Catalog of the images.
        preprocess: Preprocessing of the network.
    """
    if preprocess.fit != "crop":
        return None
    usable = catalog.usable()
    sizes = Counter(size for size in zip(usable.column("width"), usable.column("height"), strict=True) if all(size))
    if not sizes:
        return None
    counts = np.array(list(sizes.values()))

    def median_cut(how: Preprocess) -> float:
        cut = [1 - box[2] * box[3] / (w * h) for w, h in sizes for box in [pixels.seen_box(w, h, how)]]
        return float(np.median(np.repeat(cut, counts)))

    rows, columns = preprocess.size
    # Use a large size, so that rounding does not change the aspect ratio.
    by_shape = dataclasses.replace(preprocess, crop_fraction=1.0, size=(1000, 1000 * columns // rows))
    if median_cut(by_shape) < _MOST_CUT - 0.002:
        return None
    return (
        f"the centre crop cuts off {median_cut(preprocess):.0%} of the median image: use --fit pad or --fit squash to show the "
        'whole image to the network (in a recipe: fit = "pad")'
    )


# --------------------------------------------------------------------------------------------------------------- words


def _some(texts: Sequence[str], most: int = 5) -> str:
    """Return the first texts, and the number of the others."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def _listed(texts: Sequence[str], most: int = 4) -> str:
    """Return texts as an enumeration: a, b and c."""
    shown = [*texts[:most], *([f"{len(texts) - most:,} more"] if len(texts) > most else [])]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
