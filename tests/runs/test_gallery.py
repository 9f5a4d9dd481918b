"""Pictures of a run: which held-out images get a thumbnail, and the layers of a heatmap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.records import Explanation, Predictions, Preprocess
from sightline.runs import gallery
from sightline.runs.plan import Request


def test_held_out_images_cover_all_confidences_and_mistakes_come_first() -> None:
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.uniform(0.9, 1.0, 950), np.linspace(0, 1, 50)])
    y = (p >= 0.5).astype(np.int64)
    y[:5] = 0  # confident mistakes
    y[7] = -1
    predictions = Predictions(tuple(map(str, range(1000))), ("a", "b"), y, np.stack([1 - p, p], axis=1))
    rows = gallery.choose_held_out(predictions)
    margin = np.abs(2 * p - 1)
    assert len(rows) == len(set(rows.tolist())) == gallery.HELD_OUT and set(range(5)) <= set(rows.tolist()) and 7 not in rows
    assert (np.diff(margin[rows]) > -1e-9).all(), "the least confident first"
    assert all(((margin[rows] >= low) & (margin[rows] < low + 0.1)).any() for low in np.arange(0, 1, 0.1))


def test_the_overlay_is_the_photograph_in_grey_under_the_layer(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    heat = np.zeros((7, 7), np.float32)
    heat[2:5, 2:5] = 1
    item = Explanation("a.png", "cat", "gradcam", "", heat, (0.0, 50.0, 200.0, 200.0))
    found = gallery.write_overlay(tmp_path / "out" / "001.png", tmp_path / "a.png", Preprocess(), item)
    assert found.photo.shape[:2] == found.heat.shape[:2] and found.heat.shape[2] == 4
    height, width = found.photo.shape[:2]
    middle, outside = found.heat[height // 2, width // 2], found.heat[height // 2, 2]
    assert middle[3] > 150 and middle[0] > middle[2] and 150 < outside[3] < 180 and np.ptp(outside[:3]) == 0
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"001.png", "001_photo.jpg", "001_heat.webp"}
    with Image.open(tmp_path / "out" / "001.png") as flat:
        assert flat.size == (width, height), "no strip with a caption"


@pytest.mark.parametrize(
    ("photos", "name", "title"),
    [
        ("pets/dataset", None, "pets"),
        ("hot/data/train", None, "hot"),
        ("x/table.csv", None, "table"),
        ("pets", "My run", "my-run"),
    ],
)
def test_a_run_is_named_after_the_folder_that_says_something(photos: str, name: str | None, title: str) -> None:
    assert Request(photos=photos, name=name).title == title
