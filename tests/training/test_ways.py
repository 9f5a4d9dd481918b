"""Options of the training loop: averaged weights, balanced sampling, mixup, groups, split batches, gradient norms."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sightline import evaluation
from sightline.deadline import Deadline
from sightline.errors import RequestError, SightlineError
from sightline.records import Progress, silent
from sightline.store import stream
from sightline.training import augment, checkpoint, hardware, loop
from sightline.training.dataloader import DataLoader, Pixels, balanced_rows, evaluate
from sightline.training.gradients import MEASURED, Layers, measured
from sightline.training.history import as_rows, best_of, rank
from sightline.training.loop import Epoch, Trained
from sightline.training.losses import loss_of
from sightline.training.plan import Plan
from sightline.training.progress import ProgressLine
from sightline.training.state import State, weights_of
from tests.training.test_loop import NOTHING, Small, bars, same, small, weights

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def run(network: nn.Module, train: Pixels, val: Pixels = NOTHING, *, progress: Progress = silent, **given: Any) -> Trained:
    own = {key: given.pop(key) for key in ("groups", "watch", "checkpoint") if key in given}
    return loop.train(
        network,
        train,
        val,
        plan=Plan(**{"epochs": 3, "batch_size": 16, **given}),
        policy=augment.POLICIES["none"],
        mean=MEAN,
        std=STD,
        seed=0,
        progress=progress,
        **own,
    )


@pytest.mark.parametrize("given", [{"optimizer": o} for o in ("adamw", "adam", "sgd", "rmsprop")] + [{"mixup": 0.2}], ids=str)
def test_training_learns_with_every_option(given: dict[str, Any]) -> None:
    trained = run(small(), bars(128), bars(64, seed=1), epochs=12, **given)
    assert max(e.val_accuracy for e in trained.history) > 0.9


def test_a_plan_without_epochs_is_refused() -> None:
    with pytest.raises(RequestError, match="no number of epochs"):
        run(small(), bars(8), epochs=None)


# ------------------------------------------------------------------------------------------------------- averaged weights


def test_averaged_weights_equal_the_recursion() -> None:
    """With constant steps of 1 from 0 the average follows from the recursion, its decay rising as (1 + step) / (10 + step)."""
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.zero_()
    state = State.begin(network, torch.optim.SGD(network.parameters(), lr=1.0), torch.device("cpu"), averaged=True)
    mean = 0.0
    for step in range(1, 6):
        network.weight.data += 1
        state.step = step
        state.take_average(0.5)
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * step
    assert state.average is not None and state.average["weight"].item() == pytest.approx(mean)


def test_the_averaged_weights_are_evaluated_and_saved() -> None:
    plain, averaged, seen = small(), small(), dict[int, dict[str, Tensor]]()
    run(plain, bars(64), bars(32, 1), keep="last")
    trained = run(
        averaged,
        bars(64),
        bars(32, 1),
        keep="last",
        average=0.9,
        progress=lambda stage, done, total: seen.__setitem__(done, weights(averaged)),
    )
    assert same(seen[12], weights(plain))  # the steps are the same
    assert not same(weights(averaged), weights(plain))
    logits = loop.evaluate(averaged, bars(32, 1), MEAN, STD, torch.device("cpu"))
    assert float((logits.argmax(dim=1).numpy() == bars(32, 1).y).mean()) == trained.history[-1].val_accuracy


# ---------------------------------------------------------------------------------------------------------------- classes


def test_balanced_sampling_shows_every_class_equally_often() -> None:
    y = np.array([0] * 50 + [1] * 9 + [2] * 4)
    rows = balanced_rows(y, stream(0, "test"))
    assert len(rows) == 63 and np.bincount(y[rows]).tolist() == [21, 21, 21]
    assert max(np.bincount(rows, minlength=63)[:50]) == 1  # none of the large class twice
    assert set(np.bincount(rows, minlength=63)[59:]) == {5, 6}  # those of the small one take turns
    other = balanced_rows(y, stream(1, "test"))
    assert sorted(rows) != sorted(other)


def test_balanced_sampling_augments_each_repetition_differently() -> None:
    data = Pixels(
        np.arange(20, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3), np.array([0] * 18 + [1] * 2)
    )
    policy = augment.Policy(brightness=0.5)
    feed = DataLoader(data, policy, (0, 0, 0), (1, 1, 1), torch.device("cpu"), 0, "balanced")
    drawn = list(feed.epoch(1, 5))
    y = torch.cat([labels for _, labels in drawn])
    assert len(y) == 20 and int(y.sum()) == 10
    values = torch.cat([x[:, 0, 0, 0] for x, _ in drawn])[y == 1]
    assert len(set(values.tolist())) == 10  # two images, five times each, every time changed in another way
    about_its_mean = DataLoader(data, augment.Policy(contrast=(1, 1)), (0, 0, 0), (1, 1, 1), torch.device("cpu"), 0, "balanced")
    even = [(x[:, 0, 0, 0] * 255, labels) for x, labels in about_its_mean.epoch(1, 5)]
    pairs = [(round(float(v)), int(k)) for values_, labels in even for v, k in zip(values_, labels, strict=True)]
    assert all((value >= 18) == (label == 1) for value, label in pairs)  # an even image has no contrast about its own mean
    skipped = list(feed.epoch(1, 5, skip=2))
    assert len(skipped) == 2 and all(torch.equal(a, c) for (a, _), (c, _) in zip(drawn[2:], skipped, strict=True))


def test_class_weight_balanced_weights_the_loss_by_class_frequency() -> None:
    rare = Pixels(bars(36).images, np.array([0] * 30 + [1] * 6))
    weight = loss_of(Plan(class_weight="balanced"), rare.y, torch.device("cpu")).weight
    assert weight is not None and weight.tolist() == pytest.approx([0.6, 3.0])
    assert loss_of(Plan(), rare.y, torch.device("cpu")).weight is None
    weighted, without = small(), small()
    run(weighted, rare, class_weight="balanced")
    run(without, rare)
    assert not same(weights(weighted), weights(without))


# ------------------------------------------------------------------------------------------------------------------ groups


def test_groups_keep_their_rate_ratio_and_other_parameters_stay_fixed() -> None:
    network, rates = small(), list[list[float]]()
    before = weights(network)
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *given: Any) -> Any:
        rates.append([group["lr"] for group in self.param_groups])
        return real(self, *given)

    groups = [
        {"params": list(network.linear.parameters()), "lr": 0.02, "weight_decay": 0.0},
        {"params": [network.body.blocks[0].weight], "lr": 0.005, "weight_decay": 0.1},
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        run(network, bars(64), learning_rate=0.01, groups=groups)
    plan = Plan(epochs=3, learning_rate=0.01)
    for number, (head, stem) in enumerate(rates):
        assert head == pytest.approx(2 * plan.rate_at(number, 12)) and stem == pytest.approx(0.5 * plan.rate_at(number, 12))
    moved = {name for name, value in weights(network).items() if not torch.equal(value, before[name])}
    assert moved >= {"linear.weight", "linear.bias", "body.blocks.0.weight"}
    assert "body.blocks.4.weight" in before and "body.blocks.4.weight" not in moved


# ---------------------------------------------------------------------------------------------------------- early stopping


def line(epoch: int, val_loss: float, val_accuracy: float, train_loss: float = 0.1, train_accuracy: float = 0.9) -> Epoch:
    return Epoch(epoch, train_loss, train_accuracy, val_loss, val_accuracy, 0.001, 1.0)


def test_the_best_epoch_by_every_metric() -> None:
    history = [line(1, 0.5, 0.8, 0.3, 0.7), line(2, 0.4, 0.7, 0.2, 0.95), line(3, 0.6, 0.8, 0.1, 0.9)]
    found = {keep: best_of(history, keep) for keep in ("val_loss", "val_accuracy", "train_loss", "train_accuracy", "last")}
    assert found == {"val_loss": 2, "val_accuracy": 1, "train_loss": 3, "train_accuracy": 2, "last": 3}
    assert best_of([line(1, math.nan, math.nan), line(2, math.nan, math.nan)], "val_loss") == 2
    assert best_of([], "val_loss") == 0
    assert rank(line(1, 0.5, 0.8), "val_accuracy") == (0.8, -0.5)


@pytest.mark.parametrize("keep", ["val_balanced_accuracy", "val_roc_auc", "val_ece", "val_eer"])
def test_the_best_epoch_can_be_selected_by_any_metric(keep: str) -> None:
    name = keep.removeprefix("val_")
    network, val = small(), bars(32, 1)
    noise = Pixels(bars(64).images, np.random.default_rng(0).integers(0, 2, 64))
    trained = run(network, noise, val, epochs=60, patience=3, keep=keep, learning_rate=0.1)
    watched = [line.val_watched for line in trained.history]
    best = (max if evaluation.METRICS[name].higher_is_better else min)(watched)
    assert watched[trained.best_epoch - 1] == best and len(set(watched)) > 1
    logits = evaluate(network, val, MEAN, STD, torch.device("cpu"))
    assert evaluation.metric_of(name, val.y, torch.softmax(logits.double(), 1).numpy()) == pytest.approx(best)
    way = "highest" if evaluation.METRICS[name].higher_is_better else "lowest"
    assert any(name.replace("_", " ") in note and way in note for note in trained.notes)
    assert [row[keep] for row in as_rows(trained.history, keep)] == watched


def test_a_metric_that_is_undefined_for_the_images_is_refused() -> None:
    with pytest.raises(RequestError, match="val_f1"):
        Plan(epochs=1, keep="val_f1")
    three = Pixels(bars(30).images, np.arange(30) % 3)
    with pytest.raises(RequestError, match="defined for two classes"):
        run(small(), three, epochs=1, keep="val_eer")
    with pytest.raises(RequestError, match="only 3 classes"):
        run(small(), three, epochs=1, keep="val_top_5")


@pytest.mark.parametrize("keep", ["val_accuracy", "train_loss"])
def test_patience_counts_epochs_without_improvement_of_the_kept_metric(keep: str) -> None:
    random = np.random.default_rng(0)
    noise = Pixels(random.integers(0, 256, (32, 16, 16, 3), dtype=np.uint8), np.arange(32) % 2)
    trained = run(small(), noise, bars(32, 1), epochs=60, patience=2, keep=keep, learning_rate=0.3)
    assert trained.best_epoch == best_of(trained.history, keep) == len(trained.history) - 2
    word = "accuracy was highest" if keep.endswith("accuracy") else "loss was lowest"
    assert any(f"{word} in epoch {trained.best_epoch}" in note for note in trained.notes)


# ---------------------------------------------------------------------------------------------------------- gradient norms


def test_gradient_norms_equal_sums_of_squares() -> None:
    network = small()
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    network(x).square().sum().backward()
    layers = Layers(network)
    expected = {}
    for name, module in network.named_modules():
        own = list(module.parameters(recurse=False))
        if own:
            expected[name] = math.sqrt(sum(float(p.grad.double().square().sum()) for p in own if p.grad is not None))
    assert list(layers.names) == list(expected)
    np.testing.assert_allclose(layers.norms().numpy(), list(expected.values()), rtol=1e-5)
    assert dict(zip(layers.names, layers.types, strict=True))["linear"] == "Linear"


def test_frozen_layers_have_no_gradient_norm() -> None:
    network = small()
    network.body.requires_grad_(False)
    assert {g.layer for g in run(network, bars(32), epochs=1).gradients} == {"linear"}


def test_gradients_are_measured_at_some_steps_of_every_epoch() -> None:
    for steps in (1, 2, 7, 8, 9, 100, 1001):
        found = [b for b in range(steps) if measured(b, steps)]
        assert found[0] == 0 and min(steps, MEASURED // 2) <= len(found) <= MEASURED


class Plain(nn.Module):
    """Deep chain of sigmoid layers, with or without skip connections."""

    def __init__(self, skips: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Linear(3 * 256, 16)
            self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(12)])
            self.end = nn.Linear(16, 2)
        self.skips = skips

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x.flatten(1))
        for layer in self.layers:
            h = torch.sigmoid(layer(h)) + (h if self.skips else 0)
        return self.end(h)


def test_gradient_norms_show_vanishing_gradients_without_skip_connections() -> None:
    ratio = {}
    for skips in (False, True):
        norms = {g.layer: g.norm for g in run(Plain(skips), bars(64), epochs=1).gradients}
        ratio[skips] = norms["layers.0"] / norms["layers.11"]
    assert ratio[False] < 1e-5 and 0.05 < ratio[True] < 20


# ------------------------------------------------------------------------------------------------------------------ memory


class Hungry(Small):
    """Network that runs out of memory above a number of images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.load_state_dict(small().state_dict())
        self.most, self.sizes = most, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            if len(x) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            self.sizes.append(len(x))
        return super().forward(x)


