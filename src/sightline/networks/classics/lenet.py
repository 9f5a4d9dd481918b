"""LeNet-5, a convolutional network for handwritten digits.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition", section II.B.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from sightline.errors import unknown
from sightline.networks.classics.classic_network import (
    ClassicNetwork,
    Window,
    check,
    dense_layers,
    initialise,
    last_side,
    smallest_side,
)

_WINDOWS = (Window(5), Window(2, 2), Window(5), Window(2, 2))


def lenet5(
    *, activation: Literal["tanh", "relu"] = "tanh", image_size: int = 32, channels: int = 1, classes: int = 10
) -> ClassicNetwork:
    """Build LeNet-5: C1 6 filters 5×5, S2 pooling 2, C3 16 filters 5×5, S4 pooling 2, C5 120 units, F6 84 units, classes.

    Map sizes at 32 px: 28, 14, 10, 5. The 5×5 filters of C5 cover the whole map, so C5 is a linear layer of 16·5·5 = 400
    inputs.

    Parameters at 32 px, grey, 10 classes: 156 + 2,416 + 48,120 + 10,164 + 850 = 61,706. The paper has 60,000: its C3 is
    sparse (1,516 weights and biases; each filter is connected to 3, 4 or all 6 maps), its pooling layers have a weight and a
    bias per map (12 + 32), and its last layer computes distances to fixed images of digits. Here C3 is fully connected,
    pooling is the mean, and the last layer is linear, as is usual today.

    Args:
        activation: `tanh` as in the paper, or `relu`.
        image_size: Height and width of the input in px, at least 16.
        channels: Number of input channels.
        classes: Number of logits; 1 is a single sigmoid unit.

    Raises:
        RequestError: If the image is too small (the message names the smallest size), or the activation is unknown.
    """
    activations: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
    if activation not in activations:
        raise unknown("activation", activation, activations)
    act = activations[activation]
    check("lenet5", image_size=image_size, channels=channels, classes=classes, smallest=smallest_side(_WINDOWS))
    first = [nn.Conv2d(channels, 6, 5), act(), nn.AvgPool2d(2)]
    second = [nn.Conv2d(6, 16, 5), act(), nn.AvgPool2d(2)]
    dense, features = dense_layers(16 * last_side(image_size, _WINDOWS) ** 2, [(120, 0), (84, 0)], act)
    body, head = nn.Sequential(*first, *second), nn.Sequential(nn.Flatten(), *dense)
    network = ClassicNetwork(
        body, head, nn.Linear(features, classes), features=features, image_size=image_size, channels=channels
    )
    initialise(network, "relu" if activation == "relu" else "linear")
    return network
