"""A training that is killed at any moment resumes to bit-identical results."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sightline.errors import DataError, RequestError
from sightline.training import augment, checkpoint
from sightline.training.plan import Plan
from tests.faults import learner
from tests.faults.learner import PLAN, STEPS, facts, learn

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such signals")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class StopError(Exception):
    """Raised in the midst of a training."""


def stop_at(step: int) -> Callable[[str, int, int], None]:
    """A progress that ends the training at a step, before its checkpoint is written."""

    def progress(stage: str, done: int, total: int) -> None:
        if done == step:
            raise StopError

    return progress


def interrupted(folder: Path, *steps: int, **changes: Any) -> tuple[dict[str, Tensor], Any]:
    """The end of a training that was stopped at each of these steps and resumed."""
    for step in steps:
        with pytest.raises(StopError):
            learn(folder, progress=stop_at(step), **changes)
    return learn(folder, **changes)


# ------------------------------------------------------------------------------------------------- within one process

WAYS: dict[str, Plan] = {
    "as learner": PLAN,
    "sgd": Plan(epochs=3, batch_size=16, optimizer="sgd"),
    "adam, step": Plan(epochs=3, batch_size=16, optimizer="adam", schedule="step"),
    "rmsprop, one cycle": Plan(epochs=3, batch_size=16, optimizer="rmsprop", momentum=0.9, schedule="onecycle"),
    "the default": Plan(epochs=3, batch_size=16),
    "weighted, early stop": Plan(epochs=9, batch_size=16, class_weight="balanced", patience=1, learning_rate=0.3),
}


@pytest.mark.precision
@pytest.mark.parametrize("name", WAYS)
def test_resumed_is_bitwise_the_same(name: str, tmp_path: Path) -> None:
    """Twice in one epoch, at its very end, and at its very beginning."""
    whole, told = learn(None, plan=WAYS[name])
    again, told_again = interrupted(tmp_path, 2, 3, 4, 5, 7, plan=WAYS[name])
    assert same(whole, again)
    assert facts(told) == facts(told_again)
    assert len(told.history) < 9 or "stop" not in name


def test_a_resumed_training_reports_earlier_epochs_to_the_watch_callback(tmp_path: Path) -> None:
    """Who may give a training up is told again of the epochs before the interruption, and decides as without it."""
    whole: list[tuple[float, float]] = []
    learn(None, watch=lambda *told: whole.append(told))
    with pytest.raises(StopError):
        learn(tmp_path, progress=stop_at(14), watch=lambda *told: None)
    again: list[tuple[float, float]] = []
    learn(tmp_path, watch=lambda *told: again.append(told))
    assert len(whole) == 5 and again == whole


def test_resumed_while_images_grow(tmp_path: Path) -> None:
    """Within a size, and on the border between two."""
    whole, told = learn(None, sides=(8, 8, 16, 16, 16))
    again, told_again = interrupted(tmp_path, 3, 8, 9, 14, sides=(8, 8, 16, 16, 16))
    assert same(whole, again) and facts(told) == facts(told_again)
    assert not same(whole, learn(None)[0])


def test_resumed_with_other_sizes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        learn(tmp_path, progress=stop_at(3), sides=(8, 8, 16, 16, 16))
    with pytest.raises(RequestError, match=r"sides \[8, 8, 16, 16, 16\], now null"):
        learn(tmp_path)


def test_done_steps_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StopError):
        learn(tmp_path, progress=stop_at(7))  # the checkpoint holds 6 steps
    made: list[int] = []
    real = augment.apply
    monkeypatch.setattr(augment, "apply", lambda x, changes: made.append(len(x)) or real(x, changes))
    steps: list[int] = []
    learn(tmp_path, progress=lambda stage, done, total: steps.append(done))
    assert steps == list(range(7, STEPS + 1))
    assert sum(n == 15 for n in made) == STEPS - 6  # 60 images in batches of 15; 24 are scored at once


def test_a_finished_training_is_given_back(tmp_path: Path) -> None:
    whole, told = learn(tmp_path)
    steps: list[int] = []
    again, told_again = learn(tmp_path, progress=lambda stage, done, total: steps.append(done))
    assert not steps and same(whole, again) and facts(told) == facts(told_again)


def test_a_checkpoint_holds_the_last_weights_besides_the_best_ones(tmp_path: Path) -> None:
    """What a resumed training goes on from is the last step's, not the best epoch's."""
    learn(tmp_path)
    tensors, kept = checkpoint.read(tmp_path / checkpoint.FILE)
    assert kept["step"] == STEPS and kept["epoch"] == 5
    assert not torch.equal(tensors["network/linear.weight"], tensors["best/linear.weight"])


NAN_AT = 6


class Breaks(learner.Small):
    """Its answers are no numbers in the steps of the second epoch's first try."""

    tries = 0

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.training:
            Breaks.tries += 1
        return y * (float("nan") if self.training and Breaks.tries == NAN_AT else 1.0)


