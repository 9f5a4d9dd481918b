"""State of a training: everything that changes while a network trains, for checkpoints and for recovery from a NaN loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sightline.training.gradients import Layers
from sightline.training.history import Epoch, GradientNorm

Weights = dict[str, Tensor]
_EMA_RAMP = 10
"""The decay of the moving average is (1 + step) / (10 + step), at most that of the plan: the first weights fade fast."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Snapshot that training can continue from.

    Args:
        weights: Weights of the network, BatchNorm statistics included.
        optimizer: Tensors of the optimizer, named `index of the parameter/name`.
        average: Moving average of the weights; None without one.
        step: Number of steps up to here.
    """

    weights: Weights
    optimizer: Weights
    average: Weights | None
    step: int


@dataclass(slots=True)
class State:
    """State of a training.

    Args:
        network, optimizer, layers: Network, its optimizer and its trainable layers.
        average: Moving average of the weights; None if the plan has none.
        best: Weights of the best epoch.
        good: Snapshot at the end of the last epoch, or at the beginning.
        total, right: Sum of losses and number of correct predictions in the current epoch.
        norms, measured: Summed gradient norms of each layer in the current epoch, and the number of measurements.
        epoch, step, batch: Number of completed epochs, steps, and batches of the current epoch.
        first_epoch, first_step, first_seconds: Values at the beginning of this plan: those of the continued run, else 0.
        compared_from: Epochs up to this one cannot be the best, since they were evaluated on other images or metrics.
        slowed: Factor of the learning rate: 1; 0.5 after a NaN or infinite loss; 0 after a second one, which ends training.
        pieces: Number of parts that a batch is split into to save memory.
        history: Epochs that were completed with finite numbers.
        gradients: float32 (layers,), mean gradient norms of each of these epochs.
        best_epoch: Epoch of the weights in `best`; 0 for the initial ones.
        seconds: Duration before this process resumed the training.
        notes: Notes for the user.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    layers: Layers
    average: Weights | None
    best: Weights
    good: Snapshot
    total: Tensor
    right: Tensor
    norms: Tensor
    measured: int = 0
    epoch: int = 0
    step: int = 0
    batch: int = 0
    first_epoch: int = 0
    first_step: int = 0
    first_seconds: float = 0.0
    compared_from: int = 0
    slowed: float = 1.0
    pieces: int = 1
    history: list[Epoch] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, averaged: bool) -> State:
        """Return the state at the beginning of a training."""
        layers, weights = Layers(network), weights_of(network)
        zero, norms = torch.zeros((), device=device), torch.zeros(len(layers.names), device=device)
        average = copied(weights) if averaged else None
        good = Snapshot(weights, {}, None if average is None else copied(average), 0)
        return cls(
            network=network,
            optimizer=optimizer,
            layers=layers,
            average=average,
            best=weights,
            good=good,
            total=zero,
            right=zero.clone(),
            norms=norms,
        )

    def count(self, loss: Tensor, right: Tensor, images: int) -> None:
        """Add the results of one step."""
        self.total += loss * images
        self.right += right
        self.step += 1
        self.batch += 1

    def measure(self) -> None:
        """Add the present gradient norms to the sums."""
        self.norms += self.layers.norms()
        self.measured += 1

    @torch.no_grad()
    def take_average(self, decay: float) -> None:
        """Update the moving average of the weights; integer statistics are copied."""
        if self.average is None:
            return
        share = 1 - min(decay, (1 + self.step) / (_EMA_RAMP + self.step))
        for name, value in self.network.state_dict().items():
            mean = self.average[name]
            mean.lerp_(value, share) if mean.is_floating_point() else mean.copy_(value)

    def finish_epoch(self, line: Epoch, best: bool) -> None:
        """Record an epoch with finite numbers; the network holds the weights that were evaluated."""
        self.history.append(line)
        self.gradients.append((self.norms / max(self.measured, 1)).cpu())
        if best:
            self.best, self.best_epoch = weights_of(self.network), line.epoch
        self.epoch = line.epoch

    def keep_good(self) -> None:
        """Take the snapshot that training returns to if the next epoch fails."""
        average = None if self.average is None else copied(self.average)
        self.good = Snapshot(weights_of(self.network), optimizer_tensors(self.optimizer), average, self.step)
        self.clear()

    def go_back(self) -> None:
        """Return to the last snapshot."""
        self.network.load_state_dict(self.good.weights)
        load_optimizer(self.optimizer, self.good.optimizer)
        self.average = None if self.good.average is None else copied(self.good.average)
        self.step = self.good.step
        self.clear()

    def clear(self) -> None:
        """Reset the sums for a new epoch."""
        self.batch = self.measured = 0
        for sums in (self.total, self.right, self.norms):
            sums.zero_()

    def finite(self) -> bool:
        """Return whether all weights and statistics are finite."""
        tensors = (t for t in self.network.state_dict().values() if t.is_floating_point())
        return all(bool(torch.isfinite(t).all()) for t in tensors)

    def gradient_norms(self) -> tuple[GradientNorm, ...]:
        """Return the gradient norms of all epochs."""
        layers = self.layers
        return tuple(
            GradientNorm(line.epoch, layer, norm, kind)
            for line, norms in zip(self.history, self.gradients, strict=True)
            for layer, norm, kind in zip(layers.names, norms.tolist(), layers.types, strict=True)
        )


