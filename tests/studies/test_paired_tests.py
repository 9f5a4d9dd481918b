"""Paired tests of settings, and the optimism of a selection."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.errors import DataError
from sightline.records import Predictions
from sightline.studies import paired_tests


def answers(paths: str, right: str) -> Predictions:
    """Return predictions with one letter per path; 1 is a correct prediction."""
    probs = np.array([[0.9, 0.1] if r == "1" else [0.1, 0.9] for r in right])
    return Predictions(tuple(paths), ("x", "y"), np.zeros(len(paths), dtype=np.int64), probs)


def test_predictions_are_paired_by_path_in_any_order() -> None:
    right, paths = paired_tests.paired([answers("abcd", "1100"), answers("dcbe", "1011")])
    assert paths == ("b", "c", "d")
    np.testing.assert_array_equal(right, [[1, 0, 0], [1, 0, 1]])
    with pytest.raises(DataError, match="no held-out image was predicted by every fit"):
        paired_tests.paired([answers("ab", "11"), answers("cd", "11")])


def test_differences_equal_the_worked_example() -> None:
    # 12 images; b wrong on six that a has, c as a.
    a, b = np.ones((1, 12), dtype=bool), np.arange(12)[None] >= 6
    found = paired_tests.differences(np.stack([a, b, a]))
    assert [(d.a, d.b, d.difference) for d in found] == [(0, 1, 0.5), (0, 2, 0.0), (1, 2, -0.5)]
    assert [d.p for d in found] == pytest.approx([2 / 64, 1, 2 / 64])
    assert [d.p_corrected for d in found] == pytest.approx([6 / 64, 1, 6 / 64])  # three tests: 3 · 2/64, and not below it
    assert not any(d.told_apart for d in found)
    turned = paired_tests.against(found, 1)
    assert [(d.a, d.b, d.difference, d.by_seed) for d in turned] == [(1, 0, -0.5, (-0.5,)), (1, 2, -0.5, (-0.5,))]
    assert turned[0].low == -found[0].high


def test_several_seeds_do_not_increase_the_number_of_images() -> None:
    a, b = np.ones((1, 12), dtype=bool), np.arange(12)[None] >= 6
    one = paired_tests.differences(np.stack([a, b]))[0]
    three = paired_tests.differences(np.stack([np.repeat(a, 3, axis=0), np.repeat(b, 3, axis=0)]))[0]
    assert (three.p, three.difference, three.low, three.high) == (one.p, one.difference, one.low, one.high)
    assert three.by_seed == (0.5, 0.5, 0.5)


def test_the_optimism_of_the_best_of_many_equal_settings_is_estimated() -> None:
    draws = np.random.default_rng(0)
    sets = [draws.random((40, 240)) < 0.8 for _ in range(12)]  # of 40 trials that are all as good as one another
    seen = [paired_tests.optimism(right, np.zeros(40)) for right in sets]
    # The expected maximum of 40 normal variables is 2.16 standard deviations above their mean.
    expected = 2.16 * np.sqrt(0.8 * 0.2 / 240)
    assert np.mean([s.optimism for s in seen]) == pytest.approx(expected, rel=0.1)
    assert abs(np.mean([s.gain for s in seen])) < 0.02
    assert paired_tests.optimism(sets[0], np.zeros(40)) == seen[0]


def test_a_truly_better_setting_keeps_its_gain() -> None:
    draws = np.random.default_rng(1)
    right = draws.random((2, 400)) < np.array([[0.6], [0.9]])
    seen = paired_tests.optimism(right, np.zeros(2))
    assert seen.gain == pytest.approx(right[1].mean() - right[0].mean(), abs=0.01)
    assert seen.optimism < 0.005


def test_ties_in_accuracy_are_decided_by_log_loss() -> None:
    right = np.ones((3, 20), dtype=bool)
    assert paired_tests.optimism(right, [3.0, 1.0, 2.0]).optimism == 0
    assert paired_tests.optimism(right[:1], [1.0]) == paired_tests.SelectionOptimism(0.0, 0.0, 1, 20)
