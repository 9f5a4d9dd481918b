"""Multiply–accumulates (MACs) of one forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sightline.networks.feature_cut import evaluation_mode

_ATEN: Any = torch.ops.aten
FORMULAS = {_ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[_ATEN._scaled_dot_product_flash_attention]}
"""Operation → formula for its FLOPs: torch's, plus attention on a CPU, which older versions of torch lack."""
FORMULAS |= flop_registry


def macs(net: nn.Module, x: Tensor) -> int:
    """Count the multiply–accumulates of one forward pass: convolutions, matrix products and attention, without biases.

    Papers on image networks mostly call this number FLOPs. Counting a product and a sum as two gives twice as much.

    Args:
        net: Any network; its mode, gradients and hooks are restored.
        x: Input, such as images float (1, 3, h, w) for the count of one image. If network and input are on torch's meta
            device, nothing is computed.
    """
    counter = Counter()
    with evaluation_mode(net), counted_attention(), counter:
        net(x)
    return counter.macs


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that sums the multiply–accumulates of torch's operations inside its block, by torch's own formulas.

    torch's `FlopCounterMode` counts per module by following gradients, which fails for networks such as CaiT whose tensors
    require gradients although none are wanted.

    Attributes:
        macs: Sum so far.
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
    """Make torch's attention layer use matrix products, which are counted, instead of one fused kernel, which is not."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
