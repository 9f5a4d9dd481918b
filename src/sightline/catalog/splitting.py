"""Data splitting: assign images to train, val and test; duplicates and groups stay together, earlier assignments stay."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from sightline import store
from sightline.catalog.layout import matched, pattern
from sightline.catalog.near_duplicates import Duplicates, components
from sightline.catalog.notes import with_duplicates
from sightline.errors import RequestError, closest
from sightline.records import SPLITS, Catalog, Progress, silent

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


@dataclass(slots=True)
class Unit:
    """Images that must be in the same split: duplicates of each other, or members of one group.

    Args:
        rows: Row indices of the catalog.
        labels: Class → number of images.
        draw: Hash of the seed and the contents; units are assigned in its order.
        given: Splits that images of the unit already have.
    """

    rows: list[int]
    labels: Counter[str] = field(default_factory=Counter)
    draw: str = ""
    given: set[str] = field(default_factory=set)


def split(
    catalog: Catalog,
    *,
    val: float | int = 0.15,
    test: float | int = 0.2,
    seed: int = 0,
    group_by: str | None = None,
    order_by: str | None = None,
    folds: int | None = None,
    previous: Catalog | None = None,
    clusters: Duplicates,
    progress: Progress = silent,
) -> Catalog:
    """Assign every usable image to train, val or test, stratified by class, as a function of the contents and the seed.

    Duplicates and groups stay together. Every class has at least one image in train; a class with two sets of images that
    belong together has one in val, a class with three or more has at least one in each split. Images with a split, from
    folders, a table or `previous`, keep it. If val or test is missing among given splits, it is taken from train. An image
    without a split that belongs together with images of two splits is left out, with the problem `bridges`.

    The catalog's notes report duplicates, and copies of one image with different labels.

    Args:
        catalog: Catalog from `scan`.
        val, test: Fraction below 1 (float) or number of images (int); 0 for none.
        seed: Random seed.
        group_by: Column of the catalog, or a regular expression for file names (for paths if it has a slash) whose first
            group is the group's name.
        order_by: Column of dates or numbers: the earliest images become train, the next val, the latest test. Not stratified.
        folds: Number of folds, 2 or more: the images outside test are numbered 1 to `folds` in the column `fold`, stratified.
        previous: Earlier catalog whose assignments are kept; images are matched by content, else by path.
        clusters: Result of `find_duplicates` for this catalog.
        progress: Progress callback.

    Raises:
        RequestError: If no training images would be left, `group_by` is not a column and matches no file name, `order_by` is
            not a column of dates or numbers or the images have splits already, or `folds` is below 2.
    """
    catalog = _grouped(catalog, group_by)
    if folds is not None and folds < 2:
        raise RequestError(f"folds={folds} is too small", "set it to 2 or more")
    problems, labels, contents = (catalog.column(n) for n in ("problem", "label", "content"))
    rows = [i for i in range(len(catalog)) if problems[i] is None and labels[i] is not None]
    splits, given = _existing(catalog, previous, rows)
    notes: list[str] = []
    units = _units(catalog, clusters, rows, splits, contents, seed)
    carve, shares = _missing(given, val, test), {"val": val, "test": test}
    if carve:
        _release_train(units, splits)
        shares |= {name: 0 for name in shares if name not in carve}  # a given val or test split keeps its size
    new_problems = dict(_bridges(units, splits))
    for unit in units:
        if len(unit.given) == 1:
            (name,) = unit.given
            splits.update((row, name) for row in unit.rows)
    free = [u for u in units if not u.given]
    if order_by is not None:
        if len(free) < len(units):
            raise RequestError("--order-by needs images without splits", "remove the column split, or omit --order-by")
        dealt, date_notes = _by_date(free, catalog, order_by, shares, rows)
        splits.update(dealt)
        notes += date_notes
    else:
        splits.update(_deal(free, [u for u in units if u.given], splits, labels, shares, rows))
    if new_problems:
        notes.append(
            f"{len(new_problems)} new images are left out because they belong together with images of two splits, "
            f"such as {catalog.paths[min(new_problems)]}"
        )
    if carve:
        taken = " and ".join(f"{sum(splits.get(i) == name for i in rows):,} {name} images" for name in carve)
        notes.append(
            f"no {' and '.join(carve)} split found: {taken} were taken from train (seed {seed}); a classifier that was trained "
            "on the earlier train split has seen them, so train it again before you evaluate it"
        )
    notes += _class_notes(labels, splits, rows, shares)
    if order_by is None:
        notes += _imbalance_notes(units, splits, labels, shares, rows)
    progress("splitting", len(rows), len(rows))
    final = [new_problems.get(i, p) for i, p in enumerate(problems)]
    out = catalog.with_column("split", [splits.get(i) for i in range(len(catalog))]).with_column("problem", final)
    if folds is not None:
        out = out.with_column("fold", _folds(units, splits, len(catalog), folds))
    return with_duplicates(out.with_notes(*notes), clusters)


# ------------------------------------------------------------------------------------------------------ groups and units


def _grouped(catalog: Catalog, group_by: str | None) -> Catalog:
    """Return the catalog with the column `group` set from another column, or from file names by a pattern."""
    if group_by is None:
        return catalog
    if group_by in catalog.table.column_names:
        values = catalog.column(group_by)
        return catalog.with_column("group", [None if v is None or v == "" else str(v) for v in values])
    rule = pattern(group_by, "--group-by")
    groups = [matched(rule, path) for path in catalog.paths]
    if not any(groups):
        match = closest(group_by, catalog.table.column_names)
        hint = f"did you mean the column {match!r}?" if match else "name a column, or pass a pattern such as '^(person\\d+)_'"
        raise RequestError(f"--group-by {group_by!r} is not a column of the catalog and matches no file name", hint)
    missed = sum(g is None for g in groups)
    out = catalog.with_column("group", groups)
    note = f"--group-by {group_by!r} does not match {missed:,} file names; each of these images is its own group"
    return out.with_notes(note) if missed else out


def together(catalog: Catalog, clusters: Duplicates, *, groups: bool = True) -> np.ndarray:
    """Number the connected components of rows that are linked by duplicates or groups.

    Args:
        catalog: n rows.
        clusters: Result of `find_duplicates` for this catalog.
        groups: Whether rows of one `group` are linked.

    Returns:
        int64 (n,), equal for rows that belong together.
    """
    first: dict[int, int] = {}
    pairs = [(first.setdefault(cluster, row), row) for row, cluster in enumerate(clusters.cluster.tolist())]
    problems = catalog.column("problem")
    for a, b in (*clusters.links.tolist(), *clusters.scene_links.tolist()):
        if problems[a] is None and problems[b] is None:  # an image that is left out links no others
            pairs.append((a, b))
    if groups:
        named: dict[str, int] = {}
        for row, group in enumerate(catalog.column("group")):
            if group is not None:
                pairs.append((named.setdefault(group, row), row))
    return np.array(components(len(catalog), pairs), dtype=np.int64)


def _units(
    catalog: Catalog,
    clusters: Duplicates,
    rows: Sequence[int],
    splits: Mapping[int, str | None],
    contents: Sequence[str],
    seed: int,
) -> list[Unit]:
    """Return the usable rows as units, in the order of their draw."""
    number = together(catalog, clusters)
    labels, paths = catalog.column("label"), catalog.paths
    units: dict[int, Unit] = {}
    for row in rows:
        unit = units.setdefault(int(number[row]), Unit([]))
        unit.rows.append(row)
        unit.labels[labels[row]] += 1
        if splits.get(row) is not None:
            unit.given.add(str(splits[row]))
    for unit in units.values():
        # The minimum over the contents does not change with another copy of an image or another file order.
        unit.draw = min(store.digest([seed, "split", contents[r] or paths[r]]) for r in unit.rows)
    return sorted(units.values(), key=lambda u: u.draw)


# ------------------------------------------------------------------------------------------------------- given splits


def _existing(catalog: Catalog, previous: Catalog | None, rows: Sequence[int]) -> tuple[dict[int, str | None], set[str]]:
    """Return row → split for rows that have one, and the splits that came with the data, not from an earlier assignment."""
    column = catalog.column("split")
    splits: dict[int, str | None] = {i: column[i] for i in rows if column[i] is not None}
    given = {str(s) for s in splits.values()}
    if previous is None:
        return splits, given
    names = ("path", "content", "split", "problem")
    columns = (previous.column(n) for n in names)
    earlier = [(p, c, s) for p, c, s, problem in zip(*columns, strict=True) if s is not None and problem is None]
    by_path = {p: s for p, _, s in earlier}
    by_content: dict[str, set[str]] = defaultdict(set)
    for _, content, name in earlier:
        if content:
            by_content[content].add(name)
    paths, contents = catalog.paths, catalog.column("content")
    carved = {name for name in ("val", "test") if given and name not in given}
    for i in rows:
        same = by_content.get(contents[i], set())
        name = next(iter(same)) if len(same) == 1 else by_path.get(paths[i])
        if i not in splits or (splits[i] == "train" and name in carved):  # an earlier run took it from train
            splits[i] = name
    return {i: s for i, s in splits.items() if s is not None}, given | ({str(s) for s in splits.values() if s} & carved)


def _missing(given: set[str], val: float | int, test: float | int) -> list[str]:
    """Return the requested splits that are missing among the given ones and must be taken from train."""
    if not given:
        return []
    return [name for name, size in (("val", val), ("test", test)) if size and name not in given and "train" in given]


def _release_train(units: Iterable[Unit], splits: dict[int, str | None]) -> None:
    """Clear the split of units that are wholly in train, so that val and test can be taken from them."""
    for unit in units:
        if unit.given == {"train"}:
            unit.given = set()
            splits.update(dict.fromkeys(unit.rows))


def _bridges(units: Iterable[Unit], splits: Mapping[int, str | None]) -> Iterable[tuple[int, str]]:
    """Yield (row, problem) of new images in units whose other images are in two splits."""
    for unit in units:
        if len(unit.given) > 1:
            names = " and ".join(s for s in SPLITS if s in unit.given)
            for row in unit.rows:
                if splits.get(row) is None:
                    yield row, f"bridges {names}"


# ---------------------------------------------------------------------------------------------------------- assignment


def _deal(
    free: Sequence[Unit],
    fixed: Sequence[Unit],
    splits: Mapping[int, str | None],
    labels: Sequence[str],
    shares: Mapping[str, float | int],
    rows: Sequence[int],
) -> dict[int, str]:
    """Return row → split for the rows of the free units."""
    images = Counter(labels[r] for r in rows)
    sets = Counter(label for u in (*free, *fixed) for label in u.labels)
    have: dict[str, Counter[str]] = {name: Counter(labels[r] for r in rows if splits.get(r) == name) for name in SPLITS}
    assigned = assign(free, needs(images, sets, shares, have), have)
    return {row: assigned.get(i, "train") for i, unit in enumerate(free) for row in unit.rows}


def assign(free: Sequence[Unit], need: Mapping[str, Counter[str]], have: Mapping[str, Counter[str]]) -> dict[int, str]:
    """Return which units become val or test; the others are train. Classes that no unit links do not affect each other.

    Args:
        free: Units without a split, in the order of their draw.
        need: Split → class → number of images that it needs, as `needs` returns it; reduced by what is assigned.
        have: Split → class → number of images that it has already.

    Returns:
        Index of the unit → split.
    """
    assigned: dict[int, str] = {}
    reserved = _reserve(free, have["train"])
    open_units = [i for i in range(len(free)) if i not in reserved]
    for strict in (True, False):
        for i in open_units:
            if i not in assigned:
                name = next((n for n in ("test", "val") if _fits(free[i], need[n], strict)), None)
                if name is not None:
                    assigned[i] = name
                    need[name].subtract(free[i].labels)
    _fill_gaps(free, open_units, assigned, need, have)
    return assigned


def _by_date(
    units: Sequence[Unit], catalog: Catalog, order_by: str, shares: Mapping[str, float | int], rows: Sequence[int]
) -> tuple[dict[int, str], list[str]]:
    """Return row → split in the order of a column, each unit at its latest date, and notes.

    Raises:
        RequestError: If a value is neither a date nor a number, or no training images would be left.
    """
    values = _dates(catalog.column(order_by), order_by)
    dated = [u for u in units if any(values[r] is not None for r in u.rows)]
    undated = [r for u in units if all(values[r] is None for r in u.rows) for r in u.rows]
    latest = [max(v for r in u.rows if (v := values[r]) is not None) for u in dated]
    total = len(rows)
    left = {name: _count(shares[name], total, name) for name in ("test", "val")}
    if sum(left.values()) >= total:
        raise RequestError(f"val and test of {sum(left.values()):,} images leave no training images", "make them smaller")
    out: dict[int, str] = dict.fromkeys(undated, "train")
    for i in sorted(range(len(dated)), key=lambda i: (latest[i], dated[i].draw), reverse=True):
        name = next((n for n in ("test", "val") if left[n] > 0), "train")
        if name != "train":
            left[name] -= len(dated[i].rows)
        out.update((r, name) for r in dated[i].rows)
    notes = [f"{len(undated):,} images have no {order_by}; they are in train"] if undated else []
    return out, [*notes, f"split in the order of {order_by}: train on the past, test on the latest images"]


def _dates(values: Sequence[object], name: str) -> list[float | None]:
    """Convert numbers and ISO or EXIF dates to numbers that sort like them; empty cells to None.

    Raises:
        RequestError: If a value is neither, or the column is empty.
    """
    out: list[float | None] = []
    for value in values:
        text = "" if value is None else str(value).strip()
        if not text:
            out.append(None)
            continue
        try:
            out.append(float(text) if _NUMBER.fullmatch(text) else _moment(text))
        except ValueError as error:
            hint = "dates such as 2024-05-31, 2024-05-31T12:00 or 2024:05:31 12:00:00, or numbers"
            raise RequestError(f"--order-by {name}: {text!r} is neither a date nor a number", hint) from error
    if all(v is None for v in out):
        raise RequestError(f"--order-by {name}: the column is empty", "name a column of dates or numbers")
    return out


def _moment(text: str) -> float:
    """Convert an ISO date, or a date of EXIF with colons, to seconds; a date without a zone counts as UTC."""
    exif = re.fullmatch(r"(\d{4}):(\d\d):(\d\d)(.*)", text)
    moment = datetime.fromisoformat("-".join(exif.group(1, 2, 3)) + exif[4] if exif else text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _folds(units: Sequence[Unit], splits: Mapping[int, str | None], n: int, folds: int) -> list[int | None]:
    """Return the fold of each row outside test, 1 to `folds`; units join, the largest first, where their labels are rarest."""
    counts: list[Counter[str]] = [Counter() for _ in range(folds)]
    out: list[int | None] = [None] * n
    for unit in sorted(units, key=lambda u: -len(u.rows)):
        rows = [r for r in unit.rows if splits.get(r) in ("train", "val")]
        if not rows:
            continue
        fold = min(range(folds), key=lambda f: (sum(counts[f][c] * k for c, k in unit.labels.items()), counts[f].total(), f))
        counts[fold].update(unit.labels)
        for row in rows:
            out[row] = fold + 1
    return out


def _imbalance_notes(
    units: Sequence[Unit],
    splits: Mapping[int, str | None],
    labels: Sequence[str],
    shares: Mapping[str, float | int],
    rows: Sequence[int],
) -> list[str]:
    """Return a note if large groups keep the splits from having the requested sizes, or a class from its share."""
    notes = []
    total = len(rows)
    largest = max((len(u.rows) for u in units), default=0)
    for name, share in shares.items():
        wanted = _count(share, total, name)
        images = Counter(labels[r] for r in rows if splits.get(r) == name)
        if wanted and abs(images.total() - wanted) > max(3, 0.1 * wanted) and largest > max(3, 0.1 * wanted):
            notes.append(
                f"{name} has {images.total():,} images instead of {wanted:,}, because images that belong together stay "
                f"together (the largest set has {largest:,})"
            )
    return notes


def needs(
    images: Counter[str], sets: Counter[str], shares: Mapping[str, float | int], have: Mapping[str, Counter[str]]
) -> dict[str, Counter[str]]:
    """Return split → class → number of images that val and test still need.

    The total is distributed over the classes by the largest remainder method. Then small classes are adjusted: a class with
    one set of images gives none, with two sets one to val (to test without val), with more at least one to each.

    Raises:
        RequestError: If a size is invalid, or no training images would be left.
    """
    total = sum(images.values())
    wanted = {name: _count(share, total, name) for name, share in shares.items()}
    if total and sum(share if isinstance(share, int) else share * total for share in shares.values()) >= total:
        sizes = " and ".join(f"{n}={shares[n]}" for n in wanted if shares[n])
        raise RequestError(f"{sizes} of {total:,} images leaves no training images", "make these splits smaller")
    need: dict[str, Counter[str]] = {}
    for name, count in wanted.items():
        exact = {c: count * n / total for c, n in images.items()} if total else {}
        parts = Counter({c: int(v) for c, v in exact.items()})
        rest = count - sum(parts.values())
        for c in sorted(exact, key=lambda c: (parts[c] - exact[c], c))[:rest]:
            parts[c] += 1
        for c in images:
            least, most = _small(sets[c], name, wanted)
            parts[c] = max(least, min(parts[c], most)) - have[name][c]
        need[name] = parts
    return need


def _count(share: float | int, total: int, name: str) -> int:
    """Convert a fraction or a number of images to a number of images.

    Raises:
        RequestError: If it is neither.
    """
    if isinstance(share, bool) or not share >= 0 or (isinstance(share, float) and share >= 1):
        raise RequestError(
            f"{name}={share!r} must be a fraction below 1 or a number of images", f"for example {name}=0.2 or {name}=200"
        )
    return share if isinstance(share, int) else round(share * total)


def _small(sets: int, name: str, wanted: Mapping[str, int]) -> tuple[int, int]:
    """Return the (minimum, maximum) number of images of a class in val or test, by its number of sets of images."""
    if not wanted[name] or sets < 2:
        return 0, 0
    if sets == 2:
        first = "val" if wanted["val"] else "test"
        return (1, 1 << 40) if name == first else (0, 0)
    return 1, 1 << 40


def _reserve(free: Sequence[Unit], trained: Counter[str]) -> set[int]:
    """Return the units reserved for train, so that every class has images there: each class's smallest, latest drawn unit."""
    best: dict[str, tuple[int, int, int]] = {}
    for i, unit in enumerate(free):
        for label in unit.labels:
            if not trained[label]:
                best[label] = min(best.get(label, (1 << 60, 0, 0)), (len(unit.rows), -i, i))
    return {i for _, _, i in best.values()}


