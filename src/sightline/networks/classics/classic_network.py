"""Shared parts of the classic networks: their class, the smallest image size, dense layers and He initialisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sightline.errors import RequestError


class ClassicNetwork(nn.Module):
    """A network in three parts: blocks (images → last feature map), head (map → features), classifier (features → logits).

    Args:
        blocks: Normalised images (n, channels, image_size, image_size) → last feature map (n, c, h, w).
        head: Last feature map → features (n, d).
        classifier: Features → logits (n, classes); `nn.Identity` if the features are the class scores.
        features: Number of features d.
        image_size: Height and width of the images in px.
        channels: Number of input channels.
    """

    layout = "nchw"
    prefix = 0

    def __init__(
        self,
        blocks: nn.Sequential,
        head: nn.Module,
        classifier: nn.Linear | nn.Identity,
        *,
        features: int,
        image_size: int,
        channels: int,
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.head = head
        self.classifier = classifier
        self.features = features
        self.image_size = image_size
        self.channels = channels

    def map(self, x: Tensor) -> Tensor:
        """Return the last feature map (n, c, h, w) of normalised images (n, channels, image_size, image_size)."""
        return self.blocks(x)  # type: ignore[no-any-return]

    def tail(self, last: Tensor) -> Tensor:
        """Return the features (n, d) of a last feature map (n, c, h, w)."""
        return self.head(last)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (n, classes)."""
        return self.classifier(self.tail(self.map(x)))  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------------------ image size


@dataclass(frozen=True, slots=True)
class Window:
    """The sliding window of a convolution or pooling layer.

    Args:
        kernel: Side of the window.
        stride: Stride.
        padding: Zeros on both sides together.
    """

    kernel: int
    stride: int = 1
    padding: int = 0


def last_side(image_size: int, windows: Sequence[Window]) -> int:
    """Return the side of the last feature map; 0 if the image is too small.

    Example:
        >>> last_side(32, [Window(5), Window(2, 2), Window(5), Window(2, 2)])
        5
    """
    side = image_size
    for window in windows:
        if side < 1 or side + window.padding < window.kernel:
            return 0
        side = (side + window.padding - window.kernel) // window.stride + 1
    return side


def smallest_side(windows: Sequence[Window]) -> int:
    """Return the side of the smallest image whose last feature map has at least 1×1 positions.

    Example:
        >>> smallest_side([Window(5), Window(2, 2), Window(5), Window(2, 2)])
        16
    """
    side = 1
    for window in reversed(windows):
        side = max((side - 1) * window.stride + window.kernel - window.padding, 1)
    return side


def check(name: str, *, image_size: int, channels: int, classes: int, smallest: int, advice: str = "") -> None:
    """Check the image size and the numbers of channels and classes of a classic network.

    Args:
        name: Name of the network.
        image_size: Height and width of the images in px.
        channels: Number of input channels.
        classes: Number of logits.
        smallest: Smallest possible image size in px.
        advice: Alternatives to a larger image, appended to the hint.

    Raises:
        RequestError: If the image is too small, or a number is below 1.
    """
    for what, number in (("channels", channels), ("classes", classes)):
        if number < 1:
            raise RequestError(f"{name} cannot be built with {what}={number}", f"give at least 1 for {what}")
    if image_size < smallest:
        hint = f"the smallest is {smallest}{advice}"
        raise RequestError(f"{name} cannot take images of {image_size}×{image_size} pixels", hint)


# -------------------------------------------------------------------------------------------------------- dense, weights


def dense_layers(
    inputs: int, dense: Sequence[Sequence[float]], activation: Callable[[], nn.Module] = nn.ReLU
) -> tuple[list[nn.Module], int]:
    """Return linear layers, each followed by an activation and dropout (if above 0), and the width of the last one.

    Parameters of layer j: (u_{j-1} + 1)·u_j.

    Args:
        inputs: Number of features before the first layer.
        dense: (units, dropout) of each layer.
        activation: Builds the activation.

    Raises:
        RequestError: If an item of `dense` is not a pair of units and dropout.

    Example:
        >>> layers, width = dense_layers(2048, [(512, 0.3), (64, 0)])
        >>> [type(layer).__name__ for layer in layers], width
        (['Linear', 'ReLU', 'Dropout', 'Linear', 'ReLU'], 64)
    """
    layers: list[nn.Module] = []
    width = inputs
    for pair in dense:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or int(pair[0]) != pair[0] or pair[0] < 1:
            raise RequestError(f"{pair!r} is not a dense layer", "write (units, dropout), such as (512, 0)")
        units, dropout = int(pair[0]), check_dropout(pair[1])
        layers += [nn.Linear(width, units), activation()]
        layers += [nn.Dropout(dropout)] if dropout else []
        width = units
    return layers, width


def check_dropout(dropout: float) -> float:
    """Return the dropout probability after checking that it is in [0, 1).

    Raises:
        RequestError: If it is not.
    """
    if not 0 <= dropout < 1:
        raise RequestError(f"dropout cannot be {dropout}", "give a number from 0 to below 1")
    return float(dropout)


def initialise(network: nn.Module, nonlinearity: Any = "relu") -> None:
    """Apply He initialisation, which keeps the variance of activations constant through ReLUs. Biases are set to 0.

    Args:
        network: The network whose convolutions and linear layers are initialised.
        nonlinearity: `relu`, or `linear` for LeCun initialisation, which lacks the factor 2 that compensates for ReLU.

    Source: He et al. 2015, "Delving deep into rectifiers", equation 10 (fan in); LeCun et al. 1998, "Efficient backprop",
    section 4.6.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity=nonlinearity)
            if module.bias is not None:
                with torch.no_grad():
                    module.bias.zero_()


def fc_is_classifier(module: nn.Module, tensors: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename timm's and torchvision's `fc` to `classifier` in a state dict (hook before loading)."""
    for part in ("weight", "bias"):
        if f"{prefix}fc.{part}" in tensors:
            tensors[f"{prefix}classifier.{part}"] = tensors.pop(f"{prefix}fc.{part}")
