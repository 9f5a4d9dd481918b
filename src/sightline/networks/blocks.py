"""Building blocks of convolutional networks, each with its paper, its shapes and the formula for its parameters.

Maps are float (n, channels, height, width). In the formulas k is the filter size, i and o are the channels of input and
output. A convolution without bias has k²·i·o parameters; BatchNorm has 2·o, and 2·o statistics that are not trained.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from sightline.errors import RequestError


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, ReLU: (n, i, h, w) → (n, o, h', w') with h' = ⌊(h + 2·padding - k) / stride⌋ + 1.

    Parameters: k²·i·o + 2·o; the convolution needs no bias, since BatchNorm has one. Key names are those of torchvision's
    `BasicConv2d`: conv, bn.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Filter size.
        stride: Stride of the convolution.
        padding: Zeros on each side; None keeps the size if the stride is 1 and the kernel odd.
        eps: Constant that BatchNorm adds to the variance.

    Source: Ioffe and Szegedy 2015, "Batch normalization", section 3.2.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int | None = None, eps: float = 1e-5
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (n, o, h', w'), non-negative, of a map (n, i, h, w)."""
        return torch.relu(self.bn(self.conv(x)))


# -------------------------------------------------------------------------------------------------------------- residual


class ResidualBlock(nn.Module):
    """Residual block y = ReLU(F(x) + x), where F is two or three convolutions with BatchNorm and x is the skip connection.

    Two layers: 3×3 (i → o, with the stride), 3×3 (o → o). Three layers, the bottleneck: 1×1 (i → o/4), 3×3 (with the
    stride), 1×1 (o/4 → o). If F changes the shape, x is projected by a 1×1 convolution with the stride and BatchNorm
    (option B of the paper). (n, i, h, w) → (n, o, ⌈h / stride⌉, ⌈w / stride⌉).

    Parameters, with m = o/4:

        two layers     9·i·o + 9·o² + 4·o
        bottleneck     i·m + 9·m² + m·o + 4·m + 2·o
        projection     + i·o + 2·o

    Key names are those of torchvision and timm (conv1, bn1, conv2, bn2, conv3, bn3, downsample.0, downsample.1).

    Args:
        inputs: Input channels.
        outputs: Output channels; a multiple of 4 for the bottleneck.
        stride: Stride of the block.
        layers: Number of convolutions, 2 or 3.
        skip: Whether to add the skip connection; without it, y = ReLU(F(x)) and there is no projection.

    Raises:
        RequestError: If `layers` is neither 2 nor 3, or the width of a bottleneck is not a multiple of 4.

    Source: He et al. 2015, "Deep residual learning for image recognition", figures 2 and 5. The paper's bottleneck has its
    stride in the first 1×1 convolution; as in torchvision and timm it is in the 3×3 here, so that no position is skipped.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, layers: Literal[2, 3] = 2, skip: bool = True) -> None:
        super().__init__()
        if layers not in (2, 3):
            raise RequestError(f"a residual block cannot have {layers} layers", "choose 2, or 3 for a bottleneck")
        if layers == 3 and outputs % 4:
            raise RequestError(f"a bottleneck cannot have {outputs} output channels", "choose a multiple of 4")
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
        """BatchNorm after the last convolution; if its weight and bias are 0, the block is the identity (before ReLU)."""
        return self.bn2 if self.layers == 2 else self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (n, o, ⌈h / stride⌉, ⌈w / stride⌉), non-negative, of a map (n, i, h, w)."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.layers == 3:
            y = self.bn3(self.conv3(self.relu(y)))
        if self.skip:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)  # type: ignore[no-any-return]


def identity_block(channels: int, *, layers: Literal[2, 3] = 2, skip: bool = True) -> ResidualBlock:
    """Return a residual block that keeps the shape, so that x is added without projection: (n, c, h, w) → (n, c, h, w).

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
    """Return a residual block with projection: (n, i, h, w) → (n, o, ⌈h / stride⌉, ⌈w / stride⌉).

    Parameters: those of `ResidualBlock` with the projection.

    Raises:
        RequestError: If the block would keep the shape, so that there is nothing to project.

    Source: He et al. 2015, equation 2.
    """
    if stride == 1 and inputs == outputs:
        hint = "use identity_block"
        raise RequestError(f"a convolutional block from {inputs} to {outputs} channels with stride 1 keeps the shape", hint)
    return ResidualBlock(inputs, outputs, stride=stride, layers=layers, skip=skip)


# ------------------------------------------------------------------------------------------------------------- inception


