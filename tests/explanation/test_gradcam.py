"""Grad-CAM and exact contributions on numbers small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.explanation import contribution, gradcam_linear, gradcam_tail
from sightline.explanation.score import coefficients
from sightline.records import Backbone, Preprocess
from tests.explanation.fake import FakeSession


def test_closed_form_by_hand() -> None:
    grid = np.array([[[1, 2], [3, 4]], [[0, 1], [0, 1]]], dtype=np.float32)
    heat = gradcam_linear(grid, np.array([4.0, -8.0], dtype=np.float32))
    # (4·1 - 8·0)/4, (4·2 - 8·1)/4, 4·3/4, (4·4 - 8)/4
    assert heat.tolist() == [[1, 0], [3, 2]]
    assert heat.dtype == np.float32
    assert heat.sum() == pytest.approx(np.array([4.0, -8.0]) @ grid.mean(axis=(1, 2)))


def test_the_gradient_through_a_mean_tail_equals_the_closed_form() -> None:
    random = np.random.default_rng(0)
    grid, weights = random.normal(size=(1, 6, 3, 4)).astype(np.float32), random.normal(size=6).astype(np.float32)
    through = gradcam_tail(FakeSession(grid), grid, weights)
    np.testing.assert_allclose(through, gradcam_linear(grid[0], weights), atol=1e-5)


def test_a_tail_that_squares_weights_channels_by_its_gradient() -> None:
    grid = np.array([[[[1, 3]], [[2, 2]]]], dtype=np.float32)

    def tail(maps: np.ndarray) -> np.ndarray:
        return np.asarray((maps**2).sum(axis=(2, 3)))

    heat = gradcam_tail(FakeSession(grid, False, tail), grid, np.array([1.0, -1.0], dtype=np.float32))
    # gradients 2·(1, 3) and -2·(2, 2); their means 4 and -4; heat 4·(1, 3) - 4·(2, 2)
    np.testing.assert_allclose(heat, [[-4, 4]], rtol=1e-4)


def test_the_contrast_ignores_a_constant_added_to_all_logits() -> None:
    weights = np.random.default_rng(0).normal(size=(3, 5))
    np.testing.assert_allclose(coefficients(3, 1) @ weights, coefficients(3, 1) @ (weights + 7.0), atol=1e-5)
    np.testing.assert_allclose(coefficients(2, 0) @ weights[:2], weights[0] - weights[1], atol=1e-6)
    np.testing.assert_allclose(coefficients(2, 0), -coefficients(2, 1))
    np.testing.assert_allclose(coefficients(1, 0) @ weights[:1], weights[0], atol=1e-6)


def test_shares_add_up_to_the_score_s_distance_from_the_mean_image() -> None:
    random = np.random.default_rng(0)
    last, weights, mean = random.normal(size=(3, 1, 4, 5, 3)).astype(np.float32)
    own = Backbone("pixels", "pixels", Preprocess(), 60, pool="flatten", map_shape=(3, 4, 5), layout="nhwc")
    heat = contribution(last, weights, mean, own)
    assert heat.shape == (4, 5)
    assert heat.sum() == pytest.approx(float((weights * (last - mean)).sum()), rel=1e-4)
    assert heat[1, 2] == pytest.approx(float(weights[0, 1, 2] @ (last - mean)[0, 1, 2]), rel=1e-4)
