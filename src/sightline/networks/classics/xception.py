"""Xception: a stack of depthwise separable convolutions with skips, of any width and depth.

Chollet 2016, "Xception: deep learning with depthwise separable convolutions", figure 5: entry flow, middle flow, exit flow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.blocks import PositionMean, SeparableConv, XceptionBlock
from sightline.networks.classics.whole import Window, check, dense_layers, fc_is_classifier, initialise, smallest_side

_STEM = (Window(3, 2), Window(3))
"""What is unpadded; everything behind it takes a map of any size."""


class Xception(nn.Module):
    """Two plain convolutions, blocks with skips, two separable convolutions, the mean over positions, linear layers.

    Key names are those of timm's `legacy_xception`, but for `classifier`, which it calls `fc`; its state dict loads as it is.

    Args:
        stem: Filters of the two plain convolutions.
        entry: Channels of the entry flow's blocks, each of which halves the size.
        middle_blocks: How many blocks keep the shape.
        exit_: Channels of the exit flow: its block's, and its two separable convolutions'.
        dense: (units, dropout) of linear layers before the classifier, each with ReLU.
        image_size: Height and width of the images, in pixels.
        channels: Of the images.
        classes: Logits.
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
        """The last map (n, c, h, w) of normalised images (n, channels, image_size, image_size)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        for name in self._flow:
            x = self.get_submodule(name)(x)
        x = torch.relu(self.bn3(self.conv3(x)))
        return torch.relu(self.bn4(self.conv4(x)))

    def tail(self, last: Tensor) -> Tensor:
        """The features (n, d) of a last map (n, c, h, w)."""
        return self.dense(self.pool(last))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """The logits (n, classes)."""
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
    """Xception: the original, or a reduced one.

    At 299 px: 149, 147, then 74, 37 and 19×19×728 after the entry flow, which eight middle blocks keep, 10×10×2048 at the
    end. Parameters: 22,855,952 with 1,000 classes; `blocks` has the formulas of the parts. With
    `dense=[(1000, 0), (256, 0), (64, 0)]` and two classes 23,128,786.

    Args:
        width: What all channels are multiplied by, in the stem (32, 64) too; rounded to whole numbers, at least 1.
        entry: Channels of the entry flow's blocks; each halves the size.
        middle_blocks: How many blocks keep the shape; 0 or more.
        exit: Channels of the exit flow: of its block and of its two separable convolutions.
        dense: (units, dropout) of linear layers before the classifier, each with ReLU.
        image_size: Height and width of the input, in pixels; from 7.
        channels: Of the input.
        classes: Logits; 1 is one sigmoid unit.

    Raises:
        RequestError: The image is too small (the smallest size is named), or the lists don't fit.

    Example:
        >>> small = xception(width=0.25, middle_blocks=2, image_size=71, classes=2)
        >>> small.features
        512
    """
    if not entry or min(entry) < 1 or len(exit) != 3 or min(exit) < 1 or middle_blocks < 0 or width <= 0:
        asked = f"width={width}, entry={list(entry)}, middle_blocks={middle_blocks}, exit={list(exit)}"
        raise RequestError(
            f"xception cannot be built with {asked}", "see its defaults: three channels in exit, nothing below 1"
        )
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
