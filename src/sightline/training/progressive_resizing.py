"""Progressive resizing: training begins with smaller images, which grow in a few steps to those that the network is for."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sightline.errors import RequestError

SMALLER = 3
"""How many sizes come before the full one, at most."""
FULL_SHARE = 1 / 3
"""Of the epochs: at least so many of the last ones see images of full size."""
UNIT_PX = 8
"""Smaller sides are multiples of this, and not below it: what networks halve three times stays whole."""


def sides(image_size: int, epochs: int, resize_from: float) -> tuple[int, ...]:
    """The side of the training images in each epoch, in pixels: it never shrinks, and ends at `image_size`.

    Source: Howard 2018 (fast.ai's entry to DAWNBench) and Tan and Le 2021, "EfficientNetV2", section 4, where augmentation
    and dropout grow with the side; here both stay.

    Args:
        image_size: The full side, in pixels.
        epochs: How many there are.
        resize_from: The share of the side that training begins with, above 0, at most 1.

    Raises:
        RequestError: No smaller side is that near to the full one.

    Example:
        >>> sides(64, 9, 0.5)
        (32, 32, 40, 40, 56, 56, 64, 64, 64)
        >>> sides(64, 1, 0.5), sides(64, 2, 1.0)
        ((64,), (64, 64))
    """
    if resize_from == 1:
        return (image_size,) * epochs
    shares = [resize_from + (1 - resize_from) * step / SMALLER for step in range(SMALLER)]
    wanted = [max(UNIT_PX, round(share * image_size / UNIT_PX) * UNIT_PX) for share in shares]
    smaller = [side for side in dict.fromkeys(wanted) if side < image_size]
    if not smaller:
        hint = f"sides are multiples of {UNIT_PX} px: take a smaller share, such as resize_from = 0.5, or a larger image_size"
        raise RequestError(f"resize_from = {resize_from:g} leaves no side below {image_size} px", hint)
    short = epochs - math.ceil(FULL_SHARE * epochs)
    grown = [smaller[epoch * len(smaller) // short] for epoch in range(short)]
    return (*grown, *(image_size for _ in range(epochs - short)))


def check(network: nn.Module, name: str, found: Sequence[int]) -> None:
    """Refuse a network that cannot learn from images of every one of these sides. It is not changed.

    Args:
        network: Images (n, 3, s, s) → logits.
        name: What to call it.
        found: Sides, in pixels.

    Raises:
        RequestError: It cannot: it flattens its map, or adds as many positions as one size has.
    """
    trial = copy.deepcopy(network).to("meta").train()  # shapes alone, in no time
    for side in dict.fromkeys(found):
        try:
            trial(torch.empty((2, 3, side, side), device="meta"))
        except (RuntimeError, ValueError, AssertionError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
            hint = "leave resize_from out, raise it, or take a network that averages its map, such as cnn or resnet18"
            raise RequestError(f"{name} cannot learn from images of {side} px, as resize_from asks ({line})", hint) from error


def notes(found: Sequence[int] | None) -> tuple[str, ...]:
    """What a reader should know of sides by epoch; nothing where they are always the same.

    Example:
        >>> notes((32, 32, 40, 64))
        ('progressive resizing: 32 px, 40 px from epoch 3, 64 px from epoch 4',)
    """
    parts, epoch = list[str](), 1
    for side, run in groupby(found or ()):
        parts.append(f"{side} px" if epoch == 1 else f"{side} px from epoch {epoch}")
        epoch += len(list(run))
    return (f"progressive resizing: {', '.join(parts)}",) if len(parts) > 1 else ()


def share_done(found: Sequence[int], epochs: float) -> float:
    """The share of a training's work that is done after so many epochs, by the pixels that they saw.

    Example:
        >>> share_done((32, 64), 1.0), share_done((64, 64), 1.5)
        (0.2, 0.75)
    """
    whole = int(epochs)
    part = found[whole] ** 2 * (epochs - whole) if whole < len(found) else 0.0
    return (sum(side**2 for side in found[:whole]) + part) / sum(side**2 for side in found)


def resized(images: Tensor, side: int) -> Tensor:
    """Square images at another side, smoothed as they shrink: uint8 (n, s, s, 3) → uint8 (n, side, side, 3)."""
    if images.shape[1] == side:
        return images
    planes = images.permute(0, 3, 1, 2)
    if images.device.type != "cpu":  # only a CPU smooths whole numbers
        planes = planes.float()
    small = F.interpolate(planes, size=(side, side), mode="bilinear", antialias=True)
    if small.is_floating_point():
        small = small.round_().clamp_(0, 255).to(torch.uint8)
    return small.permute(0, 2, 3, 1)
