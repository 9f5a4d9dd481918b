"""How much work one forward pass is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sightline.networks.feature_cut import quiet

_ATEN: Any = torch.ops.aten
FORMULAS = {_ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[_ATEN._scaled_dot_product_flash_attention]}
"""Operation → its cost: torch's own formulas, with that of attention on a CPU, which older ones leave out."""
FORMULAS |= flop_registry


def macs(net: nn.Module, x: Tensor) -> int:
    """Multiply–accumulates of one forward pass: those of convolutions, matrix products and attention, biases left out.

    What papers on image networks call FLOPs is mostly this number; with a product and a sum as two it would be twice as much.

    Args:
        net: Any network; its mode, gradients and hooks stay as they are.
        x: What it takes, such as images (1, 3, h, w) for the count of one image. On torch's meta device, where the network
            must then be too, nothing is computed.
    """
    counter = Counter()
    with quiet(net), counted_attention(), counter:
        net(x)
    return counter.macs


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the multiply–accumulates of torch's operations inside its block, by torch's own formulas.

    torch's `FlopCounterMode` does the same per module, and for that follows gradients, which fails in networks whose
    tensors have some where none are wanted, such as CaiT.

    Attributes:
        macs: So far.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs: int = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        operation = getattr(function, "_overloadpacket", function)
        formula = FORMULAS.get(operation)
        if formula is None and hasattr(function, "decompose"):
            with self:
                parts = function.decompose(*args, **named)
            if parts is not NotImplemented:
                return parts
        result = function(*args, **named)
        if formula is not None:
            self.macs += int(formula(*args, **named, out_val=result)) // 2
        return result


@contextlib.contextmanager
def counted_attention() -> Iterator[None]:
    """torch's attention layer computes as products that are counted, not in one kernel that the counter does not know."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
