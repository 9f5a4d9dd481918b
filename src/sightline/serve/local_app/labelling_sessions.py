"""Labelling sessions that the app has opened: they are prepared in the background, since features of a folder take a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sightline.commands.label import REQUEST, LabellingSession, checked_classes, read_request, start
from sightline.errors import RequestError
from sightline.records.labelling import LabellingRequest
from sightline.records.scanned_photos import ScannedPhotos
from sightline.serve.local_app.errors import NotFoundError
from sightline.serve.local_app.workspace import LABELS, PHOTOS, Workspace
from sightline.store import digest, log, output_folder, slug, write_json

_LOCK = threading.Lock()
_WORK = ThreadPoolExecutor(1, thread_name_prefix="sightline-label")  # one folder, or one fit, at a time


@dataclass(slots=True)
class Opening:
    """A session that is being prepared, or is ready.

    Args:
        future: Its result.
        stage, done, total: The present step.
    """

    future: Future[LabellingSession] = field(default_factory=Future)
    stage: str = "waiting"
    done: int = 0
    total: int = 0

    def progress(self, stage: str, done: int, total: int) -> None:
        """Remember the present step."""
        self.stage, self.done, self.total = stage, done, total


_OPENINGS: dict[Path, Opening] = {}


def sessions(workspace: Workspace) -> dict[str, LabellingRequest]:
    """Return the sessions of a workspace: name → request, sorted by name."""
    files = sorted((workspace.folder / LABELS).glob(f"*/{REQUEST}"))
    found: dict[str, LabellingRequest] = {}
    for file in files:
        try:
            found[file.parent.name] = read_request(file.parent)
        except (RequestError, ValueError, OSError) as error:
            log.warning("%s cannot be read (%s)", file, error)
    return found


def begin(workspace: Workspace, photos: Path, classes: list[str], *, network: str | None = None) -> str:
    """Start the session of a folder in the background, or continue it, and return its name.

    Raises:
        RequestError: If the folder does not exist, or the classes cannot be used.
    """
    names = checked_classes(classes)
    if not photos.is_absolute():
        photos = Path.cwd() / photos
    if not photos.exists():
        raise RequestError(f"{photos} does not exist", "name a folder of photographs")
    name = slug(photos.name)
    folder = workspace.folder / LABELS / name
    if (folder / REQUEST).is_file() and read_request(folder).photos != str(photos):
        name = f"{name}-{digest(str(photos))[:6]}"
        folder = workspace.folder / LABELS / name
    if photos.is_dir():
        write_json(output_folder(folder) / PHOTOS, ScannedPhotos(str(photos)))

    def work(opening: Opening) -> LabellingSession:
        return start(photos, names, folder, backbone=network, progress=opening.progress, cache=workspace.cache)

    _open(folder, work)
    return name


def opened(workspace: Workspace, name: str) -> Opening:
    """Return a session of the workspace; it is prepared in the background if it is not open yet.

    Raises:
        NotFoundError: If there is none of this name.
    """
    folder = workspace.folder / LABELS / name
    with _LOCK:
        found = _OPENINGS.get(folder)
    if found is not None and not (found.future.done() and found.future.exception() is not None and name in sessions(workspace)):
        return found
    if name not in sessions(workspace):
        raise NotFoundError(f"there is no labelling session {name[:100]!r}", "start one on the page Label")
    return _open(folder, lambda opening: LabellingSession(folder, progress=opening.progress, cache=workspace.cache))


def refit_later(session: LabellingSession) -> None:
    """Fit the session's head in the background if enough answers have come in."""
    if session.needs_fit():
        _WORK.submit(_refit, session)


def _refit(session: LabellingSession) -> None:
    """Fit, unless an earlier fit in the queue has done so."""
    try:
        if session.needs_fit():
            session.refit()
    except Exception as error:
        log.error("the head cannot be fitted: %r", error, exc_info=error)


def _open(folder: Path, work: Callable[[Opening], LabellingSession]) -> Opening:
    """Return the opening of a folder; start it unless it is running or ready."""
    with _LOCK:
        found = _OPENINGS.get(folder)
        if found is not None and not (found.future.done() and found.future.exception() is not None):
            return found
        _OPENINGS[folder] = opening = Opening()

    def run() -> None:
        try:
            opening.future.set_result(work(opening))
        except BaseException as error:
            opening.future.set_exception(error)

    _WORK.submit(run)
    return opening
