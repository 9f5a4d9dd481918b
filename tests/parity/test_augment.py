"""Augmentation equals torchvision's v2 transforms, one operation at a time.

Images are smooth, so that two ways of rounding a position differ by little: neighbouring pixels differ by at most about 12
grey levels, positions by about 1e-5 pixels, and torchvision's own grid is built in float32 as ours is. So 0.05 grey levels
bound what interpolation alone can do; a position that is off by 1/100 of a pixel would show.
"""

from __future__ import annotations

import cmath
import colorsys
import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from sightline.training import augment
from sightline.training.augment import Draw

HEIGHT, WIDTH = 40, 56
GREY_LEVELS = 0.05
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
BILINEAR = InterpolationMode.BILINEAR


def smooth(n: int = 2, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Images uint8 (n, h, w, 3) without sharp edges, and without any symmetry."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(5 * x + 3 * y + c + i) + 0.6 * np.cos(4 * y * x - c) for i in range(n) for c in range(3)]
    stacked = np.stack(waves).reshape(n, 3, height, width)
    return (127.5 + 75 * stacked / np.abs(stacked).max()).astype(np.uint8).transpose(0, 2, 3, 1)


def one(n: int = 2, **changes: object) -> Draw:
    """The same change for n images."""
    values = {name: np.broadcast_to(value, (n, *np.shape(value))) for name, value in changes.items()}  # type: ignore[call-overload]
    return dataclasses.replace(augment.identity(n), **values)


def run(images: np.ndarray, drawn: Draw, *, padding: str = "zeros", principal: np.ndarray | None = None) -> Tensor:
    """The changed images as float (n, 3, h, w) on the scale 0 to 255."""
    changes = augment.prepare(
        drawn, images.shape[1:3], images.mean(axis=(1, 2)), ZERO, ONE, padding=padding, principal=principal
    )
    return augment.apply(torch.from_numpy(images), changes) * 255


def planes(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def affine(image: Tensor, **changes: object) -> Tensor:
    arguments: dict[str, object] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return tv.affine(image, **{**arguments, **changes}, interpolation=BILINEAR)  # type: ignore[arg-type]


def perspective(image: Tensor) -> Tensor:
    """Its corners moved by hand: (x, y) of the frame's edges, as torchvision counts them."""
    h, w = HEIGHT, WIDTH
    start = [[0, 0], [w, 0], [w, h], [0, h]]
    end = [[0.25 * w / 2, 0.1 * h / 2], [w - 0.4 * w / 2, 0], [w, h - 0.3 * h / 2], [0.2 * w / 2, h]]
    return tv.perspective(image, start, end, interpolation=BILINEAR)  # type: ignore[arg-type]


CORNERS = np.array([[0.1, 0.25], [0, 0.4], [0.3, 0], [0, 0.2]])  # (vertically, horizontally), of half a side
KNOTS = np.random.default_rng(7).uniform(-0.08, 0.08, (2, 8, 8)).astype(np.float32)


def elastic(image: Tensor) -> Tensor:
    field = augment.displacement(torch.from_numpy(KNOTS[None]), HEIGHT, WIDTH)
    assert field.abs().max() > 0.04  # a pixel or more
    return tv.elastic(image, field, interpolation=BILINEAR)


GEOMETRY: dict[str, tuple[dict[str, object], Callable[[Tensor], Tensor]]] = {
    "flip": ({"flip": True}, tv.horizontal_flip),
    "vertical flip": ({"vertical_flip": True}, tv.vertical_flip),
    "rotation": ({"angle": 25.0}, lambda x: tv.rotate(x, 25.0, interpolation=BILINEAR)),
    "rotation back": ({"angle": -70.0}, lambda x: tv.rotate(x, -70.0, interpolation=BILINEAR)),
    "half a turn": ({"turns": 2}, lambda x: tv.rotate(x, 180.0, interpolation=BILINEAR)),
    "shear": ({"shear": 20.0}, lambda x: affine(x, shear=[20.0, 0.0])),
    "shear back": ({"shear": -35.0}, lambda x: affine(x, shear=[-35.0, 0.0])),
    "enlarged": ({"zoom": 1.4}, lambda x: affine(x, scale=1.4)),
    "reduced": ({"zoom": 0.7}, lambda x: affine(x, scale=0.7)),
    "shift": ({"shift": np.array([0.1, -0.25])}, lambda x: affine(x, translate=[-14, 4])),
    "padded crop": ({"shift_px": np.array([-3, 5])}, lambda x: tv.crop(tv.pad(x, [6, 6, 6, 6]), 9, 1, HEIGHT, WIDTH)),
    "resized crop": (
        {"crop": np.array([0.2, 0.25, 0.5, 0.625])},
        lambda x: tv.resized_crop(x, 8, 14, 20, 35, [HEIGHT, WIDTH], interpolation=BILINEAR, antialias=False),
    ),
    "perspective": ({"corners": CORNERS}, perspective),
    "elastic": ({"elastic": KNOTS}, elastic),
    "shift and zoom": (
        {"shift": np.array([0.1, -0.25]), "zoom": 1.2},
        lambda x: affine(x, translate=[-14, 4], scale=1.2),
    ),
    "all of affine": (
        {"shear": 12.0, "angle": -20.0, "zoom": 1.3, "shift": np.array([0.1, -0.25])},
        lambda x: affine(x, shear=[12.0, 0.0], angle=20.0, scale=1.3, translate=[-14, 4]),
    ),
}
EDGE = {"resized crop": 2}
"""torchvision repeats a crop's last pixels where we see the image go on: half an enlarged pixel at each edge."""


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_equals_torchvision(name: str) -> None:
    changes, reference = GEOMETRY[name]
    images = smooth()
    ours, theirs = run(images, one(**changes)), reference(planes(images))
    inside = reference(torch.full_like(planes(images), 255.0)) > 254.9  # at the edge, both fade into black, each its way
    edge = EDGE.get(name, 0)
    inside[..., :edge], inside[..., WIDTH - edge :], inside[..., :edge, :], inside[..., HEIGHT - edge :, :] = (False,) * 4
    assert inside.float().mean() > 0.3
    difference = (ours - theirs).abs()[inside]
    assert difference.max() < GREY_LEVELS
    assert (ours - planes(images)).abs()[inside].mean() > 1.5  # and something happened


def test_quarter_turns_equal_torchvision_exactly_on_squares() -> None:
    images = smooth(height=24, width=24)
    for turns in (1, 2, 3):
        theirs = torch.rot90(planes(images), turns, dims=(2, 3))
        assert (run(images, one(turns=turns)) - theirs).abs().max() < 0.01
        rotated = tv.rotate(planes(images), 90.0 * turns, interpolation=InterpolationMode.NEAREST)
        torch.testing.assert_close(theirs, rotated)


@pytest.mark.parametrize("factor", [0.6, 1.3])
def test_colours_equal_torchvision(factor: float) -> None:
    images = smooth()
    x = planes(images) / 255
    for name, reference in {
        "brightness": tv.adjust_brightness,
        "contrast": tv.adjust_contrast,
        "saturation": tv.adjust_saturation,
    }.items():
        theirs = reference(x, factor) * 255
        unclipped = (theirs > 0.5) & (theirs < 254.5)  # torchvision clips, we don't
        difference = (run(images, one(**{name: factor})) - theirs).abs()[unclipped]
        assert difference.max() < 0.2, name  # its grey weights have four digits


def test_grey_equals_torchvision() -> None:
    images = smooth()
    theirs = tv.rgb_to_grayscale(planes(images), num_output_channels=3)
    assert (run(images, one(grey=True)) - theirs).abs().max() < 0.1


def test_hue_is_a_turn_in_yiq_and_keeps_greys_and_luma() -> None:
    """Against the standard library's YIQ, whose coefficients have two digits; and red goes the way it goes in HSV.

    torchvision shifts the hue in HSV, which is not linear in RGB and changes the luma: only the direction can be shared.
    """
    colours = [(150, 110, 110), (110, 150, 110), (110, 110, 150), (90, 160, 130), (128, 128, 128)]
    images = np.array(colours, dtype=np.uint8).reshape(1, 1, 5, 3)
    for degrees in (20.0, -75.0, 180.0):
        ours = run(images, one(1, hue=degrees))
        expected = [turned_in_yiq(colour, degrees) for colour in colours]
        assert (ours[0, :, 0].T - torch.tensor(expected)).abs().max() < 1.0  # grey levels
        luma = torch.tensor(augment.GREY, dtype=torch.float32)
        before, after = (torch.einsum("c,nchw->nhw", luma, x) for x in (planes(images), ours))
        torch.testing.assert_close(before, after, rtol=0, atol=0.01)
        assert (ours - planes(images))[0, :, 0, 4].abs().max() < 0.01  # the grey
    ours, theirs = run(images, one(1, hue=20.0)), tv.adjust_hue(planes(images) / 255, 20 / 360) * 255
    along = ((ours - planes(images)) * (theirs - planes(images)))[0, :, 0, :3].sum(dim=0)
    assert (along > 0).all()


def turned_in_yiq(colour: tuple[int, int, int], degrees: float) -> tuple[float, ...]:
    """The colour with its two axes of colour turned."""
    y, i, q = colorsys.rgb_to_yiq(*(c / 255 for c in colour))
    turned = complex(i, q) * cmath.exp(-1j * math.radians(degrees))
    # not yiq_to_rgb, which cuts off what leaves the range
    matrix = np.linalg.inv(np.array([colorsys.rgb_to_yiq(*unit) for unit in np.eye(3)]).T)
    return tuple(float(c) for c in 255 * (matrix @ [y, turned.real, turned.imag]))


def test_blur_equals_torchvision_away_from_the_edges() -> None:
    """Its kernel ends somewhere (here at ten standard deviations), and it does not repeat the pixel at the edge."""
    images = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    theirs = tv.gaussian_blur(planes(images), [21, 21], [1.5, 1.5])
    inside = (..., slice(10, -10), slice(10, -10))
    assert (run(images, one(blur=1.5))[inside] - theirs[inside]).abs().max() < 0.01


def test_normalisation_equals_torchvision() -> None:
    images, mean, std = smooth(), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ours = augment.apply(torch.from_numpy(images), augment.unchanged(2, mean, std))
    torch.testing.assert_close(ours, tv.normalize(planes(images) / 255, mean, std), rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)
