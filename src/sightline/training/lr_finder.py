"""Learning-rate range test: train for a few steps at exponentially growing learning rates and record the loss at each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import nn

from sightline import store
from sightline.errors import DataError, SightlineError
from sightline.records import Progress, silent
from sightline.training import augment, optimizers
from sightline.training.dataloader import DataLoader, Pixels
from sightline.training.hardware import half_precision, isolated
from sightline.training.losses import loss_of, mixed
from sightline.training.plan import Plan
from sightline.training.state import copied

STEPS = 100
LOWEST, HIGHEST = 1e-6, 1.0
"""Range of the learning rates."""
SMOOTHING = 0.1
"""Weight of the newest loss in the moving average."""
DIVERGED = 3.0
"""Ratio of the smoothed loss to its minimum at which the test ends."""
LEAST = 1e-3
"""Relative decrease of the smoothed loss that is needed to suggest a rate."""
BELOW = 10.0
"""The suggestion is the rate of the lowest smoothed loss divided by this: large, but well below divergence."""
LEARNT = 0.8
"""A network whose initial loss is below this share of that of uniform probabilities counts as trained already."""
MOVED = 0.05
"""Relative change of such a network's loss that exceeds the noise of the batches."""


@dataclass(frozen=True, slots=True)
class LrCurve:
    """Result of a learning-rate range test.

    Args:
        rates: float64 (n,), learning rates, evenly spaced on a log scale.
        losses: float64 (n,), training loss of the batch at each rate.
        smoothed: float64 (n,), exponential moving average of the losses.
        suggestion: Suggested maximum learning rate.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float


def find_rate(
    network: nn.Module,
    train: Pixels,
    *,
    plan: Plan,
    policy: augment.Policy,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    groups: Sequence[dict[str, Any]] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> LrCurve:
    """Train for up to `STEPS` steps at rates from `LOWEST` to `HIGHEST` and suggest a rate; the network is restored afterwards.

    Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3 (LR range test). Here rates grow
    exponentially instead of linearly, and the loss is used instead of the accuracy, so that a hundred steps suffice.

    Args:
        network, train, plan, policy, mean, std, seed, groups, device, progress: As in `loop.train`.

    Raises:
        DataError: If there are fewer than two images.
        SightlineError: If the loss decreases at no rate.
    """
    if len(train) < 2:
        raise DataError(f"a learning rate cannot be found on {len(train)} image(s)", "give at least two, of different classes")
    where = torch.device(device)
    before, mode = copied(network.state_dict()), network.training
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        losses = _losses(
            network,
            DataLoader(train, policy, mean=mean, std=std, device=where, seed=seed, sampling=plan.sampling),
            plan,
            groups,
            progress,
        )
    finally:
        network.load_state_dict(before)
        network.zero_grad(set_to_none=True)
        network.train(mode)
    rates = LOWEST * (HIGHEST / LOWEST) ** (np.arange(len(losses)) / (STEPS - 1))
    smoothed = smooth(losses)
    return LrCurve(rates, losses, smoothed, _suggestion(rates, smoothed, math.log(max(2, int(train.y.max()) + 1))))


def _losses(
    network: nn.Module,
    loader: DataLoader,
    plan: Plan,
    groups: Sequence[dict[str, Any]] | None,
    progress: Progress,
) -> np.ndarray:
    """Return the loss at each step, float64 (n,), up to the first that is far above the lowest, NaN or infinite."""
    loss, half, losses = loss_of(plan, loader.data.y, loader.device), half_precision(loader.device), list[float]()
    optimizer = optimizers.build(network, plan, groups)
    ratios = [group["lr"] / plan.peak for group in optimizer.param_groups]
    network.train()
    with isolated(loader.device):
        for x, y in (batch for epoch in count(1) for batch in loader.epoch(epoch, plan.batch_size)):
            step = len(losses)
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                group["lr"] = ratio * LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
            torch.manual_seed(int(store.stream(loader.seed, "dropout", step).integers(2**63)))
            x, labels = mixed(x, y, plan.mixup, loader.seed, step)
            with torch.autocast(loader.device.type, dtype=torch.bfloat16, enabled=half):
                output = network(x)
            value = loss(output, labels)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            if plan.clip_norm:
                nn.utils.clip_grad_norm_(network.parameters(), plan.clip_norm)
            optimizer.step()
            losses.append(float(value.detach()))
            progress("finding a learning rate", step + 1, STEPS)
            smoothed = smooth(np.array(losses))
            if step + 1 == STEPS or not math.isfinite(losses[-1]) or smoothed[-1] > DIVERGED * smoothed.min():
                break
    return np.array([value for value in losses if math.isfinite(value)])


def smooth(losses: np.ndarray) -> np.ndarray:
    """Return the exponential moving average of losses, with bias correction.

    Example:
        >>> smooth(np.array([2.0, 2.0, 2.0])).round(9).tolist()
        [2.0, 2.0, 2.0]
    """
    out, mean = np.empty(len(losses)), 0.0
    for i, value in enumerate(losses):
        mean = (1 - SMOOTHING) * mean + SMOOTHING * value
        out[i] = mean / (1 - (1 - SMOOTHING) ** (i + 1))
    return out


def _suggestion(rates: np.ndarray, smoothed: np.ndarray, guessing: float) -> float:
    """Return the suggested rate: the rate of the lowest loss divided by `BELOW`.

    If the network is trained already and its loss hardly decreases, it is the rate at which the loss begins to rise, divided by
    `BELOW`.

    Args:
        rates, smoothed: As in `LrCurve`.
        guessing: Loss of uniform probabilities.

    Raises:
        SightlineError: If the loss neither decreases nor rises.
    """
    begins = float(np.median(smoothed[: max(1, len(smoothed) // 4)])) if len(smoothed) else math.inf
    if begins < LEARNT * guessing and smoothed.min() > (1 - MOVED) * begins:
        (low,) = np.nonzero(smoothed <= (1 + MOVED) * begins)
        if low[-1] == len(rates) - 1:
            message = f"the network is trained already, and its loss changes at no learning rate up to {rates[-1]:.2g}"
            raise SightlineError(message, "train without --find-rate, or set learning_rate in the recipe")
        return float(f"{rates[low[-1]] / BELOW:.2g}")
    if len(rates) < 2 or smoothed.min() > (1 - LEAST) * smoothed[0]:
        raise SightlineError(
            "the loss decreased at no learning rate", "check the images and their labels, or use another network"
        )
    return float(f"{rates[smoothed.argmin()] / BELOW:.2g}")
