"""Runs: the list, one run while it works and when it is finished, stop, resume and compare."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import secrets
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from sightline.errors import RequestError, SightlineError
from sightline.files import read_text
from sightline.records import Run
from sightline.records.progress import CommandProgress
from sightline.report import curves, format, headline, verdict
from sightline.report.page import inlined
from sightline.runs import progress_file
from sightline.schema import command_line
from sightline.serve.local_app import processes, run_list
from sightline.serve.local_app.errors import NotFoundError
from sightline.serve.local_app.page import Page
from sightline.serve.local_app.rendering import go, render
from sightline.serve.local_app.workspace import CurrentWorkspace, Workspace

MOST_COMPARED = 20
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
router = APIRouter()


# ------------------------------------------------------------------------------------------------------------------ list


@router.get("/runs")
def runs(request: Request, workspace: CurrentWorkspace) -> Response:
    """Return the list of runs."""
    rows = run_list.rows(workspace)
    texts = [run_list.text_of(row) for row in rows]
    return render(request, "runs.html.j2", title="Runs", rows=list(zip(rows, texts, strict=True)))


@router.get("/runs.json")
def running(workspace: CurrentWorkspace) -> Response:
    """Return state, stage and share of every run that works, so that the list follows them."""
    rows = [row for row in run_list.rows(workspace) if row.progress is not None]
    return JSONResponse({row.name: {"state": row.state, **_short(row.progress)} for row in rows if row.progress is not None})


def _short(progress: CommandProgress) -> dict[str, Any]:
    """Return the stage and the share of it that is done."""
    share = progress.done / progress.total if progress.total else None
    return {"stage": format.short(progress.stage, 90), "share": share}


@router.post("/compare")
async def compare(request: Request, workspace: CurrentWorkspace) -> Response:
    """Compare the ticked runs, in a process of its own."""
    names = [str(name) for name in (await request.form()).getlist("run")]
    if not 2 <= len(set(names)) <= MOST_COMPARED:
        raise RequestError(f"{len(set(names))} runs are ticked", f"tick 2 to {MOST_COMPARED} runs to compare them")
    folders = [workspace.run_folder(name) for name in dict.fromkeys(names)]
    out = workspace.folder / f"compare-{secrets.token_hex(4)}"
    started = processes.begin(workspace, ["compare", *map(str, folders), "-o", str(out)])
    return go(f"/started/{started}")


# --------------------------------------------------------------------------------------------------------------- one run


@router.get("/runs/{name}")
def run(request: Request, workspace: CurrentWorkspace, name: str) -> Response:
    """Return the page of a run: its answer, or its progress."""
    folder = workspace.run_folder(name)
    row = run_list.row_of(folder)
    values: dict[str, Any] = {"row": row, "text": run_list.text_of(row), "folder": folder, "base": row.url}
    values["has_report"] = _report_file(folder).is_file()
    if row.progress is not None:
        return render(request, "run_live.html.j2", title=row.title, **values, **live_values(row.progress))
    if row.state != "finished" or not (folder / "run.json").is_file():
        return render(request, "run_other.html.j2", title=row.title, **values)
    record = Run.load(folder).record
    return render(
        request,
        "run_finished.html.j2",
        title=row.title,
        record=record,
        answer=headline.answer(record),
        kind=headline.kind_of(record),
        alarms=[item for item in verdict.verdict(record) if item.level in ("alarm", "caution")],
        commands=_commands(folder),
        figures=curves.history(curves.read_history(folder / "history.csv"), record.overfitting, record.best_epoch),
        catalog=_catalog_of(workspace, folder),
        **values,
    )


def _commands(folder: Path) -> list[tuple[str, str]]:
    """Return commands that use a finished run."""
    here = str(folder)
    return [
        ("Predict other photographs", command_line("sightline", "predict", here, "photos")),
        ("Draw heatmaps", command_line("sightline", "explain", here, "photo.jpg")),
        ("Export it for other programs", command_line("sightline", "export", here, "--to", "onnx")),
    ]


def _catalog_of(workspace: Workspace, folder: Path) -> str | None:
    """Return the id of the catalog of a run, None if it has none."""
    file = folder / "catalog.csv"
    return workspace.id_of(file) if file.is_file() else None


@router.get("/runs/{name}/report")
def report(workspace: CurrentWorkspace, name: str) -> Response:
    """Return the report of a run or the page of an audit; it runs in a sandbox, since the file may come from somebody else."""
    folder = workspace.run_folder(name)
    try:
        text = read_text(_report_file(folder))
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{name[:100]} has no readable report", "make one with `sightline report`") from error
    style = _STYLE.search(text)
    style_source = "'none'" if style is None else _hash(style[1])
    policy = (
        "sandbox allow-scripts allow-downloads allow-modals; default-src 'none'; img-src data:; "
        f"style-src {style_source}; "
        f"script-src '{inlined()['script_hash']}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"content-security-policy": policy})


def _report_file(folder: Path) -> Path:
    """Return the report of a run, or the page of an audit."""
    return folder / ("audit.html" if (folder / "audit.json").is_file() else "report.html")


def _hash(text: str) -> str:
    """Return the source expression of an inline style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


# -------------------------------------------------------------------------------------------------------------- progress


