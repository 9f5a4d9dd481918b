"""Start: a folder of photographs, what is in it, and a run on it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from sightline import catalog as catalogs
from sightline import containers
from sightline.errors import RequestError, SightlineError
from sightline.files import NotReadableError
from sightline.records.scanned_photos import ScannedPhotos
from sightline.report import format
from sightline.runs import progress_file
from sightline.schema import command_line
from sightline.serve.local_app import processes, run_list, runs_page
from sightline.serve.local_app.errors import NotFoundError
from sightline.serve.local_app.page import Page
from sightline.serve.local_app.rendering import go, render
from sightline.serve.local_app.workspace import CATALOGS, PHOTOS, CurrentWorkspace, OpenCatalog, Workspace, image_id, photos_of
from sightline.store import output_folder, slug, write_json

MOST_FOLDERS = 60
MOST_SAMPLES = 12
MOST_LISTED = 200
LONGEST = 400
router = APIRouter()


# -------------------------------------------------------------------------------------------------------- the first page


@router.get("/start")
def start(request: Request, workspace: CurrentWorkspace) -> Response:
    """Return the first page: it takes a folder."""
    return _first_page(request, workspace)


def _first_page(request: Request, workspace: Workspace, *, path: str = "", error: SightlineError | None = None) -> Response:
    """Return the first page, with what was wrong with a path."""
    known = [(str(place or f.name), f"/start/photos/{run_list.format_name(f.name)}") for f, place in _known(workspace)]
    status = 200 if error is None else 422
    values = {"path": path, "error": error, "known": known, "home": str(Path.home())}
    return render(request, "start.html.j2", title="Start", status=status, **values)


def _known(workspace: Workspace) -> list[tuple[Path, Path | None]]:
    """Return the folders of the catalogs that the app has made, each with its photographs."""
    found: list[tuple[Path, Path | None]] = []
    for folder in workspace.catalog_folders():
        try:
            found.append((folder, photos_of(folder)))
        except (SightlineError, OSError):
            found.append((folder, None))
    return found


@router.get("/start/folders")
def folders(path: str = "") -> Response:
    """Return folders whose path begins with a text, for the completion of a path."""
    text = os.path.expanduser(path[:4096])
    parent, _, begun = text.rpartition("/") if "/" in text else ("", "", text)
    base = Path(parent or "/") if "/" in text else Path.home()
    found = []
    try:
        with os.scandir(base) as entries:
            for entry in entries:
                hidden = entry.name.startswith(".") and not begun.startswith(".")
                if not hidden and entry.name.lower().startswith(begun.lower()) and entry.is_dir():
                    found.append(format.clean(Path(entry.path)))
    except (OSError, ValueError):
        return JSONResponse([])
    return JSONResponse(sorted(found)[:MOST_FOLDERS])


@router.post("/start/scan")
async def scan(request: Request, workspace: CurrentWorkspace) -> Response:
    """Scan a folder in a process of its own, and show what is in it."""
    path = str((await request.form()).get("path", ""))
    try:
        photos = named_photos(path)
    except SightlineError as error:
        return _first_page(request, workspace, path=path, error=error)
    name = f"{slug(photos.name) or 'photographs'}-{image_id(str(photos))[:6]}"
    begin_scan(workspace, name, photos)
    return go(f"/start/photos/{run_list.format_name(name)}")


def named_photos(text: str) -> Path:
    """Return the absolute path of photographs that a person has typed.

    Raises:
        RequestError: If it does not exist, or is not a folder, an archive or a table.
    """
    typed = text.strip().strip("\"'")
    if not typed:
        raise RequestError("no folder is given", "type the path of a folder, such as ~/Pictures/pets")
    if len(typed) > 4096 or "\0" in typed:
        raise RequestError(f"{format.short(typed, 60)} is not a path", "type the path of a folder")
    path = Path(os.path.abspath(os.path.expanduser(typed)))
    try:
        if path.is_dir() or containers.is_file(path):
            return path
    except (NotReadableError, OSError) as error:
        raise RequestError(f"{path} cannot be read ({error})", "name a folder of photographs") from error
    raise RequestError(f"{path} does not exist", "check the spelling; paths begin at / or at ~ for your own folder")


def begin_scan(workspace: Workspace, name: str, photos: Path) -> None:
    """Start a scan unless one is running in the same folder."""
    place = workspace.folder / CATALOGS / name
    running = place.is_dir() and progress_file.read(place)
    if running and running.state == "running":
        return
    write_json(output_folder(place) / PHOTOS, ScannedPhotos(str(photos)))
    processes.start(["scan", str(photos), "-o", str(place / "catalog.csv")], place)


@router.get("/start/photos/{name}")
def photos(request: Request, workspace: CurrentWorkspace, name: str) -> Response:
    """Return what is in a folder of photographs, or the progress of its scan."""
    folder = workspace.catalog_folder(name)
    base = f"/start/photos/{run_list.format_name(name)}"
    progress = progress_file.read(folder)
    if progress is not None:
        title = format.short(Path(progress.command[1]).name if len(progress.command) > 1 else name)
        row = run_list.RunRow(name, base, progress.state, "scan", title, progress.started, progress=progress)
        values: dict[str, Any] = {"row": row, "text": run_list.text_of(row), "folder": folder, "base": base}
        values["has_report"] = False
        return render(request, "run_live.html.j2", title=title, **values, **runs_page.live_values(progress))
    opened = workspace.catalog(workspace.id_of(folder / "catalog.csv"))
    return render(
        request,
        "photos.html.j2",
        title=photos_folder(folder).name,
        root=str(photos_folder(folder)),
        base=base,
        id=opened.id,
        printed=processes.printed(folder),
        **_contents(opened),
    )


def photos_folder(folder: Path) -> Path:
    """Return the photographs of a catalog that the app has made.

    Raises:
        NotFoundError: If they are not known.
    """
    found = photos_of(folder)
    if found is None:
        raise NotFoundError(f"{folder.name} does not say where its photographs are", "choose their folder again")
    return found


def _contents(opened: OpenCatalog) -> dict[str, Any]:
    """Return what is in a catalog: counts, classes, problems and some photographs."""
    catalog = opened.catalog
    found = catalogs.overview(catalog)
    problems = [(p, why) for p, why in zip(catalog.paths, catalog.column("problem"), strict=True) if why is not None]
    usable = catalog.usable()
    samples: dict[str | None, list[str]] = {}
    for path, label in zip(usable.paths, usable.column("label"), strict=True):
        samples.setdefault(label, []).append(path)
    each = max(1, MOST_SAMPLES // max(1, len(samples)))
    shown = [(path, label) for label, paths in samples.items() for path in paths[:: max(1, len(paths) // each)][:each]]
    most = max(found.classes.values(), default=1)
    return {
        "images": len(catalog),
        "usable": len(usable),
        "labelled": sum(found.classes.values()),
        "classes": [(name, count, count / most) for name, count in found.classes.items()],
        "kinds": Counter(why.partition(":")[0] for _, why in problems).most_common(),
        "problems": problems[:MOST_LISTED],
        "words": catalogs.overview_lines(found),
        "samples": shown[:MOST_SAMPLES],
    }


@router.get("/start/photos/{name}/live")
def photos_live(request: Request, workspace: CurrentWorkspace, name: str) -> Response:
    """Return the changing part of the page of a scan."""
    return runs_page.live(request, workspace.catalog_folder(name))


@router.post("/start/photos/{name}/stop")
def stop_scan(workspace: CurrentWorkspace, name: str) -> Response:
    """Ask a scan to stop."""
    progress_file.ask_to_stop(workspace.catalog_folder(name))
    return go(f"/start/photos/{run_list.format_name(name)}")


@router.post("/start/photos/{name}/resume")
def scan_again(workspace: CurrentWorkspace, name: str) -> Response:
    """Scan a folder again."""
    folder = workspace.catalog_folder(name)
    progress = progress_file.read(folder)
    if progress is not None:
        processes.resume(folder)
    else:
        begin_scan(workspace, name, photos_folder(folder))
    return go(f"/start/photos/{run_list.format_name(name)}")


# ------------------------------------------------------------------------------------------------------------ start a run


@dataclass(frozen=True, slots=True)
class Field:
    """Option of `sightline run` in the form.

    Args:
        name: Name in the form.
        option: Option of the command line.
        title: Label.
        help: What it does.
        example: Placeholder.
        choices: Values to choose from; the first one is the default, and is not written.
        more: Whether it is among the folded settings.
    """

    name: str
    option: str
    title: str
    help: str
    example: str = ""
    choices: tuple[str, ...] = ()
    more: bool = True


FIELDS = (
    Field("name", "--name", "Name", "For its folder and its report.", "that of the photographs", more=False),
    Field("budget", "--budget", "Time budget", "More time: more methods and larger networks.", "10m", more=False),
    Field("heatmaps", "--heatmaps", "Heatmaps", "Where the classifier looked.", choices=("all", "few", "none"), more=False),
    Field("methods", "--methods", "Methods", "Only these, separated by commas.", "chosen by the plan"),
    Field("backbone", "--backbone", "Networks", "Only these, separated by commas.", "chosen by the plan"),
    Field("weights", "--weights", "Weights", "What networks know before.", choices=("pretrained", "random")),
    Field("head", "--head", "Head", "Classifier on top of the features.", "auto"),
    Field("image_size", "--image-size", "Image size", "Side of the network's input in pixels.", "that of the network"),
    Field("fit", "--fit", "Fit", "How an image that is not square is fitted.", choices=("default", "crop", "pad", "squash")),
    Field("positive", "--positive", "Positive class", "For two classes.", "the rarer one"),
    Field("group_by", "--group-by", "Group by", "Images of one group stay in one split.", "column or pattern"),
    Field("val", "--val", "Validation split", "Share or number of images.", "0.15"),
    Field("test", "--test", "Test split", "Share or number of images.", "0.2"),
    Field("seed", "--seed", "Random seed", "Another number: another split.", "0"),
)


def arguments_of(values: dict[str, str], workspace: Workspace) -> list[str]:
    """Return the arguments of `sightline` that the form stands for.

    Args:
        values: Name of a field, or `photos` → text.
        workspace: Where the run is written.

    Raises:
        RequestError: If a text is too long.
    """
    arguments = ["run", os.path.expanduser(values.get("photos", "").strip()) or "PHOTOS"]
    for field in FIELDS:
        text = values.get(field.name, "").strip()
        if len(text) > LONGEST or "\0" in text:
            raise RequestError(f"{field.title}: the text is too long", f"use at most {LONGEST} characters")
        if text and text != (field.choices[0] if field.choices else ""):
            arguments += [f"{field.option}={text}"] if text.startswith("-") else [field.option, text]
    if workspace.folder != Path.cwd() / "runs":
        arguments += ["-o", str(workspace.folder)]
    return arguments


@router.get("/start/run")
def form(request: Request, workspace: CurrentWorkspace) -> Response:
    """Return the form that starts a run."""
    return _form(request, workspace, dict(request.query_params))


def _form(request: Request, workspace: Workspace, values: dict[str, str], error: SightlineError | None = None) -> Response:
    """Return the form with values, and with what is wrong with them."""
    try:
        command = command_line("sightline", *arguments_of(values, workspace))
    except RequestError as refused:
        error, command = refused, ""
    status = 200 if error is None else 422
    shown = {"fields": FIELDS, "values": values, "command": command, "error": error}
    return render(request, "run_form.html.j2", title="Start a run", status=status, **shown)


@router.get("/start/command")
def command(request: Request, workspace: CurrentWorkspace) -> Response:
    """Return the command line that the form stands for."""
    return JSONResponse({"command": command_line("sightline", *arguments_of(dict(request.query_params), workspace))})


@router.post("/start/run")
async def start_run(request: Request, workspace: CurrentWorkspace) -> Response:
    """Start a run."""
    values = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    try:
        values["photos"] = str(named_photos(values.get("photos", "")))
        arguments = arguments_of(values, workspace)
    except SightlineError as error:
        return _form(request, workspace, values, error)
    return go(f"/started/{processes.begin(workspace, arguments)}")


PAGE = Page("Start", "/start", router)
