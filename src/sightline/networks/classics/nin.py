"""Network in Network: mlpconv layers, and the first network that ends in global average pooling.

Lin, Chen and Yan 2013, "Network in network". Two networks of the authors, published for Caffe: the paper's for images of 32 px
(CIFAR-10), and one for ImageNet with the strides and widths of AlexNet.
"""

from __future__ import annotations

from torch import nn

from sightline.networks.blocks import MlpConv, PositionMean
from sightline.networks.classics.classic_network import ClassicNetwork, Window, check, check_dropout, initialise, smallest_side

_LARGE = (Window(11, 4), Window(3, 2), Window(5, 1, 4), Window(3, 2), Window(3, 1, 2), Window(3, 2), Window(3, 1, 2))
_SMALLEST_LARGE = smallest_side(_LARGE)
_SMALL = (Window(5, 1, 4), Window(3, 2, 2), Window(5, 1, 4), Window(3, 2, 2), Window(3, 1, 2))


def nin(*, dropout: float = 0.5, image_size: int = 224, channels: int = 3, classes: int = 1000) -> ClassicNetwork:
    """Build `MlpConv` blocks with max pooling between them: four, or three for images smaller than 67 px.

    Images from 67 px get the network for ImageNet, smaller ones the paper's network for CIFAR-10. The last block returns a map
    per class; the means of these maps are the logits. There is no linear layer: the classifier is the identity, and the last
    map shows the evidence for each class at each position. Map sizes at 224 px: 54, 26, 12, 5; at 32 px: 32, 16, 8.

    Parameters for large images: 53,568 + 746,240 + 1,180,800 in the first three blocks, 4,589,568 + 1,025·classes in the last:
    7,595,176 with three channels and 1,000 classes. For small ones: 60,928 + 535,104 + 369,024 + 193·classes: 966,986 with ten
    classes. The published networks apply ReLU to their scores; here there is none, since logits may be negative.

    Args:
        dropout: Dropout of the map before the last block; for small images before the last two.
        image_size: Height and width of the input in px.
        channels: Number of input channels.
        classes: Number of logits; 1 is a single sigmoid unit.

    Raises:
        RequestError: If the image is too small (the message names the smallest size).
    """
    check("nin", image_size=image_size, channels=channels, classes=classes, smallest=smallest_side(_SMALL))
    layers = _blocks_large(dropout, channels, classes)
    if image_size < _SMALLEST_LARGE:
        layers = _blocks_small(dropout, channels, classes)
    blocks = nn.Sequential(*layers)
    network = ClassicNetwork(blocks, PositionMean(), nn.Identity(), features=classes, image_size=image_size, channels=channels)
    initialise(network)
    return network


def _blocks_small(dropout: float, channels: int, classes: int) -> list[nn.Module]:
    """Return the layers of the network for CIFAR-10. Map sizes at 32 px: 32, 16, 8."""
    return [
        MlpConv(channels, (192, 160, 96), 5, padding=2),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Dropout(check_dropout(dropout)),
        MlpConv(96, 192, 5, padding=2),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Dropout(check_dropout(dropout)),
        MlpConv(192, 192, 3, padding=1, last=classes),
    ]


def _blocks_large(dropout: float, channels: int, classes: int) -> list[nn.Module]:
    """Return the layers of the network for ImageNet."""
    return [
        MlpConv(channels, 96, 11, stride=4),
        nn.MaxPool2d(3, 2),
        MlpConv(96, 256, 5, padding=2),
        nn.MaxPool2d(3, 2),
        MlpConv(256, 384, 3, padding=1),
        nn.MaxPool2d(3, 2),
        nn.Dropout(check_dropout(dropout)),
        MlpConv(384, 1024, 3, padding=1, last=classes),
    ]
