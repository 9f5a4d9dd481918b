"""Synchronised BatchNorm for training in several processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def synchronised(network: nn.Module) -> Iterator[None]:
    """Compute BatchNorm statistics over the images of all processes inside the block. Works on CUDA only.

    Weights and statistics keep their tensors, and the original layers are put back afterwards.
    """
    from timm.layers.norm_act import convert_sync_batchnorm  # also converts BatchNorm layers that contain an activation

    originals = [
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
        for parent, name, child in originals:
            child.train(getattr(parent, name).training)
            setattr(parent, name, child)
