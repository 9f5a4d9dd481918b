"""Gradient norms of each layer, measured at a few steps of every epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

MEASURED = 8
"""Largest number of measured steps per epoch; they are evenly spaced."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers of a network with trainable parameters.

    Args:
        network: Network, which is not changed.
        names: Names of the modules, in the order of the network.
        types: Names of their classes.
    """

    network: nn.Module
    names: tuple[str, ...] = field(init=False)
    types: tuple[str, ...] = field(init=False)
    _parameters: tuple[nn.Parameter, ...] = field(init=False, repr=False)
    _layer: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        learning = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        owners = [name.rpartition(".")[0] for name, _ in learning]
        names = tuple(dict.fromkeys(owners))
        index = {name: i for i, name in enumerate(names)}
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "types", tuple(type(self.network.get_submodule(name)).__name__ for name in names))
        object.__setattr__(self, "_parameters", tuple(p for _, p in learning))
        object.__setattr__(self, "_layer", tuple(index[owner] for owner in owners))

    @torch.no_grad()
    def norms(self) -> Tensor:
        """Return the present gradient norm of each layer, float32 (layers,); 0 without a gradient."""
        device = self._parameters[0].device if self._parameters else torch.device("cpu")
        there = [(i, p.grad) for i, p in zip(self._layer, self._parameters, strict=True) if p.grad is not None]
        squares = torch.zeros(len(self.names), device=device)
        if there:
            each = torch.stack([n.float() for n in torch._foreach_norm([g for _, g in there])])
            squares.index_add_(0, torch.tensor([i for i, _ in there], device=device), each.square())
        return squares.sqrt()


def measured(batch: int, batches: int) -> bool:
    """Return whether the gradients of batch `batch`, counted from 0, of an epoch are measured.

    Example:
        >>> [b for b in range(20) if measured(b, 20)]
        [0, 3, 6, 9, 12, 15, 18]
    """
    return batch % -(-batches // MEASURED) == 0