def live_values(progress: CommandProgress) -> dict[str, Any]:
    """Return the template variables of a command that works or has stopped."""
    training = progress.training
    epochs = [] if training is None else training.history
    table = [
        {
            "epoch": float(e.epoch),
            "train_loss": _number(e.loss),
            "train_accuracy": _number(e.accuracy),
            "val_loss": _number(e.val_loss),
            "val_accuracy": _number(e.val_accuracy),
        }
        for e in epochs
    ]
    name, _, detail = progress.stage.partition(": ")
    if progress.total and progress.done >= progress.total and training is None and progress.state == "running":
        name, detail = "preparing the next step", f"{name} is done"
    left_s = training.left_s if training is not None else _left_s(progress)
    return {
        "progress": progress,
        "command": command_line("sightline", *progress.command),
        "stage": format.short(name or progress_file.STARTING, 90),
        "detail": "" if training is not None else format.short(detail, 120),
        "training": training,
        "left": "" if left_s is None else _clock(left_s),
        "speed": _speed(progress),
        "curves": curves.history(table, None),
        "lines": [format.short(line, 400) for line in progress.lines],
    }


def _number(value: float | None) -> float:
    """Return a number, NaN for None."""
    return math.nan if value is None else value


def _speed(progress: CommandProgress) -> str:
    """Return the images per second of a training, or the steps per second of another stage; "" if not known."""
    if progress.training is not None:
        images_s = progress.training.images_s
        return "" if images_s is None else f"{images_s:,.0f} images/s"
    if _left_s(progress) is None:
        return ""
    return f"{progress.done / progress.stage_s:,.1f} per second"


def _left_s(progress: CommandProgress) -> float | None:
    """Return the remaining seconds of a stage by its speed so far, None if they are not known."""
    if not progress.total or not 0 < progress.done < progress.total or progress.stage_s < 2:
        return None
    return progress.stage_s / progress.done * (progress.total - progress.done)


def _clock(seconds: float) -> str:
    """Return a remaining time, rounded."""
    return f"{max(1, round(seconds))} s" if seconds < 60 else format.duration(seconds)


@router.get("/runs/{name}/live")
def run_live(request: Request, workspace: CurrentWorkspace, name: str) -> Response:
    """Return the changing part of the page of a run that works; another state asks the page to load again."""
    return live(request, workspace.run_folder(name))


def live(request: Request, folder: Path) -> Response:
    """Return the changing part of a page, as a page without its frame."""
    progress = progress_file.read(folder)
    state = "finished" if progress is None else progress.state
    if progress is not None and progress.folder:
        target = Path(progress.folder)
        return Response(headers={"x-state": "moved", "x-address": f"/runs/{run_list.format_name(target.name)}"})
    if progress is None:
        return Response(headers={"x-state": state})
    answer = render(request, "live.html.j2", title="", **live_values(progress))
    answer.headers["x-state"] = state
    return answer


@router.post("/runs/{name}/stop")
def stop_run(workspace: CurrentWorkspace, name: str) -> Response:
    """Ask the command of a run to stop, as Ctrl-C does."""
    folder = workspace.run_folder(name)
    progress_file.ask_to_stop(folder)
    return go(f"/runs/{run_list.format_name(name)}")


@router.post("/runs/{name}/resume")
def resume_run(workspace: CurrentWorkspace, name: str) -> Response:
    """Start the command of an interrupted run again."""
    processes.resume(workspace.run_folder(name))
    return go(f"/runs/{run_list.format_name(name)}")


# ------------------------------------------------------------------------------------------------------ started commands


@router.get("/started/{name}")
def started(request: Request, workspace: CurrentWorkspace, name: str) -> Response:
    """Return the page of a started command until the folder of its result is known."""
    folder = workspace.started_folder(name)
    try:
        progress = progress_file.read(folder)
    except SightlineError as error:
        raise NotFoundError(error.message, "it may have finished; see the list of runs") from error
    if progress is None:
        return go("/runs")
    if progress.folder:
        return go(f"/runs/{run_list.format_name(Path(progress.folder).name)}")
    row = run_list.RunRow(name, f"/started/{name}", progress.state, title=" ".join(progress.command[:2]), progress=progress)
    values: dict[str, Any] = {"row": row, "text": run_list.text_of(row), "folder": folder, "base": row.url}
    values["has_report"] = False
    return render(request, "run_live.html.j2", title=row.title, **values, **live_values(progress))


@router.get("/started/{name}/live")
def started_live(request: Request, workspace: CurrentWorkspace, name: str) -> Response:
    """Return the changing part of the page of a started command."""
    return live(request, workspace.started_folder(name))


@router.post("/started/{name}/stop")
def stop_started(workspace: CurrentWorkspace, name: str) -> Response:
    """Ask a started command to stop."""
    progress_file.ask_to_stop(workspace.started_folder(name))
    return go(f"/started/{name}")


@router.post("/started/{name}/resume")
def resume_started(workspace: CurrentWorkspace, name: str) -> Response:
    """Start a command again."""
    processes.resume(workspace.started_folder(name))
    return go(f"/started/{name}")


@router.post("/started/{name}/forget")
def forget(workspace: CurrentWorkspace, name: str) -> Response:
    """Remove a command that ended without a result from the list."""
    progress = progress_file.read(workspace.started_folder(name))
    if progress is not None and progress.state == "running":
        raise RequestError("this command is running", "stop it first")
    processes.forget(workspace, name)
    return go("/runs")


PAGE = Page("Runs", "/runs", router)
