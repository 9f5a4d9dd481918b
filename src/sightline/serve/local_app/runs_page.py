"""Runs: the list of run folders."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from sightline.serve.local_app.page import Page
from sightline.serve.local_app.rendering import render
from sightline.serve.local_app.workspace import CurrentWorkspace

router = APIRouter()


@router.get("/runs")
def runs(request: Request, workspace: CurrentWorkspace) -> Response:
    """Return the list of runs."""
    return render(request, "runs.html.j2", title="Runs", runs=[folder.name for folder in workspace.run_folders()])


PAGE = Page("Runs", "/runs", router)
