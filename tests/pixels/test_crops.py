"""Crops at test time: the centre is what the network sees anyway, the corners reach the edges, the rest are mirror images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline import pixels
from sightline.errors import RequestError
from sightline.pixels.geometry import stored_box
from sightline.records import Preprocess


def smooth(height: int, width: int) -> np.ndarray:
    """A picture without repetition: uint8 (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / width, 255 * y / height, 127 + 120 * np.sin(x / 17) * np.cos(y / 23)], axis=-1).astype(np.uint8)


def test_the_centre_is_the_plain_view(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(smooth(375, 500)).save(file)
    seen = Preprocess(size=(64, 64), crop_fraction=0.875)
    whole = pixels.decode(file, pixels.uncut(seen))
    assert whole.shape == (73, 73, 3)
    centre = pixels.cut(whole[None], seen.size, 0)[0]
    # both are resized in one step from the original, on grids that differ by less than a pixel
    assert np.abs(centre.astype(int) - pixels.decode(file, seen)).mean() < 3


def test_ten_crops_of_numbered_pixels() -> None:
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(1, 5, 7, 3)
    crops = [pixels.cut(image, (3, 4), i)[0] for i in range(10)]
    corners = [image[0, 1:4, 1:5], image[0, :3, :4], image[0, :3, 3:], image[0, 2:, :4], image[0, 2:, 3:]]
    for i, expected in enumerate(corners):
        np.testing.assert_array_equal(crops[i], expected)
        np.testing.assert_array_equal(crops[i + 5], expected[:, ::-1])


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("fraction", [0.875, 1.0])
def test_corners_stay_within_the_square(fit: str, fraction: float) -> None:
    seen = Preprocess(size=(28, 28), fit=fit, crop_fraction=fraction)  # type: ignore[arg-type]
    whole = pixels.decode_array(smooth(90, 60), pixels.uncut(seen))
    assert whole.shape == (32, 32, 3)
    for i in range(10):
        assert pixels.cut(whole[None], seen.size, i).shape == (1, 28, 28, 3)


@pytest.mark.parametrize("crops", [0, 2, 9, 11])
def test_other_numbers_are_refused(crops: int) -> None:
    with pytest.raises(RequestError, match=f"crops cannot be {crops}"):
        pixels.check_crops(crops)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda s: s),
        (2, lambda s: s[:, ::-1]),
        (3, lambda s: s[::-1, ::-1]),
        (4, lambda s: s[::-1]),
        (5, lambda s: s.T),
        (6, lambda s: np.rot90(s, -1)),
        (7, lambda s: s[::-1, ::-1].T),
        (8, np.rot90),
    ],
)
def test_a_box_beside_the_centre_is_found_in_the_stored_pixels(
    orientation: int, upright: Callable[[np.ndarray], np.ndarray]
) -> None:
    stored = np.arange(35).reshape(5, 7)
    whole = upright(stored)
    height, width = whole.shape
    top, left, tall, wide = (int(v) for v in stored_box((1, 0, 2, 2), width, height, orientation))
    np.testing.assert_array_equal(upright(stored[top : top + tall, left : left + wide]), whole[1:3, 0:2])
