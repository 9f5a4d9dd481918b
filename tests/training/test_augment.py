"""Augmentation: one warp and one colour matrix, drawn first, equal to torchvision's single operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from sightline.errors import RequestError
from sightline.training import augment
from sightline.training.augment import POLICIES, Draw, Policy

HEIGHT, WIDTH = 40, 56
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def smooth(n: int = 2, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Images uint8 (n, h, w, 3) without sharp edges, so that interpolation errs little, and without any symmetry."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(5 * x + 3 * y + c + i) + 0.6 * np.cos(4 * y * x - c) for i in range(n) for c in range(3)]
    planes = np.stack(waves).reshape(n, 3, height, width)
    return (127.5 + 75 * planes / np.abs(planes).max()).astype(np.uint8).transpose(0, 2, 3, 1)


def one(n: int = 2, **changes: object) -> Draw:
    values = {name: np.broadcast_to(value, (n, *np.shape(value))) for name, value in changes.items()}
    return dataclasses.replace(augment.identity(n), **values)


def run(images: np.ndarray, drawn: Draw, *, padding: str = "zeros", warp: bool = True) -> Tensor:
    """The augmented images as float (n, 3, h, w) on the scale 0 to 255."""
    height, width = images.shape[1:3]
    matrices = torch.from_numpy(augment.warp_matrices(drawn, height, width)) if warp else None
    colours = torch.from_numpy(augment.colour_matrices(drawn, images.mean(axis=(1, 2)), ZERO, ONE))
    return augment.apply(torch.from_numpy(images), matrices, colours, padding=padding) * 255


def planes(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def affine(image: Tensor, **changes: object) -> Tensor:
    arguments: dict[str, object] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return tv.affine(image, **{**arguments, **changes}, interpolation=InterpolationMode.BILINEAR)  # type: ignore[arg-type]


GEOMETRY: dict[str, tuple[dict[str, object], Callable[[Tensor], Tensor]]] = {
    "flip": ({"flip": True}, tv.horizontal_flip),
    "rotation": ({"angle": 25.0}, lambda x: tv.rotate(x, 25.0, interpolation=InterpolationMode.BILINEAR)),
    "rotation back": ({"angle": -70.0}, lambda x: tv.rotate(x, -70.0, interpolation=InterpolationMode.BILINEAR)),
    "enlarged": ({"zoom": 1.4}, lambda x: affine(x, scale=1.4)),
    "reduced": ({"zoom": 0.7}, lambda x: affine(x, scale=0.7)),
    "shift": ({"shift": np.array([0.1, -0.25])}, lambda x: affine(x, translate=[-14, 4])),
    "shift and zoom": (
        {"shift": np.array([0.1, -0.25]), "zoom": 1.2},
        lambda x: affine(x, translate=[-14, 4], scale=1.2),
    ),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_equals_torchvision(name: str) -> None:
    changes, reference = GEOMETRY[name]
    images = smooth()
    ours, theirs = run(images, one(**changes)), reference(planes(images))
    inside = reference(torch.full_like(planes(images), 255.0)) > 254.9  # at the edge, both fade into black, each its way
    assert inside.float().mean() > 0.3
    difference = (ours - theirs).abs()[inside]
    assert difference.max() < 0.05  # grey levels
    assert (ours - planes(images)).abs()[inside].mean() > 2  # and something happened


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
        difference = (run(images, one(**{name: factor}), warp=False) - theirs).abs()[unclipped]
        assert difference.max() < 0.2, name  # its grey weights have four digits


def test_colours_compose_in_their_order() -> None:
    """Brightness, then contrast about the brightened image's own mean grey, then saturation, written out."""
    images = smooth()
    ours = run(images, one(brightness=0.7, contrast=1.3, saturation=0.4), warp=False)
    weights = torch.tensor(augment.GREY, dtype=torch.float32).view(3, 1, 1)
    x = planes(images) * 0.7
    x = 1.3 * x - 0.3 * (x * weights).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    x = 0.4 * x + 0.6 * (x * weights).sum(dim=1, keepdim=True)
    torch.testing.assert_close(ours, x, rtol=0, atol=0.01)


