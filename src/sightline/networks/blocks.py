"""The blocks that convolutional networks are built from, each with its paper, its shapes and the formula for its parameters.

Maps are float (n, channels, height, width). In the formulas k is the side of a filter, i and o are the channels of input and
output. A convolution without bias has k²·i·o parameters, BatchNorm 2·o, and 2·o statistics that are not learnt.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from sightline.errors import RequestError


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, ReLU: (n, i, h, w) → (n, o, h', w') with h' = ⌊(h + 2·padding - k) / stride⌋ + 1.

    Parameters: k²·i·o + 2·o; the convolution needs no bias, since BatchNorm has one. Names are those of torchvision's
    `BasicConv2d`: conv, bn.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Side of the filters.
        stride: Of the convolution.
        padding: Zeros on each side; None keeps the size where the stride is 1 and the kernel odd.
        eps: What BatchNorm adds to the variance.

    Source: Ioffe and Szegedy 2015, "Batch normalization", section 3.2.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int | None = None, eps: float = 1e-5
    ) -> None:
        super().__init__()
        around = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=around, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, i, h, w) → map (n, o, h', w'), 0 or more."""
        return torch.relu(self.bn(self.conv(x)))


# -------------------------------------------------------------------------------------------------------------- residual


class ResidualBlock(nn.Module):
    """y = ReLU(F(x) + x): F is two or three convolutions with BatchNorm, the skip goes over all of them.

    Two layers: 3×3 (i → o, with the stride), 3×3 (o → o). Three layers, the bottleneck: 1×1 (i → o/4), 3×3 (with the
    stride), 1×1 (o/4 → o). Where F changes the shape, x is projected by a 1×1 convolution with the stride and BatchNorm
    (option B of the paper). (n, i, h, w) → (n, o, ⌈h / stride⌉, ⌈w / stride⌉).

    Parameters, with m = o/4:

        two layers     9·i·o + 9·o² + 4·o
        bottleneck     i·m + 9·m² + m·o + 4·m + 2·o
        projection     + i·o + 2·o

    Names are those of torchvision and timm (conv1, bn1, conv2, bn2, conv3, bn3, downsample.0, downsample.1).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output; a multiple of 4 for the bottleneck.
        stride: Of the block.
        layers: How many convolutions the skip goes over.
        skip: False gives the plain twin, y = ReLU(F(x)), which has no projection either.

    Raises:
        RequestError: There is no block of so many layers, or the bottleneck cannot be a quarter as wide.

    Source: He et al. 2015, "Deep residual learning for image recognition", figures 2 and 5. The paper's bottleneck has its
    stride in the first 1×1; as in torchvision and timm it is in the 3×3, which sees every pixel.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, layers: Literal[2, 3] = 2, skip: bool = True) -> None:
        super().__init__()
        if layers not in (2, 3):
            raise RequestError(f"there is no residual block of {layers} layers", "it has 2, or 3 as a bottleneck")
        if layers == 3 and outputs % 4:
            raise RequestError(f"a bottleneck cannot give {outputs} channels", "give a multiple of 4")
        self.skip = skip
        if layers == 2:
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
        else:
            middle = outputs // 4
            self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(middle)
            self.conv2 = nn.Conv2d(middle, middle, 3, stride=stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(middle)
            self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs)
        self.layers = layers
        self.downsample: nn.Sequential | None = None
        if skip and (stride != 1 or inputs != outputs):
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The BatchNorm behind the last convolution; with its weight and bias at 0 only the skip is left."""
        return self.bn2 if self.layers == 2 else self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, i, h, w) → map (n, o, ⌈h / stride⌉, ⌈w / stride⌉), 0 or more."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.layers == 3:
            y = self.bn3(self.conv3(self.relu(y)))
        if self.skip:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


def identity_block(channels: int, *, layers: Literal[2, 3] = 2, skip: bool = True) -> ResidualBlock:
    """The residual block that keeps the shape, so that x itself is added: (n, c, h, w) → (n, c, h, w).

    Parameters: 18·c² + 4·c with two layers, 17·c²/16 + 3·c with three.

    Source: He et al. 2015, equation 1.

    Example:
        >>> sum(p.numel() for p in identity_block(64).parameters())
        73984
    """
    return ResidualBlock(channels, channels, layers=layers, skip=skip)


def convolutional_block(
    inputs: int, outputs: int, *, stride: int = 2, layers: Literal[2, 3] = 2, skip: bool = True
) -> ResidualBlock:
    """The residual block that changes the shape, so that x is projected: (n, i, h, w) → (n, o, ⌈h / stride⌉, ⌈w / stride⌉).

    Parameters: `ResidualBlock`'s with the projection.

    Raises:
        RequestError: The shape would stay, and nothing were to project.

    Source: He et al. 2015, equation 2.
    """
    if stride == 1 and inputs == outputs:
        raise RequestError(f"a convolutional block from {inputs} to {outputs} channels changes nothing", "use identity_block")
    return ResidualBlock(inputs, outputs, stride=stride, layers=layers, skip=skip)


# ------------------------------------------------------------------------------------------------------------- inception


