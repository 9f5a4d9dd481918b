"""Heatmaps worked by hand on maps of 4×4 cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sightline.explanation import gradcam_linear, gradcam_plus_plus, hirescam
from sightline.explanation.methods.patches import patch_map
from sightline.explanation.score import Score
from sightline.records import Head
from tests.explanation.fake import FakeSession

CORNER = np.zeros((4, 4), np.float32)
CORNER[0, 0] = 8
BAR = np.zeros((4, 4), np.float32)
BAR[:, 3] = 2
MAP = np.stack([CORNER, BAR])
WEIGHTS = np.array([2.0, -4.0], np.float32)
"""The mean of each channel is 8/16 = 0.5 and 8/16 = 0.5; the score 2 · 0.5 - 4 · 0.5 = -1."""


def test_gradcam_of_a_corner_and_a_bar() -> None:
    # gradients 2/16 and -4/16: the corner gets 8 · 2/16 = 1, each cell of the bar 2 · -4/16 = -0.5; in all 1 - 4 · 0.5 = -1
    expected = np.zeros((4, 4))
    expected[0, 0], expected[:, 3] = 1, -0.5
    heat = gradcam_linear(MAP, WEIGHTS)
    np.testing.assert_allclose(heat, expected, atol=1e-7)
    assert heat.sum() == pytest.approx(-1)
    gradient = np.broadcast_to((WEIGHTS / 16)[:, None, None], MAP.shape)
    np.testing.assert_allclose(hirescam(MAP, gradient), expected, atol=1e-7)


def test_hirescam_weights_each_cell_by_its_own_gradient() -> None:
    # the corner's gradient is 3, at its opposite -5: Grad-CAM would spread their mean, HiResCAM says 8 · 3 = 24 at the corner
    gradient = np.zeros_like(MAP)
    gradient[0, 0, 0], gradient[0, 3, 3], gradient[1, 1, 3] = 3, -5, 0.5
    heat = hirescam(MAP, gradient)
    assert heat[0, 0] == 24 and heat[1, 3] == 1 and np.count_nonzero(heat) == 2


def test_gradcam_plus_plus_of_a_corner_and_a_bar() -> None:
    # channel 0: g = 1/8, Σ = 8: α = g² / (2 g² + 8 g³ + 1e-6) = 1 / (2 + 8/8 + 64e-6) = 1/3.000064 in all 16 cells,
    # weight 16 · 1/8 / 3.000064 = 0.6666524; channel 1 has a gradient below zero: weight 0. Corner: 8 · 0.6666524 = 5.33322
    gradient = np.broadcast_to((WEIGHTS / 16)[:, None, None], MAP.shape)
    heat = gradcam_plus_plus(MAP, gradient)
    assert heat[0, 0] == pytest.approx(8 * 16 / 8 / 3.000064, rel=1e-6)
    assert np.count_nonzero(heat) == 1


def test_patches_equal_to_the_mean_patch_have_zero_heat() -> None:
    # channel 0 is 8 in one of 16 cells: mean 0.5. With gradient 1 everywhere the corner gets 7.5, every other cell -0.5
    heat = patch_map(CORNER[None], np.ones((1, 4, 4), np.float32))
    assert heat[0, 0] == 7.5 and (np.delete(heat.ravel(), 0) == -0.5).all()
    assert not patch_map(np.full((1, 4, 4), 3, np.float32), np.ones((1, 4, 4), np.float32)).any()


def test_an_mlp_s_plane_at_a_point() -> None:
    # hidden = relu((x0 - x1, x1 - x0)) at (3, 1): (2, 0). logits = (hidden0 + 1, 2 · hidden1). Score of class 0 in two classes:
    # x0 - x1 + 1, so the direction is (1, -1), the rest 1, and 3 - 1 + 1 = 3
    arrays = {
        "weights.0": np.array([[1, -1], [-1, 1]], np.float32),
        "bias.0": np.zeros(2, np.float32),
        "weights.1": np.array([[1, 0], [0, 2]], np.float32),
        "bias.1": np.array([1, 0], np.float32),
    }
    subject = Score(FakeSession(MAP[None]), Head("mlp", 2, {}, arrays), 0)  # type: ignore[arg-type]
    direction, rest = subject.direction(np.array([3, 1], np.float32))
    assert direction.tolist() == [1, -1] and rest == 1
    # at (1, 3) the other unit is on: hidden = (0, 2), score = 1 - 2 · (x1 - x0): direction (2, -2)
    direction, rest = subject.direction(np.array([1, 3], np.float32))
    assert direction.tolist() == [2, -2] and rest == 1


class Counting(nn.Module):
    """4×4 images: the map is the red channel doubled, the features are its mean and its value at one place."""

    layout, prefix, classifier = "nchw", 0, ""

    def map(self, x: Tensor) -> Tensor:
        """(n, 3, 4, 4) → (n, 1, 4, 4)."""
        return 2 * x[:, :1]

    def tail(self, last: Tensor) -> Tensor:
        """(n, 1, 4, 4) → (n, 2)."""
        return torch.stack([last.mean(dim=(1, 2, 3)), last[:, 0, 1, 2]], dim=1)


def test_pixels_by_hand() -> None:
    # score of class 0 against class 1: 16 · mean + 3 · (value at (1, 2)); doubled map: ∂/∂red = 2 everywhere, and 6 more there
    from sightline.explanation.methods.gradient_input import gradient_input
    from sightline.explanation.methods.integrated_gradients import integrated_gradients
    from sightline.explanation.methods.saliency import saliency
    from sightline.records import Preprocess

    session = FakeSession(np.zeros((1, 1, 4, 4), np.float32))
    session.net = Counting()
    session.preprocess = Preprocess(size=(4, 4), mean=(0.0,) * 3, std=(1.0,) * 3)
    head = Head("logistic", 2, {}, {"weights": np.array([[16, 3], [0, 0]], np.float32), "bias": np.zeros(2, np.float32)})
    image = np.zeros((4, 4, 3), np.uint8)
    image[1, 2], image[0, 0] = (255, 51, 0), (0, 255, 255)
    subject = Score(session, head, 0, image=image)  # type: ignore[arg-type]
    slope = np.full((4, 4), 2.0)
    slope[1, 2] = 8
    np.testing.assert_allclose(saliency(subject), slope, rtol=1e-6)
    only = np.zeros((4, 4))
    only[1, 2] = 8  # red is 1 there and 0 elsewhere; green and blue count for nothing
    np.testing.assert_allclose(gradient_input(subject), only, atol=1e-6)
    heat, missed = integrated_gradients(subject)
    np.testing.assert_allclose(heat, only, atol=1e-5)
    assert missed < 1e-6