def test_killed_in_the_epoch_after_a_loss_that_was_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last good state goes with the checkpoint: the half rate, and what was gone back to."""
    monkeypatch.setattr(learner, "Small", Breaks)
    monkeypatch.setattr(Breaks, "tries", 0)
    whole, told = learn(None)
    assert "resumed from the end of epoch 1" in told.notes[0]
    monkeypatch.setattr(Breaks, "tries", 0)
    calls: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append(done)
        if len(calls) in (7, 10):  # within the try that fails, and within the one that does not
            raise StopError

    for _ in range(2):
        with pytest.raises(StopError):
            learn(tmp_path, progress=progress)
    again, told_again = learn(tmp_path)
    assert same(whole, again) and facts(told) == facts(told_again)


# -------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"plan": Plan(epochs=6, batch_size=16)}, "epochs 5, now 6"),
        ({"train": learner.data(5, 60)}, "the training images"),
        ({"val": learner.data(5, 24)}, "the validation images"),
        ({"seed": 1}, "seed 0, now 1"),
        ({"policy": augment.POLICIES["photo"]}, "flip 0.0, now 0.5"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_another_training_is_refused_with_the_difference(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        learn(tmp_path, progress=stop_at(3))
    with pytest.raises(RequestError) as error:
        learn(tmp_path, **changes)
    assert named in error.value.message and error.value.hint is not None


def test_a_damaged_checkpoint_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        learn(tmp_path, progress=stop_at(3))
    file = tmp_path / checkpoint.FILE
    good = file.read_bytes()
    for damaged in (good[:-1000], good[:-50] + bytes([good[-50] ^ 1]) + good[-49:], b""):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="checkpoint"):
            learn(tmp_path)


def test_it_is_never_a_pickle(tmp_path: Path) -> None:
    learn(tmp_path)
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == [checkpoint.FILE]
    assert b"pickle" not in (data := (tmp_path / checkpoint.FILE).read_bytes()) and data[8:9] == b"{"


def test_a_disk_that_takes_no_checkpoint_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    whole, _ = learn(None)
    monkeypatch.setattr(checkpoint, "write_bytes", full)
    again, _ = learn(tmp_path)
    assert same(whole, again) and "No space left" in caplog.text


# --------------------------------------------------------------------------------------------- other threads and machines


@pytest.mark.slow
def test_the_thread_count_is_the_first_one_s(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        whole, _ = learn(None)
        with pytest.raises(StopError):
            learn(tmp_path, progress=stop_at(6))
        torch.set_num_threads(1)
        seen: set[int] = set()
        again, told = learn(tmp_path, progress=lambda *_: seen.add(torch.get_num_threads()))
        if (os.cpu_count() or 1) >= 2:
            assert seen == {2} and same(whole, again) and not told.notes
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_resuming_on_another_processor_adds_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(StopError):
            learn(tmp_path, progress=stop_at(6))
        torch.set_num_threads(1)
        monkeypatch.setattr(checkpoint, "_cores", lambda: 1)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")
        _, told = learn(tmp_path)
        assert len(told.history) == 5
        assert "threads 2, now 1" in told.notes[0] and "now OTHER" in told.notes[0] and "can differ" in told.notes[0]
    finally:
        torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_waits_for_the_step_and_its_checkpoint(number: int, raised: type[BaseException], tmp_path: Path) -> None:
    whole, _ = learn(None)

    def exits(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, exits)
    try:
        with pytest.raises(raised):
            learn(tmp_path, progress=lambda stage, done, total: os.kill(os.getpid(), number) if done == 7 else None)
        assert checkpoint.read(tmp_path / checkpoint.FILE)[1]["step"] == 7
        assert signal.getsignal(signal.SIGTERM) is exits and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert same(whole, learn(tmp_path)[0])


# ---------------------------------------------------------------------------------------------------------------- kill -9


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Makes processes in which torch is imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.learner"])
    return context


@pytest.fixture(scope="module")
def whole(processes: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """What the training leaves that nothing interrupts."""
    place = tmp_path_factory.mktemp("whole")
    return finished(processes, place / "checkpoint", place / "out")


def finished(processes: ForkServerContext, folder: Path, out: Path) -> tuple[bytes, str]:
    """Train to the end in a process of its own: weights and history."""
    process = processes.Process(target=learner.child, args=(folder, out))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    return (out / "weights.safetensors").read_bytes(), (out / "facts.json").read_text(encoding="utf-8")


def killed(processes: ForkServerContext, folder: Path, step: int, delay_s: float) -> None:
    """Train in a process of its own that is killed so long after a step."""
    here, there = processes.Pipe(duplex=False)
    process = processes.Process(target=learner.child, args=(folder, folder / "never", there))
    process.start()
    there.close()
    try:
        while here.recv() < step:
            pass
    except EOFError:
        pytest.fail("the training ended before it was killed")
    time.sleep(delay_s)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def points(count: int, seed: int) -> Iterator[tuple[int, float]]:
    """Steps to be killed after, and how soon: a step and its checkpoint take some milliseconds."""
    chosen = random.Random(seed)
    for _ in range(count):
        yield chosen.randrange(1, STEPS - 1), chosen.uniform(0, 0.02)


def check_killed(processes: ForkServerContext, whole: tuple[bytes, str], place: Path, count: int, seed: int) -> None:
    for number, (step, delay_s) in enumerate(points(count, seed)):
        folder = place / f"{number}"
        killed(processes, folder, step, delay_s)
        assert finished(processes, folder, place / f"{number}-out") == whole, f"killed {delay_s} s after step {step}"


@pytest.mark.slow
def test_killed_at_one_point(processes: ForkServerContext, whole: tuple[bytes, str], tmp_path: Path) -> None:
    check_killed(processes, whole, tmp_path, 1, seed=1)


@pytest.mark.slow
def test_killed_at_eight_points(processes: ForkServerContext, whole: tuple[bytes, str], tmp_path: Path) -> None:
    check_killed(processes, whole, tmp_path, 8, seed=2)


@pytest.mark.slow
def test_killed_twice_in_one_epoch(processes: ForkServerContext, whole: tuple[bytes, str], tmp_path: Path) -> None:
    killed(processes, tmp_path / "kept", 5, 0.003)
    killed(processes, tmp_path / "kept", 7, 0.0)
    assert finished(processes, tmp_path / "kept", tmp_path / "out") == whole


# ------------------------------------------------------------------------------------------------------- the command line

RECIPE = """
method = "scratch"
backbone = "cnn(filters=[8, 16])"
image_size = 16
[settings]
epochs = 6
batch_size = 8
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Thirty digits of three classes, split, and a recipe beside them."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(n_class=3, return_X_y=True)
    for number, (image, label) in enumerate(zip(images[:90], labels, strict=False)):
        file = tmp_path / "digits" / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.reshape(8, 8) * 15).astype(np.uint8)).resize((16, 16)).save(file)
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "digits"


