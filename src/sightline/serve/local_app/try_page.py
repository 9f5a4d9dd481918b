"""Try: the page of `sightline serve`, on the classifiers of the runs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from importlib import resources
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from markupsafe import Markup

from sightline.serve.app import Options, describe, predict_form, predictions_response, query_options
from sightline.serve.local_app.errors import NotFoundError
from sightline.serve.local_app.page import Page
from sightline.serve.local_app.rendering import render
from sightline.serve.local_app.workspace import CurrentWorkspace, Workspace
from sightline.serve.metrics import Metrics
from sightline.serve.served_model import ServedModel

CLASSIFIER = "classifier.safetensors"
MOST_LOADED = 2
"""Classifiers that are kept in memory."""
router = APIRouter()
_LOCK = threading.Lock()
_LOADED: dict[tuple[str, int], ServedModel] = {}
ModelName = Annotated[str | None, Query(max_length=300)]


@router.get("/try")
def page(request: Request, workspace: CurrentWorkspace, model: ModelName = None) -> Response:
    """Return the page."""
    return render(request, "try.html.j2", title="Try", models=models(workspace), chosen=model, part=part())


@functools.cache
def part() -> Markup:
    """Return the part of the page of `sightline serve` that this page shows."""
    text = (resources.files("sightline.serve") / "page" / "index.html").read_text(encoding="utf-8")
    return Markup(text[text.index('<div id="try">') : text.index("</main>")])


@router.get("/try/model")
def describe_model(workspace: CurrentWorkspace, model: ModelName = None) -> Response:
    """Return the description of a classifier, the first one by default."""
    return JSONResponse(describe(_served(workspace, model), models(workspace)))


def served(workspace: CurrentWorkspace, model: ModelName = None) -> ServedModel:
    """Return the requested classifier; it is loaded in a thread."""
    return _served(workspace, model)


@router.post("/try/predict")
async def predict(
    request: Request,
    model: Annotated[ServedModel, Depends(served)],
    options: Annotated[Options, Depends(query_options)],
) -> Response:
    """Predict an uploaded image."""
    return predictions_response(model, await predict_form(request, model, options))


def models(workspace: Workspace) -> list[str]:
    """Return the names of the runs that have a classifier, the newest first."""
    files = list(_files(workspace))
    return [name for name, _ in sorted(files, key=lambda each: (-each[1], each[0]))]


def _files(workspace: Workspace) -> Iterator[tuple[str, int]]:
    """Yield (name, modification time) of every run that has a classifier."""
    for folder in workspace.run_folders():
        file = folder / CLASSIFIER
        if file.is_file():
            yield folder.name, file.stat().st_mtime_ns


def _served(workspace: Workspace, name: str | None) -> ServedModel:
    """Return a loaded classifier.

    Raises:
        NotFoundError: If there is none of this name, or none at all.
    """
    names = models(workspace)
    if not names:
        raise NotFoundError("no run has a classifier yet", "train one on the page Start")
    if name is not None and name not in names:
        raise NotFoundError(f"the run {name[:100]!r} has no classifier", "choose another one")
    file = workspace.folder / (name or names[0]) / CLASSIFIER
    key = (str(file), file.stat().st_mtime_ns)
    with _LOCK:
        found = _LOADED.pop(key, None)
        if found is None:
            found = ServedModel(name or names[0], file, code=None, device="auto", metrics=Metrics())
        _LOADED[key] = found
        while len(_LOADED) > MOST_LOADED:
            _LOADED.pop(next(iter(_LOADED))).close()
    return found


PAGE = Page("Try", "/try", router)