class Inception(nn.Module):
    """GoogLeNet's module: four branches side by side, their maps concatenated; 1×1 reductions come before the dear filters.

    (n, i, h, w) → (n, one + three + large + pooled, h, w). The branches: 1×1; 1×1 then 3×3; 1×1 then the large filter;
    max pooling 3×3 with stride 1, then 1×1. Every convolution is a `ConvNorm`.

    Parameters, with the reductions r3 and r5 and the large filter's side k:

        i·one + i·r3 + 9·r3·three + i·r5 + k²·r5·large + i·pooled + 2·(one + r3 + three + r5 + large + pooled)

    Names are those of torchvision's `Inception` (branch1, branch2.0, branch2.1, …), whose weights fit with `kernel=3`: it
    has 3×3 where the paper has 5×5.

    Args:
        inputs: Channels of the input, i.
        one: Channels of the 1×1 branch.
        three_reduced: What the 3×3 filters see, r3.
        three: Channels of the 3×3 branch.
        large_reduced: What the large filters see, r5.
        large: Channels of their branch.
        pooled: Channels of the pooling branch.
        kernel: Side of the large filters.

    Source: Szegedy et al. 2014, "Going deeper with convolutions", figure 2b; BatchNorm as in Ioffe and Szegedy 2015.
    """

    def __init__(
        self,
        inputs: int,
        one: int,
        three_reduced: int,
        three: int,
        large_reduced: int,
        large: int,
        pooled: int,
        *,
        kernel: int = 5,
    ) -> None:
        super().__init__()
        eps = 1e-3  # as in the authors' own code; torchvision's weights were trained with it
        self.branch1 = ConvNorm(inputs, one, 1, eps=eps)
        self.branch2 = nn.Sequential(ConvNorm(inputs, three_reduced, 1, eps=eps), ConvNorm(three_reduced, three, 3, eps=eps))
        self.branch3 = nn.Sequential(
            ConvNorm(inputs, large_reduced, 1, eps=eps), ConvNorm(large_reduced, large, kernel, eps=eps)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), ConvNorm(inputs, pooled, 1, eps=eps))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, i, h, w) → map (n, one + three + large + pooled, h, w), 0 or more."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


# ------------------------------------------------------------------------------------------------------------- separable


class SeparableConv(nn.Module):
    """A depthwise convolution, each channel by a filter of its own, then a pointwise one, 1×1 over all channels.

    (n, i, h, w) → (n, o, h', w'). Nothing lies between the two. Parameters: k²·i + i·o, where a full convolution has
    k²·i·o: for k = 3 and many channels about a ninth. Names are those of timm's Xception: conv1, pointwise.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Side of the depthwise filters, odd.
        stride: Of the depthwise convolution.

    Source: Chollet 2016, "Xception: deep learning with depthwise separable convolutions", section 2.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, kernel, stride=stride, padding=kernel // 2, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, i, h, w) → map (n, o, h', w')."""
        return self.pointwise(self.conv1(x))  # type: ignore[no-any-return]


class XceptionBlock(nn.Module):
    """Separable convolutions, each with ReLU before and BatchNorm behind, then max pooling where it has a stride; and a skip.

    (n, i, h, w) → (n, o, ⌈h / stride⌉, ⌈w / stride⌉). Where the shape changes, the skip is a 1×1 convolution with the
    stride and BatchNorm.

    Parameters: of each separable convolution from a to b channels 9·a + a·b + 2·b; of the projection i·o + 2·o. The first
    separable convolution widens i to o, or, with `widen_last`, the last one does.

    Names are those of timm's Xception: rep, skip, skipbn.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        layers: How many separable convolutions.
        stride: Of the pooling at the end; 1 has none.
        relu_first: Whether a ReLU comes before the first one.
        widen_last: Whether the last one widens, instead of the first.

    Source: Chollet 2016, figure 5.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        layers: int,
        stride: int = 1,
        relu_first: bool = True,
        widen_last: bool = False,
    ) -> None:
        super().__init__()
        projected = stride != 1 or inputs != outputs
        self.skip = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if projected else None
        self.skipbn = nn.BatchNorm2d(outputs) if projected else None
        widths = [inputs] * layers + [outputs] if widen_last else [inputs] + [outputs] * layers
        parts: list[nn.Module] = []
        for number, (a, b) in enumerate(pairwise(widths)):
            if number or relu_first:
                parts.append(nn.ReLU(inplace=bool(number)))  # the skip needs the block's own input as it was
            parts += [SeparableConv(a, b), nn.BatchNorm2d(b)]
        if stride != 1:
            parts.append(nn.MaxPool2d(3, stride, padding=1))
        self.rep = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, i, h, w) → map (n, o, ⌈h / stride⌉, ⌈w / stride⌉); no ReLU at the end."""
        beside = x if self.skip is None or self.skipbn is None else self.skipbn(self.skip(x))
        return self.rep(x) + beside  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------------------------- network in network


class MlpConv(nn.Sequential):
    """A convolution and two 1×1 convolutions, each with bias and ReLU: a small multilayer perceptron slides over the map.

    (n, i, h, w) → (n, o, h', w'), all three o wide but for `last`. Parameters: k²·i·o + o + o² + o + o·last + last.

    Args:
        inputs: Channels of the input.
        outputs: Filters of each convolution.
        kernel: Side of the first one's filters.
        stride: Of the first one.
        padding: Zeros around for the first one.
        last: Filters of the last one, where they are class scores; these get no ReLU. None: as the others.

    Source: Lin et al. 2013, "Network in network", section 3.1.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, last: int | None = None
    ) -> None:
        parts: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding), nn.ReLU()]
        parts += [nn.Conv2d(outputs, outputs, 1), nn.ReLU()]
        parts += [nn.Conv2d(outputs, outputs, 1), nn.ReLU()] if last is None else [nn.Conv2d(outputs, last, 1)]
        super().__init__(*parts)


# ------------------------------------------------------------------------------------------------------- behind the maps


class PositionMean(nn.Module):
    """Global average pooling (n, c, h, w) → (n, c). No parameters.

    Source: Lin et al. 2013, section 3.2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The mean over all positions."""
        return x.mean(dim=(2, 3))
