"""SCHEDULES: learning-rate schedules, as the share of the maximum learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable

START, END = 0.1, 1e-3
"""Share at which the warm-up begins, and share near which `cosine` and `onecycle` end, so that no step has rate 0."""
STEPS_AT, STEP_FACTOR = (0.5, 0.75), 0.1
"""Positions at which `step` lowers the rate, as shares of the steps after the warm-up, and the factor."""


def _parts(step: int, steps: int, warm_up: float) -> tuple[float, float]:
    """Return the completed share of the warm-up (1 when it is over) and of the steps after it, after step `step`."""
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return (step + 1) / rise, 0.0
    return 1.0, min(1.0, (step - rise + 1) / max(1, steps - rise))


def _raised(risen: float) -> float:
    """Return the linear warm-up from `START` to 1."""
    return START + (1 - START) * risen


def cosine(step: int, steps: int, warm_up: float) -> float:
    """Return the rate of a linear warm-up and a cosine decay to nearly 0.

    Source: Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", equation 5, without restarts.
    """
    risen, done = _parts(step, steps, warm_up)
    return _raised(risen) if risen < 1 or done == 0 else 0.5 + 0.5 * math.cos(math.pi * done) + END


def onecycle(step: int, steps: int, warm_up: float) -> float:
    """Return the rate of a cosine rise from 1/25 of the maximum and a cosine decay to nearly 0.

    Source: Smith 2018, "A disciplined approach to neural network hyper-parameters", section 4.1. The rise takes the
    share `warm_up` of all steps instead of nearly half, both parts are cosines, and the momentum is constant.
    """
    risen, done = _parts(step, steps, warm_up)
    if done == 0:
        return 0.04 + 0.96 * (0.5 - 0.5 * math.cos(math.pi * risen))
    return 0.5 + 0.5 * math.cos(math.pi * done) + END


def steps(step: int, steps: int, warm_up: float) -> float:
    """Return the rate of a linear warm-up and a step decay: a tenth after half, and again after three quarters, of the rest.

    Source: He et al. 2015, "Deep residual learning for image recognition", section 4.2 (CIFAR-10).
    """
    risen, done = _parts(step, steps, warm_up)
    return _raised(risen) if done == 0 else math.prod(STEP_FACTOR for at in STEPS_AT if done > at)


def constant(step: int, steps: int, warm_up: float) -> float:
    """Return the rate of a linear warm-up and a constant rate after it."""
    return _raised(_parts(step, steps, warm_up)[0])


SCHEDULES: dict[str, Callable[[int, int, float], float]] = {
    "cosine": cosine,
    "onecycle": onecycle,
    "step": steps,
    "constant": constant,
}
"""Name → (step from 0, number of steps, share of the warm-up) → share of the maximum learning rate."""