class WithoutStatistics(nn.Module):
    """Network without BatchNorm and dropout, so that parts of a batch sum to its gradient."""

    def __init__(self, most: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linear = nn.Linear(3 * 256, 2)
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.linear(x.flatten(1))


def test_out_of_memory_splits_batches_with_a_note() -> None:
    network = Hungry(5)
    trained = run(network, bars(32), epochs=2)
    assert network.sizes == [4] * 16  # two epochs of two batches of 16, each in four parts
    assert [n for n in trained.notes if "in 4 parts" in n] and trained.steps == 4


def test_split_batches_learn_the_same_as_whole_ones() -> None:
    whole, parts = WithoutStatistics(99), WithoutStatistics(3)
    rare = Pixels(bars(32).images, np.array([0] * 24 + [1] * 8))
    a, b = (run(network, rare, class_weight="balanced", optimizer="sgd") for network in (whole, parts))
    torch.testing.assert_close(weights_of(whole), weights_of(parts), rtol=1e-4, atol=1e-6)
    assert a.history[-1].train_loss == pytest.approx(b.history[-1].train_loss, rel=1e-4)
    assert a.history[-1].train_accuracy == b.history[-1].train_accuracy


def test_memory_for_fewer_than_two_images_raises_an_error() -> None:
    with pytest.raises(SightlineError, match="memory does not suffice") as error:
        run(Hungry(1), bars(32))
    assert error.value.hint is not None and "image_size" in error.value.hint


def test_other_runtime_errors_are_not_caught() -> None:
    class Broken(Small):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run(Broken(), bars(8))


# ---------------------------------------------------------------------------------------------------------------- hardware


def test_images_are_kept_off_a_device_whose_memory_they_would_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert hardware.fits(400, torch.device("cuda")) and not hardware.fits(401, torch.device("cuda"))
    assert hardware.fits(1 << 60, torch.device("cpu"))


def test_torch_compile_is_used_on_cuda_for_long_trainings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    network, made = small(), list[nn.Module]()
    monkeypatch.setattr(torch, "compile", lambda net: made.append(net) or net)
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: object())
    assert hardware.forward_of(network, torch.device("cpu"), 10**6) is network
    hardware.forward_of(network, torch.device("cuda"), 100)
    assert not made
    hardware.forward_of(network, torch.device("cuda"), 10**4)
    assert made == [network]


