"""How much work one forward pass is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sightline.networks.cuts import quiet


def macs(net: nn.Module, x: Tensor) -> int:
    """Multiply–accumulates of one forward pass: those of convolutions, matrix products and attention, biases left out.

    What papers on image networks call FLOPs is mostly this number; with a product and a sum as two it would be twice as much.

    Args:
        net: Any network; its mode, gradients and hooks stay as they are.
        x: What it takes, such as images (1, 3, h, w) for the count of one image. On torch's meta device, where the network
            must then be too, nothing is computed.
    """
    counter = FlopCounterMode(display=False)
    with quiet(net), counted_attention(), counter:
        net(x)
    return total(counter)


def total(counter: FlopCounterMode) -> int:
    """Multiply–accumulates that a counter has seen."""
    return int(counter.get_total_flops()) // 2


@contextlib.contextmanager
def counted_attention() -> Iterator[None]:
    """torch's attention layer computes as products that are counted, not in one kernel that the counter does not know."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
