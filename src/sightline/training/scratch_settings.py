"""Settings of the method `scratch`, apart from the training code so that reading a recipe does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sightline.errors import RequestError
from sightline.pixels import check_crops
from sightline.schema import BESIDE
from sightline.training.plan import Plan

LEAST_SHARE = 0.25
"""Smallest share of the image side that progressive resizing may begin with."""


@dataclass(frozen=True, slots=True)
class ScratchSettings:
    """Settings of `scratch`.

    Args:
        network: Name of a network that `sightline networks` lists, optionally with arguments, such as `resnet18` or
            `cnn(filters=[32, 64], kernel=5)`. By default `cnn` uses BatchNorm, and stops pooling at a feature map that is
            large enough for heatmaps.
        dropout: Dropout rate before the last layer, 0 to 0.9, for networks of Sightline; None is 0.1 for `cnn` and 0 for
            others.
        augment: Name of a policy in `sightline.training.augment.POLICIES`, or `auto`: `light` for grey images, else `photo`;
            or settings that change a policy, such as `{"policy": "photo", "rotation": 30}`.
        plan: Training settings; in a recipe their keys stand beside the others. The default number of epochs depends on the
            number and size of images, see `fit_network.epochs_for`.
        resize_from: Progressive resizing: share of the side that training begins with, 0.25 to 1. Images grow in up to three
            steps; the last third of the epochs, and validation, use the full size. 1 disables it.
        crops: Crops per image at prediction: 1, 5 or 10.
    """

    network: str = "cnn"
    dropout: float | None = None
    augment: str | Mapping[str, Any] = "auto"
    plan: Plan = field(default=Plan(), metadata=BESIDE)
    resize_from: float = 1.0
    crops: int = 1

    def __post_init__(self) -> None:
        check_crops(self.crops)
        if self.dropout is not None and not 0 <= self.dropout <= 0.9:
            raise RequestError(f"dropout cannot be {self.dropout}", "it lies between 0 and 0.9")
        if not LEAST_SHARE <= self.resize_from <= 1:
            raise RequestError(f"resize_from cannot be {self.resize_from}", f"it lies between {LEAST_SHARE} and 1")