# -------------------------------------------------------------------------------------------------------------------- told


def test_progress_lines_show_epoch_losses_and_speed() -> None:
    told: list[str] = []
    run(small(), bars(64), bars(32, 1), progress=lambda stage, done, total: told.append(stage))
    assert told[0].startswith("training: epoch 1 of 3") and "loss" not in told[0]
    assert told[-1].startswith("training: epoch 3 of 3, loss 0.") and ", val loss 0." in told[-1]
    assert all(f", val {what} 0." in told[-1] for what in ("loss", "accuracy")) and " images/s" in told[-1]


def test_the_progress_line_equals_the_worked_example() -> None:
    network = small()
    state = State.begin(network, torch.optim.SGD(network.parameters()), torch.device("cpu"), averaged=False)
    now = [0.0]
    pace = ProgressLine(state, [64] * 12, 605, 10, Deadline(clock=lambda: now[0]))
    now[0] = 1.0
    assert pace.message() == "training: epoch 1 of 12"
    state.history, state.epoch = [line(1, 0.5, 0.5), dataclasses.replace(line(2, 0.4, 0.87), train_loss=0.411)], 2
    assert pace.message() == ("training: epoch 3 of 12, loss 0.41, val loss 0.40, val accuracy 0.87, 1,210 images/s, 0:05 left")


def test_the_estimated_time_left_accounts_for_smaller_images() -> None:
    network = small()
    state = State.begin(network, torch.optim.SGD(network.parameters()), torch.device("cpu"), averaged=False)
    now = [0.0]
    pace = ProgressLine(state, [32, 32, 64], 100, 10, Deadline(clock=lambda: now[0]))
    now[0] = 2.0
    state.epoch = 2  # half the pixels of the whole are still to be seen twice over: 1,024 · 2 done, 4,096 to go
    assert pace.message().learning.left_s == pytest.approx(4.0)


def test_the_duration_of_a_resumed_training_includes_that_before_the_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(share: float, accuracy: float) -> None:
        raise InterruptedError

    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    with pytest.raises(InterruptedError):
        run(small(), bars(32), bars(16, 1), watch=stop, checkpoint=tmp_path)
    tensors, facts = checkpoint.read(tmp_path / checkpoint.FILE)
    monkeypatch.setattr(checkpoint, "read", lambda file: (tensors, {**facts, "seconds": 1000.0}))
    resumed = run(small(), bars(32), bars(16, 1), checkpoint=tmp_path)
    assert len(resumed.history) == 3 and resumed.seconds > 1000
