"""Folder layouts: derive the class and the split of a file from its folders or from its name."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
    """File of a catalog before it is read.

    Args:
        path: POSIX path relative to the root, the key of the catalog.
        label: Class, None if unknown.
        split: Split given by folders or a table, None if not given.
        problem: Reason why it cannot be used, known without reading it.
        row: Row of the user-defined table, -1 without a table.
    """

    path: str
    label: str | None = None
    split: str | None = None
    problem: str | None = None
    row: int = -1


def split_name(text: str | None) -> str | None:
    """Return train, val or test for a common name of a split; None for any other name.

    Example:
        >>> split_name("Validation"), split_name("cats")
        ('val', None)
    """
    return SPLIT_NAMES.get((text or "").strip().lower())


def pattern(text: str, what: str) -> re.Pattern[str]:
    """Compile a user-supplied regular expression.

    Args:
        text: The expression.
        what: Option or argument for the message, such as `--label-from`.

    Raises:
        RequestError: If it is not a valid regular expression.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise RequestError(
            f"{what} {text!r} is not a regular expression ({error})", r"for cat.12.jpg use '^(\w+)\.'"
        ) from error


def matched(rule: re.Pattern[str], path: str) -> str | None:
    """Return the first group, or the whole match, of a pattern in a file's name (in its path if the pattern has a slash)."""
    match = rule.search(path if "/" in rule.pattern else path.rpartition("/")[2])
    if match is None:
        return None
    return (match.group(1) if rule.groups else match.group(0)) or None


def of_folder(seen: Walk, label_from: str | None, label_level: int | None = None) -> tuple[list[Entry], list[str]]:
    """Return the class and split of every file found in a folder.

    The class is the folder directly above the file. If that is a date (`cat/2021/`), has the same name for all images
    (`cat/images/`, `dog/images/`), or its name recurs below other folders (`cat/site1/`, `dog/site1/`), the class is the folder
    above it. If the top folders, below any single enclosing folder, are `train` and `val` or `test`, they are the split.
    `cat/train/1.jpg` is also supported.

    Args:
        seen: Result of the traversal.
        label_from: Regular expression for the file's name or path that gives the class instead of folders.
        label_level: Level of the folder that is the class: 1 for the top folder (inside the split folders), -1 for the folder
            directly above the file. None finds it.

    Returns:
        Entries in the order of the traversal, and notes.

    Raises:
        RequestError: If both options are set, or the level is 0.
    """
    rule = None if label_from is None else pattern(label_from, "--label-from")
    if label_level is not None and (rule or label_level == 0):
        what = "--label-level and --label-from exclude each other" if rule else "--label-level cannot be 0"
        raise RequestError(what, "1 is the top folder, -1 the folder directly above the image")
    parents = Counter(path.rpartition("/")[0] for path, _ in seen.rows)
    level = _split_level(parents)
    inner = level is None and rule is None and _splits_inside(parents)
    placed = {folder: _placed(folder, level, inner) for folder in parents}
    named = {f: above for f, (_, above) in placed.items() if above}
    shortened, notes = _class_folders(named) if label_level is None else (_at_level(named, label_level), list[str]())
    entries = []
    for path, problem in seen.rows:
        folder = path.rpartition("/")[0]
        split = placed[folder][0]
        above = shortened.get(folder)
        label = matched(rule, path) if rule else above[-1] if above else None
        if label is not None:
            label = unicodedata.normalize("NFC", label)
        if problem is None and level is not None and split is None:
            problem = "no split: it is outside the split folders"
        if problem is None and label is None:
            where = f"directly in {folder}" if folder else "directly in the scanned folder"
            where = f"not in {abs(label_level)} folders" if label_level is not None else where
            problem = f"no class: --label-from {label_from!r} does not match the name" if rule else f"no class: it is {where}"
        entries.append(Entry(path, label, split, problem))
    if rule:
        notes = []
    elif label_level is None:
        used = {e.path.rpartition("/")[0] for e in entries if e.problem is None}
        notes += _places({f: above for f, above in shortened.items() if f in used})
    return entries, [*notes, *_empty(seen), *_links(seen), *seen.notes()]


def _split_level(parents: Iterable[str]) -> int | None:
    """Return the number of folder levels above the split folders, None if there are no split folders."""
    parts = [p.split("/") for p in parents if p]
    if not parts:
        return None
    for depth in range(_wrapping(parts) + 1):
        splits = {split_name(p[depth]) for p in parts if len(p) > depth} - {None}
        if "train" in splits and len(splits) > 1:
            return depth
    return None


