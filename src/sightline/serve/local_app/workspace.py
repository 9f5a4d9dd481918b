"""The folder of runs that the app shows, with the catalogs in it."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends, Request

from sightline import catalog as catalogs
from sightline import containers
from sightline.errors import SightlineError
from sightline.records import Catalog, RunRecord
from sightline.records.scanned_photos import ScannedPhotos
from sightline.records.versions import check_version, read_record
from sightline.schema import from_json
from sightline.serve.local_app.errors import NotFoundError
from sightline.store import Cache

CATALOGS = "catalogs"
"""Subfolder of the catalogs that the app makes."""
LABELS, CORRECTED, AUDITS = "labels", "corrected", "audits"
"""Subfolders of labelling sessions, of corrected catalogs, and of audits of catalogs."""
DECISIONS = "decisions"
PHOTOS = "photos.json"
STARTED = ".started"
"""Subfolder of the commands that the app has started, until the folder of their result is known."""
MOST_OPEN = 4
"""Catalogs that are kept in memory."""


@dataclass(frozen=True, slots=True)
class OpenCatalog:
    """Catalog that the app has read.

    Args:
        id: Its id in addresses.
        file: Its table.
        catalog: Its rows.
        rows: Id of an image → its row.
        stamp: Modification time and size of the file when it was read.
    """

    id: str
    file: Path
    catalog: Catalog
    rows: dict[str, int]
    stamp: tuple[int, int]


class Workspace:
    """Folder of runs.

    Args:
        folder: The folder; it may not exist yet.
        cache: Cache. Default: the user's cache.
    """

    def __init__(self, folder: Path, cache: Cache | None = None) -> None:
        self.folder = folder
        self.cache = Cache() if cache is None else cache
        self._open: dict[str, OpenCatalog] = {}
        self._lock = threading.Lock()

    def run_folders(self) -> list[Path]:
        """Return the output folders of the workspace, sorted by name: runs and studies, finished or not."""
        own = (CATALOGS, LABELS, CORRECTED, AUDITS, DECISIONS)
        return [f for f in _folders(self.folder) if f.name not in own and _is_output(f)]

    def run_folder(self, name: str) -> Path:
        """Return the run folder of a name.

        Raises:
            NotFoundError: If there is none.
        """
        found = next((f for f in self.run_folders() if f.name == name), None)
        if found is None:
            raise NotFoundError(f"there is no run {name[:100]!r} in {self.folder}", "it may have been deleted or renamed")
        return found

    def started_folders(self) -> list[Path]:
        """Return the folders of started commands whose result has no folder yet."""
        return _folders(self.folder / STARTED)

    def started_folder(self, name: str) -> Path:
        """Return the folder of a started command.

        Raises:
            NotFoundError: If the name is not that of a folder.
        """
        if not re.fullmatch(r"[a-z0-9-]{1,80}", name):
            raise NotFoundError(f"there is no command {name[:100]!r}", "it may have finished")
        return self.folder / STARTED / name

    def catalog_folders(self) -> list[Path]:
        """Return the folders of the catalogs that the app makes, also of those whose scan has not finished."""
        return _folders(self.folder / CATALOGS)

    def catalog_folder(self, name: str) -> Path:
        """Return the folder of a catalog that the app makes.

        Raises:
            NotFoundError: If there is none.
        """
        found = next((f for f in self.catalog_folders() if f.name == name), None)
        if found is None:
            raise NotFoundError(f"there are no photographs {name[:100]!r} in {self.folder}", "choose their folder again")
        return found

    def catalogs(self) -> dict[str, Path]:
        """Return the catalogs of the app and of all runs: id → file, those of the app first."""
        made = [f / "catalog.csv" for part in (CATALOGS, CORRECTED, LABELS) for f in _folders(self.folder / part)]
        of_runs = [f / "catalog.csv" for f in self.run_folders()]
        return {self.id_of(file): file for file in [*made, *of_runs] if file.is_file()}

    def id_of(self, file: Path) -> str:
        """Return the id of a catalog in the workspace, which depends on its place."""
        return image_id(self.name_of(file))

    def name_of(self, file: Path) -> str:
        """Return the path of a file relative to the workspace, with forward slashes."""
        return file.relative_to(self.folder).as_posix()

    def catalog(self, id: str) -> OpenCatalog:
        """Return an opened catalog; it is read again when its file has changed.

        Raises:
            NotFoundError: If there is no catalog of this id.
            DataError: If its file is damaged.
        """
        file = self.catalogs().get(id)
        if file is None:
            raise NotFoundError("there is no such catalog", "its folder may have been deleted or renamed")
        status = file.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        with self._lock:
            found = self._open.get(id)
            if found is None or found.stamp != stamp:
                catalog = _load(file)
                rows = {image_id(path): row for row, path in enumerate(catalog.paths)}
                self._open.pop(id, None)
                self._open[id] = found = OpenCatalog(id, file, catalog, rows, stamp)
                while len(self._open) > MOST_OPEN:
                    self._open.pop(next(iter(self._open)))
            return found

    def decisions_file(self, id: str) -> Path:
        """Return the decisions file of a catalog; see `runs.decisions`."""
        return self.folder / DECISIONS / f"{id}.jsonl"


def _load(file: Path) -> Catalog:
    """Return a catalog with paths relative to the folder of its photographs, if its neighbours say where that is."""
    root = photos_of(file.parent)
    if root is not None and (root.is_dir() or containers.is_archive(root)):
        catalog = catalogs.load(file, root)
        if not any(path.startswith("../") for path in catalog.paths[:100]):
            return catalog
    return catalogs.load(file)


def photos_of(folder: Path) -> Path | None:
    """Return the photographs of the catalog in a folder as its scan or its run named them, None if that is not known.

    Raises:
        RequestError: If the record is of another version, or has other keys.
    """
    if (folder / PHOTOS).is_file():
        value = read_record(folder / PHOTOS)
        check_version(value, f"file {folder / PHOTOS}")
        return Path(from_json(ScannedPhotos, value, "record of scanned photographs", "key").photos)
    if (folder / "run.json").is_file():
        root = RunRecord.from_json(read_record(folder / "run.json")).root
        return None if root is None else Path(root)
    return None


def image_id(path: str) -> str:
    """Return the id of an image or a catalog in addresses: 16 hexadecimal digits that depend on its path."""
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _folders(folder: Path) -> list[Path]:
    """Return the folders inside a folder, sorted by name; none if it does not exist or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(e.path) for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _is_output(folder: Path) -> bool:
    """Return whether a folder is one that Sightline wrote."""
    names = (".sightline", "run.json", "study.json", "plan.json", "comparison.json", "progress.json", "catalog.csv")
    try:
        return any((folder / name).is_file() for name in names)
    except (OSError, SightlineError):
        return False


def _current(request: Request) -> Workspace:
    """Return the workspace of the app."""
    return cast(Workspace, request.app.state.workspace)


CurrentWorkspace = Annotated[Workspace, Depends(_current)]
"""Type of a handler's parameter that is the workspace."""
