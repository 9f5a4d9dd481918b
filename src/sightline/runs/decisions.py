"""Decisions file: what a person decided about the images of a catalog, one JSON object per line, only ever appended to.

The version of a file is the number of its decisions. Who appends says which version they have seen; if it is no longer the
newest one, nothing is written, so that of two browser tabs neither overwrites what the other one has decided.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from sightline.errors import RequestError, SightlineError
from sightline.files import read_text
from sightline.records.decisions import Decision, DecisionsHeader
from sightline.records.versions import check_version
from sightline.schema import from_json
from sightline.store import append_line, canonical_json, locked_file, log, now, output_folder

LOCK_S = 10.0


class StaleError(RequestError):
    """Decision that was taken without knowledge of later ones.

    Args:
        version: The newest version of the file.
    """

    def __init__(self, seen: int, version: int) -> None:
        what = f"the decisions have changed since this page was loaded (version {version}, the page has {seen})"
        super().__init__(what, "load the page again; nothing was changed")
        self.version = version


@dataclasses.dataclass(frozen=True, slots=True)
class Decisions:
    """Content of a decisions file.

    Args:
        decisions: All readable decisions, oldest first.
        version: Number of the newest decision; 0 if there are none.
        interrupted: Whether the file ends with an incomplete line, which will count as an unreadable decision.
    """

    decisions: tuple[Decision, ...] = ()
    version: int = 0
    interrupted: bool = False

    def in_force(self) -> dict[str, Decision]:
        """Return path → the newest decision that was not undone. Undoing an `undo` brings the decision back."""
        undone: set[int] = set()
        found: dict[str, Decision] = {}
        for decision in reversed(self.decisions):
            if decision.number in undone:
                continue
            if decision.action == "undo":
                undone.add(decision.undoes or 0)
            else:
                found.setdefault(decision.path, decision)
        return {path: found[path] for path in reversed(found)}


def read(file: Path) -> Decisions:
    """Return the content of a decisions file; an absent file has none. Unreadable lines are logged and left out.

    Raises:
        RequestError: If the file is of another version.
    """
    try:
        lines = read_text(file).split("\n")
    except FileNotFoundError:
        return Decisions()
    header = json.loads(lines[0]) if lines[0].strip() else {}
    check_version(header if isinstance(header, dict) else {}, f"file {file}")
    complete = lines[1:-1]  # what follows the last line end was interrupted
    decisions = []
    for number, line in enumerate(complete, 1):
        try:
            decision = from_json(Decision, json.loads(line), "decision", "key")
        except (ValueError, TypeError, SightlineError) as error:
            log.warning("decision %d in %s cannot be read (%s) and is left out", number, file, error)
            continue
        decisions.append(dataclasses.replace(decision, number=number))
    return Decisions(tuple(decisions), len(complete), bool(lines[-1]))


def append(file: Path, decisions: Sequence[Decision], *, seen: int, catalog: str) -> Decisions:
    """Append decisions to a file, which is created if it does not exist, and return its new content.

    Args:
        file: The decisions file.
        decisions: New decisions; number and time are filled in.
        seen: Version of the file that the person has seen.
        catalog: Catalog that the paths are of, relative to the folder of runs.

    Raises:
        StaleError: If the file has a newer version; nothing is written.
        RequestError: If an `undo` names no decision of the file.
        TimeoutError: If another process keeps the file locked.
    """
    output_folder(file.parent)
    with locked_file(file.with_suffix(".lock"), LOCK_S):
        before = read(file)
        if before.version != seen:
            raise StaleError(seen, before.version)
        known = {decision.number for decision in before.decisions}
        for decision in decisions:
            if decision.action == "undo" and decision.undoes not in known:
                raise RequestError(f"there is no decision {decision.undoes} to undo", "load the page again")
        if not file.exists():
            append_line(file, canonical_json(DecisionsHeader(catalog)))
        for number, decision in enumerate(decisions, before.version + before.interrupted + 1):
            append_line(file, canonical_json(dataclasses.replace(decision, number=number, time=now())))
        return read(file)
