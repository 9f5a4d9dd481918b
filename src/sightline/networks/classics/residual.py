"""Residual networks from our own blocks, and their plain twins without skips: the case for residual learning.

He, Zhang, Ren and Sun 2015, "Deep residual learning for image recognition", table 1 and figure 3. The residual ones under
their names (`resnet18` …) are torchvision's; the plain ones no library has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.blocks import PositionMean, ResidualBlock
from sightline.networks.classics.whole import check, fc_is_classifier, initialise


class ResNet(nn.Module):
    """A stem (7×7 and pooling, a quarter of the size), stages of residual blocks, the mean over positions, a linear layer.

    Key names are those of torchvision and timm, but for `classifier`, which they call `fc`; their state dicts load as they
    are.

    Args:
        depths: How many blocks each stage has; each stage after the first halves the size.
        layers: Convolutions of a block: 2, or 3 in the bottleneck, which makes stages four times as wide.
        skip: False for the plain twin.
        width: Filters of the stem, and of the first stage's 3×3.
        image_size: Height and width of the images, in pixels.
        channels: Of the images.
        classes: Logits.
    """

    layout = "nchw"
    prefix = 0

    def __init__(
        self,
        depths: Sequence[int],
        *,
        layers: Literal[2, 3],
        skip: bool = True,
        width: int = 64,
        image_size: int = 224,
        channels: int = 3,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.channels = channels
        self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self._stages = [f"layer{number}" for number in range(1, len(depths) + 1)]
        inputs, outputs = width, width if layers == 2 else 4 * width
        for number, (name, depth) in enumerate(zip(self._stages, depths, strict=True)):
            blocks = [ResidualBlock(inputs, outputs, stride=2 if number else 1, layers=layers, skip=skip)]
            blocks += [ResidualBlock(outputs, outputs, layers=layers, skip=skip) for _ in range(depth - 1)]
            self.add_module(name, nn.Sequential(*blocks))
            inputs, outputs = outputs, 2 * outputs
        self.avgpool = PositionMean()
        self.features = inputs
        self.classifier = nn.Linear(inputs, classes)
        self.register_load_state_dict_pre_hook(fc_is_classifier)  # type: ignore[no-untyped-call]
        initialise(self)

    def map(self, x: Tensor) -> Tensor:
        """The last map (n, c, h, w) of normalised images (n, channels, image_size, image_size)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self._stages:
            x = self.get_submodule(name)(x)
        return x

    def tail(self, last: Tensor) -> Tensor:
        """The features (n, d) of a last map (n, c, h, w): its mean over positions."""
        return self.avgpool(last)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """The logits (n, classes)."""
        return self.classifier(self.tail(self.map(x)))  # type: ignore[no-any-return]


def residual(
    *,
    depths: Sequence[int] = (2, 2, 2, 2),
    layers: Literal[2, 3] = 2,
    skip: bool = True,
    width: int = 64,
    image_size: int = 224,
    channels: int = 3,
    classes: int = 1000,
) -> ResNet:
    """A residual network of any depth and width; the default is ResNet-18.

    Parameters: 49·channels·width + 2·width of the stem, `ResidualBlock`'s formulas, (d + 1)·classes.

    Args:
        depths: How many blocks each stage has: (2, 2, 2, 2) in 18 layers, (3, 4, 6, 3) in 34 and, with bottlenecks, in 50.
        layers: Convolutions of a block, 2 or 3.
        skip: Whether the blocks have their skip.
        width: Filters of the stem.
        image_size: Height and width of the input, in pixels.
        channels: Of the input.
        classes: Logits; 1 is one sigmoid unit.

    Raises:
        RequestError: The lists don't fit.
    """
    if not depths or min(depths) < 1 or width < 1:
        hint = "give at least one stage of at least one block, and at least one filter"
        raise RequestError(f"a residual network cannot be built with depths={list(depths)} and width={width}", hint)
    check("a residual network", image_size=image_size, channels=channels, classes=classes, smallest=1)
    return ResNet(depths, layers=layers, skip=skip, width=width, image_size=image_size, channels=channels, classes=classes)


def plain18(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> ResNet:
    """ResNet-18 without skips and projections: 11,515,688 parameters, 173,824 fewer."""
    return residual(skip=False, image_size=image_size, channels=channels, classes=classes)


def plain34(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> ResNet:
    """ResNet-34 without skips: 21,623,848 parameters. In the paper it fits even its training images worse than `plain18`."""
    return residual(depths=(3, 4, 6, 3), skip=False, image_size=image_size, channels=channels, classes=classes)


def plain50(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> ResNet:
    """ResNet-50's bottlenecks without skips: 22,780,456 parameters, 2,776,576 fewer."""
    return residual(depths=(3, 4, 6, 3), layers=3, skip=False, image_size=image_size, channels=channels, classes=classes)
