"""Training loop: reproducible, with the best weights, early stopping, deadlines and NaN losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sightline.deadline import UNLIMITED, Deadline, OutOfTimeError
from sightline.errors import DataError, SightlineError
from sightline.networks.classics import cnn
from sightline.records import Progress, silent
from sightline.training import augment, loop
from sightline.training.loop import Epoch, Pixels, Plan, Trained
from sightline.training.progress import words

NOTHING = Pixels(np.zeros((0, 16, 16, 3), dtype=np.uint8), np.zeros(0, dtype=np.int64))


def bars(n: int, seed: int = 0, side: int = 16) -> Pixels:
    """Noisy images with a bright horizontal (0) or vertical (1) bar."""
    random = np.random.default_rng(seed)
    images, y = random.integers(0, 120, (n, side, side, 3)), np.arange(n) % 2
    for image, label in zip(images, y, strict=True):
        at = random.integers(2, side - 4)
        (image if label == 0 else image.transpose(1, 0, 2))[at : at + 2] += 130
    return Pixels(images.astype(np.uint8), y.astype(np.int64))


class Small(nn.Module):
    """A body, dropout and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = cnn(image_size=16, filters=(8, 16), batch_norm=True)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(self.body.tail(self.body.map(x))))


def small() -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Small()


def run(
    network: nn.Module,
    train: Pixels,
    val: Pixels = NOTHING,
    *,
    seed: int = 0,
    deadline: Deadline = UNLIMITED,
    progress: Progress = silent,
    **plan: object,
) -> Trained:
    return loop.train(
        network,
        train,
        val,
        plan=Plan(**{"epochs": 3, "batch_size": 16, **plan}),  # type: ignore[arg-type]
        policy=augment.POLICIES["light"],
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        seed=seed,
        deadline=deadline,
        progress=progress,
    )


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.precision
def test_training_reaches_90_percent_validation_accuracy() -> None:
    network = small()
    trained = run(network, bars(128), bars(64, seed=1), epochs=16)
    assert trained.history[-1].val_accuracy > 0.9
    assert trained.history[-1].train_loss < trained.history[0].train_loss
    assert trained.steps == 16 * 8
    assert not network.training


@pytest.mark.precision
def test_the_same_seed_gives_the_same_bits() -> None:
    first, again, other = small(), small(), small()
    a, b = run(first, bars(50), bars(20, 1)), None
    torch.manual_seed(999)  # nothing depends on what the program drew before
    b = run(again, bars(50), bars(20, 1))
    run(other, bars(50), bars(20, 1), seed=1)
    assert same(weights(first), weights(again))
    assert [(e.train_loss, e.val_loss) for e in a.history] == [(e.train_loss, e.val_loss) for e in b.history]
    assert not same(weights(first), weights(other))


def test_training_keeps_the_number_of_threads_of_the_caller() -> None:
    before = torch.get_num_threads()
    found: list[int] = []
    run(small(), bars(40), progress=lambda *_: found.append(torch.get_num_threads()))
    with ThreadPoolExecutor(1) as later:
        found.append(later.submit(torch.get_num_threads).result())
    assert set(found) == {before} and torch.get_num_threads() == before


def test_training_does_not_use_the_global_random_state() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(small(), bars(20))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("keep", ["val_loss", "val_accuracy", "last"])
def test_the_saved_weights_are_those_of_the_best_epoch(keep: str) -> None:
    network, val = small(), bars(60, seed=1)
    trained = run(network, bars(30), val, epochs=6, learning_rate=0.03, keep=keep)
    lines = trained.history
    wanted = {
        "val_loss": min(lines, key=lambda e: e.val_loss),
        "val_accuracy": max(lines, key=lambda e: (e.val_accuracy, -e.val_loss)),
        "last": lines[-1],
    }[keep]
    assert trained.best_epoch == wanted.epoch
    logits = loop.evaluate(network, val, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), torch.device("cpu"))
    assert float((logits.argmax(dim=1).numpy() == val.y).mean()) == wanted.val_accuracy


