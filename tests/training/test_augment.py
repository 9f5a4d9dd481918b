"""Augmentation: drawn first as data, composed in one known order, exact where nothing changes."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sightline import store
from sightline.errors import RequestError
from sightline.schema import from_json
from sightline.training import augment
from sightline.training.augment import POLICIES, SETTINGS, Draw, Policy
from sightline.training.augment.drawing import rectangles
from sightline.training.augment.warp import farthest
from sightline.training.scratch_settings import ScratchSettings

HEIGHT, WIDTH = 40, 56
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(n: int = 2, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Images uint8 (n, h, w, 3)."""
    return np.random.default_rng(n).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def one(n: int = 2, **changes: Any) -> Draw:
    values = {name: np.broadcast_to(value, (n, *np.shape(value))) for name, value in changes.items()}
    return dataclasses.replace(augment.identity(n), **values)


def run(images: np.ndarray, drawn: Draw, *, padding: str = "reflection", principal: np.ndarray | None = None) -> Tensor:
    """The changed images as float (n, 3, h, w) on the scale 0 to 255."""
    means = images.mean(axis=(1, 2))
    changes = augment.prepare(drawn, images.shape[1:3], means, ZERO, ONE, padding=padding, principal=principal)
    return augment.apply(torch.from_numpy(images), changes) * 255


