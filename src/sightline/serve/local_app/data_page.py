"""Data: browse a catalog, see the findings of its audit as pictures, decide with keys, and save a corrected catalog."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import JSONResponse, Response

from sightline import catalog as catalogs
from sightline.commands.audit import audit
from sightline.errors import RequestError, SightlineError
from sightline.records.decisions import Decision
from sightline.records.scanned_photos import ScannedPhotos
from sightline.runs import decisions, test_set_log
from sightline.schema import command_line
from sightline.serve.local_app import data_view
from sightline.serve.local_app.data_view import Filter
from sightline.serve.local_app.errors import NotFoundError
from sightline.serve.local_app.page import Page
from sightline.serve.local_app.rendering import go, render
from sightline.serve.local_app.workspace import CORRECTED, PHOTOS, CurrentWorkspace, OpenCatalog, Workspace, image_id, photos_of
from sightline.store import digest, now, output_folder, write_json

router = APIRouter()
_WORK = ThreadPoolExecutor(1, thread_name_prefix="sightline-audit")
_LOCK = threading.Lock()
_AUDITS: dict[Path, Future[None]] = {}
_STEPS: dict[Path, str] = {}
_TEST_SHOWN: set[tuple[Path, str]] = set()
"""Catalogs whose test images were opened since the app was started; the use is in the test-set log."""


@router.get("/data")
def catalogs_page(request: Request, workspace: CurrentWorkspace, catalog: str | None = None) -> Response:
    """Return the list of catalogs, or open one."""
    if catalog is not None:
        return go(f"/data/{workspace.catalog(catalog).id}")
    listed = [(id, workspace.name_of(file.parent), _photos(file.parent)) for id, file in workspace.catalogs().items()]
    return render(request, "data_list.html.j2", title="Data", catalogs=listed)


def _photos(folder: Path) -> str:
    """Return the photographs of a catalog as its scan or run named them; "" if that is not known."""
    try:
        return str(photos_of(folder) or "")
    except (SightlineError, OSError):
        return ""


@router.get("/data/{id}")
def browse(
    request: Request,
    workspace: CurrentWorkspace,
    id: str,
    view: str = "all",
    label: str = "",
    split: str = "",
    size: str = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """Return a page of images of a catalog."""
    opened = workspace.catalog(id)
    wanted = Filter(view, label, split, size, page)
    record, decided = data_view.audit_of(workspace, opened), decisions.read(workspace.decisions_file(id))
    with_test = (workspace.folder, id) in _TEST_SHOWN
    shown = data_view.shown(opened, wanted, data_view.findings_of(record), decided.in_force(), with_test=with_test)
    tests = sum(s == "test" for s in opened.catalog.column("split"))
    return render(
        request,
        "data.html.j2",
        title="Data",
        id=id,
        name=workspace.name_of(opened.file.parent),
        root=opened.catalog.root,
        classes=opened.catalog.classes,
        wanted=wanted,
        shown=shown,
        seen=decided.version,
        decided=len([d for d in decided.in_force().values() if d.action not in ("keep", "skip")]),
        closed=0 if with_test else tests,
        audited=record is not None,
        auditing=_auditing(workspace, id),
        link=lambda **changes: _link(id, replace(wanted, **{"page": 1, **changes})),
    )


def _link(id: str, wanted: Filter) -> str:
    """Return the address of a page of images."""
    values = {name: getattr(wanted, name) for name in ("view", "label", "split", "size", "page")}
    return f"/data/{id}?{urlencode({name: v for name, v in values.items() if v not in ('', 'all', 1)})}"


@router.post("/data/{id}/decide")
def decide(
    workspace: CurrentWorkspace,
    id: str,
    image: Annotated[str, Form()],
    action: Annotated[str, Form()],
    seen: Annotated[int, Form()],
    label: Annotated[str | None, Form()] = None,
) -> Response:
    """Append a decision about an image; the newest decision about it counts."""
    opened = workspace.catalog(id)
    row = opened.rows.get(image)
    if row is None:
        raise NotFoundError("there is no such image in this catalog", "load the page again")
    path, content = opened.catalog.paths[row], opened.catalog.column("content")[row] or ""
    _check_open(workspace, opened, row)
    found = data_view.findings_of(data_view.audit_of(workspace, opened)).get(path, ())
    reason = "; ".join(each.words for each in found)
    copy_of = next((each.copy_of for each in found if each.copy_of), None)
    if action == "label":
        if not (label or "").strip():
            raise RequestError("a wrong label needs the right class", "choose a class")
        decision = Decision("label", path, content, (label or "").strip(), reason=reason)
    elif action == "duplicate":
        decision = Decision("duplicate", path, content, copy_of=copy_of, reason=reason)
    elif action in ("exclude", "no class", "keep"):
        decision = Decision(action, path, content, reason=reason)  # type: ignore[arg-type]
    else:
        raise RequestError(f"{action[:60]!r} is no decision", "decide label, duplicate, exclude, no class or keep")
    return _append(workspace, opened, decision, path, seen)


@router.post("/data/{id}/undo")
def undo(workspace: CurrentWorkspace, id: str, seen: Annotated[int, Form()]) -> Response:
    """Take the newest decision in force back."""
    opened = workspace.catalog(id)
    in_force = decisions.read(workspace.decisions_file(id)).in_force()
    last = max(in_force.values(), key=lambda each: each.number, default=None)
    if last is None:
        raise RequestError("there is no decision to undo", "decide about an image first")
    return _append(workspace, opened, Decision("undo", undoes=last.number), last.path, seen)


def _append(workspace: Workspace, opened: OpenCatalog, decision: Decision, path: str, seen: int) -> Response:
    """Append a decision, and return the new version and what is now decided about the image."""
    name = workspace.name_of(opened.file)
    after = decisions.append(workspace.decisions_file(opened.id), [decision], seen=seen, catalog=name)
    in_force = after.in_force()
    made = sum(each.action not in ("keep", "skip") for each in in_force.values())
    words = data_view.in_words(in_force.get(path))
    return JSONResponse({"version": after.version, "image": image_id(path), "path": path, "decision": words, "decided": made})


def _check_open(workspace: Workspace, opened: OpenCatalog, row: int) -> None:
    """Check that an image is not a test image that is still closed.

    Raises:
        RequestError: If it is.
    """
    if opened.catalog.column("split")[row] == "test" and (workspace.folder, opened.id) not in _TEST_SHOWN:
        raise RequestError("the test images of this catalog are closed", "open them on its page first")


@router.post("/data/{id}/test")
def show_test(workspace: CurrentWorkspace, id: str) -> Response:
    """Open the test images of a catalog, which is recorded in the test-set log."""
    opened = workspace.catalog(id)
    tests = opened.catalog.where(split="test")
    contents = [content or "" for content in tests.column("content")]
    subject = test_set_log.LoggedClassifier("person", (f"person:{digest(sorted(contents))}",))
    test_set_log.opened(
        contents, [subject], verb="open", by=f"test images of {workspace.name_of(opened.file)} shown", when=now()
    )
    _TEST_SHOWN.add((workspace.folder, id))
    return go(f"/data/{id}?split=test")


@router.post("/data/{id}/audit")
def find_problems(workspace: CurrentWorkspace, id: str) -> Response:
    """Audit a catalog in the background; test labels are judged only if the test images are open."""
    opened = workspace.catalog(id)
    folder, with_test = data_view.audit_folder(workspace, id), (workspace.folder, id) in _TEST_SHOWN
    with _LOCK:
        running = _AUDITS.get(folder)
        if running is None or running.done():

            def progress(stage: str, done: int, total: int) -> None:
                _STEPS[folder] = f"{stage} {done:,} of {total:,}" if total else stage

            def work() -> None:
                audit(opened.catalog, out=folder, include_test=with_test, progress=progress, cache=workspace.cache)

            _AUDITS[folder] = _WORK.submit(work)
    return go(f"/data/{id}")


@router.get("/data/{id}/audit")
def audit_progress(workspace: CurrentWorkspace, id: str) -> Response:
    """Return whether an audit is running, and its step; its error if it failed."""
    running = _AUDITS.get(data_view.audit_folder(workspace, id))
    if running is not None and running.done():
        running.result()
    return JSONResponse({"running": _auditing(workspace, id), "step": _STEPS.get(data_view.audit_folder(workspace, id), "")})


def _auditing(workspace: Workspace, id: str) -> bool:
    """Return whether the audit of a catalog is running."""
    running = _AUDITS.get(data_view.audit_folder(workspace, id))
    return running is not None and not running.done()


@router.post("/data/{id}/save")
def save(workspace: CurrentWorkspace, id: str) -> Response:
    """Write the corrected catalog and the list of changes into a folder of their own; no photograph is touched."""
    opened = workspace.catalog(id)
    decided = decisions.read(workspace.decisions_file(id)).in_force()
    known = set(opened.catalog.paths)
    corrected, changes = catalogs.apply_decisions(opened.catalog, {p: d for p, d in decided.items() if p in known})
    folder = output_folder(workspace.folder / CORRECTED / f"{opened.file.parent.name}-{id[:6]}")
    photos = photos_of(opened.file.parent)
    if photos is not None:
        write_json(folder / PHOTOS, ScannedPhotos(str(photos)))
    catalogs.save(corrected, folder / "catalog.csv")
    catalogs.write_changes(changes, folder / "changes.csv")
    command = command_line("sightline", "run", str(folder / "catalog.csv"))
    files = {"file": str(folder / "catalog.csv"), "list": str(folder / "changes.csv")}
    return JSONResponse({**files, "changes": len(changes), "command": command})


PAGE = Page("Data", "/data", router)
