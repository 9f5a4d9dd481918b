"""Network in Network: convolutions with small perceptrons inside, and the first network to end in a mean over positions.

Lin, Chen and Yan 2013, "Network in network". The paper's own networks see 32 px; this is its authors' network for ImageNet,
as they published it for Caffe, with the strides and widths of AlexNet.
"""

from __future__ import annotations

from torch import nn

from sightline.networks.blocks import MlpConv, PositionMean
from sightline.networks.classics.whole import Whole, Window, check, initialise, share, smallest_side

_WINDOWS = (Window(11, 4), Window(3, 2), Window(5, 1, 4), Window(3, 2), Window(3, 1, 2), Window(3, 2), Window(3, 1, 2))


def nin(*, dropout: float = 0.5, image_size: int = 224, channels: int = 3, classes: int = 1000) -> Whole:
    """Four `MlpConv` blocks with max pooling between them; the last one gives a map per class, whose means are the logits.

    At 224 px: 54, 26, 12, 5. There is no linear layer: the classifier is the identity, the last map already says where each
    class is seen.

    Parameters: 53,568 + 746,240 + 1,180,800 of the first three blocks, 4,589,568 + 1,025·classes of the last: 7,595,176
    with three channels and 1,000 classes. The published network has a ReLU on its scores; logits must be free to be
    negative, so here it has none.

    Args:
        dropout: Of the map before the last block.
        image_size: Height and width of the input, in pixels; from 67.
        channels: Of the input.
        classes: Logits; 1 is one sigmoid unit.

    Raises:
        RequestError: The image is too small (the smallest size is named).
    """
    check("nin", image_size=image_size, channels=channels, classes=classes, smallest=smallest_side(_WINDOWS))
    blocks = nn.Sequential(
        MlpConv(channels, 96, 11, stride=4),
        nn.MaxPool2d(3, 2),
        MlpConv(96, 256, 5, padding=2),
        nn.MaxPool2d(3, 2),
        MlpConv(256, 384, 3, padding=1),
        nn.MaxPool2d(3, 2),
        nn.Dropout(share(dropout)),
        MlpConv(384, 1024, 3, padding=1, last=classes),
    )
    network = Whole(blocks, PositionMean(), nn.Identity(), features=classes, image_size=image_size, channels=channels)
    initialise(network)
    return network
