"""A residual network for images of about 32 px, which learns in minutes where ImageNet's networks need a graphics card.

Page 2018, "How to train your ResNet", part 3 (Myrtle.ai): nine layers found by removing from a ResNet-18 all that did not
make CIFAR-10 faster to learn.
"""

from __future__ import annotations

from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.blocks import ConvNorm, PositionMean
from sightline.networks.classics.whole import Whole, check, initialise


class TwoConvolutions(nn.Module):
    """y = x + F(x), F two times convolution 3×3, BatchNorm and ReLU; nothing is done to the sum: (n, c, h, w) → the same.

    Parameters: 18·c² + 4·c.

    Args:
        channels: Of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, 3)
        self.second = ConvNorm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) → map (n, c, h, w)."""
        return x + self.second(self.first(x))  # type: ignore[no-any-return]


def resnet9(*, width: int = 64, image_size: int = 32, channels: int = 3, classes: int = 10) -> Whole:
    """Four convolutions with max pooling between them, and two residual blocks of two convolutions.

    At 32 px the maps have sides 32, 16, 8 and 4, and w, 2w, 4w and 8w channels. Cost grows with w²: width 64 needs 0.38 G
    multiply–accumulates for an image of 32 px, width 32 a quarter of that.

    Parameters, with width w: (9·channels + 2)·w, 18·w² + 4·w, 72·w² + 8·w, 72·w² + 8·w, 288·w² + 16·w, 1,152·w² + 32·w, and
    (8·w + 1)·classes: 6,573,130 with width 64, three channels and ten classes. Where the published network takes the
    maximum over positions and scales logits by 1/8, this one takes the mean and a linear layer with bias, so that heatmaps
    are exact without a backward pass.

    Args:
        width: Filters of the first convolution, from 1.
        image_size: Height and width of the input, in pixels; from 8.
        channels: Of the input.
        classes: Logits; 1 is one sigmoid unit.

    Raises:
        RequestError: The image is too small (the smallest size is named), or the width is.
    """
    if width < 1:
        raise RequestError(f"resnet9 cannot be built with width={width}", "give a whole number from 1")
    check("resnet9", image_size=image_size, channels=channels, classes=classes, smallest=8)
    w = width
    blocks = nn.Sequential(
        ConvNorm(channels, w, 3),
        ConvNorm(w, 2 * w, 3),
        nn.MaxPool2d(2),
        TwoConvolutions(2 * w),
        ConvNorm(2 * w, 4 * w, 3),
        nn.MaxPool2d(2),
        ConvNorm(4 * w, 8 * w, 3),
        nn.MaxPool2d(2),
        TwoConvolutions(8 * w),
    )
    classifier = nn.Linear(8 * w, classes)
    network = Whole(blocks, PositionMean(), classifier, features=8 * w, image_size=image_size, channels=channels)
    initialise(network)
    return network
