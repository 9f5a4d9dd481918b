"""Notes on a finished run that a user should not miss, printed by the command line and logged in Python."""

from __future__ import annotations

import itertools

from sightline.records import RunRecord
from sightline.records.candidates import ShortcutCheck

MOST_NAMED = 3
"""Maximum number of files that a note names."""


def of_run(record: RunRecord) -> list[str]:
    """Return the notes on a run: training images among the scored ones, shortcuts, undecodable files, the candidate's note."""
    chosen = next((candidate.note for candidate in record.candidates if candidate.chosen), None)
    notes = [record.caution and f"CAUTION: {record.caution}", undecodable(record), chosen]
    return [*filter(None, notes), *of_shortcut(record.shortcut)]


def of_shortcut(check: ShortcutCheck | None) -> list[str]:
    """Return warnings if file properties give a class, or a part of one, away."""
    if check is None:
        return []
    danger = "the classifier may use it instead of the content of the photographs"
    if check.rules:
        return [f"ALARM: {rule.sentence}; {danger}" for rule in check.rules[:3]]
    if check.alarm and check.auc is not None:
        what = f"{check.feature} alone separates {check.class_name} from the other classes (AUC {check.auc:.2f})"
        return [f"ALARM: {what}; {danger}"]
    if check.notable and check.score is not None and check.chance is not None:
        reach = f"file properties alone reach {check.score:.0%} accuracy (chance level {check.chance:.0%})"
        return [f"{reach}, mostly through {check.feature}; part of the classifier's accuracy may come from them"]
    return []


def undecodable(record: RunRecord) -> str | None:
    """Return how many images could not be decoded, with the first of them; None if all could."""
    rows = [row for split in record.undecodable.values() for row in split]
    if not rows:
        return None
    problems = (row.problem if row.path in row.problem else f"{row.path}: {row.problem}" for row in rows)
    named = "; ".join(itertools.islice(problems, MOST_NAMED))
    more = "; ..." if len(rows) > MOST_NAMED else ""
    count = "1 image" if len(rows) == 1 else f"{len(rows):,} images"
    return f"{count} left out, not decodable ({named}{more}); report.html lists all"
