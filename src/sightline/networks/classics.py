"""Convolutional networks of our own, from a plain list of their parts; each is a body without its last linear layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sightline.errors import RequestError


class Cnn(nn.Module):
    """Blocks of convolution, BatchNorm, ReLU and max pooling, then a mean over positions or flattened dense layers.

    `map` is what the blocks give, `tail` turns a map into features. See `cnn`, which builds it.
    """

    layout = "nchw"
    prefix = 0

    def __init__(self, blocks: nn.Sequential, tail: nn.Module, features: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.head = tail
        self.features = features

    def map(self, x: Tensor) -> Tensor:
        """The last map (n, c, h, w) of normalised images (n, channels, image_size, image_size)."""
        return self.blocks(x)  # type: ignore[no-any-return]

    def tail(self, last_map: Tensor) -> Tensor:
        """The features (n, d) of a last map (n, c, h, w)."""
        return self.head(last_map)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last map and the features."""
        last_map = self.map(x)
        return last_map, self.tail(last_map)


class PositionMean(nn.Module):
    """Global average pooling (n, c, h, w) → (n, c)."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean over all positions."""
        return x.mean(dim=(2, 3))


def _per_block(value: int | Sequence[int], blocks: int, what: str) -> list[int]:
    """One number for every block, or a number per block."""
    values = [value] * blocks if isinstance(value, int) else list(value)
    if len(values) != blocks or any(v < 1 for v in values):
        hint = "give one whole number from 1, or as many as there are filters"
        raise RequestError(f"cnn cannot be built with {what}={value!r} and {blocks} blocks", hint)
    return values


def _map_side(image_size: int, pools: Sequence[int], strides: Sequence[int]) -> int:
    """The side of the last map, 0 or less where an image is too small for some pooling."""
    side = image_size
    for pool, stride in zip(pools, strides, strict=True):
        if side < pool:
            return 0
        side = (side - pool) // stride + 1
    return side


def _smallest(pools: Sequence[int], strides: Sequence[int]) -> int:
    """The smallest image that leaves a map of 1×1."""
    side = 1
    for pool, stride in zip(reversed(pools), reversed(strides), strict=True):
        side = (side - 1) * stride + pool
    return side


def cnn(
    *,
    image_size: int,
    channels: int = 3,
    filters: Sequence[int] = (32, 64, 128, 128),
    kernel: int | Sequence[int] = 3,
    pool: int | Sequence[int] = 2,
    pool_stride: int | Sequence[int] | None = None,
    flatten_dropout: float | None = None,
    dense: Sequence[Sequence[float]] = (),
    batch_norm: bool = True,
) -> Cnn:
    """A plain convolutional network from lists, as courses and labs write it.

    Every block is a convolution that keeps the size (zeros around, stride 1), BatchNorm, ReLU, max pooling. After the
    last block comes the mean over positions, or, with `flatten_dropout`, all of the map; then the dense layers with ReLU.
    With the mean and no dense layers, Grad-CAM of the linear layer on top is exact without a backward pass.

    Parameters, with filters f₀ = channels, f₁ … f_B, kernel k, side s of the last map:

        block i:  k²·f_{i-1}·f_i + 2·f_i with BatchNorm (the convolution then needs no bias), k²·f_{i-1}·f_i + f_i without
        dense j:  (u_{j-1} + 1)·u_j, with u₀ = f_B after the mean, s²·f_B after flattening
        the last linear layer, on top of this body: (u_J + 1)·classes

    Args:
        image_size: Height and width of the input, in pixels.
        channels: Of the input.
        filters: How many each block has.
        kernel: Side of the filters, one number or one per block.
        pool: Side of the max pooling, one number or one per block; 1 does not pool.
        pool_stride: Its stride; None takes `pool`.
        flatten_dropout: None for the mean over positions; a number from 0 to below 1 flattens the map and drops this share.
        dense: (units, dropout) of each dense layer.
        batch_norm: Whether each convolution is followed by BatchNorm.

    Raises:
        RequestError: The image is smaller than the pooling allows (the smallest size is named), or the lists don't fit.

    Example:
        >>> lab = cnn(image_size=64, filters=[32, 64, 128, 128], pool_stride=2, flatten_dropout=0.3, dense=[(512, 0)])
        >>> sum(p.numel() for p in lab.parameters())
        1290272
    """
    count = len(filters)
    if count == 0 or min(filters) < 1:
        raise RequestError(f"cnn cannot be built with filters={list(filters)}", "give at least one whole number from 1")
    kernels, pools = _per_block(kernel, count, "kernel"), _per_block(pool, count, "pool")
    strides = pools if pool_stride is None else _per_block(pool_stride, count, "pool_stride")
    side = _map_side(image_size, pools, strides)
    if side < 1:
        smallest = _smallest(pools, strides)
        hint = f"the smallest is {smallest}; or use fewer blocks, or pool less"
        raise RequestError(f"cnn with {count} blocks cannot take images of {image_size}×{image_size} pixels", hint)
    layers: list[nn.Module] = []
    width = channels
    for units, k, p, stride in zip(filters, kernels, pools, strides, strict=True):
        before = (k - 1) // 2
        if k % 2 == 0:  # one more on the right and below, as Keras pads
            layers.append(nn.ZeroPad2d((before, before + 1, before, before + 1)))
        layers.append(nn.Conv2d(width, units, k, padding=before if k % 2 else 0, bias=not batch_norm))
        layers += [nn.BatchNorm2d(units)] if batch_norm else []
        layers += [nn.MaxPool2d(p, stride)] if (p, stride) != (1, 1) else []
        layers.append(nn.ReLU(inplace=True))  # after the pooling: the same numbers, from a quarter of the work
        width = units
    tail: list[nn.Module] = [PositionMean()]
    if flatten_dropout is not None:
        tail = [nn.Flatten(), nn.Dropout(_share(flatten_dropout))]
        width *= side * side
    for wanted, dropout in dense:
        units = int(wanted)
        tail += [nn.Linear(width, units), nn.ReLU(inplace=True)]
        tail += [nn.Dropout(_share(dropout))] if dropout else []
        width = units
    body = Cnn(nn.Sequential(*layers), nn.Sequential(*tail), width)
    _initialise(body)
    return body


def _share(dropout: float) -> float:
    """A dropout that leaves something."""
    if not 0 <= dropout < 1:
        raise RequestError(f"dropout cannot be {dropout}", "it lies from 0 to below 1")
    return float(dropout)


def _initialise(network: nn.Module) -> None:
    """He's initialisation: the variance of activations stays the same through ReLUs.

    Source: He et al. 2015, "Delving deep into rectifiers", equation 10 (fan in).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                with torch.no_grad():
                    module.bias.zero_()


CLASSICS: dict[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
}
