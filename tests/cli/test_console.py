"""Exit codes, errors and notes."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sightline.cli import console
from sightline.errors import DataError, RequestError


def ending(command: Callable[[], None]) -> Any:
    """What a guarded command gives."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(console.guarded(command))
    return CliRunner().invoke(app, [])


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            DataError("photos holds no images", "name another folder"),
            2,
            "error: photos holds no images\nhint: name another folder",
        ),
        (RequestError("there is no head 'x'"), 2, "error: there is no head 'x'\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\nhint: run the same command again"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            1,
            "No space left on device: runs/x\nhint: free some disk space",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 1, "Permission denied: runs\nhint: ask for access"),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"),
            2,
            "Not a directory: a/b\nhint: this name belongs to a file",
        ),
        (FileExistsError(errno.EEXIST, "File exists", "a.txt"), 2, "File exists: a.txt\nhint: this name belongs to a file"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), 2, "Is a directory: a\nhint: this name belongs to a folder"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x/y"), 1, "/x/y\nhint: it does not exist"),
    ],
)
def test_foreseeable_errors_print_a_sentence_and_a_hint_and_set_the_exit_code(
    error: BaseException, code: int, said: str
) -> None:
    ended = ending(failing(error))
    assert ended.exit_code == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_exit_code_1_if_some_files_have_no_prediction() -> None:
    failed, done = {"path": "a", "error": "is text"}, {"path": "b", "label": "cat"}
    assert ending(lambda: console.exit_if_any_failed([failed, failed])).exit_code == 1
    some = ending(lambda: console.exit_if_any_failed([failed, done]))
    assert some.exit_code == 1 and "1 of 2 files have no prediction" in some.stderr
    assert ending(lambda: console.exit_if_any_failed([done])).exit_code == 0
    assert ending(lambda: console.exit_if_any_failed([])).exit_code == 0


def test_a_bug_keeps_its_traceback() -> None:
    for error in (ValueError("x"), OSError(errno.EBADF, "Bad file descriptor"), OSError(errno.ENOENT, "of no file")):
        assert ending(failing(error)).exception is error


def test_a_long_or_marked_up_message_is_printed_as_it_is() -> None:
    message = "[bold]" + "word " * 60 + "/a/[red]b.jpg\x1b[31m\u202e"
    assert "error: [bold]" + "word " * 60 + "/a/[red]b.jpg\\x1b[31m\\u202e\n" in ending(failing(DataError(message))).stderr


def test_warnings_become_notes_once() -> None:
    def command() -> None:
        for _ in range(3):
            logging.getLogger("sightline").warning("the cache at %s cannot be written", "there")

    ended = ending(command)
    assert ended.stderr == "note: the cache at there cannot be written\n"
    assert ended.stdout == ""
    assert not [h for h in logging.getLogger("sightline").handlers if type(h).__name__ == "_Notes"]


@pytest.mark.slow
def test_json_carries_any_file_name(sightline: Callable[..., Any], tmp_path: Path) -> None:
    names = ["猫 🐈.jpg", "a\nb.jpg", "-rf.jpg", "bytes\udcff.jpg", "\x1b[31m.jpg", "<script>.jpg"]
    rows = [{"path": n, "label": "cat", "predicted": "dog", "probability": 0.75} for n in names]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"mistakes": rows}), encoding="utf-8")
    ended = sightline("mistakes", "run", "--json", env={"PYTHONIOENCODING": "cp1252"})  # as Windows gives a pipe
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) == rows
    ended = sightline("mistakes", "run", env={"PYTHONIOENCODING": "cp1252"})
    assert ended.code == 0, ended.err
    assert len(ended.out.splitlines()) == len(names) + 1
    assert "\x1b" not in ended.out


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise on Windows")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command_in_order(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    program = (
        "import sys, time, sightline.catalog as c\n"
        "def scan(*a, **k):\n"
        "    try:\n        print('ready', flush=True); time.sleep(30)\n"
        "    finally:\n        print('put away', flush=True)\n"
        "c.scan = scan\nsys.argv = ['sightline', 'scan', 'photos']\n"
        "from sightline.cli import main\nmain()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.1)
    child.send_signal(sent)
    out, err = child.communicate(timeout=20)
    assert child.returncode == code
    assert out == "put away\n"
    assert "Traceback" not in err
    assert f"error: {'interrupted' if sent == signal.SIGINT else 'terminated'}\nhint: " in err


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["scan", "photos", "--limit", "0"], "error: --limit must be at least 1", "`sightline scan --help`"),
        (
            ["train", "c.csv", "r.toml", "--epochs", "no"],
            "error: --epochs must be a whole number",
            "`sightline train --help`",
        ),
        (["scan", "photos", "--label-frm", "x"], "error: unknown option --label-frm", "did you mean --label-from?"),
        (["scna"], "error: unknown command scna", "did you mean scan?"),
        (["predict"], "error: missing argument RUN|MODEL", "`sightline predict --help`"),
    ],
)
def test_a_wrong_command_line_is_reported_like_other_errors(
    argv: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline import cli

    monkeypatch.setattr("sys.argv", ["sightline", *argv])
    monkeypatch.setattr("sightline.cli.signals.watch", lambda: None)  # its thread would outlive this test and end the process
    monkeypatch.setattr("sightline.cli.signals._reported", [])  # interruptions of other tests
    with pytest.raises(SystemExit) as ended:
        cli.main()
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(lines) == 2
    assert lines[0] == message and lines[1].startswith("hint: ") and hint in lines[1]
