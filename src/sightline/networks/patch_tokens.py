"""Which patches of a transformer its features still read: behind the last block that may be the class token alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline.networks.feature_cut import Cut, Enough, Layout

_MOST_PREFIX = 6
"""How many tokens may lie before the patches: class tokens and registers."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A module whose output has patches that the features depend on.

    Args:
        module: Its name.
        layout: How its output lies.
        prefix: Tokens before the patches.
    """

    module: str
    layout: Layout
    prefix: int


def patches_are_read(net: nn.Module, x: Tensor, cut: Cut, prefix: int) -> bool:
    """Whether the features depend on the patches of a map of tokens (n, prefix + h·w, c); what is one patch is none."""
    last = cut.map(net, x).detach().clone()
    if last.shape[1] - prefix <= 1:
        return False
    with torch.enable_grad():
        score = cut.tail(net, last.requires_grad_(True)).square().sum()
        (slope,) = torch.autograd.grad(score, last, allow_unused=True)
    return slope is not None and bool(slope[:, prefix:].abs().max() > 0)


def outlooks(net: nn.Module, x: Tensor, behind: str) -> list[Outlook]:
    """Every module, the last first, called once, whose output has patches that the features depend on.

    Args:
        net: A network in evaluation mode; hooks are removed again.
        x: float32 (1, channels, h, w).
        behind: The module whose input the features are; "" where they are the network's output.
    """
    heard: list[tuple[str, Tensor]] = []
    features: list[Tensor] = []

    def end(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        features.append(arguments[0])
        raise Enough

    with torch.enable_grad():
        handles = [
            module.register_forward_hook(lambda _, __, output, name=name: heard.append((name, output)))
            for name, module in net.named_modules()
            if name
        ]
        try:
            if behind:
                handles.append(net.get_submodule(behind).register_forward_pre_hook(end))
            features.append(net(x.detach().clone().requires_grad_(True)))
        except Enough:
            pass
        finally:
            for handle in handles:
                handle.remove()
        names = [name for name, _ in heard]
        size = (int(x.shape[2]), int(x.shape[3]))
        found = [(n, v, _lies(tuple(v.shape), size)) for n, v in heard if isinstance(v, Tensor) and names.count(n) == 1]
        usable = [(n, v, lies) for n, v, lies in found if lies is not None and v.requires_grad]
        if not usable:
            return []
        slopes = torch.autograd.grad(features[0].square().sum(), [v for _, v, _ in usable], allow_unused=True)
    return [
        Outlook(name, layout, prefix)
        for (name, _, (layout, prefix)), slope in zip(usable[::-1], slopes[::-1], strict=True)
        if slope is not None and bool((slope[:, prefix:] if slope.ndim == 3 else slope).abs().max() > 0)
    ]


def _lies(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[Layout, int] | None:
    """(layout, tokens before the patches) of an output whose places lie as the image's do; None where it has none."""

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