def test_the_last_epoch_is_kept_without_validation_images() -> None:
    trained = run(small(), bars(20), epochs=2)
    assert trained.best_epoch == 2
    assert math.isnan(trained.history[0].val_loss) and math.isnan(trained.history[0].val_accuracy)


def test_early_stopping_ends_after_patience_epochs_with_a_note() -> None:
    random = np.random.default_rng(0)
    noise = Pixels(random.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8), random.integers(0, 2, 40))
    wrong = Pixels(noise.images, 1 - noise.y)  # the better it learns, the worse it gets
    trained = run(small(), noise, wrong, epochs=40, patience=3)
    assert len(trained.history) < 40
    lowest = min(trained.history, key=lambda e: e.val_loss).epoch
    assert len(trained.history) == lowest + 3
    assert f"lowest in epoch {lowest}" in trained.notes[0]


class StepTime:
    """Clock that advances only by the given seconds per training step."""

    def __init__(self, *step_s: float) -> None:
        self.now, self.steps, self.step_s = 0.0, 0, step_s

    def __call__(self) -> float:
        return self.now

    def progress(self, stage: str, done: int, total: int) -> None:
        self.steps += 1
        self.now += self.step_s[min(self.steps, len(self.step_s)) - 1]


def test_no_epoch_starts_that_would_exceed_the_deadline() -> None:
    clock = StepTime(1.0)
    trained = run(small(), bars(160), epochs=50, deadline=Deadline(35.0, clock), progress=clock.progress)
    assert len(trained.history) == 3, "epochs of 10 s: a fourth would end at 40"
    assert trained.stopped == "stopped by the time budget (35 s) after epoch 3 of 50" and trained.stopped in trained.notes
    clock = StepTime(1.0)
    done = run(small(), bars(160), epochs=3, deadline=Deadline(35.0, clock), progress=clock.progress)
    assert done.stopped is None, "it came to its planned end"


def test_training_on_a_slowing_machine_ends_at_the_last_complete_epoch() -> None:
    clock, whole = StepTime(*[1.0] * 25, 20.0), small()
    trained = run(whole, bars(160), epochs=50, deadline=Deadline(60.0, clock), progress=clock.progress)
    assert len(trained.history) == 2 and trained.steps == 20 and clock.now <= 60 * 1.2
    expected = small()
    run(expected, bars(160), epochs=2, schedule="constant", warm_up=0.0)
    clock, cut = StepTime(*[1.0] * 25, 20.0), small()
    run(cut, bars(160), epochs=50, schedule="constant", warm_up=0.0, deadline=Deadline(60.0, clock), progress=clock.progress)
    assert same(weights(cut), weights(expected)), "nothing of the epoch at hand is kept"


def test_training_stops_after_a_few_steps_if_no_epoch_fits_the_deadline() -> None:
    clock = StepTime(1.0)
    with pytest.raises(OutOfTimeError, match="one epoch takes about 40 s here, 25 s are left"):
        run(small(), bars(640), epochs=5, deadline=Deadline(30.0, clock), progress=clock.progress)
    assert clock.steps == 5


def test_the_estimated_time_left_is_never_negative() -> None:
    clock, told = StepTime(1.0), []

    def progress(stage: str, done: int, total: int) -> None:
        told.append(stage.learning)  # type: ignore[attr-defined]
        clock.progress(stage, done, total)

    run(small(), bars(160), epochs=50, deadline=Deadline(35.0, clock), progress=progress)
    assert all(one.left_s <= 35 - at for at, one in enumerate(told) if not math.isnan(one.left_s))
    assert all(one.left_s >= 0 for one in told if not math.isnan(one.left_s))
    assert words(told[20]).endswith("at most 0:15 left (budget): 3 of 50 epochs will fit")


