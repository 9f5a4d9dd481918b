"""Progress files: written while a command runs, removed at its end, kept after a failure, and able to stop it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from sightline.errors import DataError, RequestError
from sightline.records.progress import CommandProgress
from sightline.records.recipe import Learning, TrainingStage
from sightline.runs import folder as folders
from sightline.runs import progress_file


@folders.releasing
def work(folder: Path, reporter: progress_file.Reporter) -> CommandProgress | None:
    """A command that locks its folder and reports two epochs."""
    folders.lock(folder)
    progress_file.note("the plan")
    for epoch in (1, 2, 3):
        known = {} if epoch == 1 else {"loss": 1 / epoch, "val_accuracy": 0.5, "images_s": 90.0, "left_s": 7.0}
        reporter.report(TrainingStage(f"training: epoch {epoch} of 5", Learning(epoch, 5, **known)), epoch, 5)
    reporter._write()
    return progress_file.read(folder)


def test_a_running_command_says_how_far_it_is_and_a_finished_one_leaves_nothing(tmp_path: Path) -> None:
    with progress_file.reporting(["run", "photos"]) as reporter:
        progress = work(tmp_path / "run", reporter)
    assert progress is not None and progress.state == "running" and tuple(progress.command) == ("run", "photos")
    assert progress.pid == os.getpid() and progress.stage == "training: epoch 3 of 5" and list(progress.lines) == ["the plan"]
    training = progress.training
    assert training is not None and (training.epoch, training.images_s, training.left_s) == (3, 90.0, 7.0)
    assert [(e.epoch, e.val_accuracy, e.accuracy) for e in training.history] == [(1, 0.5, None), (2, 0.5, None)]
    assert not (tmp_path / "run").exists(), "nothing was written besides the progress"


def test_a_failure_is_kept_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(DataError), progress_file.reporting(["train", "x"]) as reporter:
        work(tmp_path, reporter)
        raise DataError("only one class", "add another")
    progress = progress_file.read(tmp_path)
    assert progress is not None and (progress.state, progress.error, progress.hint) == (
        "failed",
        "only one class",
        "add another",
    )


def test_a_file_named_stop_acts_like_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(KeyboardInterrupt), progress_file.reporting(["run", "photos"]) as reporter:
        work(tmp_path, reporter)
        progress_file.ask_to_stop(tmp_path)
        time.sleep(10)
    progress = progress_file.read(tmp_path)
    assert progress is not None and progress.state == "interrupted" and not (tmp_path / "stop").exists()
    with pytest.raises(RequestError, match="no command is running"):
        progress_file.ask_to_stop(tmp_path)


def test_a_killed_process_counts_as_interrupted(tmp_path: Path) -> None:
    with progress_file.reporting(["run", "photos"]) as reporter:
        reporter.attach(tmp_path)
        value = json.loads((tmp_path / "progress.json").read_text(encoding="utf-8"))
        assert progress_file.read(tmp_path).state == "running"  # type: ignore[union-attr]
        for change in ({"updated": 1.0}, {"pid": 2**22 + 5}):
            (tmp_path / "progress.json").write_text(json.dumps({**value, **change}), encoding="utf-8")
            assert progress_file.read(tmp_path).state == "interrupted"  # type: ignore[union-attr]


def test_the_folder_before_the_result_is_known_says_where_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_PROGRESS", str(tmp_path / "started"))
    with progress_file.reporting(["run", "photos"]) as reporter:
        assert "SIGHTLINE_PROGRESS" not in os.environ
        work(tmp_path / "run", reporter)
        first = progress_file.read(tmp_path / "started")
        assert first is not None and first.folder == str(tmp_path / "run")
    assert progress_file.read(tmp_path / "started") is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text("{", encoding="utf-8")
    with pytest.raises(Exception, match="damaged"):
        progress_file.read(tmp_path)


def test_a_second_command_does_not_overwrite_the_progress_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with progress_file.reporting(["run", "first"]) as reporter:
        reporter.attach(tmp_path)
        monkeypatch.setenv("SIGHTLINE_PROGRESS", str(tmp_path))
        monkeypatch.setattr(os, "getpid", os.getppid)
        with pytest.raises(DataError), progress_file.reporting(["run", "second"]):
            raise DataError("is being written by another process")
        progress = progress_file.read(tmp_path)
        assert progress is not None and progress.state == "running" and list(progress.command) == ["run", "first"]
