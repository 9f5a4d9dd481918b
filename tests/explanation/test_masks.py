"""Random masks: exact for linear scores, joint effects of cells, and equal results by product and by tail."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.explanation.methods.masks import MASKS, PENALTY, cell_masks, hidden_value, mask_table
from tests.explanation.fake import FakeSession, mean_tail


def test_masks_come_in_complements_and_depend_on_the_seed() -> None:
    shown, solver = mask_table(4, 3, 0)
    assert shown.shape == (MASKS, 12) and solver.shape == (12, MASKS)
    np.testing.assert_array_equal(shown[: MASKS // 2] + shown[MASKS // 2 :], 1)
    np.testing.assert_allclose(solver.sum(axis=1), 0, atol=1e-12)
    assert not np.array_equal(shown, mask_table(4, 3, 1)[0])
    mask_table.cache_clear()
    np.testing.assert_array_equal(shown, mask_table(4, 3, 0)[0])


def test_a_linear_score_gives_each_cell_s_share() -> None:
    grid = np.random.default_rng(0).normal(size=(1, 8, 5, 5)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=8)
    heat = cell_masks(FakeSession(grid), grid, lambda features: features @ weights)
    expected = np.einsum("chw,c->hw", grid[0], weights) / 25
    np.testing.assert_allclose(heat, expected, atol=0.12 * np.abs(expected).max())  # the ridge draws a tenth towards zero
    shown, _ = mask_table(5, 5, 0)
    centred = shown - shown.mean(axis=0)
    exact = np.linalg.solve(centred.T @ centred + PENALTY * np.eye(25), centred.T @ (shown @ expected.ravel()))
    np.testing.assert_allclose(heat.ravel(), exact, atol=1e-5)


def test_one_product_and_the_tail_in_batches_agree() -> None:
    grid = np.random.default_rng(0).normal(size=(1, 6, 13, 7)).astype(np.float32)

    def answer(features: np.ndarray) -> np.ndarray:
        return np.tanh(features[:, 0] * 3 - features[:, 1])

    slow = FakeSession(grid, tail_is_mean=False)
    by_tail = cell_masks(slow, grid, answer)
    assert by_tail.shape == (10, 7) and slow.tails == -(-MASKS // 32)
    np.testing.assert_allclose(cell_masks(FakeSession(grid), grid, answer), by_tail, atol=1e-5)
    mean = np.linspace(-1, 1, 6, dtype=np.float32)
    pooled = cell_masks(FakeSession(grid), grid, answer, mean=mean)
    assert not np.allclose(pooled, by_tail, atol=1e-3)
    flat = FakeSession(grid, False, lambda m: m.reshape(len(m), -1), pool="flatten")

    def flat_answer(features: np.ndarray) -> np.ndarray:
        return answer(features.reshape(-1, 6, 13 * 7).mean(axis=2))

    spread = np.repeat(mean, 13 * 7)
    np.testing.assert_allclose(cell_masks(flat, grid, flat_answer, mean=spread), pooled, atol=1e-5)


def test_a_vote_that_no_single_cell_turns_is_seen() -> None:
    """Three cells hold the evidence, any one is enough: hiding one at a time changes nothing."""
    grid = np.zeros((1, 1, 6, 6), dtype=np.float32)
    evidence = [(0, 1), (3, 3), (5, 0)]
    for row, column in evidence:
        grid[0, 0, row, column] = 36.0

    def answer(features: np.ndarray) -> np.ndarray:
        return (features[:, 0] > 0.5).astype(np.float64)

    alone = np.repeat(grid, 36, axis=0)
    alone.reshape(36, 36)[np.arange(36), np.arange(36)] = 0
    assert np.all(answer(mean_tail(alone)) == 1)
    heat = cell_masks(FakeSession(grid), grid, answer)
    hottest = {tuple(int(v) for v in np.unravel_index(i, heat.shape)) for i in np.argsort(-heat.ravel())[:3]}
    assert hottest == set(evidence)


def test_hidden_cells_are_filled_with_the_training_mean_of_the_map() -> None:
    grid = np.random.default_rng(0).normal(size=(1, 4, 3, 3)).astype(np.float32)
    mean = np.array([1, 2, 3, 4], dtype=np.float32)
    assert hidden_value(FakeSession(grid), grid, mean).ravel().tolist() == [1, 2, 3, 4]
    assert not hidden_value(FakeSession(grid), grid, None).any()
    # Features behind a layer of the tail's own are no map: their mean is not put into one.
    assert not hidden_value(FakeSession(grid, False), grid, mean).any()


def test_a_constant_score_gives_a_zero_heatmap() -> None:
    grid = np.ones((1, 2, 4, 4), dtype=np.float32)
    heat = cell_masks(FakeSession(grid), grid, lambda features: np.full(len(features), 0.7))
    assert np.abs(heat).max() == pytest.approx(0, abs=1e-12)
