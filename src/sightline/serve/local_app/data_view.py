"""View of the page Data: findings of an audit, filters, and the images of one page with their decisions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sightline.errors import SightlineError
from sightline.files import read_text
from sightline.records import Catalog
from sightline.records.audit import AuditRecord
from sightline.records.decisions import Decision
from sightline.serve.local_app import pictures
from sightline.serve.local_app.workspace import AUDITS, OpenCatalog, Workspace, image_id
from sightline.store import log

PAGE_IMAGES = 48
SIZES: dict[str, tuple[int, int]] = {
    "under 64 px": (0, 64),
    "64 to 255 px": (64, 256),
    "256 to 1,023 px": (256, 1024),
    "1,024 px and more": (1024, 1 << 31),
}
"""Range of the shorter side, by its title."""
FINDINGS: dict[str, str] = {
    "labels": "Suspicious labels",
    "duplicates": "Duplicates",
    "conflicts": "One picture, two labels",
    "leaks": "In several splits",
    "outliers": "Outliers",
    "odd": "Unusual images",
}
"""Kind of finding of an audit → its title."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about one image.

    Args:
        kind: A key of `FINDINGS`.
        words: The finding in words.
        suggested: Class that is suggested, for `labels`.
        copy_of: Path of an image of the same set, for duplicates.
        order: Images of one kind are shown in this order.
    """

    kind: str
    words: str
    suggested: str | None = None
    copy_of: str | None = None
    order: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Filter of the shown images.

    Args:
        view: `all`, `unusable`, `decided`, or a key of `FINDINGS`.
        label, split, size: A class, a split, a key of `SIZES`; "" for all.
        page: Number of the page, from 1.
    """

    view: str = "all"
    label: str = ""
    split: str = ""
    size: str = ""
    page: int = 1


@dataclass(frozen=True, slots=True)
class Tile:
    """One image of the page.

    Args:
        id: Its id in addresses.
        findings: Findings in words.
        decision: What was decided, in words; "" if nothing was.
        usable: Whether it can be shown.
    """

    id: str
    path: str
    label: str | None
    split: str | None
    size: str
    picture: str
    large: str
    findings: Sequence[str]
    suggested: str | None
    copy_of: str | None
    decision: str
    usable: bool = True


@dataclass(frozen=True, slots=True)
class Shown:
    """The images of one page, and how many each filter has.

    Args:
        tiles: Images of the page.
        total: Images that the filter has.
        pages: Number of pages.
        views: (key, title, count) of every view.
        labels, splits, sizes: Counts of the whole catalog.
    """

    tiles: Sequence[Tile]
    total: int
    pages: int
    views: Sequence[tuple[str, str, int]]
    labels: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


def audit_folder(workspace: Workspace, id: str) -> Path:
    """Return the folder of the audit of a catalog."""
    return workspace.folder / AUDITS / id


