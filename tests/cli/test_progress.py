"""Progress of a training: a table on a terminal, at most a line per epoch elsewhere, nothing with --json."""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from sightline.cli import progress
from sightline.records import Learning, TrainingStage
from sightline.training.progress import words
from tests.conftest import write_few_digits

RECIPE = 'method = "scratch"\nbackbone = "cnn(filters=[8])"\nimage_size = 16\n[settings]\nepochs = 12\nbatch_size = 4\n'


def drawn(epochs: progress.Epochs, width: int = 80, height: int = 24) -> list[str]:
    """The table's lines."""
    screen = Console(file=io.StringIO(), width=width, height=height)
    screen.print(epochs)
    return [line.strip() for line in screen.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def learning(epoch: int, **known: float) -> Learning:
    return Learning(epoch, 12, **known)


def test_the_epoch_table_grows_in_place_and_drops_the_oldest_rows() -> None:
    table = progress.Epochs()
    assert drawn(table) == []
    table.update(learning(1))
    assert drawn(table)[1:] == ["1/12"]
    for epoch in range(2, 13):
        for left in (9.0, 5.0):
            scores = {"loss": 1 / epoch, "accuracy": 0.5, "val_loss": 0.4, "val_accuracy": 0.75}
            table.update(learning(epoch, **scores, images_s=1210.4, left_s=60 + left))
    lines = drawn(table)
    assert lines[0].split("  ")[0] == "epoch" and len(lines) == 2 + progress.ROWS
    assert lines[-2].split() == ["11", "0.083", "0.500", "0.400", "0.750"]  # the twelfth epoch's reports score the eleventh
    assert lines[-1].split() == ["12/12", "1,210", "0:01:05"]
    assert len(drawn(table, height=10)) == 2 + 4
    table.update(learning(1))  # another training
    assert drawn(table)[1:] == ["1/12"]


def test_validation_scores_are_dashes_without_validation_images() -> None:
    table = progress.Epochs()
    table.update(learning(2, loss=0.5, accuracy=0.75))
    assert drawn(table)[1].split() == ["1", "0.500", "0.750", "–", "–"]


def test_without_a_terminal_epochs_print_lines_at_a_limited_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    bars = progress.Bars(None)
    for epoch in (1, 2, 3, 4):
        clock[0] += 4.0
        for step in range(3):
            one = learning(epoch, val_accuracy=0.5)
            bars(TrainingStage(f"training: {words(one)}", one), step, 12)
    said = capsys.readouterr().err.splitlines()
    assert said == ["training: epoch 1 of 12, val accuracy 0.50", "training: epoch 3 of 12, val accuracy 0.50"]


def screen_of(command: list[str], cwd: Path) -> str:
    """What a terminal of 24 lines and 100 columns is sent on standard error."""
    pty = pytest.importorskip("pty", reason="a terminal needs a Unix")
    import fcntl
    import struct
    import termios

    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(paths)}
    child = subprocess.Popen(command, cwd=cwd, stdin=side, stderr=side, stdout=subprocess.DEVNULL, env=environment)
    os.close(side)
    sent = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        sent += part
    os.close(main)
    assert child.wait(timeout=60) == 0
    return sent.decode("utf-8")


