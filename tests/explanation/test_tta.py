"""Heatmaps over crops: each at its position, mirrored ones mirrored back, with the mean score as their sum."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from sightline import pixels
from sightline.errors import RequestError
from sightline.explanation import ExplainOptions, explain_crops
from sightline.records import Backbone, Head, Preprocess
from tests.explanation.fake import FakeSession

INPUT = Preprocess(size=(224, 224))


class Bright(FakeSession):
    """The map is the image's brightness on 7×7 cells, the feature its mean."""

    @property
    def backbone(self) -> Backbone:
        return Backbone("bright", "timm", INPUT, 1, map_shape=(1, 7, 7))

    def run(self, images: np.ndarray, maps: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        last = images.mean(axis=3).reshape(-1, 1, 7, 32, 7, 32).mean(axis=(3, 5)).astype(np.float32) / 255
        return last.mean(axis=(2, 3)), last if maps else None


def test_crop_heatmaps_are_placed_at_their_position_and_averaged() -> None:
    seen = pixels.uncut(INPUT)
    assert seen.size == (256, 256)
    images = np.zeros((1, 256, 256, 3), np.uint8)
    images[0, 96:128, 192:224] = 255  # seen by all looks, right of the middle: a mirror image not turned back lies left
    head = Head("logistic", 2, {}, {"weights": np.array([[0], [10]], np.float32), "bias": np.zeros(2, np.float32)})
    session = Bright(np.zeros((1, 1, 7, 7), np.float32))
    box = (0.0, 100.0, 512.0, 512.0)  # two pixels of the original for one
    shown: dict[str, Any] = {"paths": ["a"], "targets": [1], "classes": ("no", "yes"), "boxes": [box]}
    for crops in (5, 10):
        options = ExplainOptions(method="gradcam")
        found = explain_crops(session, head, images, crops=crops, options=options, **shown)[0]
        row, column = found.peak()
        assert abs(row - 224) <= 64 and abs(column - (100 + 416)) <= 64, (row, column)
        assert found.box == pytest.approx(box) and found.heat.shape == (8, 8)
        scores = [float(session.run(pixels.cut(images, INPUT.size, i))[0][0, 0]) * 10 for i in range(crops)]
        assert found.heat.sum() == pytest.approx(np.mean(scores), rel=1e-5)
        assert found.layer == f"mean over {crops} crops: last map, 1 channels of 7×7"
    with pytest.raises(RequestError, match="crops cannot be 7"):
        explain_crops(session, head, images, crops=7, **shown)
    assert dataclasses.asdict(found)["missed"] is None