def audit_of(workspace: Workspace, opened: OpenCatalog) -> AuditRecord | None:
    """Return the audit of a catalog: that of the app, or that of its run; None if there is none, or it cannot be read."""
    files = (audit_folder(workspace, opened.id) / "audit.json", opened.file.parent / "run.json")
    for file in files:
        try:
            value = json.loads(read_text(file))
            if file.name == "run.json":
                value = value.get("audit")
            if value is not None:
                return AuditRecord.from_json({"version": 1, **value})
        except FileNotFoundError:
            continue
        except (SightlineError, OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("the audit in %s cannot be read (%s)", file, error)
    return None


def findings_of(audit: AuditRecord | None) -> dict[str, list[Finding]]:
    """Return path → findings."""
    found: dict[str, list[Finding]] = {}
    if audit is None:
        return found
    for path, finding in _findings(audit):
        found.setdefault(path, []).append(finding)
    return found


def _findings(audit: AuditRecord) -> Iterator[tuple[str, Finding]]:
    """Yield (path, finding) of an audit."""
    for order, suspect in enumerate(audit.likely):
        yield (
            suspect.path,
            Finding("labels", f"labelled {suspect.label}, looks like {suspect.suggested}", suspect.suggested, None, order),
        )
    sets = (("duplicates", audit.exact_duplicates, "identical to"), ("duplicates", audit.near_duplicates, "same picture as"))
    named = (*sets, ("conflicts", audit.conflicts, "other label than"), ("leaks", audit.leaks, "in another split than"))
    order = 0
    for kind, groups, words in named:
        for group in groups:
            for path in group:
                order += 1
                other = group[0] if path != group[0] else group[-1]
                yield path, Finding(kind, f"{words} {other}", None, other, order)
    for order, outlier in enumerate(audit.outliers):
        yield outlier.path, Finding("outliers", f"unlike all others (distance {outlier.score:.2f})", None, None, order)
    for order, problem in enumerate(audit.problems):
        yield problem.path, Finding("odd", problem.problem, None, None, order)


def shown(
    opened: OpenCatalog,
    wanted: Filter,
    findings: Mapping[str, Sequence[Finding]],
    decided: Mapping[str, Decision],
    *,
    with_test: bool,
) -> Shown:
    """Return the images of a page of a catalog.

    Args:
        opened: The catalog.
        wanted: The filter.
        findings: Path → findings.
        decided: Path → decision in force.
        with_test: Whether test images are shown.
    """
    table = _columns(opened.catalog)
    rows = [i for i in range(len(opened.catalog)) if with_test or table["split"][i] != "test"]
    sizes = [_size(w, h) for w, h in zip(table["width"], table["height"], strict=True)]
    members = {kind: {p: f.order for p, all_of in findings.items() for f in all_of if f.kind == kind} for kind in FINDINGS}
    sets: dict[str, Mapping[str, int]] = {
        **members,
        "unusable": {table["path"][i]: i for i in rows if table["problem"][i] is not None},
        "decided": dict.fromkeys(decided, 0),
    }
    titles = {"all": "All", **FINDINGS, "unusable": "Unusable", "decided": "Decided"}
    visible = {table["path"][i] for i in rows}
    counts = {key: len(rows) if key == "all" else len(visible & sets[key].keys()) for key in titles}
    views = [(key, title, counts[key]) for key, title in titles.items() if key == "all" or counts[key] or key == wanted.view]
    members_of = sets.get(wanted.view)
    picked = [
        i
        for i in rows
        if (members_of is None or table["path"][i] in members_of)
        and (not wanted.label or table["label"][i] == wanted.label)
        and (not wanted.split or table["split"][i] == wanted.split)
        and (not wanted.size or sizes[i] == wanted.size)
    ]
    if members_of is not None:
        picked.sort(key=lambda i: members_of[table["path"][i]])
    pages = max(1, -(-len(picked) // PAGE_IMAGES))
    start = (min(max(wanted.page, 1), pages) - 1) * PAGE_IMAGES
    tiles = [_tile(opened, table, i, findings, decided) for i in picked[start : start + PAGE_IMAGES]]
    return Shown(
        tiles,
        len(picked),
        pages,
        views,
        labels=_counted(table["label"][i] for i in rows),
        splits=_counted(table["split"][i] for i in rows),
        sizes={name: n for name in SIZES if (n := sum(sizes[i] == name for i in rows))},
    )


def _columns(catalog: Catalog) -> dict[str, list[Any]]:
    """Return the columns that the page needs."""
    return {name: catalog.column(name) for name in ("path", "label", "split", "width", "height", "problem")}


def _counted(values: Iterator[str | None] | Any) -> dict[str, int]:
    """Return the number of each value, the unknown one left out, sorted by value."""
    return dict(sorted(Counter(value for value in values if value is not None).items()))


def _size(width: int | None, height: int | None) -> str:
    """Return the key of SIZES of an image, "" if its size is unknown."""
    if not width or not height:
        return ""
    return next(name for name, (low, high) in SIZES.items() if low <= min(width, height) < high)


def _tile(
    opened: OpenCatalog,
    table: Mapping[str, Sequence[Any]],
    row: int,
    findings: Mapping[str, Sequence[Finding]],
    decided: Mapping[str, Decision],
) -> Tile:
    """Return one image of the page."""
    path, problem = table["path"][row], table["problem"][row]
    found = findings.get(path, ())
    width, height = table["width"][row], table["height"][row]
    named = [each.words for each in found]
    return Tile(
        id=image_id(path),
        path=path,
        label=table["label"][row],
        split=table["split"][row],
        size=f"{width:,} × {height:,}" if width and height else "",
        picture=pictures.url(opened.id, path, 320),
        large=pictures.url(opened.id, path, 1280),
        findings=[*([problem] if problem is not None and problem not in named else []), *named][:3],
        suggested=next((each.suggested for each in found if each.suggested), None),
        copy_of=next((each.copy_of for each in found if each.copy_of), None),
        decision=in_words(decided.get(path)),
        usable=problem is None or str(problem).startswith(("quarantined", "duplicate")),
    )


def in_words(decision: Decision | None) -> str:
    """Return a decision in words; "" for none.

    Example:
        >>> in_words(Decision("label", "a.jpg", label="dog")), in_words(Decision("exclude", "a.jpg"))
        ('→ dog', 'exclude')
    """
    if decision is None:
        return ""
    words = {"no class": "not in any class", "keep": "checked", "label": f"→ {decision.label}"}
    return words.get(decision.action, decision.action)