def train(place: Path, *more: str, wait_for: str | None = None, number: int = 0) -> subprocess.CompletedProcess[str]:
    """`sightline train`, sent a signal as soon as it says that it trains."""
    command = [sys.executable, "-c", "from sightline.cli import main; main()", "train", "digits", "recipe.toml", *more]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = ""
    if wait_for is not None and process.stderr is not None:
        while not said.endswith("\n") or wait_for not in said:
            said += process.stderr.readline()
        process.send_signal(number)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, out, said + err)


@pytest.mark.slow
def test_interrupted_on_the_command_line_and_resumed(catalog: Path) -> None:
    place = catalog.parent
    ended = train(place, "-o", "run", wait_for="training", number=signal.SIGTERM)
    assert ended.returncode == 143, ended.stderr
    assert "Traceback" not in ended.stderr and "--resume" in ended.stderr
    assert (place / "run" / "checkpoint" / checkpoint.FILE).is_file() and not (place / "run" / "run.json").exists()
    resumed = train(place, "-o", "run", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["epochs"] == 6
    assert train(place, "-o", "whole").returncode == 0
    for name in ("classifier.safetensors", "gradients.csv", "predictions/val.csv"):
        assert (place / "run" / name).read_bytes() == (place / "whole" / name).read_bytes(), name