def _fits(unit: Unit, need: Counter[str], strict: bool) -> bool:
    """Return whether a split needs all images of a unit, or at least half of them if not strict."""
    wanted = sum(min(count, max(0, need[label])) for label, count in unit.labels.items())
    return wanted == len(unit.rows) if strict else 2 * wanted >= len(unit.rows) and wanted > 0


def _fill_gaps(
    free: Sequence[Unit],
    open_units: Sequence[int],
    assigned: dict[int, str],
    need: Mapping[str, Counter[str]],
    have: Mapping[str, Counter[str]],
) -> None:
    """Assign the smallest free unit of each class that val or test needs and has no image of."""
    there = {name: Counter(have[name]) for name in ("val", "test")}
    for i, name in assigned.items():
        there[name].update(free[i].labels)
    left: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for i in open_units:
        if i not in assigned:
            for label in free[i].labels:
                left[label].append((len(free[i].rows), i))
    for label in sorted(left):
        for name in ("val", "test"):
            if need[name][label] > 0 and not there[name][label]:
                units = sorted(pair for pair in left[label] if pair[1] not in assigned)
                if units:
                    assigned[units[0][1]] = name
                    there[name].update(free[units[0][1]].labels)


def _class_notes(
    labels: Sequence[str], splits: Mapping[int, str | None], rows: Sequence[int], shares: Mapping[str, float | int]
) -> list[str]:
    """Return notes on classes that are absent from a split."""
    count: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        name = splits.get(row)
        if name is not None:
            count[labels[row]][name] += 1
    used = {name for c in count.values() for name in c}
    notes = []
    for name in SPLITS:
        absent = sorted(label for label, c in count.items() if not c[name])
        if absent and name in used:
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            notes.append(f"not in {name}: {', '.join(repr(a) for a in absent[:5])}{more}")
    return notes


# --------------------------------------------------------------------------------------------------------------- audits


def leaks(catalog: Catalog, duplicates: Duplicates) -> list[tuple[str, str]]:
    """Return (test path, path in train or val) for every test image with a duplicate there, preferring train."""
    paths, splits, problems = (catalog.column(n) for n in ("path", "split", "problem"))
    members: dict[int, list[int]] = defaultdict(list)
    for row, cluster in enumerate(duplicates.cluster.tolist()):
        members[cluster].append(row)
    alike: dict[int, list[int]] = defaultdict(list)
    for a, b in duplicates.links.tolist():
        alike[a].append(b)
        alike[b].append(a)
    pairs: list[tuple[str, str]] = []
    for row, cluster in enumerate(duplicates.cluster.tolist()):
        if splits[row] == "test" and problems[row] is None:
            copies = (r for r in (*members[cluster], *alike[row]) if splits[r] in ("train", "val") and problems[r] is None)
            first = min(copies, key=lambda r: (SPLITS.index(splits[r]), paths[r]), default=None)
            if first is not None:
                pairs.append((paths[row], paths[first]))
    return pairs
