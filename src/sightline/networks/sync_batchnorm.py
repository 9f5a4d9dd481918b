"""BatchNorm over the images of several processes, for as long as they learn together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def synchronised(network: nn.Module) -> Iterator[None]:
    """Let every BatchNorm layer take its statistics from all processes' images, for the block. On CUDA alone.

    Weights and statistics stay the very tensors that they are; afterwards the layers themselves are back.
    """
    from timm.layers.norm_act import convert_sync_batchnorm  # it knows those with an activation in them too

    own = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, _BatchNorm)
    ]
    convert: Any = convert_sync_batchnorm
    convert(network)
    try:
        yield
    finally:
        for parent, name, child in own:
            child.train(getattr(parent, name).training)
            setattr(parent, name, child)
