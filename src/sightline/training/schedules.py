"""SCHEDULES: the course of the learning rate, as the share of the highest one at each step."""

from __future__ import annotations

import math
from collections.abc import Callable

START, END = 0.1, 1e-3
"""The share from which a warm-up rises, and the one that cosine and one-cycle end near: a step of no size teaches nothing."""
STEPS_AT, STEP_FACTOR = (0.5, 0.75), 0.1
"""Where `step` lowers the rate, in shares of what follows the warm-up, and to which part of what it was."""


def _parts(step: int, steps: int, warm_up: float) -> tuple[float, float]:
    """How much of the warm-up is done after a step (1 when it is over), and how much of what follows it."""
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return (step + 1) / rise, 0.0
    return 1.0, min(1.0, (step - rise + 1) / max(1, steps - rise))


def _raised(risen: float) -> float:
    """A straight rise from `START` to 1."""
    return START + (1 - START) * risen


def cosine(step: int, steps: int, warm_up: float) -> float:
    """A straight rise, then half a cosine down to nearly 0.

    Source: Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", equation 5, without restarts.
    """
    risen, done = _parts(step, steps, warm_up)
    return _raised(risen) if risen < 1 or done == 0 else 0.5 + 0.5 * math.cos(math.pi * done) + END


def onecycle(step: int, steps: int, warm_up: float) -> float:
    """Half a cosine up from 1/25 of the highest rate, and half a cosine down to nearly 0.

    Source: Smith 2018, "A disciplined approach to neural network hyper-parameters", section 4.1. The rise takes `warm_up`
    of all steps where the paper gives it nearly half, both ways are cosines, and the momentum stays as it is.
    """
    risen, done = _parts(step, steps, warm_up)
    if done == 0:
        return 0.04 + 0.96 * (0.5 - 0.5 * math.cos(math.pi * risen))
    return 0.5 + 0.5 * math.cos(math.pi * done) + END


def steps(step: int, steps: int, warm_up: float) -> float:
    """A straight rise, then constant, to a tenth at half and again at three quarters of what follows.

    Source: He et al. 2015, "Deep residual learning for image recognition", section 4.2 (CIFAR-10).
    """
    risen, done = _parts(step, steps, warm_up)
    return _raised(risen) if done == 0 else math.prod(STEP_FACTOR for at in STEPS_AT if done > at)


def constant(step: int, steps: int, warm_up: float) -> float:
    """A straight rise, then the same to the end."""
    return _raised(_parts(step, steps, warm_up)[0])


SCHEDULES: dict[str, Callable[[int, int, float], float]] = {
    "cosine": cosine,
    "onecycle": onecycle,
    "step": steps,
    "constant": constant,
}
"""Name → the share of the highest rate at a step (from 0) of so many, with a warm-up of so great a share of them."""
