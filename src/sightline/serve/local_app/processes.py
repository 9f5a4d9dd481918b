"""Commands that the app starts: processes of their own, which outlive it and report through a progress file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sightline.errors import RequestError, SightlineError
from sightline.files import read_bytes
from sightline.records.progress import CommandProgress
from sightline.runs import progress_file
from sightline.serve.local_app.workspace import Workspace
from sightline.store import canonical_json, now, output_folder, write_bytes

OUTPUT = "output.txt"
"""What a command printed."""
RESUMABLE = {"run": "--resume", "train": "--resume", "tune": None, "compare": None, "evaluate": None, "scan": None}
"""Commands that the app starts again, and the option that resumes an interrupted one."""
_TAIL_BYTES = 20_000
_LAST_LINES = 3
_KEPT_S = 3600.0
_resuming = threading.Lock()


def begin(workspace: Workspace, arguments: Sequence[str]) -> str:
    """Start a command, and return the name of the folder in which it reports until that of its result is known."""
    _clean(workspace)
    name = f"{arguments[0]}-{secrets.token_hex(4)}"
    start(arguments, workspace.started_folder(name))
    return name


def _clean(workspace: Workspace) -> None:
    """Delete the folders of started commands that have ended, or go on in the folder of their result, after an hour."""
    for folder in workspace.started_folders():
        with contextlib.suppress(OSError, SightlineError):
            progress = progress_file.read(folder)
            over = progress is None or bool(progress.folder and progress.state != "running")
            if over and time.time() - folder.stat().st_mtime > _KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)


def start(arguments: Sequence[str], place: Path, *, working_folder: str | None = None) -> None:
    """Start a command of the command line as a process of its own.

    Args:
        arguments: Arguments after `sightline`.
        place: Folder of its progress file and of what it prints; see `runs.progress_file`.
        working_folder: Folder in which it is started. Default: that of the app.

    Raises:
        RequestError: If the working folder does not exist.
    """
    if working_folder is not None and not Path(working_folder).is_dir():
        raise RequestError(f"the folder {working_folder} does not exist any more", "start a new run")
    output_folder(place)
    options = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}  # type: ignore[attr-defined,unused-ignore]
        if os.name == "nt"
        else {"start_new_session": True}
    )
    environment = {**os.environ, progress_file.VARIABLE: str(place)}
    write_bytes(place / OUTPUT, b"")
    descriptor = os.open(place / OUTPUT, os.O_WRONLY)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "sightline", *arguments],
            cwd=working_folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            **options,
        )
    finally:
        os.close(descriptor)
    here = working_folder or os.getcwd()
    progress = CommandProgress(
        tuple(arguments), here, platform.node(), process.pid, now(), time.time(), stage=progress_file.STARTING
    )
    if not _has_reported(place, process.pid):
        write_bytes(place / progress_file.NAME, canonical_json(progress))
    threading.Thread(target=_wait, args=(process, place), daemon=True, name="sightline-wait").start()


def _has_reported(place: Path, pid: int) -> bool:
    """Return whether a process has written its progress already."""
    try:
        progress = progress_file.read(place)
    except SightlineError:
        return False
    return progress is not None and progress.pid == pid and progress.state == "running"


def _wait(process: subprocess.Popen[bytes], place: Path) -> None:
    """Wait for the end of a process; one that failed before it could report is marked as failed with its last lines."""
    code = process.wait()
    with contextlib.suppress(OSError, RequestError):
        progress = progress_file.read(place)
        if progress is None or progress.state == "failed":
            return
        if code == 0:
            (place / progress_file.NAME).unlink(missing_ok=True)
            if (place / "run.json").is_file():
                (place / OUTPUT).unlink(missing_ok=True)
        elif progress.stage == progress_file.STARTING:
            text = printed(place)
            error = next((line for line in text.splitlines() if line.startswith("error: ")), None)
            words = (error or " ".join(text.splitlines()[-_LAST_LINES:]) or f"exit code {code}").removeprefix("error: ")
            hint = next((line.removeprefix("hint: ") for line in text.splitlines() if line.startswith("hint: ")), "")
            failed = dataclasses.replace(progress, state="failed", error=words, hint=hint)
            write_bytes(place / progress_file.NAME, canonical_json(failed))


def resume(folder: Path) -> None:
    """Resume an interrupted or failed command; of two requests at the same time, the second one is refused.

    Raises:
        RequestError: As `_resume`.
    """
    with _resuming:
        _resume(folder)


def _resume(folder: Path) -> None:
    """Start the command of an interrupted or failed run again, with the option that resumes it.

    Raises:
        RequestError: If it is running, its command is not known, or it is not one that the app starts.
    """
    progress = progress_file.read(folder)
    if progress is None or not progress.command:
        raise RequestError(f"the command of {folder.name} is not known", "repeat it in a terminal")
    if progress.state == "running":
        raise RequestError(f"{folder.name} is running", "stop it first")
    verb = progress.command[0]
    if verb not in RESUMABLE:
        raise RequestError(f"`sightline {verb}` is not started from the app", "repeat it in a terminal")
    start(resumed(progress.command, folder), folder, working_folder=progress.working_folder)


def resumed(command: Sequence[str], folder: Path) -> list[str]:
    """Return the arguments that resume a command.

    Example:
        >>> resumed(["run", "photos", "--json"], Path("runs/photos-1"))
        ['run', '--resume', 'photos', '--json']
    """
    option = RESUMABLE.get(command[0])
    own = folder.parent.name != ".started"  # before the folder of the result is known there is nothing to resume
    more = [option] if option is not None and option not in command and own else []
    return [command[0], *more, *command[1:]]


def printed(place: Path) -> str:
    """Return the end of what a command printed."""
    try:
        return read_bytes(place / OUTPUT)[-_TAIL_BYTES:].decode("utf-8", "replace")
    except OSError:
        return ""


def forget(workspace: Workspace, name: str) -> None:
    """Delete the folder of a command that ended before it had one for its result."""
    shutil.rmtree(workspace.started_folder(name), ignore_errors=True)