def _splits_inside(parents: Iterable[str]) -> bool:
    """Return whether every image is in a split folder inside a class folder."""
    names = {p.rpartition("/")[2] for p in parents}
    splits = {split_name(n) for n in names}
    return None not in splits and "train" in splits and len(splits) > 1 and all("/" in p for p in parents)


def _placed(folder: str, level: int | None, inner: bool) -> tuple[str | None, list[str]]:
    """Return the split of a folder, and the parts of its path without the split folder and the folders above it."""
    parts = folder.split("/") if folder else []
    if inner:
        return split_name(parts[-1]), parts[:-1]
    if level is None:
        return None, parts
    split = split_name(parts[level]) if len(parts) > level else None
    return split, parts[level + 1 :] if split else parts[level:]


# A year, a year with month and day in one name, or a chain of year, month and day: 2021, 2021-05, 20210503, 2021/05/03.
_DATES = re.compile(r"(?:/(?:19|20)\d\d(?:/\d{1,2}(?:/\d{1,2})?|[-_. ]?[01]\d(?:[-_. ]?[0-3]\d)?)?)+$")


def _class_folders(folders: Mapping[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """Remove folders below the class folder: dates, and folders that have the same name for all images.

    Args:
        folders: Folder → parts of its path that may name a class.

    Returns:
        Folder → parts up to the class folder, and notes on the removed folders and how to keep them.
    """
    usual = "; to use the lowest folder instead, add --label-level -1"
    notes: list[str] = []
    undated = {f: _DATES.sub("", "/" + "/".join(parts)).strip("/").split("/") for f, parts in folders.items()}
    dates = {f for f, parts in undated.items() if len(parts) < len(folders[f])}
    deepest = max((len(undated[f]) for f in dates), default=0)
    current = dict(folders)
    # If a folder at the same depth is not a date, such as obverse/1000 next to obverse/2000, the numbers are class names.
    if dates and all(f in dates or len(parts) <= deepest for f, parts in undated.items()) and _name_classes(undated):
        names = sorted({"/".join(folders[f][len(undated[f]) :]) for f in dates})
        what = f"folders named by date ({_some(names)}) are not classes: the folder above them is the class"
        notes.append(f"{what} ({_some(_names(undated))}){usual}")
        current = undated
    shared, chain = current, list[str]()
    while len({parts[-1] for parts in shared.values()}) == 1 and all(len(parts) > 1 for parts in shared.values()):
        chain.insert(0, next(iter(shared.values()))[-1])
        shared = {f: parts[:-1] for f, parts in shared.items()}
    if chain and _name_classes(shared):
        what = f"every image is in a folder '{'/'.join(chain)}': the folder above it is the class"
        notes.append(f"{what} ({_some(_names(shared))}){usual}")
        current = shared
    upper = current
    while _recurring(upper):
        upper = {f: parts[:-1] for f, parts in upper.items()}
    if upper is not current:
        lower = sorted({current[f][len(parts)] for f, parts in upper.items()})
        what = f"the names of the folders {_some(lower)} recur below several folders, so they are not classes: the folder above"
        notes.append(f"{what} is the class ({_some(_names(upper))}){usual}")
    return upper, notes


_NUMBERED = re.compile(r"([^\W\d_]+)[-_. ]?\d+")


def _recurring(folders: Mapping[str, list[str]]) -> bool:
    """Return whether the lowest folders are no classes, because their names recur below different folders.

    At least half of the folders must have such a name, and every folder must be at the same depth or deeper. Numbered folders
    (`cam1`, `cam2`) and dates above folders with other names are sources, below which the classes recur.

    Args:
        folders: Folder → parts of its path that may name a class.
    """
    wrapping = _wrapping(list(folders.values()))
    if not folders or any(len(parts) < wrapping + 2 for parts in folders.values()):
        return False
    above: dict[str, set[str]] = defaultdict(set)
    for parts in folders.values():
        above[parts[-1]].add("/".join(parts[:-1]))
    tops, lows = {parts[-2] for parts in folders.values()}, set(above)
    if len(tops) < 2 or sum(len(above[parts[-1]]) > 1 for parts in folders.values()) * 2 < len(folders):
        return False
    dates = all(_DATES.match(f"/{top}") for parts in folders.values() for top in parts[wrapping:-1])
    return not dates and (_are_numbered(lows) or not _are_numbered(tops))


def _are_numbered(names: Iterable[str]) -> bool:
    """Return whether all names are one word with different numbers, such as cam1 and cam2."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    return len({m[1].casefold() if m else None for m in matches}) == 1 and None not in matches


def _at_level(folders: Mapping[str, list[str]], level: int) -> dict[str, list[str]]:
    """Return folder → parts of its path up to the folder at a level; folders without that level are left out."""
    index = level - 1 if level > 0 else level
    return {f: parts[: (index % len(parts)) + 1] for f, parts in folders.items() if len(parts) >= abs(level)}


def _names(folders: Mapping[str, list[str]]) -> list[str]:
    """Return the classes, sorted."""
    return sorted({parts[-1] for parts in folders.values()})


def _name_classes(folders: Mapping[str, list[str]]) -> bool:
    """Return whether every folder names a class and there are several classes."""
    return all(parts[-1] for parts in folders.values()) and len(_names(folders)) > 1


def _places(folders: Mapping[str, list[str]]) -> list[str]:
    """Return notes on classes that occur in several folders, since the folders above them may be the intended classes.

    Args:
        folders: Folder → parts of its path up to its class.
    """
    places: dict[str, set[str]] = defaultdict(set)
    for parts in folders.values():
        places[unicodedata.normalize("NFC", parts[-1])].add("/".join(parts))
    notes, several = [], []
    for label, paths in sorted(places.items()):
        if len({unicodedata.normalize("NFC", path) for path in paths}) < len(paths):
            notes.append(f"folders whose names differ only by Unicode form are merged into one class: {label!r}")
        elif len(paths) > 1:
            several.append(f"class {label!r} occurs in several folders, merged into one class: {_some(sorted(paths), 4)}")
    notes += several[:5]
    if len(several) > 5:
        notes.append(f"{len(several) - 5:,} more classes occur in several folders, each merged into one class")
    wrapping = _wrapping(list(folders.values()))
    tops = sorted({parts[wrapping] for parts in folders.values() if len(parts) > wrapping + 1})
    deep = all(len(parts) > wrapping + 1 for parts in folders.values())
    if several and deep and len(tops) > 1 and not all(_DATES.match(f"/{top}") for top in tops):
        notes.append(f"if the classes are the folders above them ({_some(tops)}), add --label-level {wrapping + 1}")
    return notes


def _wrapping(paths: Sequence[Sequence[str]]) -> int:
    """Return the number of leading folders that all paths share."""
    level = 0
    while all(len(p) > level for p in paths) and len({p[level] for p in paths}) == 1:
        level += 1
    return level


def _empty(seen: Walk) -> list[str]:
    """Return a note on folders that contain no files, directly or in subfolders."""
    full = {""}
    for path, _ in seen.rows:
        folder = path.rpartition("/")[0]
        while folder not in full:
            full.add(folder)
            folder = folder.rpartition("/")[0]
    ours = tuple(f"{run}/" for run in seen.runs)
    empty = sorted(f for f in seen.folders if f not in full and not any(run.startswith(f"{f}/") for run in ours))
    if not empty:
        return []
    return [f"{len(empty)} {'folders contain' if len(empty) > 1 else 'folder contains'} no images: {_some(empty)}"]


def _links(seen: Walk) -> list[str]:
    """Return a note on links that are left out."""
    links = [path for path, problem in seen.rows if problem is not None and problem.startswith("link:")]
    if not links:
        return []
    what = "1 link was" if len(links) == 1 else f"{len(links):,} links were"
    return [f"{what} left out, such as {links[0]}: {LINK_HINT}"]


LINK_HINT = "add --follow-links to follow them, copy the linked files into the folder, or list them in a table"


def _some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names of a list, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def choose(entries: Sequence[Entry], classes: dict[str, str]) -> tuple[list[Entry], list[str]]:
    """Select and rename classes. Entries without a class are kept.

    Args:
        entries: All entries.
        classes: New name → name in the data.

    Returns:
        The selected entries, and a note on the classes that are left out.

    Raises:
        RequestError: If a class does not exist, or is selected twice.
    """
    from sightline.errors import unknown

    known = Counter(e.label for e in entries if e.label is not None)
    new_name: dict[str, str] = {}
    for new, old in classes.items():
        old = unicodedata.normalize("NFC", old)
        if old not in known:
            raise unknown("class", old, sorted(known))
        if old in new_name:
            raise RequestError(f"class {old!r} is selected twice, as {new_name[old]!r} and {new!r}", "name each class once")
        new_name[old] = new
    selected = [
        e if e.label is None else replace(e, label=new_name[e.label]) for e in entries if e.label is None or e.label in new_name
    ]
    others = sorted(c for c in known if c not in new_name)
    n = sum(known[c] for c in others)
    return selected, [f"not selected: {n:,} images of {len(others)} classes ({_some(others)})"] if others else []
