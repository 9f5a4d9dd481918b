"""Progressive resizing: train with smaller images first and increase their size in a few steps."""

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
"""Largest number of sizes before the full one."""
FULL_SHARE = 1 / 3
"""Smallest share of the epochs, at the end, with images of full size."""
UNIT_PX = 8
"""Smaller sides are multiples of this, so that networks can halve them three times."""


def sides(image_size: int, epochs: int, resize_from: float) -> tuple[int, ...]:
    """Return the side of the training images in each epoch, in pixels; it never decreases and ends at `image_size`.

    Source: Howard 2018 (fast.ai's entry to DAWNBench) and Tan and Le 2021, "EfficientNetV2", section 4, where augmentation
    and dropout grow with the side; here both stay constant.

    Args:
        image_size: Full side, in pixels.
        epochs: Number of epochs.
        resize_from: Share of the side that training begins with, above 0, at most 1.

    Raises:
        RequestError: If no smaller side is a multiple of `UNIT_PX`.

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


def check(network: nn.Module, name: str, sides_px: Sequence[int]) -> None:
    """Check that a network can train on images of each of these sides; the network is not changed.

    Args:
        network: Images (n, 3, s, s) → logits.
        name: Name of the network for the error message.
        sides_px: Sides, in pixels.

    Raises:
        RequestError: If it cannot, since it flattens its feature map or has position embeddings for one size.
    """
    trial = copy.deepcopy(network).to("meta").train()  # computes shapes alone
    for side in dict.fromkeys(sides_px):
        try:
            trial(torch.empty((2, 3, side, side), device="meta"))
        except (RuntimeError, ValueError, AssertionError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
            hint = "leave resize_from out, raise it, or take a network that averages its map, such as cnn or resnet18"
            raise RequestError(f"{name} cannot train on images of {side} px, as resize_from requires ({line})", hint) from error


def notes(sides_px: Sequence[int] | None) -> tuple[str, ...]:
    """Return a note on the image side by epoch; none if it is always the same.

    Example:
        >>> notes((32, 32, 40, 64))
        ('progressive resizing: 32 px, 40 px from epoch 3, 64 px from epoch 4',)
    """
    parts, epoch = list[str](), 1
    for side, run in groupby(sides_px or ()):
        parts.append(f"{side} px" if epoch == 1 else f"{side} px from epoch {epoch}")
        epoch += len(list(run))
    return (f"progressive resizing: {', '.join(parts)}",) if len(parts) > 1 else ()


def resized(images: Tensor, side: int) -> Tensor:
    """Resize square images with antialiasing: uint8 (n, s, s, 3) → uint8 (n, side, side, 3)."""
    if images.shape[1] == side:
        return images
    planes = images.permute(0, 3, 1, 2)
    if images.device.type != "cpu":  # antialiasing of integers exists on the CPU only
        planes = planes.float()
    small = F.interpolate(planes, size=(side, side), mode="bilinear", antialias=True)
    if small.is_floating_point():
        small = small.round_().clamp_(0, 255).to(torch.uint8)
    return small.permute(0, 2, 3, 1)
