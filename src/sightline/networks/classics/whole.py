"""What our own classics have in common: one surface, the smallest image, He's initialisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sightline.errors import RequestError


class Whole(nn.Module):
    """A network in three parts: blocks that give the last map, a head that makes features of it, a linear classifier.

    Args:
        blocks: Normalised images (n, channels, image_size, image_size) → the last map (n, c, h, w).
        head: The last map → features (n, d).
        classifier: Features → logits (n, classes); `nn.Identity` where the features are the class scores.
        features: d.
        image_size: Height and width of the images, in pixels.
        channels: Of the images.
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
        """The last map (n, c, h, w) of normalised images (n, channels, image_size, image_size)."""
        return self.blocks(x)  # type: ignore[no-any-return]

    def tail(self, last: Tensor) -> Tensor:
        """The features (n, d) of a last map (n, c, h, w)."""
        return self.head(last)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """The logits (n, classes)."""
        return self.classifier(self.tail(self.map(x)))  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------------------ image size


@dataclass(frozen=True, slots=True)
class Window:
    """What a convolution or a pooling does to the side of a map.

    Args:
        kernel: Its side.
        stride: Its step.
        padding: Zeros on both sides together.
    """

    kernel: int
    stride: int = 1
    padding: int = 0


def last_side(image_size: int, windows: Sequence[Window]) -> int:
    """The side of the last map, 0 where the image is too small.

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
    """The smallest image that leaves a map of at least 1×1.

    Example:
        >>> smallest_side([Window(5), Window(2, 2), Window(5), Window(2, 2)])
        16
    """
    side = 1
    for window in reversed(windows):
        side = max((side - 1) * window.stride + window.kernel - window.padding, 1)
    return side


def check(name: str, *, image_size: int, channels: int, classes: int, smallest: int, advice: str = "") -> None:
    """Refuse what a classic cannot be built for.

    Args:
        name: Of the classic.
        image_size: Height and width of the images, in pixels.
        channels: Of the images.
        classes: Logits.
        smallest: The smallest image size that works.
        advice: What else would mend too small an image.

    Raises:
        RequestError: The image is too small, or a number is below 1.
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
    """Linear layers, each with an activation and, above 0, dropout behind it; and how wide the last one is.

    Parameters of layer j: (u_{j-1} + 1)·u_j.

    Raises:
        RequestError: A layer is no pair of units and dropout.

    Example:
        >>> layers, width = dense_layers(2048, [(512, 0.3), (64, 0)])
        >>> [type(layer).__name__ for layer in layers], width
        (['Linear', 'ReLU', 'Dropout', 'Linear', 'ReLU'], 64)
    """
    layers: list[nn.Module] = []
    width = inputs
    for pair in dense:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or int(pair[0]) != pair[0] or pair[0] < 1:
            raise RequestError(f"{pair!r} is no dense layer", "write (units, dropout), such as (512, 0)")
        units, dropout = int(pair[0]), share(pair[1])
        layers += [nn.Linear(width, units), activation()]
        layers += [nn.Dropout(dropout)] if dropout else []
        width = units
    return layers, width


def share(dropout: float) -> float:
    """A dropout that leaves something."""
    if not 0 <= dropout < 1:
        raise RequestError(f"dropout cannot be {dropout}", "it lies from 0 to below 1")
    return float(dropout)


def initialise(network: nn.Module, nonlinearity: Any = "relu") -> None:
    """He's initialisation: the variance of activations stays the same through ReLUs. Biases start at 0.

    Args:
        network: Its convolutions and linear layers are drawn anew.
        nonlinearity: `relu`, or `linear` for LeCun's, which is He's without the factor 2 for the half that ReLU cuts off.

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
    """A hook before loading: the linear layer that timm and torchvision call `fc` is our `classifier`."""
    for part in ("weight", "bias"):
        if f"{prefix}fc.{part}" in tensors:
            tensors[f"{prefix}classifier.{part}"] = tensors.pop(f"{prefix}fc.{part}")
