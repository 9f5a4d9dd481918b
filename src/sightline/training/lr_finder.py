"""The learning-rate finder: a few steps at rates that grow from far too small to far too large, and the loss at each."""

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
from sightline.training.losses import Loss, balanced_weights, mixed
from sightline.training.plan import Plan
from sightline.training.state import copied

STEPS = 100
LOWEST, HIGHEST = 1e-6, 1.0
"""Between which rates the search goes."""
SMOOTHING = 0.1
"""How much the newest loss counts in the smoothed ones."""
DIVERGED = 3.0
"""The search ends where the smoothed loss is so many times the lowest one."""
LEAST = 1e-3
"""By which share of itself the smoothed loss must fall, so that a rate can be told from noise."""
BELOW = 10.0
"""The suggestion is the rate of the lowest smoothed loss divided by this: learning is quick there, and far from too much."""
LEARNT = 0.8
"""A network whose loss is below this share of that of guessing before any step has learnt its task already."""
MOVED = 0.05
"""By which share of itself such a network's loss must move to be no noise of the batches."""


@dataclass(frozen=True, slots=True)
class LrCurve:
    """What each learning rate led to.

    Args:
        rates: float64 (n,), rising evenly in their logarithm.
        losses: float64 (n,), of the batch that was learnt from at each.
        smoothed: float64 (n,), a moving average of them.
        suggestion: A good highest rate.
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
    class_weights: np.ndarray | None = None,
    groups: Sequence[dict[str, Any]] | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> LrCurve:
    """Learn for up to `STEPS` steps at rates from `LOWEST` to `HIGHEST`, and suggest one. The network is left as it was.

    Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3 (the LR range test); rates grow by
    a factor and not by a sum, the loss is looked at and not the accuracy, as both take a hundred steps and not epochs.

    Args:
        network, train, plan, policy, mean, std, seed, class_weights, groups, device, progress: As of `loop.train`.

    Raises:
        DataError: Fewer than two images.
        SightlineError: No rate made the loss fall.
    """
    if len(train) < 2:
        raise DataError(f"a learning rate cannot be found on {len(train)} image(s)", "give at least two, of different classes")
    where = torch.device(device)
    before, mode = copied(network.state_dict()), network.training
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        losses = _losses(
            network, DataLoader(train, policy, mean, std, where, seed, plan.sampling), plan, class_weights, groups, progress
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
    feed: DataLoader,
    plan: Plan,
    class_weights: np.ndarray | None,
    groups: Sequence[dict[str, Any]] | None,
    progress: Progress,
) -> np.ndarray:
    """float64 (n,): the loss at each step, up to the first that is far above the lowest or no number."""
    if class_weights is None and plan.class_weight == "balanced":
        class_weights = balanced_weights(feed.data.y, int(feed.data.y.max()) + 1)
    weight = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32, device=feed.device)
    loss, half, found = Loss(weight, plan.label_smoothing), half_precision(feed.device), list[float]()
    optimizer = optimizers.build(network, plan, groups)
    ratios = [group["lr"] / plan.peak for group in optimizer.param_groups]
    network.train()
    with isolated(feed.device):
        for x, y in (batch for epoch in count(1) for batch in feed.epoch(epoch, plan.batch_size)):
            step = len(found)
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                group["lr"] = ratio * LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
            torch.manual_seed(int(store.stream(feed.seed, "dropout", step).integers(2**63)))
            x, labels = mixed(x, y, plan.mixup, feed.seed, step)
            with torch.autocast(feed.device.type, dtype=torch.bfloat16, enabled=half):
                output = network(x)
            value = loss(output, labels)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            if plan.clip_norm:
                nn.utils.clip_grad_norm_(network.parameters(), plan.clip_norm)
            optimizer.step()
            found.append(float(value.detach()))
            progress("finding a learning rate", step + 1, STEPS)
            smoothed = smooth(np.array(found))
            if step + 1 == STEPS or not math.isfinite(found[-1]) or smoothed[-1] > DIVERGED * smoothed.min():
                break
    return np.array([value for value in found if math.isfinite(value)])


def smooth(losses: np.ndarray) -> np.ndarray:
    """Losses as a moving average in which older ones count less and less; the first ones are not drawn towards 0.

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
    """A good highest rate: `BELOW` times less than where the loss is lowest; where the network and its head have learnt before,
    so that hardly anything can fall, `BELOW` times less than where it begins to rise.

    Args:
        rates, smoothed: As in `Rates`.
        guessing: The loss of who gives every class the same probability.

    Raises:
        SightlineError: The loss never fell, and its rise tells nothing either.
    """
    begins = float(np.median(smoothed[: max(1, len(smoothed) // 4)])) if len(smoothed) else math.inf
    if begins < LEARNT * guessing and smoothed.min() > (1 - MOVED) * begins:
        (low,) = np.nonzero(smoothed <= (1 + MOVED) * begins)
        if low[-1] == len(rates) - 1:
            told = f"the network has learnt already, and the loss moves at no learning rate up to {rates[-1]:.2g}"
            raise SightlineError(told, "train without --find-rate, or set learning_rate by hand")
        return float(f"{rates[low[-1]] / BELOW:.2g}")
    if len(rates) < 2 or smoothed.min() > (1 - LEAST) * smoothed[0]:
        raise SightlineError(
            "the loss fell at no learning rate", "look at the images and their labels, or take another network"
        )
    return float(f"{rates[smoothed.argmin()] / BELOW:.2g}")
