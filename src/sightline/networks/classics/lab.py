"""The small networks of courses and labs: a plain list of parts, a few convolutions trained on the reader's own images.

None comes from a paper. `classes=1` in all of them is one sigmoid unit: a single logit z, of the second of two classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sightline.errors import RequestError
from sightline.networks.blocks import PositionMean
from sightline.networks.classics.whole import Whole, Window, check, dense_layers, initialise, last_side, share, smallest_side


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
) -> Whole:
    """A plain convolutional network from lists, as courses and labs write it.

    Every block is a convolution that keeps the size (zeros around, stride 1), BatchNorm if wanted, ReLU, max pooling. After
    the last block comes the mean over positions, or, with `flatten_dropout`, all of the map; then the dense layers with
    ReLU, and the classifier. With the mean and no dense layers, Grad-CAM is exact without a backward pass.

    Parameters, with filters f₀ = channels, f₁ … f_B, kernel k, side s of the last map:

        block i:     k²·f_{i-1}·f_i + f_i; with BatchNorm + 2·f_i in place of + f_i, as the convolution then needs no bias
        dense j:     (u_{j-1} + 1)·u_j, with u₀ = f_B after the mean, s²·f_B after flattening
        classifier:  (u_J + 1)·classes

    Args:
        filters: How many each block has.
        kernel: Side of the filters, one number or one per block.
        pool: Side of the max pooling, one number or one per block; 1 does not pool.
        pool_stride: Its stride; None takes `pool`.
        flatten_dropout: None for the mean over positions; a number from 0 to below 1 flattens the map and drops this share.
        dense: (units, dropout) of each dense layer.
        batch_norm: Whether each convolution is followed by BatchNorm.
        image_size: Height and width of the input, in pixels.
        channels: Of the input.
        classes: Logits.

    Raises:
        RequestError: The image is smaller than the pooling allows (the smallest size is named), or the lists don't fit.

    Example:
        >>> lab = cnn(image_size=64, filters=[32, 64, 128, 128], pool_stride=2, flatten_dropout=0.3, dense=[(512, 0)])
        >>> sum(p.numel() for p in lab.parameters())
        1290946
    """
    count = len(filters)
    if count == 0 or min(filters) < 1:
        raise RequestError(f"cnn cannot be built with filters={list(filters)}", "give at least one whole number from 1")
    kernels, pools = _per_block(kernel, count, "kernel"), _per_block(pool, count, "pool")
    strides = pools if pool_stride is None else _per_block(pool_stride, count, "pool_stride")
    windows = [Window(p, s) for p, s in zip(pools, strides, strict=True)]
    advice = "; or use fewer blocks, or pool less"
    smallest = smallest_side(windows)
    what = f"cnn with {count} blocks"
    check(what, image_size=image_size, channels=channels, classes=classes, smallest=smallest, advice=advice)
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
        tail = [nn.Flatten(), nn.Dropout(share(flatten_dropout))]
        width *= last_side(image_size, windows) ** 2
    return _whole(layers, tail, width, dense, image_size, channels, classes)


def basic_cnn(*, dropout: float = 0.5, image_size: int = 150, channels: int = 3, classes: int = 5) -> Whole:
    """Convolutions 3×3 and max pooling in turn, as the first network of many courses: 32, 64, 128, 128 filters, 512 units.

    Nothing is padded. At 150 px: 148, 74, 72, 36, 34, 17, 15, 7, so 7·7·128 = 6,272 numbers go into the dense layer.

    Parameters: 240,832 + (s²·128 + 1)·512 + 513·classes, with s the side of the last map.

    Args:
        dropout: Of the flattened map; 0 for the network without it.
        image_size: Height and width of the input, in pixels; from 46.
        channels: Of the input.
        classes: Logits.

    Raises:
        RequestError: The image is too small (the smallest size is named).

    Source: Chollet 2017, "Deep learning with Python", section 5.2 (cats and dogs, one sigmoid unit).
    """
    windows = [Window(3), Window(2, 2)] * 4
    check("basic_cnn", image_size=image_size, channels=channels, classes=classes, smallest=smallest_side(windows))
    layers: list[nn.Module] = []
    width = channels
    for units in (32, 64, 128, 128):
        layers += [nn.Conv2d(width, units, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        width = units
    tail: list[nn.Module] = [nn.Flatten(), nn.Dropout(share(dropout))]
    width *= last_side(image_size, windows) ** 2
    return _whole(layers, tail, width, [(512, 0)], image_size, channels, classes)


def happy_cnn(*, blocks: int = 1, image_size: int = 64, channels: int = 3, classes: int = 1) -> Whole:
    """Zeros around (3), convolution 7×7 with 32 filters, BatchNorm, ReLU, max pooling 2; flattened into one sigmoid unit.

    Parameters at 64 px: 49·3·32 + 32 of the convolution, 2·32 of BatchNorm (and 64 statistics), 32,768 + 1 of the unit:
    37,569.

    Args:
        blocks: How many; each one after the first is the same with twice the filters.
        image_size: Height and width of the input, in pixels; from 2 with one block, and twice that with each further one.
        channels: Of the input.
        classes: Logits.

    Raises:
        RequestError: The image is too small (the smallest size is named), or there is no block.

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
    return _whole(layers, [nn.Flatten()], width, (), image_size, channels, classes)


def simple_net(*, blocks: int = 3, image_size: int = 256, channels: int = 3, classes: int = 2) -> Whole:
    """Convolutions 7×7 with 6, 16, 24 filters, unpadded, each with ReLU and max pooling 2; then dense layers 1024 and 256.

    At 256 px: 250, 125, 119, 59, 53, 26, so 24·26·26 = 16,224 numbers are flattened. Parameters there: 888 + 4,720 +
    18,840 of the convolutions, 16,614,400 + 262,400 + 514 of the linear layers: 16,901,762, nearly all in the first dense
    layer. More blocks make it deeper and smaller at once.

    Args:
        blocks: How many; each one after the third has twice the filters of the one before (48, 96, …).
        image_size: Height and width of the input, in pixels; from 50 with three blocks.
        channels: Of the input.
        classes: Logits.

    Raises:
        RequestError: The image is too small (the smallest size is named), or there is no block.

    Source: A course work on telling generated faces from photographs.
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
    return _whole(layers, [nn.Flatten()], width, [(1024, 0), (256, 0)], image_size, channels, classes)


def _whole(
    layers: Sequence[nn.Module],
    tail: Sequence[nn.Module],
    width: int,
    dense: Sequence[Sequence[float]],
    image_size: int,
    channels: int,
    classes: int,
) -> Whole:
    """The network of these layers and this tail, with dense layers and a classifier, initialised."""
    more, features = dense_layers(width, dense, lambda: nn.ReLU(inplace=True))
    classifier = nn.Linear(features, classes)
    body, head = nn.Sequential(*layers), nn.Sequential(*tail, *more)
    network = Whole(body, head, classifier, features=features, image_size=image_size, channels=channels)
    initialise(network)
    return network


def _per_block(value: int | Sequence[int], blocks: int, what: str) -> list[int]:
    """One number for every block, or a number per block."""
    values = [value] * blocks if isinstance(value, int) else list(value)
    if len(values) != blocks or any(v < 1 for v in values):
        hint = "give one whole number from 1, or as many as there are filters"
        raise RequestError(f"cnn cannot be built with {what}={value!r} and {blocks} blocks", hint)
    return values


def _at_least_one(blocks: int, name: str) -> None:
    """A network without a block is none."""
    if blocks < 1:
        raise RequestError(f"{name} cannot be built with blocks={blocks}", "give a whole number from 1")
