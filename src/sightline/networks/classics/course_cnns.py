"""Small convolutional networks of courses. `classes=1` is a single sigmoid unit: the logit of the second of two classes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sightline.errors import RequestError
from sightline.networks.blocks import PositionMean
from sightline.networks.classics.classic_network import (
    ClassicNetwork,
    Window,
    check,
    check_dropout,
    dense_layers,
    initialise,
    last_side,
    smallest_side,
)


def cnn(
    *,
    filters: Sequence[int] = (32, 64, 128, 128),
    kernel: int | Sequence[int] = 3,
    pool: int | Sequence[int] = 2,
    pool_stride: int | Sequence[int] | None = None,
    flatten_dropout: float | None = None,
    dense: Sequence[Sequence[float]] = (),
    batch_norm: bool = False,
    image_size: int = 64,
    channels: int = 3,
    classes: int = 2,
) -> ClassicNetwork:
    """Build a sequential convolutional network from lists of layer sizes.

    Every block is a convolution with same padding and stride 1, optional BatchNorm, ReLU and max pooling. The last block is
    followed by global average pooling or, with `flatten_dropout`, by flattening; then come the dense layers with ReLU and the
    classifier. With global average pooling and no dense layers, Grad-CAM is exact without a backward pass.

    Parameters, with filters f₀ = channels, f₁ … f_B, kernel k, side s of the last map:

        block i:     k²·f_{i-1}·f_i + f_i; with BatchNorm + 2·f_i in place of + f_i, as the convolution then needs no bias
        dense j:     (u_{j-1} + 1)·u_j, with u₀ = f_B after the mean, s²·f_B after flattening
        classifier:  (u_J + 1)·classes

    Args:
        filters: Number of filters of each block.
        kernel: Filter size, one number or one per block.
        pool: Size of max pooling, one number or one per block; 1 for no pooling.
        pool_stride: Stride of max pooling; None for `pool`.
        flatten_dropout: None for global average pooling; a number in [0, 1) flattens the map and applies this dropout.
        dense: (units, dropout) of each dense layer.
        batch_norm: Whether each convolution is followed by BatchNorm.
        image_size: Height and width of the input in px.
        channels: Number of input channels.
        classes: Number of logits.

    Raises:
        RequestError: If the image is too small (the message names the smallest size), or list lengths or values are invalid.

    Example:
        >>> lab = cnn(image_size=64, filters=[32, 64, 128, 128], pool_stride=2, flatten_dropout=0.3, dense=[(512, 0)])
        >>> sum(p.numel() for p in lab.parameters())
        1290946
    """
    count = len(filters)
    if count == 0 or min(filters) < 1:
        raise RequestError(f"cnn cannot be built with filters={list(filters)}", "give one or more whole numbers of at least 1")
    kernels, pools = _per_block(kernel, count, "kernel"), _per_block(pool, count, "pool")
    strides = pools if pool_stride is None else _per_block(pool_stride, count, "pool_stride")
    windows = [Window(p, s) for p, s in zip(pools, strides, strict=True)]
    advice = "; or use fewer blocks, or pool less"
    smallest = smallest_side(windows)
    name = f"cnn with {count} blocks"
    check(name, image_size=image_size, channels=channels, classes=classes, smallest=smallest, advice=advice)
    layers: list[nn.Module] = []
    width = channels
    for units, k, p, stride in zip(filters, kernels, pools, strides, strict=True):
        before = (k - 1) // 2
        if k % 2 == 0:  # one more zero on the right and below, as in Keras
            layers.append(nn.ZeroPad2d((before, before + 1, before, before + 1)))
        layers.append(nn.Conv2d(width, units, k, padding=before if k % 2 else 0, bias=not batch_norm))
        layers += [nn.BatchNorm2d(units)] if batch_norm else []
        layers += [nn.MaxPool2d(p, stride)] if (p, stride) != (1, 1) else []
        layers.append(nn.ReLU(inplace=True))  # after the pooling: the same result at a quarter of the cost
        width = units
    tail: list[nn.Module] = [PositionMean()]
    if flatten_dropout is not None:
        tail = [nn.Flatten(), nn.Dropout(check_dropout(flatten_dropout))]
        width *= last_side(image_size, windows) ** 2
    return _network(layers, tail, dense, width=width, image_size=image_size, channels=channels, classes=classes)


def basic_cnn(*, dropout: float = 0.5, image_size: int = 150, channels: int = 3, classes: int = 5) -> ClassicNetwork:
    """Build four 3×3 convolutions (32, 64, 128, 128 filters) with max pooling, and a dense layer of 512 units.

    Without padding. Map sizes at 150 px: 148, 74, 72, 36, 34, 17, 15, 7, so the dense layer has 7·7·128 = 6,272 inputs.

    Parameters: 240,832 + (s²·128 + 1)·512 + 513·classes, with s the side of the last map.

    Args:
        dropout: Dropout of the flattened map; 0 for none.
        image_size: Height and width of the input in px, at least 46.
        channels: Number of input channels.
        classes: Number of logits.

    Raises:
        RequestError: If the image is too small (the message names the smallest size).

    Source: Chollet 2017, "Deep learning with Python", section 5.2 (cats and dogs, one sigmoid unit).
    """
    windows = [Window(3), Window(2, 2)] * 4
    check("basic_cnn", image_size=image_size, channels=channels, classes=classes, smallest=smallest_side(windows))
    layers: list[nn.Module] = []
    width = channels
    for units in (32, 64, 128, 128):
        layers += [nn.Conv2d(width, units, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        width = units
    tail: list[nn.Module] = [nn.Flatten(), nn.Dropout(check_dropout(dropout))]
    width *= last_side(image_size, windows) ** 2
    return _network(layers, tail, [(512, 0)], width=width, image_size=image_size, channels=channels, classes=classes)


def happy_cnn(*, blocks: int = 1, image_size: int = 64, channels: int = 3, classes: int = 1) -> ClassicNetwork:
    """Build padding 3, a 7×7 convolution with 32 filters, BatchNorm, ReLU, max pooling 2 and a single sigmoid unit.

    Parameters at 64 px: 49·3·32 + 32 of the convolution, 2·32 of BatchNorm (and 64 statistics), 32,768 + 1 of the unit:
    37,569.

    Args:
        blocks: Number of blocks; each one after the first has twice the filters of the one before.
        image_size: Height and width of the input in px, at least 2 ** blocks.
        channels: Number of input channels.
        classes: Number of logits.

    Raises:
        RequestError: If the image is too small (the message names the smallest size), or `blocks` is below 1.

    Source: The Keras tutorial "Happy House", a binary task.
    """
    _at_least_one(blocks, "happy_cnn")
    windows = [Window(2, 2)] * blocks  # the padded convolutions keep the size
    check("happy_cnn", image_size=image_size, channels=channels, classes=classes, smallest=smallest_side(windows))
    layers: list[nn.Module] = []
    width = channels
    for number in range(blocks):
        units = 32 * 2**number
        layers += [nn.ZeroPad2d(3), nn.Conv2d(width, units, 7), nn.BatchNorm2d(units), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        width = units
    width *= last_side(image_size, windows) ** 2
    return _network(layers, [nn.Flatten()], (), width=width, image_size=image_size, channels=channels, classes=classes)


def simple_net(*, blocks: int = 3, image_size: int = 256, channels: int = 3, classes: int = 2) -> ClassicNetwork:
    """Build unpadded 7×7 convolutions (6, 16, 24 filters) with ReLU and max pooling 2, then dense layers of 1024 and 256 units.

    Map sizes at 256 px: 250, 125, 119, 59, 53, 26, so the first dense layer has 24·26·26 = 16,224 inputs. Parameters there:
    888 + 4,720 + 18,840 in the convolutions, 16,614,400 + 262,400 + 514 in the linear layers, together 16,901,762. More blocks
    make the network deeper, but reduce its parameters, since the flattened map gets smaller.

    Args:
        blocks: Number of blocks; each one after the third has twice the filters of the one before (48, 96, …).
        image_size: Height and width of the input in px, at least 50 with three blocks.
        channels: Number of input channels.
        classes: Number of logits.

    Raises:
        RequestError: If the image is too small (the message names the smallest size), or `blocks` is below 1.

    Source: Course work on distinguishing generated faces from photographs.
    """
    _at_least_one(blocks, "simple_net")
    windows = [Window(7), Window(2, 2)] * blocks
    advice = "; or use fewer blocks"
    smallest = smallest_side(windows)
    check("simple_net", image_size=image_size, channels=channels, classes=classes, smallest=smallest, advice=advice)
    layers: list[nn.Module] = []
    width = channels
    for units in [6, 16, 24, *(24 * 2**n for n in range(1, blocks - 2))][:blocks]:
        layers += [nn.Conv2d(width, units, 7), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        width = units
    width *= last_side(image_size, windows) ** 2
    dense = [(1024, 0), (256, 0)]
    return _network(layers, [nn.Flatten()], dense, width=width, image_size=image_size, channels=channels, classes=classes)


def _network(
    layers: Sequence[nn.Module],
    tail: Sequence[nn.Module],
    dense: Sequence[Sequence[float]],
    *,
    width: int,
    image_size: int,
    channels: int,
    classes: int,
) -> ClassicNetwork:
    """Build and initialise a network of convolutional layers, a tail of `width` outputs, dense layers and a classifier."""
    more, features = dense_layers(width, dense, lambda: nn.ReLU(inplace=True))
    classifier = nn.Linear(features, classes)
    body, head = nn.Sequential(*layers), nn.Sequential(*tail, *more)
    network = ClassicNetwork(body, head, classifier, features=features, image_size=image_size, channels=channels)
    initialise(network)
    return network


def _per_block(value: int | Sequence[int], blocks: int, argument: str) -> list[int]:
    """Return a list with a number per block, repeating a single number."""
    values = [value] * blocks if isinstance(value, int) else list(value)
    if len(values) != blocks or any(v < 1 for v in values):
        hint = "give one whole number of at least 1, or as many as there are filters"
        raise RequestError(f"cnn cannot be built with {argument}={value!r} and {blocks} blocks", hint)
    return values


def _at_least_one(blocks: int, name: str) -> None:
    """Check that a network has at least one block."""
    if blocks < 1:
        raise RequestError(f"{name} cannot be built with blocks={blocks}", "give a whole number of at least 1")
