"""ResNet-9: a residual network for images of about 32 px that trains in minutes on a CPU.

Page 2018, "How to train your ResNet", part 3 (Myrtle.ai): a ResNet-18 reduced to the nine layers that train fastest on
CIFAR-10.
"""

from __future__ import annotations

from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.blocks import ConvNorm, PositionMean
from sightline.networks.classics.classic_network import ClassicNetwork, check, initialise


class TwoConvolutions(nn.Module):
    """Residual block y = x + F(x), where F is two `ConvNorm` 3×3, without ReLU after the sum: (n, c, h, w) → (n, c, h, w).

    Parameters: 18·c² + 4·c.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, 3)
        self.second = ConvNorm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (n, c, h, w) of a map of the same shape."""
        return x + self.second(self.first(x))  # type: ignore[no-any-return]


def resnet9(*, width: int = 64, image_size: int = 32, channels: int = 3, classes: int = 10) -> ClassicNetwork:
    """Build four convolutions with max pooling between them, and two residual blocks of two convolutions.

    At 32 px the maps have sides 32, 16, 8 and 4, and w, 2w, 4w and 8w channels. MACs grow with w²: width 64 needs 0.38 G
    multiply–accumulates for an image of 32 px, width 32 a quarter of that.

    Parameters, with width w: (9·channels + 2)·w, 18·w² + 4·w, 72·w² + 8·w, 72·w² + 8·w, 288·w² + 16·w, 1,152·w² + 32·w, and
    (8·w + 1)·classes: 6,573,130 with width 64, three channels and ten classes. The published network ends in global max
    pooling and logits scaled by 1/8. This one ends in global average pooling and a linear layer with bias, so that heatmaps
    are exact without a backward pass.

    Args:
        width: Filters of the first convolution, at least 1.
        image_size: Height and width of the input in px, at least 8.
        channels: Number of input channels.
        classes: Number of logits; 1 is a single sigmoid unit.

    Raises:
        RequestError: If the image is too small (the message names the smallest size), or the width is below 1.
    """
    if width < 1:
        raise RequestError(f"resnet9 cannot be built with width={width}", "give a whole number of at least 1")
    check("resnet9", image_size=image_size, channels=channels, classes=classes, smallest=8)
    w = width
    layers = [
        ConvNorm(channels, w, 3),
        ConvNorm(w, 2 * w, 3),
        nn.MaxPool2d(2),
        TwoConvolutions(2 * w),
        ConvNorm(2 * w, 4 * w, 3),
        nn.MaxPool2d(2),
        ConvNorm(4 * w, 8 * w, 3),
        nn.MaxPool2d(2),
        TwoConvolutions(8 * w),
    ]
    blocks = nn.Sequential(*layers)
    classifier = nn.Linear(8 * w, classes)
    network = ClassicNetwork(blocks, PositionMean(), classifier, features=8 * w, image_size=image_size, channels=channels)
    initialise(network)
    return network
