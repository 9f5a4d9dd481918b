"""Heatmaps of ensembles: sums are kept, grids and boxes may differ, neutral cells count as 0."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.explanation import combine
from sightline.records import Explanation


def heat(values: list[list[float]], box: tuple[float, float, float, float] = (0, 0, 12, 12), neutral: float = 0) -> Explanation:
    return Explanation("a.jpg", "cat", "gradcam", "last map", np.array(values, dtype=np.float32), box, neutral)


def test_equal_grids_are_added_cell_by_cell() -> None:
    one, other = heat([[1, 2], [3, 4]]), heat([[10, 0], [0, -10]])
    np.testing.assert_allclose(combine([one, other], [1, 0.5]).heat, [[6, 2], [3, -1]])


def test_coarser_heatmaps_are_resampled_with_the_same_sum() -> None:
    found = combine([heat([[0] * 3] * 3), heat([[9.0]])], [1, 2])
    np.testing.assert_allclose(found.heat, np.full((3, 3), 2.0))
    uneven = combine([heat([[0] * 3] * 3), heat([[1, 2], [3, 4]])], [1, 1])
    assert uneven.heat.sum() == pytest.approx(10) and uneven.heat[0, 0] == pytest.approx(1 * (2 / 3) ** 2)


def test_pixels_outside_the_input_of_a_member_are_neutral() -> None:
    whole, centre = heat([[0] * 4] * 4), heat([[8.0]], box=(3, 3, 6, 6))
    found = combine([whole, centre], [1, 1])
    assert found.box == (0, 0, 12, 12) and found.heat.sum() == pytest.approx(8)
    np.testing.assert_allclose(found.heat[1:3, 1:3], 2.0)
    assert not found.heat[0].any() and not found.heat[:, 3].any()


def test_neutral_values_become_zero() -> None:
    found = combine([heat([[5, 7]], neutral=5), heat([[1, 1]])], [1, 1])
    assert found.neutral == 0
    np.testing.assert_allclose(found.heat, [[1, 3]])
