"""From where a file lies to its class and its split: a folder per class, split folders of those, or names and a pattern."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sightline.catalog.walking import Walk
from sightline.errors import RequestError

SPLIT_NAMES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file before it is read.

    Args:
        path: Relative to the root, POSIX: the catalog's key.
        label: Its class, None where it is not known.
        split: As given by folders or a table.
        problem: Why it is not used, already known from where it lies.
        row: Its row in the user's own table, -1 where there is none.
    """

    path: str
    label: str | None = None
    split: str | None = None
    problem: str | None = None
    row: int = -1


def split_name(text: str | None) -> str | None:
    """train, val or test for the names people use; None for any other.

    Example:
        >>> split_name("Validation"), split_name("cats")
        ('val', None)
    """
    return SPLIT_NAMES.get((text or "").strip().lower())


def pattern(text: str, what: str) -> re.Pattern[str]:
    """A regular expression that a user wrote.

    Raises:
        RequestError: It is none.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise RequestError(
            f"{what} {text!r} is not a regular expression ({error})", r"for cat.12.jpg write '^(\w+)\.'"
        ) from error


def matched(rule: re.Pattern[str], path: str) -> str | None:
    """The first group of the first match in a file's name (in its whole path where the pattern has a slash), or the match."""
    found = rule.search(path if "/" in rule.pattern else path.rpartition("/")[2])
    if found is None:
        return None
    return (found.group(1) if rule.groups else found.group(0)) or None


def of_folder(seen: Walk, label_from: str | None) -> tuple[list[Entry], list[str]]:
    """Class and split of every file of a walk.

    The class is the folder directly above the file. Where the top folders (below a single wrapping one) are `train` and
    `val` or `test`, they are the split. `cat/train/1.jpg` is understood too.

    Args:
        seen: What the walk met.
        label_from: The class from the file's name instead.

    Returns:
        Entries in the order of the walk, and notes.
    """
    rule = None if label_from is None else pattern(label_from, "--label-from")
    parents = Counter(path.rpartition("/")[0] for path, _ in seen.found)
    level = _split_level(parents)
    inner = level is None and rule is None and _splits_inside(parents)
    entries, notes = [], []
    for path, problem in seen.found:
        folder = path.rpartition("/")[0]
        split, above = _placed(folder, level, inner)
        label = matched(rule, path) if rule else above
        if label is not None:
            label = unicodedata.normalize("NFC", label)
        if problem is None and level is not None and split is None:
            problem = "no split: it lies beside the split folders"
        if problem is None and label is None:
            where = f"directly in {folder}" if folder else "directly in the folder"
            problem = (
                f"no class: --label-from {label_from!r} matches nothing in the name" if rule else f"no class: it lies {where}"
            )
        entries.append(Entry(path, label, split, problem))
    if not rule:
        notes += _places(entries, level, inner)
    notes += _empty(seen)
    return entries, notes + seen.notes()


def _split_level(parents: Iterable[str]) -> int | None:
    """How many folders lie above the split folders, None where there are no split folders."""
    parts = [p.split("/") for p in parents if p]
    if not parts:
        return None
    level = 0
    while all(len(p) > level for p in parts) and len({p[level] for p in parts}) == 1:
        level += 1
    for depth in range(level + 1):
        splits = {split_name(p[depth]) for p in parts if len(p) > depth} - {None}
        if "train" in splits and len(splits) > 1:
            return depth
    return None


def _splits_inside(parents: Iterable[str]) -> bool:
    """Whether every image lies in a split folder inside a class folder."""
    names = {p.rpartition("/")[2] for p in parents}
    splits = {split_name(n) for n in names}
    return None not in splits and "train" in splits and len(splits) > 1 and all("/" in p for p in parents)


def _placed(folder: str, level: int | None, inner: bool) -> tuple[str | None, str | None]:
    """(split, class) of a folder, by its path."""
    parts = folder.split("/") if folder else []
    if inner:
        return split_name(parts[-1]), parts[-2]
    if level is None:
        return None, parts[-1] if parts else None
    if len(parts) <= level:
        return None, None
    split = split_name(parts[level])
    if split is None:
        return None, parts[-1]
    return split, parts[-1] if len(parts) > level + 1 else None


def _places(entries: Sequence[Entry], level: int | None, inner: bool) -> list[str]:
    """Notes on classes that stand in several places, or whose names differ only by case or by Unicode form."""
    places: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.label is not None and entry.problem is None:
            parts = entry.path.split("/")[:-1]
            if inner or level is not None:  # the same class in train and in test is one place
                del parts[-1 if level is None else level]
            places[entry.label].add("/".join(parts))
    notes = []
    for label, folders in sorted(places.items()):
        if len({unicodedata.normalize("NFC", f) for f in folders}) < len(folders):
            notes.append(f"folders whose names differ only by Unicode form are taken as one class: {label!r}")
        elif len(folders) > 1:
            notes.append(f"class {label!r} stands in several folders and is taken as one: {', '.join(sorted(folders)[:4])}")
    return notes + alike_names(places)


def alike_names(labels: Iterable[str]) -> list[str]:
    """A note for class names that differ only by case or by spaces at their ends."""
    alike: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        alike[label.strip().casefold()].add(label)
    groups = [" and ".join(repr(n) for n in sorted(names)) for names in alike.values() if len(names) > 1]
    return [f"classes that differ only by case or spaces are kept apart: {'; '.join(sorted(groups)[:5])}"] if groups else []


def _empty(seen: Walk) -> list[str]:
    """A note on folders in and below which there is no file at all."""
    full = {""}
    for path, _ in seen.found:
        folder = path.rpartition("/")[0]
        while folder not in full:
            full.add(folder)
            folder = folder.rpartition("/")[0]
    empty = sorted(f for f in seen.folders if f not in full and f not in seen.runs)
    if not empty:
        return []
    return [f"{len(empty)} {'folders hold' if len(empty) > 1 else 'folder holds'} no image: {_some(empty)}"]


def _some(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def choose(entries: Sequence[Entry], classes: dict[str, str]) -> tuple[list[Entry], list[str]]:
    """The entries of some classes, renamed. Entries with a problem and no class stay.

    Args:
        entries: All.
        classes: New name → name as found.

    Returns:
        The chosen entries, and a note on the classes that are left out.

    Raises:
        RequestError: There is no such class.
    """
    from sightline.errors import unknown

    known = Counter(e.label for e in entries if e.label is not None)
    new_name: dict[str, str] = {}
    for new, old in classes.items():
        old = unicodedata.normalize("NFC", old)
        if old not in known:
            raise unknown("class", old, sorted(known))
        if old in new_name:
            raise RequestError(f"class {old!r} is asked for twice, as {new_name[old]!r} and {new!r}", "name each class once")
        new_name[old] = new
    chosen = [
        e if e.label is None else replace(e, label=new_name[e.label]) for e in entries if e.label is None or e.label in new_name
    ]
    left = sorted(c for c in known if c not in new_name)
    files = sum(known[c] for c in left)
    return chosen, [f"not asked for: {files:,} images of {len(left)} classes ({_some(left)})"] if left else []
