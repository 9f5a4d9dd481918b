"""Corrections of a catalog, by findings, a table or decisions, never touching a photograph; compare catalogs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from sightline import store
from sightline.catalog.near_duplicates import Duplicates
from sightline.catalog.tables import read_table
from sightline.errors import RequestError, closest
from sightline.records import Catalog
from sightline.records.catalog_audit import CatalogDiff, Change
from sightline.records.decisions import Decision
from sightline.schema import csv_escape

_COMPARED = ("label", "split", "group", "problem")
_CHANGE_COLUMNS = ("path", "action", "before", "after", "reason")


def quarantine(catalog: Catalog, reasons: Mapping[str, str]) -> tuple[Catalog, list[Change]]:
    """Leave images out of a catalog: their rows stay, with the problem `quarantined: …`.

    Args:
        catalog: n rows.
        reasons: Path → reason. Rows that already have a problem keep it.

    Raises:
        RequestError: If a path is not in the catalog.
    """
    _check_paths(catalog, reasons)
    return _left_out(catalog, {path: ("quarantine", f"quarantined: {why}", why) for path, why in reasons.items()})


def dedupe(catalog: Catalog, duplicates: Duplicates) -> tuple[Catalog, list[Change]]:
    """Keep one image of each set of duplicates, and leave the others out, with the problem `duplicate of …`.

    The image that is kept is in the most protected split (test, val, train), then has the most pixels, then the largest file.
    Sets with different labels are not touched: which label is right is for a person to decide. Images of one scene stay.

    Args:
        catalog: n rows.
        duplicates: Result of `find_duplicates` for this catalog.
    """
    names = ("path", "split", "width", "height", "size_bytes")
    rank = {"test": 0, "val": 1, "train": 2}
    order = {
        path: (rank.get(split, 3), -(w or 0) * (h or 0), -(size or 0), path)
        for path, split, w, h, size in zip(*(catalog.column(n) for n in names), strict=True)
    }
    conflicting = {path for paths in duplicates.conflicts for path in paths}
    drop: dict[str, tuple[str, str, str]] = {}
    for paths in [*duplicates.near, *duplicates.exact]:
        rest = [p for p in paths if p not in drop]
        if conflicting.intersection(paths) or len(rest) < 2:
            continue
        first = min(rest, key=order.__getitem__)
        why = f"duplicate of {first}"
        drop |= {path: ("dedupe", why, why) for path in rest if path != first}
    return _left_out(catalog, drop)


def _left_out(catalog: Catalog, wanted: Mapping[str, tuple[str, str, str]]) -> tuple[Catalog, list[Change]]:
    """Return the catalog with problems set, and the changes.

    Args:
        catalog: n rows.
        wanted: Path → (action, problem, reason).
    """
    problems, changes = catalog.column("problem"), []
    for row, path in enumerate(catalog.paths):
        if path in wanted and problems[row] is None:
            action, problem, why = wanted[path]
            problems[row] = problem
            changes.append(Change(path, action, None, problem, why))
    return catalog.with_column("problem", problems), changes


def relabel(catalog: Catalog, file: Path) -> tuple[Catalog, list[Change]]:
    """Replace labels by those of a table with the columns `path` and `label`, and optionally `reason`.

    Args:
        catalog: n rows.
        file: CSV or Parquet file.

    Raises:
        RequestError: If a column is missing, a path is not in the catalog or has two labels, or a label is empty.
    """
    table, _ = read_table(file)
    missing = [name for name in ("path", "label") if name not in table.column_names]
    if missing:
        columns = ", ".join(table.column_names)
        raise RequestError(f"{file} has no column {missing[0]!r}", f"it needs the columns path and label; it has {columns}")
    reasons = table.column("reason").to_pylist() if "reason" in table.column_names else [None] * table.num_rows
    new: dict[str, tuple[str, str]] = {}
    for path, label, why in zip(table.column("path").to_pylist(), table.column("label").to_pylist(), reasons, strict=True):
        name = "" if label is None else str(label).strip()
        if not path or not name:
            raise RequestError(
                f"{file} has a row without a path or a label ({path!r}, {label!r})", "complete or remove the row"
            )
        if new.get(path, (name, ""))[0] != name:
            raise RequestError(f"{file} gives {path} two labels, {new[path][0]!r} and {name!r}", "keep one of the rows")
        new[path] = (name, str(why) if why else f"relabelled by {file.name}")
    return _relabelled(catalog, new)


def apply_decisions(catalog: Catalog, decisions: Mapping[str, Decision]) -> tuple[Catalog, list[Change]]:
    """Correct a catalog by what a person decided while looking at its images.

    `duplicate`, `exclude` and `no class` leave an image out: its row stays and gets a problem. `label` replaces its label.
    `keep` and `skip` change nothing.

    Args:
        catalog: n rows.
        decisions: Path → the decision in force.

    Raises:
        RequestError: If a path is not in the catalog, or a label is missing.
    """
    _check_paths(catalog, decisions)
    left_out: dict[str, tuple[str, str, str]] = {}
    labels: dict[str, tuple[str, str]] = {}
    for path, decision in decisions.items():
        by = f" ({decision.reason})" if decision.reason else ""
        if decision.action == "duplicate":
            why = f"duplicate of {decision.copy_of}" if decision.copy_of else "duplicate"
            left_out[path] = ("dedupe", why, f"{why}, decided by a person{by}")
        elif decision.action in ("exclude", "no class"):
            why = "excluded" if decision.action == "exclude" else "not in any class"
            left_out[path] = ("quarantine", f"quarantined: {why}", f"{why}, decided by a person{by}")
        elif decision.action == "label":
            if not (decision.label or "").strip():
                raise RequestError(f"the decision about {path} names no label", "name the class that the image shows")
            labels[path] = (str(decision.label).strip(), f"labelled by a person{by}")
    corrected, changes = _relabelled(catalog, labels)
    corrected, more = _left_out(corrected, left_out)
    return corrected, [*changes, *more]


def _relabelled(catalog: Catalog, new: Mapping[str, tuple[str, str]]) -> tuple[Catalog, list[Change]]:
    """Return the catalog with labels replaced, and the changes.

    Args:
        catalog: n rows.
        new: Path → (label, reason).

    Raises:
        RequestError: If a path is not in the catalog.
    """
    _check_paths(catalog, new)
    labels, changes = catalog.column("label"), []
    for row, path in enumerate(catalog.paths):
        if path in new and labels[row] != new[path][0]:
            changes.append(Change(path, "relabel", labels[row], *new[path]))
            labels[row] = new[path][0]
    return catalog.with_column("label", labels), changes


def _check_paths(catalog: Catalog, paths: Mapping[str, object]) -> None:
    """Check that all paths are in the catalog.

    Raises:
        RequestError: If one is not.
    """
    known = set(catalog.paths)
    unknown = [p for p in paths if p not in known]
    if unknown:
        match = closest(unknown[0], sorted(known))
        hint = f"did you mean {match!r}?" if match else "paths are relative to the catalog's root, as in its column path"
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        raise RequestError(f"{unknown[0]!r}{more} is not an image of the catalog", hint)


def write_changes(changes: Sequence[Change], file: Path) -> None:
    """Write changes as a CSV table, one row per change."""
    rows = [",".join(_CHANGE_COLUMNS)]
    for change in changes:
        cells = (getattr(change, name) for name in _CHANGE_COLUMNS)
        rows.append(",".join(_cell("" if c is None else str(c)) for c in cells))
    store.write_text(file, "\n".join(rows) + "\n")


def _cell(text: str) -> str:
    """Return a CSV cell, quoted if needed, and escaped against formulas."""
    text = csv_escape(text)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def diff(before: Catalog, after: Catalog) -> CatalogDiff:
    """Compare two catalogs.

    Args:
        before, after: Catalogs; a path that is only in the first counts as moved if the second has a new path with its content.
    """
    rows_before, rows_after = ({p: i for i, p in enumerate(c.paths)} for c in (before, after))
    removed = [p for p in rows_before if p not in rows_after]
    added = [p for p in rows_after if p not in rows_before]
    contents = before.column("content"), after.column("content")
    new_place: dict[str, list[str]] = defaultdict(list)
    for path in reversed(added):
        new_place[contents[1][rows_after[path]]].append(path)
    pairs = [(p, p) for p in rows_before if p in rows_after]
    moved = []
    for path in removed:
        content = contents[0][rows_before[path]]
        if content and new_place[content]:
            moved.append((path, new_place[content].pop()))
    changed: dict[str, dict[str, tuple[str | None, str | None]]] = {name: {} for name in _COMPARED}
    for name in _COMPARED:
        values = before.column(name), after.column(name)
        for old, new in (*pairs, *moved):
            one, other = values[0][rows_before[old]], values[1][rows_after[new]]
            if one != other:
                changed[name][new] = (one, other)
    gone, come = {a for a, _ in moved}, {b for _, b in moved}
    return CatalogDiff(
        added=tuple(p for p in added if p not in come),
        removed=tuple(p for p in removed if p not in gone),
        moved=tuple(moved),
        content=tuple(p for p, _ in pairs if contents[0][rows_before[p]] != contents[1][rows_after[p]]),
        **changed,
    )