def planes(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


# ---------------------------------------------------------------------------------------------------------------- policies

FULL = Policy(
    flip=0.5,
    vertical_flip=0.5,
    quarter_turn=0.5,
    crop=0.3,
    crop_ratio=1.5,
    crop_padding=4,
    rotation=60,
    shear=20,
    zoom=0.5,
    shift=0.2,
    perspective=0.5,
    elastic=0.1,
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    hue=90,
    rgb_shift=(10, 40, 10),
    pca=0.2,
    grey=0.3,
    blur=2,
    resolution=0.3,
    noise=20,
    jpeg=20,
    erase=0.5,
)
"""Everything at once."""


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy, most of them with a few operations only."""
    chosen = draw(st.lists(st.sampled_from(list(SETTINGS)), unique=True, max_size=8))
    values: dict[str, Any] = {}
    for name in chosen:
        setting = SETTINGS[name]
        if setting.kind == "count":
            values[name] = draw(st.integers(int(setting.low), min(40, int(setting.high))))
        elif setting.kind in ("chance", "amount"):
            values[name] = draw(st.floats(setting.low, setting.high))
        else:
            pair = st.lists(st.floats(setting.low, setting.high), min_size=2, max_size=2).map(sorted).map(tuple)
            values[name] = draw(pair) if setting.kind != "channels" else tuple(draw(pair) for _ in range(3))
    return Policy(**values, padding=draw(st.sampled_from(["reflection", "border", "zeros"])))


def test_every_policy_field_is_a_setting_and_the_default_policy_is_the_identity() -> None:
    assert {field.name for field in dataclasses.fields(Policy)} == {*SETTINGS, "padding"}
    drawn = augment.draw(Policy(), 5, seed=0, epoch=0)
    for field in dataclasses.fields(Draw):
        np.testing.assert_array_equal(getattr(drawn, field.name), getattr(augment.identity(5), field.name), field.name)


def test_a_single_number_is_expanded_to_a_symmetric_range() -> None:
    policy = Policy(rotation=15, zoom=0.25, crop=0.4, crop_ratio=4 / 3, blur=2, brightness=(-0.1, 0.6), erase_area=0.1)
    assert policy.span("rotation") == (-15, 15)
    assert policy.span("zoom") == pytest.approx((-0.2, 0.25))  # as much smaller as larger
    assert policy.span("crop") == (0.4, 1)
    assert policy.span("crop_ratio") == pytest.approx((0.75, 4 / 3))
    assert policy.span("blur") == (0, 2)
    assert policy.span("brightness") == (-0.1, 0.6)
    assert policy.span("erase_area") == (0.1, 0.1)
    assert Policy(rotation=[-10, 30]) == Policy(rotation=(-10, 30))  # type: ignore[arg-type]


def test_rgb_shift_takes_ranges_or_signed_fixed_values() -> None:
    either = ((-10, 10), (-40, 40), (-10, 10))
    assert Policy(rgb_shift=[10, 40, 10]).rgb_spans() == either  # type: ignore[arg-type]
    assert Policy(rgb_shift="10,40,10").rgb_spans() == either
    assert Policy(rgb_shift=5).rgb_spans() == ((-5, 5),) * 3
    assert Policy(rgb_shift=((1, 2), (0, 0), (-3, 3))).rgb_spans() == ((1, 2), (0, 0), (-3, 3))
    fixed = augment.draw(Policy(rgb_shift="+10,-40,-10"), 3, seed=0, epoch=0)
    np.testing.assert_array_equal(fixed.rgb, [[10, -40, -10]] * 3)


@pytest.mark.parametrize(
    ("wrong", "text", "hint"),
    [
        ({"flip": 1.5}, "flip cannot be 1.5", "probability, between 0 and 1"),
        ({"flip": True}, "flip cannot be True", "probability"),
        ({"flip": (0.1, 0.2)}, "flip cannot be [0.1, 0.2]", "probability"),
        ({"rotation": -1}, "rotation cannot be -1", "[low, high], between -180 and 180 °"),
        ({"rotation": 181}, "rotation cannot be 181", "between -180 and 180"),
        ({"rotation": (30, -30)}, "rotation cannot be [30, -30]", "[low, high]"),
        ({"rotation": (1, 2, 3)}, "rotation cannot be [1, 2, 3]", "[low, high]"),
        ({"rotation": "much"}, "rotation cannot be 'much'", "give a number"),
        ({"zoom": float("nan")}, "zoom cannot be nan", "between -0.75 and 3"),
        ({"zoom": -0.2}, "zoom cannot be -0.2", "between -0.75 and 3"),
        ({"blur": -1}, "blur cannot be -1", "between 0 and 10 px"),
        ({"crop": 0}, "crop cannot be 0", "between 0.01 and 1"),
        ({"crop_ratio": 0.5}, "crop_ratio cannot be 0.5", "from 1 to 4"),
        ({"crop_padding": 1.5}, "crop_padding cannot be 1.5", "whole number between 0 and 512 px"),
        ({"perspective": (0.1, 0.2)}, "perspective cannot be", "between 0 and 0.6"),
        ({"rgb_shift": "+10,-40"}, "rgb_shift cannot be '+10,-40'", "+10,-40,-10 for a fixed shift"),
        ({"rgb_shift": "10,-40,10"}, "rgb_shift cannot be '10,-40,10'", "+10,-40,-10 for a fixed shift"),
        ({"rgb_shift": (1, 2)}, "rgb_shift cannot be [1, 2]", "one for each channel"),
        ({"rgb_shift": 300}, "rgb_shift cannot be 300", "between -255 and 255"),
        ({"padding": "reflect"}, "no padding 'reflect'", "did you mean 'reflection'?"),
    ],
)
def test_settings_out_of_range_are_refused_with_a_hint(wrong: dict[str, Any], text: str, hint: str) -> None:
    with pytest.raises(RequestError) as error:
        Policy(**wrong)
    assert text in error.value.message
    assert hint in (error.value.hint or "")


def test_the_auto_policy_is_light_for_grey_images_and_photo_for_colour() -> None:
    grey = np.repeat(noise()[..., :1], 3, axis=3)
    assert augment.policy_for("auto", grey)[0] == "light"
    assert augment.policy_for("auto", noise())[0] == "photo"
    assert augment.policy_for("none", noise()) == ("none", Policy())
    for name in ("light", "handwriting"):  # a mirrored digit is no digit
        assert POLICIES[name].flip == POLICIES[name].vertical_flip == POLICIES[name].quarter_turn == 0


def test_settings_override_those_of_a_named_policy() -> None:
    name, policy = augment.policy_for({"policy": "photo", "rotation": 30, "blur": [0, 1]}, noise())
    assert name == "photo, blur [0, 1], rotation 30"
    assert policy == dataclasses.replace(POLICIES["photo"], rotation=30, blur=(0, 1))
    assert augment.policy_for({"rotation": 0}, noise()) == (
        "photo, rotation 0",
        dataclasses.replace(POLICIES["photo"], rotation=0),
    )


def test_unknown_policies_and_settings_suggest_the_closest_name() -> None:
    with pytest.raises(RequestError, match="no augmentation policy 'foto'") as error:
        augment.policy_for("foto", noise())
    assert error.value.hint == "did you mean 'photo'?"
    with pytest.raises(RequestError, match="no setting of augmentation 'rotatoin'") as error:
        augment.policy_for({"rotatoin": 3}, noise())
    assert error.value.hint == "did you mean 'rotation'?"


def test_a_recipe_can_override_any_augmentation_setting() -> None:
    given = {"policy": "handwriting", "shear": [-5, 20], "padding": "zeros", "rgb_shift": "+10,-40,-10"}
    chosen = from_json(ScratchSettings, {"augment": given}, "settings of scratch")
    _, policy = augment.policy_for(chosen.augment, noise())
    assert policy.span("shear") == (-5, 20) and policy.padding == "zeros" and policy.rgb_spans()[1] == (-40, -40)
    assert policy.elastic == POLICIES["handwriting"].elastic


# ------------------------------------------------------------------------------------------------------------------- draws


def fields_of(drawn: Draw) -> dict[str, np.ndarray]:
    found = {field.name: getattr(drawn, field.name) for field in dataclasses.fields(Draw)}
    return {name: value for name, value in found.items() if value is not None}


def test_draws_are_a_function_of_seed_epoch_and_image() -> None:
    few, many = (augment.draw(FULL, n, seed=5, epoch=2) for n in (10, 1000))
    other_epoch, other_seed = augment.draw(FULL, 10, seed=5, epoch=3), augment.draw(FULL, 10, seed=6, epoch=2)
    for name, mine in fields_of(few).items():
        np.testing.assert_array_equal(mine, getattr(many, name)[:10], name)
        for other in (other_epoch, other_seed):
            assert not np.array_equal(mine, getattr(other, name)), name


def test_operations_draw_independently() -> None:
    drawn = augment.draw(FULL, 4000, seed=0, epoch=1)
    columns = {name: value.reshape(4000, -1) for name, value in fields_of(drawn).items() if name not in ("crop", "erase")}
    columns |= {"crop": drawn.crop[:, 2:3], "erase": drawn.erase[:, 2:3]}  # sides, as places depend on them
    together = np.concatenate([value.astype(float) for value in columns.values()], axis=1)
    correlation = np.corrcoef(together, rowvar=False) - np.eye(together.shape[1])
    assert np.abs(correlation).max() < 0.1  # by chance alone about 0.07, of ten thousand pairs


@settings(max_examples=30, deadline=None)
@given(policy=policies(), without=st.sampled_from(sorted(SETTINGS)))
def test_disabling_one_operation_leaves_the_draws_of_the_others_unchanged(policy: Policy, without: str) -> None:
    default = getattr(Policy(), without)
    whole, less = (augment.draw(p, 6, seed=1, epoch=1) for p in (policy, dataclasses.replace(policy, **{without: default})))
    differing = [name for name, value in fields_of(less).items() if not np.array_equal(value, getattr(whole, name))]
    assert len(differing) <= (2 if without == "noise" else 1)


def test_draws_of_the_photo_policy_are_reproducible_from_the_random_stream() -> None:
    """The draws are written out from the random stream, so that trainings can be reproduced."""
    drawn = augment.draw(POLICIES["photo"], 3, seed=0, epoch=1)
    u = store.stream(0, "augment", 1).random((3, 8))
    np.testing.assert_allclose(drawn.angle, 15 * (2 * u[:, 1] - 1))
    np.testing.assert_allclose(drawn.zoom, 1.25 ** (2 * u[:, 2] - 1))
    np.testing.assert_allclose(drawn.saturation, 0.7 + 0.6 * u[:, 7])
    assert drawn.flip.tolist() == (u[:, 0] < 0.5).tolist()


@pytest.mark.parametrize("policy", [*POLICIES.values(), FULL], ids=[*POLICIES, "full"])
def test_draws_span_the_whole_range_of_each_setting(policy: Policy) -> None:
    drawn = augment.draw(policy, 4000, seed=0, epoch=0)

    def fills(values: np.ndarray, low: float, high: float, name: str) -> None:
        assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6, name
        assert values.min() <= low + 0.05 * (high - low) and values.max() >= high - 0.05 * (high - low), name

    for name, field in {
        "rotation": "angle",
        "shear": "shear",
        "hue": "hue",
        "blur": "blur",
        "noise": "noise",
        "resolution": "resolution",
        "jpeg": "jpeg",
    }.items():
        fills(getattr(drawn, field), *policy.span(name), name)
    for name in ("zoom", "brightness", "contrast", "saturation"):
        low, high = policy.span(name)
        fills(getattr(drawn, name), 1 + low, 1 + high, name)
    for axis in (0, 1):
        fills(drawn.shift[:, axis], *policy.span("shift"), "shift")
        fills(drawn.shift_px[:, axis], -policy.crop_padding, policy.crop_padding, "crop_padding")
    for channel, (low, high) in enumerate(policy.rgb_spans()):
        fills(drawn.rgb[:, channel], low, high, "rgb_shift")
    fills(drawn.corners, 0, policy.perspective, "perspective")
    for name in ("flip", "vertical_flip", "grey"):
        assert abs(getattr(drawn, name).mean() - getattr(policy, name)) < 0.03, name
    assert abs((drawn.turns > 0).mean() - policy.quarter_turn) < 0.03
    assert abs((drawn.erase[:, 2] > 0).mean() - policy.erase) < 0.03
    assert abs(drawn.pca.std() - policy.pca) < 0.01
    area = drawn.crop[:, 2] * drawn.crop[:, 3]
    assert policy.span("crop")[0] * 0.6 < area.min() and area.max() <= 1 + 1e-9
    assert policy.elastic == 0 if drawn.elastic is None else abs(np.abs(drawn.elastic).max() - policy.elastic) < 1e-3


@settings(max_examples=50, deadline=None)
@given(area=st.floats(0.01, 1), ratio=st.floats(0.25, 4), down=st.floats(0, 1), right=st.floats(0, 1))
def test_rectangles_lie_inside_the_image_and_keep_area_and_ratio(area: float, ratio: float, down: float, right: float) -> None:
    top, left, height, width = rectangles(np.array([area]), np.array([ratio]), np.array([[down, right]]))[0]
    assert min(top, left) >= 0 and max(top + height, left + width) <= 1 + 1e-12
    if max(height, width) < 1:
        assert height * width == pytest.approx(area) and width / height == pytest.approx(ratio)


# ---------------------------------------------------------------------------------------------------------------- geometry


def test_the_sampling_grid_equals_that_of_torch_affine_grid() -> None:
    drawn = augment.draw(POLICIES["photo"], 9, seed=3, epoch=1)
    warp = torch.from_numpy(augment.warp_matrices(drawn, 17, 23))
    theirs = F.affine_grid(warp, [9, 3, 17, 23], align_corners=False)
    torch.testing.assert_close(augment.sampling_grid(warp, 17, 23), theirs, rtol=0, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(angle=st.floats(-180, 180), zoom=st.floats(0.5, 2), down=st.floats(-1, 1), right=st.floats(-1, 1), flip=st.booleans())
def test_the_warp_moves_the_centre_by_the_shift_and_scales_by_the_zoom(
    angle: float, zoom: float, down: float, right: float, flip: bool
) -> None:
    """Mirroring, turning and enlarging leave the centre alone; distances in pixels change by the zoom alone."""
    drawn = one(1, angle=angle, zoom=zoom, shift=np.array([down, right]), flip=flip)
    found = augment.warp_matrices(drawn, HEIGHT, WIDTH)
    matrix = np.eye(3)[:2] if found is None else found[0].astype(np.float64)
    np.testing.assert_allclose(matrix @ [2 * right, 2 * down, 1], [0, 0], atol=1e-5)
    pixels = np.diag([WIDTH, HEIGHT]) @ matrix[:, :2] @ np.diag([1 / WIDTH, 1 / HEIGHT])
    np.testing.assert_allclose(pixels @ pixels.T, np.eye(2) / zoom**2, atol=1e-4)
    assert np.sign(np.linalg.det(pixels)) == (-1 if flip else 1)


SINGLE: dict[str, dict[str, Any]] = {
    "crop": {"crop": np.array([0.1, 0.2, 0.5, 0.7])},
    "mirror": {"flip": True, "vertical_flip": True},
    "quarters": {"turns": 1},
    "shear": {"shear": 17.0},
    "rotation": {"angle": 33.0},
    "zoom": {"zoom": 1.4},
    "shift": {"shift": np.array([0.1, -0.2]), "shift_px": np.array([3, 1])},
    "perspective": {"corners": np.array([[0.3, 0.1], [0, 0.2], [0.5, 0.1], [0.2, 0.4]])},
}
"""One draw for each step, in the order in which the steps are documented to act."""


@settings(max_examples=40, deadline=None)
@given(chosen=st.sets(st.sampled_from(list(SINGLE)), min_size=1))
def test_the_warp_is_the_product_of_its_steps_in_order(chosen: set[str]) -> None:
    """The warp is the product of the matrices of the steps; the inverse applies the first step last."""

    def square(drawn: Draw) -> np.ndarray:
        found = augment.warp_matrices(drawn, HEIGHT, WIDTH)
        assert found is not None
        return found[0].astype(np.float64) if found.shape[1] == 3 else np.concatenate([found[0], [[0, 0, 1.0]]])

    steps = [name for name in SINGLE if name in chosen]
    expected = np.eye(3)
    for name in steps:
        expected = expected @ square(one(1, **SINGLE[name]))
    whole = square(one(1, **{k: v for name in steps for k, v in SINGLE[name].items()}))
    np.testing.assert_allclose(whole, expected, atol=1e-5)


def test_reflection_padding_equals_that_of_grid_sample() -> None:
    """Every position up to one image beyond the edge; positions farther away are detected."""
    drawn = augment.draw(Policy(rotation=60, zoom=0.2, shift=0.2, elastic=0.05), 64, seed=0, epoch=0)
    images = noise(64, 24, 32)
    changes = augment.prepare(drawn, (24, 32), images.mean(axis=(1, 2)), ZERO, ONE)
    grid = augment.sampling_grid(changes.warp, 24, 32, changes.elastic)
    assert changes.near and 1.5 < grid.abs().max() <= farthest(changes.warp.numpy(), drawn.elastic) <= 3
    theirs = F.grid_sample(planes(images), grid, padding_mode="reflection", align_corners=False)
    ours = augment.apply(torch.from_numpy(images), changes) * 255
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.05)  # grey levels, of noise with its steep edges
    far = dataclasses.replace(drawn, shift=drawn.shift + 1.0)
    beyond = augment.prepare(far, (24, 32), images.mean(axis=(1, 2)), ZERO, ONE)
    assert not beyond.near
    grid = augment.sampling_grid(beyond.warp, 24, 32, beyond.elastic)
    theirs = F.grid_sample(planes(images), grid, padding_mode="reflection", align_corners=False)
    torch.testing.assert_close(augment.apply(torch.from_numpy(images), beyond) * 255, theirs, rtol=0, atol=0.05)


def test_perspective_moves_the_corners_to_the_drawn_positions() -> None:
    corners = np.array([[0.3, 0.1], [0, 0.2], [0.5, 0.1], [0.2, 0.4]])
    matrix = augment.warp_matrices(one(1, corners=corners), HEIGHT, WIDTH)[0].astype(np.float64)
    for (y, x), (down, right) in zip([(-1, -1), (-1, 1), (1, 1), (1, -1)], corners, strict=True):
        moved = matrix @ [x * (1 - right), y * (1 - down), 1]
        np.testing.assert_allclose(moved[:2] / moved[2], [x, y], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n=st.just(64))
def test_the_strongest_perspective_keeps_depth_positive_at_all_corners(seed: int, n: int) -> None:
    """Depth is positive, and beyond the clamp, at all four corners of what is shown."""
    drawn = augment.draw(Policy(perspective=0.6), n, seed=seed, epoch=0)
    matrices = augment.warp_matrices(drawn, 32, 32)
    sign = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])
    at = (sign * (1 - drawn.corners))[..., ::-1]  # (x, y)
    depth = np.einsum("nj,nkj->nk", matrices[:, 2], np.concatenate([at, np.ones((n, 4, 1))], axis=2))
    assert depth.min() > 0.05


def test_elastic_displacement_is_smooth_and_bounded() -> None:
    drawn = augment.draw(Policy(elastic=0.05), 6, seed=0, epoch=0)
    knots = torch.from_numpy(drawn.elastic)
    field = augment.displacement(knots, 64, 96)
    assert 0.02 < field.abs().max() <= 0.1  # twice the fraction, as coordinates go from -1 to 1
    steps = field.diff(dim=1).abs().max(), field.diff(dim=2).abs().max()
    assert max(steps) < 2 * 0.1 * 5 / 64  # never steeper than from one end to the other within a cell
    constant = augment.displacement(torch.full((1, 2, 8, 8), 0.25), 16, 16)
    torch.testing.assert_close(constant, torch.full_like(constant, 0.5))


def test_elastic_displacement_is_added_to_the_affine_warp() -> None:
    drawn = dataclasses.replace(one(1, angle=30.0), elastic=np.full((1, 2, 8, 8), 0.05, dtype=np.float32))
    moved = dataclasses.replace(one(1, angle=30.0), shift=np.full((1, 2), -0.05))
    images = noise(1)
    torch.testing.assert_close(run(images, drawn), run(images, moved), rtol=0, atol=0.05)


# ---------------------------------------------------------------------------------------------------------------- extremes


def test_every_operation_has_extremes_that_change_an_image() -> None:
    """Settings that only shape another operation are shown with it."""
    shapes = {"crop_ratio", "elastic_cells", "erase_area"}
    assert set(augment.operations(FULL)) == {*SETTINGS} - shapes == {*augment.EXTREMES} - {"crop_ratio"}
    assert augment.operations(Policy(crop_ratio=2)) == ("crop_ratio",)
    assert augment.operations(Policy()) == ()
    images = noise(1, 32, 32)
    axes = augment.principal_colours(images)
    for policy in (FULL, Policy(crop_ratio=2), Policy(crop=0.5)):
        for name in augment.operations(policy):
            found = augment.extremes(policy, name)
            assert 1 <= len(found) <= 2, name
            pictures = [run(images, end.draw, principal=axes) for end in found]
            for picture in [planes(images), *pictures[1:]]:
                assert (picture - pictures[0]).abs().max() > 3, name  # grey levels: from the original, and from each other
            assert len({end.caption for end in found}) == len(found), name
            assert augment.in_words(policy, name)


def test_extremes_are_the_ends_of_the_range() -> None:
    policy = Policy(rotation=(-5, 40), zoom=0.25, shift=0.1, rgb_shift="+10,-40,-10", brightness=(0, 0.5), blur=2)
    ends = {name: augment.extremes(policy, name) for name in augment.operations(policy)}
    assert [e.caption for e in ends["rotation"]] == ["−5°", "+40°"]
    assert [float(e.draw.angle[0]) for e in ends["rotation"]] == [-5, 40]
    assert [e.caption for e in ends["zoom"]] == ["×0.8", "×1.25"]
    assert [e.draw.shift[0].tolist() for e in ends["shift"]] == [[-0.1, -0.1], [0.1, 0.1]]
    assert [e.draw.rgb[0].tolist() for e in ends["rgb_shift"]] == [[10, -40, -10]]
    assert [e.caption for e in ends["brightness"]] == ["×1.5"]  # the other end is the image itself
    assert [e.caption for e in ends["blur"]] == ["2 px"]
    assert augment.in_words(policy, "rgb_shift") == "+10, −40, −10 grey levels"


# ----------------------------------------------------------------------------------------------------------------- colours


def test_the_colour_matrix_is_the_product_of_its_steps_in_order() -> None:
    """Brightness, contrast about the brightened image's own mean grey, saturation, hue, shifts, grey, written out."""
    images = noise()
    axes = augment.principal_colours(images)
    steps = np.array([0.5, -1.0, 2.0])
    changes = {"brightness": 0.7, "contrast": 1.3, "saturation": 0.4, "hue": 50.0, "rgb": np.array([5.0, -9, 3]), "pca": steps}
    weights = torch.tensor(augment.GREY, dtype=torch.float32).view(3, 1, 1)
    x = planes(images) * 0.7
    x = 1.3 * x - 0.3 * (x * weights).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    x = 0.4 * x + 0.6 * (x * weights).sum(dim=1, keepdim=True)
    x = torch.einsum("dc,nchw->ndhw", torch.from_numpy(augment.hue_matrices(np.array([50.0]))[0]).float(), x)
    x += torch.tensor(np.array([5.0, -9, 3]) + axes @ steps).float().view(3, 1, 1)
    torch.testing.assert_close(run(images, one(**changes), principal=axes), x, rtol=0, atol=0.02)
    grey = (x * weights).sum(dim=1, keepdim=True).expand_as(x)
    torch.testing.assert_close(run(images, one(**changes, grey=True), principal=axes), grey, rtol=0, atol=0.02)


def test_principal_colours_are_the_scaled_principal_components_of_the_pixels() -> None:
    rng = np.random.default_rng(0)
    along, across = np.array([2.0, 2, 1]) / 3, np.array([1.0, -1, 0]) / np.sqrt(2)
    pixels = 128 + rng.normal(0, 20, (40_000, 1)) * along + rng.normal(0, 5, (40_000, 1)) * across
    axes = augment.principal_colours(pixels.round().astype(np.uint8).reshape(100, 20, 20, 3))
    np.testing.assert_allclose(axes[:, 0], 20 * along, atol=0.4)
    np.testing.assert_allclose(np.abs(axes[:, 1]), 5 * np.abs(across), atol=0.3)
    assert np.linalg.norm(axes[:, 2]) < 1  # rounding alone
    assert not augment.principal_colours(np.full((2, 4, 4, 3), 7, dtype=np.uint8)).any()
    assert not augment.principal_colours(np.zeros((0, 4, 4, 3), dtype=np.uint8)).any()


# ---------------------------------------------------------------------------------------------------- pixels: all together


def test_the_none_policy_is_exactly_the_normalisation() -> None:
    """`none` is the normalisation alone: bit for bit one multiplication and one addition."""
    images = noise()
    drawn = augment.draw(POLICIES["none"], 2, seed=0, epoch=1)
    changes = augment.prepare(drawn, (HEIGHT, WIDTH), images.mean(axis=(1, 2)), MEAN, STD)
    assert changes.warp is changes.elastic is changes.blur is changes.noise is changes.erase is None
    ours = augment.apply(torch.from_numpy(images), changes)
    assert torch.equal(ours, augment.apply(torch.from_numpy(images), augment.unchanged(2, MEAN, STD)))
    expected = (planes(images).double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(run(images, augment.identity(2)).round(), planes(images))


@settings(max_examples=40, deadline=None)
@given(policy=policies(), seed=st.integers(0, 100), side=st.sampled_from([(1, 1), (1, 7), (9, 4), (16, 16)]))
def test_any_policy_gives_finite_pixels(policy: Policy, seed: int, side: tuple[int, int]) -> None:
    images = noise(5, *side)
    drawn = augment.draw(policy, 5, seed=seed, epoch=0)
    changes = augment.prepare(
        drawn,
        side,
        images.mean(axis=(1, 2)),
        MEAN,
        STD,
        padding=policy.padding,
        principal=augment.principal_colours(images),
    )
    out = augment.apply(torch.from_numpy(images), changes)
    assert out.shape == (5, 3, *side) and out.dtype == torch.float32
    assert torch.isfinite(out).all()


@settings(max_examples=25, deadline=None)
@given(policy=policies() | st.just(FULL), n=st.integers(1, 9), chosen=st.randoms())
def test_augmentation_of_an_image_does_not_depend_on_its_batch(policy: Policy, n: int, chosen: Any) -> None:
    """Alone, in a batch, or in another order: the same pixels, but for the last bits of sums."""
    images = noise(9, 12, 16)
    drawn, means = augment.draw(policy, 9, seed=0, epoch=0), images.mean(axis=(1, 2))
    axes = augment.principal_colours(images)
    changes = augment.prepare(drawn, (12, 16), means, ZERO, ONE, padding=policy.padding, principal=axes)
    whole = augment.apply(torch.from_numpy(images), changes)
    index = np.array(chosen.sample(range(9), n))
    some = augment.apply(torch.from_numpy(images[index]), changes.rows(index))
    torch.testing.assert_close(some, whole[index], rtol=1e-5, atol=2e-4)


def test_noise_has_the_set_standard_deviation_and_is_independent_per_image() -> None:
    images = np.full((4, 64, 64, 3), 100, dtype=np.uint8)
    out = run(images, augment.draw(Policy(noise=(10, 10)), 4, seed=0, epoch=0))
    np.testing.assert_allclose(out.std(dim=(1, 2, 3)), 10, atol=0.3)
    np.testing.assert_allclose(out.mean(dim=(1, 2, 3)), 100, atol=0.4)
    correlation = np.corrcoef(out.reshape(4, -1)) - np.eye(4)
    assert np.abs(correlation).max() < 0.05
    again = run(images, augment.draw(Policy(noise=(10, 10)), 4, seed=0, epoch=0))
    assert torch.equal(out, again)


def test_blur_spreads_a_point_and_keeps_a_uniform_image() -> None:
    even = np.full((2, 20, 20, 3), 77, dtype=np.uint8)
    torch.testing.assert_close(run(even, one(2, blur=np.array(3.0))), planes(even), rtol=0, atol=1e-3)
    point = np.zeros((1, 41, 41, 3), dtype=np.uint8)
    point[0, 20, 20] = 255
    out = run(point, one(1, blur=np.array(2.0)))[0, 0].double()
    assert float(out.sum()) == pytest.approx(255, abs=0.01)
    away = torch.arange(-20, 21, dtype=torch.float64)
    assert float((out.sum(dim=0) * away.square()).sum() / 255) == pytest.approx(4.0, rel=0.01)  # the variance, in pixels²
    mixed = dataclasses.replace(augment.identity(2), blur=np.array([0.0, 2.0]))
    images = noise(2)
    torch.testing.assert_close(run(images, mixed)[0], planes(images)[0], rtol=0, atol=1e-4)  # none is none


def test_reduced_resolution_keeps_means_and_removes_detail() -> None:
    stripes = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 200
    mixed = dataclasses.replace(augment.identity(2), resolution=np.array([1.0, 0.25]))
    out = run(stripes, mixed)
    torch.testing.assert_close(out[0], planes(stripes)[0], rtol=0, atol=1e-3)
    torch.testing.assert_close(out[1, :, 4:-4, 4:-4], torch.full((3, 24, 24), 100.0), rtol=0, atol=4.0)


def test_jpeg_compression_is_that_of_pillow() -> None:
    images = noise(3, 24, 40)
    out = run(images, dataclasses.replace(augment.identity(3), jpeg=np.array([100, 10, 60])))
    torch.testing.assert_close(out[0], planes(images)[0], rtol=0, atol=1e-3)
    for i, quality in ((1, 10), (2, 60)):
        data = io.BytesIO()
        Image.fromarray(images[i]).save(data, "JPEG", quality=quality)
        torch.testing.assert_close(out[i], planes(np.array(Image.open(data))[None])[0], rtol=0, atol=1e-3)
    assert augment.in_words(Policy(jpeg=20), "jpeg") == "quality 20 to 100"
    assert augment.in_words(Policy(resolution=(0.25, 0.5)), "resolution") == "25% to 50% of each side"


def test_erasing_fills_only_the_rectangle_with_the_mean_colour() -> None:
    images = noise(2, 40, 40)
    drawn = dataclasses.replace(augment.identity(2), erase=np.array([[0.25, 0.5, 0.5, 0.25], [0, 0, 0, 0]]))
    changes = augment.prepare(drawn, (40, 40), images.mean(axis=(1, 2)), MEAN, STD)
    out = augment.apply(torch.from_numpy(images), changes)
    same = augment.apply(torch.from_numpy(images), augment.unchanged(2, MEAN, STD))
    assert not out[0, :, 10:30, 20:30].any()
    same[0, :, 10:30, 20:30] = 0
    assert torch.equal(out, same)


def test_each_padding_mode_fills_pixels_beyond_the_edge() -> None:
    images = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    images[:, :, :2] = 200  # a bright left edge
    images[:, :, 0] = 100
    shifted = one(1, shift_px=np.array([0, 3]))
    rows = {
        name: run(images, shifted, padding=name)[0, 0, 0, :4].round().tolist() for name in ("zeros", "border", "reflection")
    }
    assert rows == {"zeros": [0, 0, 0, 100], "border": [100, 100, 100, 100], "reflection": [0, 200, 100, 100]}


@pytest.mark.gpu
def test_cuda_gives_the_same_pixels_as_the_cpu() -> None:
    images = noise(9, 32, 32)
    policy = dataclasses.replace(FULL, jpeg=100.0)  # it enlarges differences in the last bit
    drawn, axes = augment.draw(policy, 9, seed=0, epoch=0), augment.principal_colours(images)
    changes = augment.prepare(drawn, (32, 32), images.mean(axis=(1, 2)), MEAN, STD, principal=axes)
    device = torch.device("cuda")
    there = augment.apply(torch.from_numpy(images).to(device), changes.to(device)).cpu()
    torch.testing.assert_close(there, augment.apply(torch.from_numpy(images), changes), rtol=1e-3, atol=5e-3)
