"""Paired tests: by hand, by enumeration of all cases, and compared with each other."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sightline.errors import DataError
from sightline.evaluation import holm, mcnemar, paired_bootstrap, sign_flip


def rights(both: int, only_a: int, only_b: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    a = [1] * both + [1] * only_a + [0] * only_b + [0] * none
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * none
    return np.array(a, dtype=bool), np.array(b, dtype=bool)


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 · ½
        (5, 0, 2 / 32),  # 2 · ½⁵
        (1, 9, 22 / 1024),  # 2 · (C(10,0) + C(10,1)) / 2¹⁰
        (8, 2, 112 / 1024),  # 2 · (1 + 10 + 45) / 2¹⁰
        (3, 3, 1.0),
        (12, 4, 2 * (1 + 16 + 120 + 560 + 1820) / 65536),  # binomial coefficients of 16 from Pascal's triangle
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, expected: float) -> None:
    assert mcnemar(*rights(50, only_a, only_b, 7)) == pytest.approx(expected, rel=1e-12)
    assert mcnemar(*rights(0, only_b, only_a, 0)) == pytest.approx(expected, rel=1e-12)


def test_predictions_for_different_images_cannot_be_paired() -> None:
    with pytest.raises(DataError, match="3 images cannot be paired with predictions for 4"):
        mcnemar(np.ones(3, dtype=bool), np.ones(4, dtype=bool))


@given(st.lists(st.integers(-3, 3), max_size=9))
@settings(max_examples=60, deadline=None)
def test_sign_flip_equals_enumeration(values: list[int]) -> None:
    sums = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in itertools.product((-1, 1), repeat=len(values))]
    expected = sum(abs(t) >= abs(sum(values)) for t in sums) / len(sums)
    assert sign_flip(np.array(values, dtype=np.int64)) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_sign_flip_with_one_prediction_per_image_is_mcnemar(only_a: int, only_b: int) -> None:
    a, b = rights(5, only_a, only_b, 5)
    assert sign_flip(a.astype(int) - b.astype(int)) == pytest.approx(mcnemar(a, b), abs=1e-12)


def test_interval_moves_with_the_difference_and_shrinks_with_more_images() -> None:
    few, many = (np.repeat([1.0, 0.0, -1.0], np.array([30, 60, 10]) * k) for k in (1, 16))
    (low, high), (nearer, farther) = paired_bootstrap(few), paired_bootstrap(many)
    # 0.2 ± 1.96 √((0.4 - 0.04) / 100), the normal approximation
    assert (low, high) == pytest.approx((0.0824, 0.3176), abs=0.012)
    assert farther - nearer == pytest.approx((high - low) / 4, rel=0.1)
    assert paired_bootstrap(few) == (low, high)
    assert paired_bootstrap(np.zeros(0)) == (0.0, 0.0)


def test_interval_without_differing_images_has_positive_width() -> None:
    low, high = paired_bootstrap(np.zeros(22))
    assert low == -high and high == pytest.approx(1 - 0.025 ** (1 / 22)) == pytest.approx(0.1544, abs=1e-4)
    assert paired_bootstrap(np.zeros(2000))[1] < 0.002


def test_interval_of_identical_differences_has_positive_width() -> None:
    low, high = paired_bootstrap(np.ones(5))
    assert low == pytest.approx(1 - 2 * (1 - 0.025**0.2)) and high == 1.0
    assert paired_bootstrap(np.ones(1))[0] < -0.9
    low, high = paired_bootstrap(-np.ones(500))
    assert low == -1.0 and -1 < high < -0.98


def test_sign_flip_of_many_uneven_clusters_is_fast_and_correct() -> None:
    values = np.random.default_rng(0).integers(-200, 201, 2000)
    started = time.process_time()
    p = sign_flip(values)
    assert time.process_time() - started < 5
    z = abs(values.sum()) / np.sqrt((values**2).sum())
    assert p == pytest.approx(2 * stats.norm.sf(z), rel=0.01)


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling: 0.02, 0.03, 0.06, 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