@pytest.mark.parametrize(("n", "batch_size"), [(17, 16), (3, 2), (2, 16), (33, 16), (5, 2)])
def test_no_batch_has_a_single_image(n: int, batch_size: int) -> None:
    found = loop.batches(np.arange(n), batch_size)
    np.testing.assert_array_equal(np.concatenate(found), np.arange(n))
    assert min(map(len, found)) >= 2
    assert max(map(len, found)) <= batch_size + 1
    assert len(run(small(), bars(n), epochs=1, batch_size=batch_size).history) == 1


def test_every_epoch_shuffles_and_uses_each_image_once() -> None:
    data = Pixels(np.zeros((10, 4, 4, 3), dtype=np.uint8), np.arange(10))
    feed = loop.DataLoader(data, augment.POLICIES["none"], (0, 0, 0), (1, 1, 1), torch.device("cpu"), 0)
    orders = [torch.cat([y for _, y in feed.epoch(epoch, 4)]).tolist() for epoch in (1, 2, 1)]
    assert sorted(orders[0]) == list(range(10))
    assert orders[0] != orders[1] and orders[0] == orders[2]


class Listens(Small):
    """Network that records a number of torch's generator at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.heard.append(float(torch.rand(())))
        return super().forward(x)


def test_dropout_is_a_function_of_seed_and_step() -> None:
    first, again, other = Listens(), Listens(), Listens()
    run(first, bars(32))
    run(again, bars(32))
    run(other, bars(32), seed=1)
    assert len(set(first.heard)) == 6 and first.heard == again.heard
    assert not set(first.heard) & set(other.heard)


class Breaks(Small):
    """Network whose logits become NaN at some forward passes of training, counted from 1."""

    def __init__(self, passes: Container[int]) -> None:
        super().__init__()
        self.load_state_dict(small().state_dict())
        self.passes, self.seen = passes, 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return super().forward(x) * (math.nan if self.training and self.seen in self.passes else 1.0)


def test_a_nan_loss_restores_the_last_good_epoch_and_halves_the_learning_rate() -> None:
    whole, network = small(), Breaks([7])  # two steps an epoch: the fourth breaks
    undisturbed = run(whole, bars(32), epochs=6)
    trained = run(network, bars(32), epochs=6)
    assert [e.epoch for e in trained.history] == [1, 2, 3, 4, 5, 6] and trained.steps == 12
    rates = [(b.learning_rate, a.learning_rate) for a, b in zip(undisturbed.history, trained.history, strict=True)]
    assert all(new == old for new, old in rates[:3]) and all(new == old / 2 for new, old in rates[3:])
    assert [e.train_loss for e in trained.history[:3]] == [e.train_loss for e in undisturbed.history[:3]]
    assert "in epoch 4: training resumed from the end of epoch 3" in trained.notes[0] and "half" in trained.notes[0]
    assert all(bool(torch.isfinite(t).all()) for t in network.state_dict().values())


@pytest.mark.precision
def test_training_after_a_nan_loss_continues_bit_identically_from_the_good_epoch() -> None:
    """With the rate halved by hand from epoch 4 on, the weights are those of the run that went back."""
    network = Breaks([7])
    run(network, bars(32), epochs=6)

    class Halves(Plan):
        __slots__ = ()

        def rate_at(self, step: int, steps: int) -> float:
            return Plan.rate_at(self, step, steps) * (0.5 if step >= 6 else 1.0)

    whole = small()
    loop.train(
        whole,
        bars(32),
        NOTHING,
        plan=Halves(epochs=6, batch_size=16),
        policy=augment.POLICIES["light"],
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        seed=0,
    )
    assert same(weights(whole), weights(network))


def test_a_second_nan_loss_ends_training_with_the_best_weights() -> None:
    network, after_step = Breaks(range(7, 99)), {}

    def remember(stage: str, done: int, total: int) -> None:
        after_step.setdefault(done, weights(network))

    trained = run(network, bars(32), epochs=20, keep="last", progress=remember)
    assert [e.epoch for e in trained.history] == [1, 2, 3] and trained.best_epoch == 3
    assert "diverged in epoch 4" in trained.notes[1] and "weights of epoch 3" in trained.notes[1]
    assert same(weights(network), after_step[6])
    assert not same(weights(network), after_step[8])


def test_nan_losses_from_the_first_epoch_on_raise_an_error() -> None:
    with pytest.raises(SightlineError, match="first epoch") as error:
        run(Breaks(range(2, 99)), bars(32))
    assert error.value.hint is not None and "smaller learning rate" in error.value.hint


def test_a_diverged_training_adds_a_note() -> None:
    wild = run(small(), bars(32), bars(16, 1), epochs=2, optimizer="sgd", learning_rate=10.0, clip_norm=0.0, keep="last")
    assert "training diverged: the kept epoch, 2, has" in wild.notes[-1] and "such as 1" in wild.notes[-1]
    assert run(small(), bars(32), bars(16, 1), epochs=2, keep="last").notes == ()


def test_training_on_one_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 image\(s\)"):
        run(small(), bars(1))


def lines(pairs: list[tuple[float, float]]) -> list[Epoch]:
    return [Epoch(i, 0.1, train, 0.5, val, 0.001, 1.0) for i, (train, val) in enumerate(pairs, start=1)]


CASES: dict[str, tuple[list[tuple[float, float]], str | None]] = {
    "never": ([(0.5, 0.5), (0.7, 0.65)], None),
    "from the middle": ([(0.5, 0.5), (0.9, 0.6), (0.95, 0.6), (0.98, 0.64)], "from epoch 2: train 0.98, val 0.64"),
    "one epoch of a jagged curve": ([(0.7, 0.75), (0.75, 0.76), (0.77, 0.75), (0.78, 0.6)], None),
    "two epochs": ([(0.5, 0.5), (0.9, 0.6), (0.98, 0.64)], None),
    "within the interval": ([(0.73, 0.62), (0.73, 0.62), (0.73, 0.62)], None),
    "closed again": ([(0.9, 0.5), (0.9, 0.85), (0.95, 0.9)], None),
    "no validation": ([(0.9, math.nan), (0.99, math.nan)], None),
    "empty": ([], None),
}


@pytest.mark.parametrize("name", CASES)
def test_overfitting_is_described_in_a_sentence(name: str) -> None:
    pairs, expected = CASES[name]
    assert loop.overfitting(lines(pairs), 50) == expected
    assert loop.overfitting(lines(pairs), 2) is None, "two images tell nothing"


@pytest.mark.parametrize(
    ("found", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_bf16": False, "avx2": True}, False), ({}, False)],
)
def test_half_precision_depends_on_processor_and_setting(
    found: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    capabilities: Callable[[], dict[str, bool]] = lambda: found  # noqa: E731
    monkeypatch.setattr(torch.cpu, "get_capabilities", capabilities, raising=False)
    assert not loop.half_precision(torch.device("cpu"))  # tests run in float32
    monkeypatch.setenv("SIGHTLINE_PRECISION", "auto")
    assert loop.half_precision(torch.device("cpu")) is (expected and torch.backends.mkldnn.is_available())


def test_the_result_names_the_precision_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    class Looks(Small):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            seen.add(logits.dtype)
            return logits

    for half, name, dtype in ((False, "f32", torch.float32), (True, "bf16", torch.bfloat16)):
        monkeypatch.setattr(loop, "half_precision", lambda device, half=half: half)
        seen.clear()
        assert run(Looks(), bars(8), epochs=1).precision == name
        assert seen == {dtype}


def test_evaluation_restores_the_mode_of_the_network() -> None:
    for mode in (True, False):
        network = small().train(mode)
        loop.evaluate(network, bars(3), (0, 0, 0), (1, 1, 1), torch.device("cpu"))
        assert network.training is mode