# ------------------------------------------------------------------------------------------------------ copies of tensors


def copied(weights: Mapping[str, Tensor]) -> Weights:
    """Return tensors as copies with the same memory layout."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def weights_of(network: nn.Module) -> Weights:
    """Return a copy of all weights and statistics."""
    return copied(network.state_dict())


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Weights:
    """Return a copy of the state of an optimizer, named `index of the parameter/name`."""
    return {
        f"{i}/{key}": value.detach().clone()
        for i, p in enumerate(_parameters(optimizer))
        for key, value in optimizer.state.get(p, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Set the state of an optimizer to a result of `optimizer_tensors`."""
    parameters, state = _parameters(optimizer), dict[int, dict[str, Tensor]]()
    for name, value in tensors.items():
        index, _, key = name.partition("/")
        parameter = parameters[int(index)]
        # same memory layout as the parameter: fused steps process both in memory order
        like = torch.empty_like(parameter, dtype=value.dtype) if value.shape == parameter.shape else torch.empty_like(value)
        state.setdefault(int(index), {})[key] = like.detach().copy_(value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


# --------------------------------------------------------------------------------------------- a state as tensors and facts

_COUNTERS = (
    *("measured", "epoch", "step", "batch", "first_epoch", "first_step", "first_seconds", "compared_from"),
    *("slowed", "pieces", "best_epoch"),
)


def packed(state: State) -> tuple[Weights, dict[str, Any]]:
    """Return a state as named tensors and JSON values. Within an epoch, the last snapshot is included."""
    parts: dict[str, Mapping[str, Tensor]] = {
        "network": state.network.state_dict(),
        "optimizer": optimizer_tensors(state.optimizer),
        "average": state.average or {},
        "best": state.best,
        "sums": {"total": state.total, "right": state.right, "norms": state.norms},
    }
    if state.gradients:
        parts["gradients"] = {"norms": torch.stack(state.gradients)}
    if state.batch:
        good = state.good
        parts |= {"good.network": good.weights, "good.optimizer": good.optimizer, "good.average": good.average or {}}
    tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    rows = [{k: None if math.isnan(v) else v for k, v in dataclasses.asdict(line).items()} for line in state.history]
    facts = {name: getattr(state, name) for name in _COUNTERS}
    return tensors, {**facts, "good_step": state.good.step, "history": rows, "notes": list(state.notes)}


def _line(row: Mapping[str, Any]) -> Epoch:
    values: dict[str, Any] = {name: math.nan if value is None else value for name, value in row.items()}
    return Epoch(**values)


def unpack(state: State, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Restore a state from the result of `packed`; its network and optimizer are filled in place."""

    def part(name: str) -> Weights:
        return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}

    def alike(values: Mapping[str, Tensor]) -> Weights:
        """Return tensors with the device and memory layout of the network's."""
        return {name: torch.empty_like(t).copy_(values[name]) for name, t in state.network.state_dict().items()}

    averaged, device = state.average is not None, state.total.device
    for name in _COUNTERS:
        setattr(state, name, facts[name])
    state.notes = list(facts["notes"])
    state.history = [_line(row) for row in facts["history"]]
    state.gradients = list(part("gradients").get("norms", torch.zeros(0, 0)))
    state.network.load_state_dict(part("network"))
    load_optimizer(state.optimizer, part("optimizer"))
    state.average = alike(part("average") or part("network")) if averaged else None
    state.best = alike(part("best"))
    sums = part("sums")
    state.total, state.right, state.norms = (sums[name].to(device) for name in ("total", "right", "norms"))
    if state.batch:
        average = alike(part("good.average")) if averaged else None
        state.good = Snapshot(alike(part("good.network")), part("good.optimizer"), average, facts["good_step"])
    else:
        average = None if state.average is None else copied(state.average)
        state.good = Snapshot(weights_of(state.network), optimizer_tensors(state.optimizer), average, state.step)
