"""Patch tokens: find the last layers of a transformer whose patch tokens still influence the features.

After the last block often only the class token does, so that patches there get no gradient and no heatmap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline.networks.feature_cut import Cut, Layout, StopForward

_MOST_PREFIX = 6
"""Class tokens and registers before the patches are fewer than this."""


@dataclass(frozen=True, slots=True)
class PatchOutput:
    """A module whose output contains patches that influence the features.

    Args:
        module: Name of the module.
        layout: Layout of its output.
        prefix: Number of tokens before the patches.
    """

    module: str
    layout: Layout
    prefix: int


def patches_are_read(net: nn.Module, x: Tensor, cut: Cut, prefix: int) -> bool:
    """Return whether the patches of a map of tokens (n, prefix + h·w, c) influence the features; False for a single patch."""
    last = cut.map(net, x).detach().clone()
    if last.shape[1] - prefix <= 1:
        return False
    with torch.enable_grad():
        score = cut.tail(net, last.requires_grad_(True)).square().sum()
        (gradient,) = torch.autograd.grad(score, last, allow_unused=True)
    return gradient is not None and bool(gradient[:, prefix:].abs().max() > 0)


def patch_outputs(net: nn.Module, x: Tensor, classifier: str) -> list[PatchOutput]:
    """Return the modules, called once, whose output contains patches that influence the features; the last module first.

    Args:
        net: A network in evaluation mode; hooks are removed again.
        x: Image float32 (1, channels, h, w).
        classifier: Name of the module whose input is the features; "" if the features are the network's output.
    """
    outputs: list[tuple[str, Tensor]] = []
    features: list[Tensor] = []

    def end(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        features.append(arguments[0])
        raise StopForward

    with torch.enable_grad():
        handles = [
            module.register_forward_hook(lambda _, __, output, name=name: outputs.append((name, output)))
            for name, module in net.named_modules()
            if name
        ]
        try:
            if classifier:
                handles.append(net.get_submodule(classifier).register_forward_pre_hook(end))
            features.append(net(x.detach().clone().requires_grad_(True)))
        except StopForward:
            pass
        finally:
            for handle in handles:
                handle.remove()
        names = [name for name, _ in outputs]
        size = (int(x.shape[2]), int(x.shape[3]))
        single = [
            (n, v, _grid_layout(tuple(v.shape), size)) for n, v in outputs if isinstance(v, Tensor) and names.count(n) == 1
        ]
        usable = [(n, v, layout) for n, v, layout in single if layout is not None and v.requires_grad]
        if not usable:
            return []
        gradients = torch.autograd.grad(features[0].square().sum(), [v for _, v, _ in usable], allow_unused=True)
    return [
        PatchOutput(name, layout, prefix)
        for (name, _, (layout, prefix)), gradient in zip(usable[::-1], gradients[::-1], strict=True)
        if gradient is not None and bool((gradient[:, prefix:] if gradient.ndim == 3 else gradient).abs().max() > 0)
    ]


def _grid_layout(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[Layout, int] | None:
    """Return (layout, tokens before the patches) of an output that forms a grid of the image's proportions, else None."""

    def fits(height: int, width: int) -> bool:
        return height * width > 1 and height * size[1] == width * size[0]

    if len(shape) == 4:
        return ("nhwc", 0) if fits(shape[1], shape[2]) else ("nchw", 0) if fits(shape[2], shape[3]) else None
    if len(shape) != 3:
        return None
    for prefix in range(_MOST_PREFIX):
        count = shape[1] - prefix
        height = round(math.sqrt(max(count, 0) * size[0] / size[1]))
        if height and count % height == 0 and fits(height, count // height):
            return "tokens", prefix
    return None
