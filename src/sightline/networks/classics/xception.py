"""Xception: depthwise separable convolutions with skip connections, in any width and depth.

Chollet 2016, "Xception: deep learning with depthwise separable convolutions", figure 5: entry flow, middle flow, exit flow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.blocks import PositionMean, SeparableConv, XceptionBlock
from sightline.networks.classics.classic_network import Window, check, dense_layers, fc_is_classifier, initialise, smallest_side

_STEM = (Window(3, 2), Window(3))
"""The unpadded convolutions of the stem; everything after them accepts a map of any size."""


class Xception(nn.Module):
    """Two convolutions, blocks with skip connections, two separable convolutions, global average pooling, linear layers.

    Key names are those of timm's `legacy_xception`, except `classifier`, which it calls `fc`. Its state dict can be loaded.

    Args:
        stem: Filters of the two convolutions of the stem.
        entry: Channels of the blocks of the entry flow, each of which halves the size.
        middle_blocks: Number of blocks of the middle flow, which keep the shape.
        exit_: Channels of the exit flow: those of its block and of its two separable convolutions.
        dense: (units, dropout) of linear layers before the classifier, each with ReLU.
        image_size: Height and width of the images in px.
        channels: Number of input channels.
        classes: Number of logits.
    """

    layout = "nchw"
    prefix = 0

    def __init__(
        self,
        *,
        stem: tuple[int, int],
        entry: Sequence[int],
        middle_blocks: int,
        exit_: tuple[int, int, int],
        dense: Sequence[Sequence[float]],
        image_size: int,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.channels = channels
        self.conv1 = nn.Conv2d(channels, stem[0], 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem[0])
        self.conv2 = nn.Conv2d(stem[0], stem[1], 3, bias=False)
        self.bn2 = nn.BatchNorm2d(stem[1])
        flow = [
            XceptionBlock(i, o, layers=2, stride=2, relu_first=number > 0)
            for number, (i, o) in enumerate(zip([stem[1], *entry], entry, strict=False))
        ]
        flow += [XceptionBlock(entry[-1], entry[-1], layers=3) for _ in range(middle_blocks)]
        flow.append(XceptionBlock(entry[-1], exit_[0], layers=2, stride=2, widen_last=True))
        self._flow = [f"block{number}" for number in range(1, len(flow) + 1)]
        for name, block in zip(self._flow, flow, strict=True):
            self.add_module(name, block)
        self.conv3 = SeparableConv(exit_[0], exit_[1])
        self.bn3 = nn.BatchNorm2d(exit_[1])
        self.conv4 = SeparableConv(exit_[1], exit_[2])
        self.bn4 = nn.BatchNorm2d(exit_[2])
        self.pool = PositionMean()
        more, self.features = dense_layers(exit_[2], dense)
        self.dense = nn.Sequential(*more)
        self.classifier = nn.Linear(self.features, classes)
        self.register_load_state_dict_pre_hook(fc_is_classifier)  # type: ignore[no-untyped-call]
        initialise(self)

    def map(self, x: Tensor) -> Tensor:
        """Return the last feature map (n, c, h, w) of normalised images (n, channels, image_size, image_size)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        for name in self._flow:
            x = self.get_submodule(name)(x)
        x = torch.relu(self.bn3(self.conv3(x)))
        return torch.relu(self.bn4(self.conv4(x)))

    def tail(self, last: Tensor) -> Tensor:
        """Return the features (n, d) of a last feature map (n, c, h, w)."""
        return self.dense(self.pool(last))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (n, classes)."""
        return self.classifier(self.tail(self.map(x)))  # type: ignore[no-any-return]


def xception(
    *,
    width: float = 1.0,
    entry: Sequence[int] = (128, 256, 728),
    middle_blocks: int = 8,
    exit: Sequence[int] = (1024, 1536, 2048),
    dense: Sequence[Sequence[float]] = (),
    image_size: int = 299,
    channels: int = 3,
    classes: int = 1000,
) -> Xception:
    """Build Xception, in its original or a reduced size.

    Map sizes at 299 px: 149 and 147 in the stem, 74, 37 and 19×19×728 in the entry flow, unchanged in the middle flow,
    10×10×2048 at the end. Parameters: 22,855,952 with 1,000 classes (formulas in `blocks`); 23,128,786 with
    `dense=[(1000, 0), (256, 0), (64, 0)]` and two classes.

    Args:
        width: Factor of all channels, including those of the stem (32, 64); rounded, at least 1 channel.
        entry: Channels of the blocks of the entry flow; each halves the size.
        middle_blocks: Number of blocks of the middle flow, at least 0.
        exit: Channels of the exit flow: those of its block and of its two separable convolutions.
        dense: (units, dropout) of linear layers before the classifier, each with ReLU.
        image_size: Height and width of the input in px, at least 7.
        channels: Number of input channels.
        classes: Number of logits; 1 is a single sigmoid unit.

    Raises:
        RequestError: If the image is too small (the message names the smallest size), or a width or depth is invalid.

    Example:
        >>> small = xception(width=0.25, middle_blocks=2, image_size=71, classes=2)
        >>> small.features
        512
    """
    if not entry or min(entry) < 1 or len(exit) != 3 or min(exit) < 1 or middle_blocks < 0 or width <= 0:
        arguments = f"width={width}, entry={list(entry)}, middle_blocks={middle_blocks}, exit={list(exit)}"
        hint = "channels must be at least 1, exit has three of them, middle_blocks is at least 0 and width above 0"
        raise RequestError(f"xception cannot be built with {arguments}", hint)
    check("xception", image_size=image_size, channels=channels, classes=classes, smallest=smallest_side(_STEM))
    stem, entry_, exit_ = ([max(1, round(width * c)) for c in part] for part in ((32, 64), entry, exit))
    return Xception(
        stem=(stem[0], stem[1]),
        entry=entry_,
        middle_blocks=middle_blocks,
        exit_=(exit_[0], exit_[1], exit_[2]),
        dense=dense,
        image_size=image_size,
        channels=channels,
        classes=classes,
    )
