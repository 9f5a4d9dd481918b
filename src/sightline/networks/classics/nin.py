"""Network in Network: mlpconv layers, and the first network that ends in global average pooling.

Lin, Chen and Yan 2013, "Network in network". The paper's networks take images of 32 px; this is the authors' network for
ImageNet, published for Caffe, with the strides and widths of AlexNet.
"""

from __future__ import annotations

from torch import nn

from sightline.networks.blocks import MlpConv, PositionMean
from sightline.networks.classics.classic_network import ClassicNetwork, Window, check, check_dropout, initialise, smallest_side

_WINDOWS = (Window(11, 4), Window(3, 2), Window(5, 1, 4), Window(3, 2), Window(3, 1, 2), Window(3, 2), Window(3, 1, 2))


def nin(*, dropout: float = 0.5, image_size: int = 224, channels: int = 3, classes: int = 1000) -> ClassicNetwork:
    """Build four `MlpConv` blocks with max pooling between them.

    The last block returns a map per class; the means of these maps are the logits. There is no linear layer: the classifier is
    the identity, and the last map shows the evidence for each class at each position. Map sizes at 224 px: 54, 26, 12, 5.

    Parameters: 53,568 + 746,240 + 1,180,800 in the first three blocks, 4,589,568 + 1,025·classes in the last: 7,595,176
    with three channels and 1,000 classes. The published network applies ReLU to its scores; here there is none, since logits
    may be negative.

    Args:
        dropout: Dropout of the map before the last block.
        image_size: Height and width of the input in px, at least 67.
        channels: Number of input channels.
        classes: Number of logits; 1 is a single sigmoid unit.

    Raises:
        RequestError: If the image is too small (the message names the smallest size).
    """
    check("nin", image_size=image_size, channels=channels, classes=classes, smallest=smallest_side(_WINDOWS))
    layers = [
        MlpConv(channels, 96, 11, stride=4),
        nn.MaxPool2d(3, 2),
        MlpConv(96, 256, 5, padding=2),
        nn.MaxPool2d(3, 2),
        MlpConv(256, 384, 3, padding=1),
        nn.MaxPool2d(3, 2),
        nn.Dropout(check_dropout(dropout)),
        MlpConv(384, 1024, 3, padding=1, last=classes),
    ]
    blocks = nn.Sequential(*layers)
    network = ClassicNetwork(blocks, PositionMean(), nn.Identity(), features=classes, image_size=image_size, channels=channels)
    initialise(network)
    return network
