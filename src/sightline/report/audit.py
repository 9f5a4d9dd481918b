"""Audit page: the findings of an audit as pictures, and the same as a section of the run report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sightline import __version__
from sightline.records.audit import AuditRecord
from sightline.records.candidates import ShortcutCheck
from sightline.report.format import count, date, decimal, images, percent, short
from sightline.report.images import Album
from sightline.store import write_text

MOST_CARDS = 60
MOST_LISTED = 200
_SIDE_PX = 220


def write_audit(found: AuditRecord, folder: Path) -> Path:
    """Write `audit.html`, one self-contained file, into the folder of the audit, and return it."""
    from sightline.report.page import inlined, templates  # the run report, which imports this module for its own section

    album = Album()
    page = (
        templates()
        .get_template("audit.html.j2")
        .render(
            **inlined(),
            version=__version__,
            title=short(Path(found.photos or "images").name, 60),
            date=date(found.created),
            words=words(found),
            audit=view(found, folder, album),
            left_out=album.left_out,
        )
    )
    out = folder / "audit.html"
    write_text(out, page)
    return out


def words(found: AuditRecord) -> list[str]:
    """Return the main findings as sentences."""
    sets = len(found.exact_duplicates) + len(found.near_duplicates)
    first = f"{images(found.images)}; {count(len(found.problems))} unusable or odd."
    lines = [first, f"{count(sets)} sets of duplicates, {count(len(found.leaks))} of them in more than one split."]
    if found.network is not None:
        likely = len(found.likely)
        errors = f"{count(likely)} likely label error{'' if likely == 1 else 's'}"
        outliers = f"{count(len(found.outliers))} outlier{'' if len(found.outliers) == 1 else 's'}"
        lines.append(f"{errors} and {outliers} among {images(found.judged)} (features of {found.network}).")
    if found.pretraining is not None:
        lines.append(found.pretraining.sentence)
    return lines


def view(found: AuditRecord, folder: Path, album: Album) -> dict[str, Any]:
    """Return the template variables of the findings."""
    likely, outliers = found.likely[:MOST_CARDS], found.outliers[:MOST_CARDS]
    suspects = zip(likely, album.read(folder, [s.thumbnail for s in likely], _SIDE_PX), strict=True)
    unusual = zip(outliers, album.read(folder, [o.thumbnail for o in outliers], _SIDE_PX), strict=True)
    sets = [
        {
            "kind": each.kind,
            "n": len(each.paths),
            "pictures": [
                {"path": path, "picture": picture}
                for path, picture in zip(each.paths, album.read(folder, each.thumbnails, _SIDE_PX), strict=False)
            ],
        }
        for each in found.pictures
    ]
    return {
        "suspects": [
            {**_row(s.path, s.label, s.score), "suggested": s.suggested, "picture": p, "split": s.split} for s, p in suspects
        ],
        "suspects_total": len(found.likely),
        "suspects_in_test": sum(s.split == "test" for s in found.likely),
        "test_included": found.test_included,
        "judged": found.judged,
        "outliers": [{**_row(o.path, o.label, o.score), "picture": p} for o, p in unusual],
        "outliers_total": len(found.outliers),
        "sets": sets,
        "sets_total": sum(
            map(len, (found.conflicts, found.leaks, found.near_duplicates, found.exact_duplicates, found.same_scene))
        ),
        "problems": found.problems[:MOST_LISTED],
        "problems_total": len(found.problems),
        "shortcuts": _shortcut(found.shortcut),
        "pretraining": _known(found),
        "zero_training": percent(found.pretraining.zero_training_accuracy) if found.pretraining else None,
        "groups": [s.sentence for s in found.groups],
        "shared": found.shared[:MOST_LISTED],
        "shared_total": len(found.shared),
        "notes": found.notes,
        "network": found.network,
    }


def _row(path: str, label: str | None, score: float) -> dict[str, Any]:
    """Return path, label and score of an image for its card."""
    return {"path": path, "label": label, "score": decimal(score, 2)}


def _shortcut(check: ShortcutCheck | None) -> list[str]:
    """Return the shortcut check as sentences; none if file properties tell nothing."""
    if check is None or not (check.alarm or check.notable):
        return []
    if check.rules:
        return [rule.sentence for rule in check.rules]
    reach = f"File properties alone reach {percent(check.score, 0)} (chance {percent(check.chance, 0)})"
    return [f"{reach}, mostly through {check.feature}."]


def of_run(found: AuditRecord | None, folder: Path, album: Album) -> dict[str, Any] | None:
    """Return the findings that the run report shows; duplicates, problems and shortcuts have sections of their own there."""
    if found is None or found.network is None:
        return None
    return {**view(found, folder, album), "sets": [], "problems": [], "shortcuts": [], "notes": [], "in_run": True}


def _known(found: AuditRecord) -> list[dict[str, str]]:
    """Return the rows of the table of known classes."""
    if found.pretraining is None:
        return []
    return [
        {"label": c.label, "known_as": c.known_as or "–", "auc": decimal(c.auc, 2)}
        for c in found.pretraining.classes[:MOST_LISTED]
    ]