def test_normalisation_is_part_of_the_matrix() -> None:
    images, mean, std = smooth(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    colours = augment.colour_matrices(augment.identity(2), np.zeros((2, 3)), mean, std)
    ours = augment.apply(torch.from_numpy(images), None, torch.from_numpy(colours))
    theirs = (planes(images) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_own_grid_equals_affine_grid() -> None:
    drawn = augment.draw(POLICIES["photo"], 9, seed=3, epoch=1)
    warp = torch.from_numpy(augment.warp_matrices(drawn, 17, 23))
    theirs = F.affine_grid(warp, [9, 3, 17, 23], align_corners=False)
    torch.testing.assert_close(augment.sampling_grid(warp, 17, 23), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [1, 4, 6, 9])
def test_an_image_does_not_depend_on_its_batch(n: int) -> None:
    images, drawn = smooth(n), augment.draw(POLICIES["photo"], n, seed=0, epoch=0)
    whole = run(images, drawn, padding="reflection")
    for i in range(n):
        alone = Draw(*(getattr(drawn, f.name)[i : i + 1] for f in dataclasses.fields(Draw)))
        torch.testing.assert_close(run(images[i : i + 1], alone, padding="reflection")[0], whole[i], rtol=0, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(angle=st.floats(-180, 180), zoom=st.floats(0.5, 2), down=st.floats(-1, 1), right=st.floats(-1, 1), flip=st.booleans())
def test_the_centre_goes_where_the_shift_says(angle: float, zoom: float, down: float, right: float, flip: bool) -> None:
    """Mirroring, turning and enlarging leave the centre alone; distances in pixels change by the zoom alone."""
    drawn = one(1, angle=angle, zoom=zoom, shift=np.array([down, right]), flip=flip)
    matrix = augment.warp_matrices(drawn, HEIGHT, WIDTH)[0].astype(np.float64)
    np.testing.assert_allclose(matrix @ [2 * right, 2 * down, 1], [0, 0], atol=1e-5)
    pixels = np.diag([WIDTH, HEIGHT]) @ matrix[:, :2] @ np.diag([1 / WIDTH, 1 / HEIGHT])
    np.testing.assert_allclose(pixels @ pixels.T, np.eye(2) / zoom**2, atol=1e-4)
    assert np.sign(np.linalg.det(pixels)) == (-1 if flip else 1)


def test_draws_are_a_function_of_seed_epoch_and_image() -> None:
    few, many = (augment.draw(POLICIES["photo"], n, seed=5, epoch=2) for n in (10, 1000))
    other_epoch = augment.draw(POLICIES["photo"], 10, seed=5, epoch=3)
    for field in dataclasses.fields(Draw):
        mine = getattr(few, field.name)
        np.testing.assert_array_equal(mine, getattr(many, field.name)[:10])
        assert not np.array_equal(mine, getattr(other_epoch, field.name))


@pytest.mark.parametrize("name", POLICIES)
def test_draws_stay_in_their_ranges(name: str) -> None:
    policy = POLICIES[name]
    drawn = augment.draw(policy, 2000, seed=0, epoch=0)
    assert abs(drawn.flip.mean() - policy.flip) < 0.05
    assert np.abs(drawn.angle).max() <= policy.rotation
    assert np.abs(drawn.shift).max() <= policy.shift
    assert 1 / (1 + policy.zoom) <= drawn.zoom.min() and drawn.zoom.max() <= 1 + policy.zoom
    for field in ("brightness", "contrast", "saturation"):
        assert np.abs(getattr(drawn, field) - 1).max() <= getattr(policy, field)
    if policy.rotation:
        assert np.abs(drawn.angle).max() > 0.9 * policy.rotation


def test_policy_is_chosen_by_the_images() -> None:
    grey = np.repeat(smooth()[..., :1], 3, axis=3)
    assert augment.policy_for("auto", grey)[0] == "light"
    assert augment.policy_for("auto", smooth())[0] == "photo"
    assert augment.policy_for("none", smooth()) == ("none", Policy())
    assert POLICIES["light"].flip == 0  # a mirrored digit is no digit


@pytest.mark.parametrize(("wrong", "text"), [({"flip": 1.5}, "flip cannot be 1.5"), ({"rotation": -1}, "rotation")])
def test_ranges_are_checked(wrong: dict[str, float], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        Policy(**wrong)  # type: ignore[arg-type]


def test_unknown_policy() -> None:
    with pytest.raises(RequestError, match="no augmentation policy 'foto'") as error:
        augment.policy_for("foto", smooth())
    assert error.value.hint == "did you mean 'photo'?"
