"""The runs of a workspace in short: what a list shows of each folder, damaged ones included."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sightline.errors import SightlineError
from sightline.records import ComparisonRecord, RunRecord, read_study
from sightline.records.audit import AuditRecord
from sightline.records.progress import CommandProgress
from sightline.records.versions import read_record
from sightline.report import format, headline
from sightline.runs import progress_file
from sightline.serve.local_app.workspace import Workspace

KINDS = {"run": "run", "train": "training", "evaluate": "evaluation", "crossvalidate": "cross-validation"}
State = Literal["finished", "running", "interrupted", "failed", "unfinished", "damaged"]


@dataclass(frozen=True, slots=True)
class RunRow:
    """Run, study, comparison or audit in a list.

    Args:
        name: Name of its folder.
        url: Address of its page.
        state: Whether it is finished.
        kind: What it is, such as `run` or `comparison`.
        title: Its name for people.
        created: Time in ISO 8601; "" if unknown.
        accuracy, low, high: Accuracy and 95 % interval, 0 to 1; None if there is none.
        scored: Images that were scored, such as `test`.
        images: Number of scored images.
        method: Method, head and backbone.
        seconds: How long it took.
        problem: Why it is damaged or failed.
        comparable: Whether it can be compared with others.
        progress: Progress of a command that has not finished.
    """

    name: str
    url: str
    state: State
    kind: str = ""
    title: str = ""
    created: str = ""
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    scored: str = ""
    images: int | None = None
    method: str = ""
    seconds: float | None = None
    problem: str = ""
    comparable: bool = False
    progress: CommandProgress | None = None


_known: dict[tuple[str, int, int], RunRow] = {}
_lock = threading.Lock()
_MOST_KNOWN = 5000


def rows(workspace: Workspace) -> list[RunRow]:
    """Return all runs, studies, comparisons, audits and started commands, the newest first; the folder of a demo is none."""
    found = [_started(folder) for folder in workspace.started_folders()]
    listed = [row for row in found if row is not None] + [row_of(folder) for folder in workspace.run_folders()]
    listed = [row for row in listed if row.state != "unfinished" or not (workspace.folder / row.name / "runs").is_dir()]
    return sorted(listed, key=lambda row: (row.state != "running", _age(row.created)))


def _age(created: str) -> float:
    """Return a number that is smaller for later times."""
    try:
        return -datetime.datetime.fromisoformat(created).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def _started(folder: Path) -> RunRow | None:
    """Return a started command whose result has no folder yet; None if it has one, or has finished."""
    try:
        progress = progress_file.read(folder)
    except SightlineError as error:
        return RunRow(folder.name, f"/started/{folder.name}", "damaged", problem=error.message)
    if progress is None or progress.folder:
        return None
    title = " ".join(progress.command[:2])
    return _unfinished(folder.name, f"/started/{folder.name}", progress, title)


def _unfinished(name: str, url: str, progress: CommandProgress, title: str) -> RunRow:
    """Return a command that has not finished."""
    verb = progress.command[0] if progress.command else ""
    kind = KINDS.get(verb, verb)
    return RunRow(name, url, progress.state, kind, title, progress.started, problem=progress.error, progress=progress)


def row_of(folder: Path) -> RunRow:
    """Return what a list shows of one folder; a damaged one says why."""
    name, url = folder.name, f"/runs/{format_name(folder.name)}"
    try:
        progress = progress_file.read(folder)
        if progress is not None and progress.state == "running":
            return _unfinished(name, url, progress, name)
        for file, read in READERS.items():
            if (folder / file).is_file():
                return _cached(folder / file, url, read)
    except SightlineError as error:
        return RunRow(name, url, "damaged", title=name, problem=error.message)
    except OSError as error:
        return RunRow(name, url, "damaged", title=name, problem=f"{error.strerror or error}")
    if progress is not None:
        return _unfinished(name, url, progress, name)
    return RunRow(name, url, "unfinished", title=name)


def format_name(name: str) -> str:
    """Return the name of a folder as a part of an address."""
    from urllib.parse import quote

    return quote(name, safe="", errors="surrogateescape")


def _cached(file: Path, url: str, read: Callable[[Path, str], RunRow]) -> RunRow:
    """Return the row of a record, which is read again only if its file has changed."""
    status = file.stat()
    key = (str(file), status.st_mtime_ns, status.st_size)
    with _lock:
        found = _known.get(key)
    if found is None:
        found = read(file, url)
        with _lock:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[key] = found
    return found


def _run(file: Path, url: str) -> RunRow:
    """Return the row of `run.json`."""
    record = RunRecord.from_json(read_record(file))
    _, scores = headline.scored(record)
    accuracy = None if scores is None else scores.accuracy
    return RunRow(
        file.parent.name,
        url,
        "finished",
        KINDS.get(record.kind or "", record.kind or "run"),
        record.name or file.parent.name,
        record.created or "",
        accuracy=None if accuracy is None else accuracy.value,
        low=None if accuracy is None else accuracy.low,
        high=None if accuracy is None else accuracy.high,
        scored=headline.kind_of(record),
        images=None if scores is None else scores.n,
        method=headline.method_name(record),
        seconds=record.seconds,
        comparable=record.kind in ("run", "train"),
    )


def _study(file: Path, url: str) -> RunRow:
    """Return the row of `study.json`."""
    record = read_study(read_record(file))
    kind = "sweep" if record.kind == "sweep" else "search"
    method = str(record.recipe.get("method", ""))
    created, title = record.created or "", record.name or file.parent.name
    return RunRow(
        file.parent.name, url, "finished", kind, title, created, method=method, seconds=record.seconds, images=record.images
    )


def _comparison(file: Path, url: str) -> RunRow:
    """Return the row of `comparison.json`."""
    record = ComparisonRecord.from_json(read_record(file))
    return RunRow(file.parent.name, url, "finished", "comparison", file.parent.name, record.created or "", images=record.n)


def _audit(file: Path, url: str) -> RunRow:
    """Return the row of `audit.json`."""
    record = AuditRecord.from_json(read_record(file))
    return RunRow(file.parent.name, url, "finished", "audit", file.parent.name, record.created or "", images=record.images)


READERS: Mapping[str, Callable[[Path, str], RunRow]] = {
    "run.json": _run,
    "study.json": _study,
    "comparison.json": _comparison,
    "audit.json": _audit,
}
"""Record of a finished folder → function that reads its row."""


def text_of(row: RunRow) -> dict[str, str]:
    """Return the texts of a row in a table."""
    progress = row.progress
    return {
        "accuracy": "" if row.accuracy is None else format.percent(row.accuracy),
        "interval": "" if row.accuracy is None else format.percent_range(row.low, row.high),
        "created": format.date(row.created),
        "created_s": f"{-_age(row.created):.0f}",
        "seconds": format.duration(row.seconds),
        "images": "" if row.images is None else f"{row.images:,}",
        "stage": "" if progress is None else format.short(progress.stage or progress_file.STARTING, 90),
    }
