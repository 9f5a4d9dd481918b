"""Label: give an unlabelled folder labels by keys, with an estimate of the accuracy that is not biased by the choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import JSONResponse, Response

from sightline.commands.label import CATALOG, MOST_CLASSES, LabellingSession
from sightline.errors import RequestError
from sightline.records.labelling import CurvePoint, Gain
from sightline.report import svg
from sightline.schema import command_line
from sightline.serve.local_app import labelling_sessions, pictures
from sightline.serve.local_app.page import Page
from sightline.serve.local_app.rendering import go, render
from sightline.serve.local_app.workspace import LABELS, CurrentWorkspace, Workspace, photos_of
from sightline.store import plain

KEYS = "1234567890" + "qwertyiopadfghjklzxc"
"""Keys of the classes, in their order; u, s, n and b are taken by undo, skip, no class and save."""
router = APIRouter()
assert len(KEYS) == MOST_CLASSES and not set(KEYS) & set("usnb")


@router.get("/label")
def sessions(request: Request, workspace: CurrentWorkspace, catalog: str | None = None) -> Response:
    """Return the sessions, and a form that starts one, by default of the photographs of a catalog."""
    found, photos = labelling_sessions.sessions(workspace), ""
    if catalog is not None:
        photos = str(photos_of(workspace.catalog(catalog).file.parent) or "")
    return render(request, "label_start.html.j2", title="Label", sessions=found, most=MOST_CLASSES, photos=photos)


@router.post("/label")
def begin(
    workspace: CurrentWorkspace,
    photos: Annotated[str, Form()],
    classes: Annotated[str, Form()],
) -> Response:
    """Start a session and open its page."""
    names = [name for name in re.split(r"[,;\n]", classes) if name.strip()]
    return go(f"/label/{labelling_sessions.begin(workspace, Path(photos.strip()).expanduser(), names)}")


@router.get("/label/{name}")
def page(request: Request, workspace: CurrentWorkspace, name: str) -> Response:
    """Return the page of a session, or the progress of its preparation."""
    opening = labelling_sessions.opened(workspace, name)
    if not opening.future.done():
        return render(request, "label_wait.html.j2", title="Label", name=name)
    session = opening.future.result()
    return render(request, "label.html.j2", title=f"Label {name}", name=name, photos=session.request.photos, keys=KEYS)


@router.get("/label/{name}/progress")
def progress(workspace: CurrentWorkspace, name: str) -> Response:
    """Return the progress of the preparation."""
    opening = labelling_sessions.opened(workspace, name)
    if opening.future.done():
        opening.future.result()
        return JSONResponse({"ready": True})
    return JSONResponse({"ready": False, "stage": opening.stage, "done": opening.done, "total": opening.total})


@router.get("/label/{name}/state")
def state(workspace: CurrentWorkspace, name: str) -> Response:
    """Return the state of a session."""
    return _state(workspace, name, _session(workspace, name))


@router.post("/label/{name}/answer")
def answer(
    workspace: CurrentWorkspace,
    name: str,
    path: Annotated[str, Form()],
    action: Annotated[str, Form()],
    seen: Annotated[int, Form()],
    label: Annotated[str | None, Form()] = None,
) -> Response:
    """Record an answer and return the new state."""
    session = _session(workspace, name)
    session.answer(path, action, label, seen=seen)  # type: ignore[arg-type]
    labelling_sessions.refit_later(session)
    return _state(workspace, name, session)


@router.post("/label/{name}/undo")
def undo(workspace: CurrentWorkspace, name: str, seen: Annotated[int, Form()]) -> Response:
    """Take the last answer back and return the new state."""
    session = _session(workspace, name)
    session.undo(seen=seen)
    return _state(workspace, name, session)


@router.post("/label/{name}/save")
def save(workspace: CurrentWorkspace, name: str) -> Response:
    """Write the catalog with the labels."""
    file = _session(workspace, name).save()
    return JSONResponse({"file": str(file), "command": command_line("sightline", "run", str(file))})


def _session(workspace: Workspace, name: str) -> LabellingSession:
    """Return a session that is ready.

    Raises:
        RequestError: If it is still being prepared.
    """
    opening = labelling_sessions.opened(workspace, name)
    if not opening.future.done():
        raise RequestError("the photographs are still being prepared", "wait some seconds")
    return opening.future.result()


def _state(workspace: Workspace, name: str, session: LabellingSession) -> Response:
    """Return the state of a session for the page, with the address of the photograph and the curve as a drawing."""
    found = session.state()
    catalog = workspace.id_of(workspace.folder / LABELS / name / CATALOG)
    value: dict[str, Any] = plain(found)
    if found.question is not None:
        value["question"]["picture"] = pictures.url(catalog, found.question.path, 1280)
    value["curve"] = _curve(found.curve) if len(found.curve) > 1 and found.curve[-1].images else ""
    value["estimate"] = plain(found.curve[-1]) if found.curve else None
    value["words"] = "" if found.gain is None else words(found.gain)
    return JSONResponse(value)


def _curve(points: Sequence[CurvePoint]) -> str:
    """Draw the accuracy over the number of labels; of many heads about forty are drawn."""
    step = max(1, len(points) // 40)
    shown = [*points[:-1][::step], points[-1]]
    marks = [svg.Ranged(float(p.labels), f"{p.labels:,}", p.accuracy, p.low, p.high) for p in shown]
    title = f"Accuracy over the number of labels: {points[-1].accuracy:.0%} with {points[-1].labels:,} labels"
    return str(svg.ranges(marks, ("labels for training", "accuracy"), title))


def words(gain: Gain) -> str:
    """Return the change of the accuracy by the last labels in words.

    Example:
        >>> words(Gain(20, 40, 0.025, -0.01, 0.06, "unclear"))
        'From 20 to 40 labels: +2.5 points (95 % CI −1.0 to +6.0). Too few random photographs to tell whether it still rises.'
    """
    verdicts = {
        "rising": "The curve still rises: more labels help.",
        "flat": "The curve is flat: more labels would hardly help, so you can stop.",
        "unclear": "Too few random photographs to tell whether it still rises.",
    }
    low, high = (f"{100 * v:+.1f}".replace("-", "−") for v in (gain.low, gain.high))
    change = f"{100 * gain.change:+.1f}".replace("-", "−")
    return f"From {gain.before:,} to {gain.after:,} labels: {change} points (95 % CI {low} to {high}). {verdicts[gain.verdict]}"


PAGE = Page("Label", "/label", router)
