"""Residual networks, and the same networks without skip connections (`plain18`, …) for comparison.

He, Zhang, Ren and Sun 2015, "Deep residual learning for image recognition", table 1 and figure 3. The names `resnet18`, …
build torchvision's networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.blocks import PositionMean, ResidualBlock
from sightline.networks.classics.classic_network import check, fc_is_classifier, initialise


class ResNet(nn.Module):
    """Residual network: a stem (7×7 and pooling, stride 4), stages of residual blocks, global average pooling, a linear layer.

    Key names are those of torchvision and timm, except `classifier`, which they call `fc`. Their state dicts can be loaded.

    Args:
        depths: Number of blocks of each stage; each stage after the first halves the size.
        layers: Convolutions per block: 2, or 3 for bottlenecks, whose stages are four times as wide.
        skip: Whether blocks have skip connections.
        width: Filters of the stem and of the 3×3 convolutions of the first stage.
        image_size: Height and width of the images in px.
        channels: Number of input channels.
        classes: Number of logits.
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
        """Return the last feature map (n, c, h, w) of normalised images (n, channels, image_size, image_size)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self._stages:
            x = self.get_submodule(name)(x)
        return x

    def tail(self, last: Tensor) -> Tensor:
        """Return the features (n, d) of a last feature map (n, c, h, w): its mean over positions."""
        return self.avgpool(last)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (n, classes)."""
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
    """Build a residual network of any depth and width; the default is ResNet-18.

    Parameters: 49·channels·width + 2·width of the stem, those of each `ResidualBlock`, and (d + 1)·classes.

    Args:
        depths: Number of blocks of each stage: (2, 2, 2, 2) for 18 layers, (3, 4, 6, 3) for 34 or, with bottlenecks, 50.
        layers: Convolutions per block, 2 or 3.
        skip: Whether blocks have skip connections.
        width: Filters of the stem.
        image_size: Height and width of the input in px.
        channels: Number of input channels.
        classes: Number of logits; 1 is a single sigmoid unit.

    Raises:
        RequestError: If there is no stage, or a stage without blocks, or the width is below 1.
    """
    if not depths or min(depths) < 1 or width < 1:
        hint = "give at least one stage, at least one block per stage, and a width of at least 1"
        raise RequestError(f"a residual network cannot be built with depths={list(depths)} and width={width}", hint)
    check("a residual network", image_size=image_size, channels=channels, classes=classes, smallest=1)
    return ResNet(depths, layers=layers, skip=skip, width=width, image_size=image_size, channels=channels, classes=classes)


def plain18(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> ResNet:
    """Build ResNet-18 without skip connections and projections: 11,515,688 parameters, 173,824 fewer."""
    return residual(skip=False, image_size=image_size, channels=channels, classes=classes)


def plain34(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> ResNet:
    """Build ResNet-34 without skip connections: 21,623,848 parameters. In the paper its training error exceeds `plain18`'s."""
    return residual(depths=(3, 4, 6, 3), skip=False, image_size=image_size, channels=channels, classes=classes)


def plain50(*, image_size: int = 224, channels: int = 3, classes: int = 1000) -> ResNet:
    """Build ResNet-50 without skip connections: 22,780,456 parameters, 2,776,576 fewer."""
    return residual(depths=(3, 4, 6, 3), layers=3, skip=False, image_size=image_size, channels=channels, classes=classes)