LEARNING = """
import time
from sightline.cli import progress
from tests.faults.learner import learn
with progress.progress() as bars:
    learn(None, progress=lambda *told: (bars(*told), time.sleep(0.05)))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a terminal needs a Unix")
def test_on_a_terminal_the_epoch_table_is_redrawn_in_place(tmp_path: Path) -> None:
    sent = screen_of([sys.executable, "-c", LEARNING], tmp_path)
    bare = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)
    assert "val accuracy" in bare and "images/s" in bare and "time left" in bare
    assert re.search(r"[1-5]/5 +[\d,]+ +0:00:\d\d", bare)  # the epoch at hand, its images a second, the time left
    assert re.search(r"\n *3( +0?\.?\d+){4}", bare.replace("\r", "\n"))  # an epoch that is done
    assert "\x1b[1A" in sent  # back up: frames replace each other
    assert sent.endswith("\x1b[?25h\r") or "\x1b[?25h" in sent[-12:]  # the cursor comes back
    assert re.search(r"\x1b\[1A\x1b\[2K(\r|\x1b\[2K|\x1b\[1A|\x1b\[\?25h)*$", sent)  # nothing stays behind


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a terminal needs a Unix")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_train_draws_the_epoch_table_unless_json_is_requested(more: list[str], tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    photos = write_few_digits(tmp_path / "digits", 10)
    sent = screen_of([sys.executable, "-m", "sightline", "train", str(photos), "recipe.toml", "-o", "run", *more], tmp_path)
    assert ("time left" in sent) == (not more)
    assert bool(sent) == (not more)


def test_the_epoch_table_shows_losses_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's own reports: scores are the last epoch's, and the time left falls to nothing."""
    from tests.faults.learner import learn

    told: list[Any] = []
    remember: Callable[[str, int, int], None] = lambda stage, done, total: told.append((stage, done))  # noqa: E731
    _, trained = learn(None, progress=remember, sides=(8, 8, 8, 16, 16))
    learnings = [stage.learning for stage, _ in told]
    assert [x.epoch for x in learnings] == [1 + (done - 1) // 4 for _, done in told]
    assert {x.epochs for x in learnings} == {5}
    assert math.isnan(learnings[3].loss) and learnings[4].loss == trained.history[0].train_loss
    assert learnings[-1].val_accuracy == trained.history[3].val_accuracy
    assert all(x.images_s > 0 for x in learnings) and learnings[-1].left_s == pytest.approx(0, abs=1e-9)
    assert learnings[11].left_s > 0


def test_progress_without_a_terminal_is_one_line_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress() as shown:
        for done in range(0, 1001, 100):
            shown("reading images", done, 1000)
        shown("looking for duplicates", 0, 0)
    captured = capsys.readouterr()
    assert captured.err == "reading images (1,000)\nlooking for duplicates\n"
    assert captured.out == ""


def test_progress_on_a_terminal_shows_a_bar_per_stage_and_leaves_none_behind() -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80)
    with Progress(console=terminal, transient=True, auto_refresh=False) as shown:
        bars = progress.Bars(shown)
        bars("reading [images]", 0, 0)
        bars("reading [images]", 50, 200)
        shown.refresh()
        (task,) = shown.tasks
        assert (task.completed, task.total, task.visible) == (50, 200, True)
        bars("reading [images]", 200, 200)
        bars("splitting", 1, 3)
        assert [task.description for task in shown.tasks] == ["splitting"], "a finished bar is removed"
        bars("fitting constant", 0, 0)
        bars("fitting logistic", 0, 0)
        assert [task.description for task in shown.tasks] == ["fitting logistic"], "so is one whose stage gave way to another"
    assert "reading [images]" in screen.getvalue()


def test_the_detail_after_the_stage_name_is_updated_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(console=terminal, transient=True, auto_refresh=False) as shown:
        bars = progress.Bars(shown)
        for epoch, done in ((1, 10), (2, 20)):
            bars(f"training: epoch {epoch} of 3, loss 0.4", done, 30)
        (task,) = shown.tasks
        assert (task.description, task.completed) == ("training: epoch 2 of 3, loss 0.4", 20)
    plain = progress.Bars(None)
    for epoch in (1, 2):
        plain(f"training: epoch {epoch} of 3", epoch, 30)
    assert capsys.readouterr().err == "training (30)\n"


def test_a_training_shows_one_time_left_and_how_many_epochs_fit() -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100, height=24)
    with Progress("{task.description}", progress._columns()[-1], console=terminal, transient=True, auto_refresh=False) as shown:
        epochs = progress.Epochs()
        bars = progress.Bars(shown, epochs)
        learning = Learning(2, 120, loss=0.5, left_s=193.0, fits=17)
        for step in (1, 2):
            bars(TrainingStage(f"training: {words(learning)}", learning), step, 1200)
        shown.refresh()
        terminal.print(epochs)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "training: at most 0:03:13 (budget); 17 of 120 epochs will fit" in drawn
    assert set(re.findall(r"\d:\d\d:\d\d", drawn)) == {"0:03:13"}, "one time everywhere"
