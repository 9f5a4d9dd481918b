"""OPTIMIZERS: the optimizers, each with its default learning rate, momentum and weight decay.

This module does not import torch, so that settings can be read without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sightline.training.plan import Plan

Groups = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Optimizer:
    """Record of an optimizer in OPTIMIZERS.

    Args:
        make: (parameter groups with learning rate and weight decay, momentum) → optimizer of torch.
        learning_rate, weight_decay: Defaults of a plan.
        momentum: Default of a plan; None for an optimizer without momentum.
    """

    make: Callable[[Groups, float], torch.optim.Optimizer]
    learning_rate: float
    weight_decay: float
    momentum: float | None = None


def build(network: nn.Module, plan: Plan, groups: Sequence[dict[str, Any]] | None = None) -> torch.optim.Optimizer:
    """Return a plan's optimizer over the given groups, or over all trainable parameters, without decay of biases and BatchNorm.

    Args:
        network: Network whose parameters are trained if `groups` is None.
        plan: Optimizer, learning rate, weight decay and momentum; given groups have their own rates and decays.
        groups: Dicts with `params`, `lr` and `weight_decay`, as `Network.parameter_groups` returns them.
    """
    chosen = OPTIMIZERS[plan.optimizer]
    if groups is None:
        trained = [p for p in network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "lr": plan.peak, "weight_decay": plan.decay},
            {"params": [p for p in trained if p.ndim < 2], "lr": plan.peak, "weight_decay": 0.0},
        ]
    momentum = plan.momentum if plan.momentum is not None else chosen.momentum or 0.0
    return chosen.make([dict(group) for group in groups], momentum)


def _adamw(groups: Groups, momentum: float) -> torch.optim.Optimizer:
    from torch.optim import AdamW

    return AdamW(groups, fused=True)


def _adam(groups: Groups, momentum: float) -> torch.optim.Optimizer:
    from torch.optim import Adam

    return Adam(groups, fused=True)


def _sgd(groups: Groups, momentum: float) -> torch.optim.Optimizer:
    from torch.optim import SGD

    return SGD(groups, lr=1.0, momentum=momentum, nesterov=momentum > 0, fused=True)


def _rmsprop(groups: Groups, momentum: float) -> torch.optim.Optimizer:
    from torch.optim import RMSprop

    return RMSprop(groups, momentum=momentum)


OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": Optimizer(_adamw, learning_rate=3e-3, weight_decay=0.05),
    "adam": Optimizer(_adam, learning_rate=3e-3, weight_decay=0.0),
    "sgd": Optimizer(_sgd, learning_rate=0.05, weight_decay=5e-4, momentum=0.9),
    "rmsprop": Optimizer(_rmsprop, learning_rate=1e-3, weight_decay=0.0, momentum=0.0),
}
"""Name → record."""