class Inception(nn.Module):
    """Inception module of GoogLeNet: four parallel branches whose maps are concatenated.

    (n, i, h, w) → (n, one + three + large + pooled, h, w). The branches: 1×1; 1×1 then 3×3; 1×1 then the large filter;
    max pooling 3×3 with stride 1, then 1×1. The 1×1 convolutions reduce the channels before the costly filters. Every
    convolution is a `ConvNorm`.

    Parameters, with the reductions r3 and r5 and the size k of the large filter:

        i·one + i·r3 + 9·r3·three + i·r5 + k²·r5·large + i·pooled + 2·(one + r3 + three + r5 + large + pooled)

    Key names are those of torchvision's `Inception` (branch1, branch2.0, branch2.1, …), whose weights fit with `kernel=3`:
    torchvision uses 3×3 instead of the paper's 5×5.

    Args:
        inputs: Input channels, i.
        one: Output channels of the 1×1 branch.
        three_reduced: Input channels of the 3×3 filters, r3.
        three: Output channels of the 3×3 branch.
        large_reduced: Input channels of the large filters, r5.
        large: Output channels of their branch.
        pooled: Output channels of the pooling branch.
        kernel: Size of the large filters.

    Source: Szegedy et al. 2014, "Going deeper with convolutions", figure 2b; BatchNorm as in Ioffe and Szegedy 2015.
    """

    def __init__(
        self,
        inputs: int,
        *,
        one: int,
        three_reduced: int,
        three: int,
        large_reduced: int,
        large: int,
        pooled: int,
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
        """Return the map (n, one + three + large + pooled, h, w), non-negative, of a map (n, i, h, w)."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


# ------------------------------------------------------------------------------------------------------------- separable


class SeparableConv(nn.Module):
    """Depthwise separable convolution: a depthwise convolution (one filter per channel), then a pointwise (1×1) one.

    (n, i, h, w) → (n, o, h', w'), without activation between the two. Parameters: k²·i + i·o, compared with k²·i·o of a full
    convolution: about 1/9 for k = 3 and many channels. Key names are those of timm's Xception: conv1, pointwise.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Size of the depthwise filters, odd.
        stride: Stride of the depthwise convolution.

    Source: Chollet 2016, "Xception: deep learning with depthwise separable convolutions", section 2.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, kernel, stride=stride, padding=kernel // 2, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (n, o, h', w') of a map (n, i, h, w)."""
        return self.pointwise(self.conv1(x))  # type: ignore[no-any-return]


class XceptionBlock(nn.Module):
    """Block of Xception: ReLU, separable convolution and BatchNorm, repeated; max pooling if strided; and a skip connection.

    (n, i, h, w) → (n, o, ⌈h / stride⌉, ⌈w / stride⌉). If the shape changes, the skip connection is a 1×1 convolution with the
    stride and BatchNorm.

    Parameters: 9·a + a·b + 2·b for each separable convolution from a to b channels, and i·o + 2·o for the projection. The
    first separable convolution widens i to o or, with `widen_last`, the last one.

    Key names are those of timm's Xception: rep, skip, skipbn.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        layers: Number of separable convolutions.
        stride: Stride of the pooling at the end; 1 for no pooling.
        relu_first: Whether a ReLU comes before the first separable convolution.
        widen_last: Whether the last separable convolution changes the width instead of the first.

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
                parts.append(nn.ReLU(inplace=bool(number)))  # the skip connection needs the unchanged input
            parts += [SeparableConv(a, b), nn.BatchNorm2d(b)]
        if stride != 1:
            parts.append(nn.MaxPool2d(3, stride, padding=1))
        self.rep = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (n, o, ⌈h / stride⌉, ⌈w / stride⌉), without a final ReLU, of a map (n, i, h, w)."""
        shortcut = x if self.skip is None or self.skipbn is None else self.skipbn(self.skip(x))
        return self.rep(x) + shortcut  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------------------------- network in network


class MlpConv(nn.Sequential):
    """Mlpconv layer: a convolution and two 1×1 convolutions with bias and ReLU, a perceptron applied at every position.

    (n, i, h, w) → (n, q, h', w'). Parameters: k²·i·o + o + o·p + p + p·q + q.

    Args:
        inputs: Input channels.
        outputs: Filters o, p, q of the three convolutions; one number for all.
        kernel: Filter size of the first convolution.
        stride: Stride of the first convolution.
        padding: Zeros on each side for the first convolution.
        last: Filters q of the last convolution if they are class scores, without ReLU; None for `outputs` with ReLU.

    Source: Lin et al. 2013, "Network in network", section 3.1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int | tuple[int, int, int],
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        last: int | None = None,
    ) -> None:
        first, second, third = (outputs,) * 3 if isinstance(outputs, int) else outputs
        parts: list[nn.Module] = [nn.Conv2d(inputs, first, kernel, stride=stride, padding=padding), nn.ReLU()]
        parts += [nn.Conv2d(first, second, 1), nn.ReLU()]
        parts += [nn.Conv2d(second, third, 1), nn.ReLU()] if last is None else [nn.Conv2d(second, last, 1)]
        super().__init__(*parts)


# --------------------------------------------------------------------------------------------------------------- pooling


class PositionMean(nn.Module):
    """Global average pooling: (n, c, h, w) → (n, c). No parameters.

    Source: Lin et al. 2013, section 3.2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over all positions."""
        return x.mean(dim=(2, 3))
