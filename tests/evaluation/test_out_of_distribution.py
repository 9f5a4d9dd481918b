"""OOD detection: nearest-neighbour distances, threshold, feature hashing."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.evaluation import out_of_distribution


def test_the_distance_is_the_mean_over_the_five_nearest() -> None:
    random = np.random.default_rng(0)
    bank, rows = (out_of_distribution.directions(random.normal(size=(n, 16))) for n in (40, 7))
    expected = np.sort(1 - rows @ bank.T, axis=1)[:, :5].mean(axis=1)
    np.testing.assert_allclose(out_of_distribution.distances(bank, rows), expected, atol=1e-6)


def test_an_image_is_not_compared_with_itself_or_its_cluster() -> None:
    bank = out_of_distribution.directions(np.random.default_rng(1).normal(size=(12, 8)))
    cluster = np.repeat(np.arange(4), 3)
    away = out_of_distribution.distances(bank, bank, cluster[:, None] == cluster[None, :])
    for i in range(12):
        others = np.sort((1 - bank[i] @ bank.T)[cluster != cluster[i]])[:5].mean()
        assert away[i] == pytest.approx(others, abs=1e-6)
    assert (out_of_distribution.distances(bank, bank) < away).all()
    assert np.isinf(out_of_distribution.distances(bank[:3], bank[:1], np.ones((1, 3), bool))).all()
    assert np.isfinite(out_of_distribution.distances(bank[:3], bank[:1], np.array([[True, True, False]]))).all()


def test_threshold_has_its_false_alarm_rate() -> None:
    random = np.random.default_rng(2)
    shares = []
    for _ in range(300):
        bar = out_of_distribution.ood_threshold(random.gamma(2, size=60))
        assert bar is not None
        shares.append((random.gamma(2, size=400) > bar).mean())
    assert 0.02 < np.mean(shares) <= 0.055
    assert out_of_distribution.ood_threshold(random.gamma(2, size=18)) is None
    assert out_of_distribution.ood_threshold(np.r_[random.gamma(2, size=18), np.inf]) is None


def test_hashing_of_wide_features_keeps_the_nearest_neighbours() -> None:
    random = np.random.default_rng(3)
    kinds = random.normal(size=(4, 20_000))
    values = np.repeat(kinds, 5, axis=0) + random.normal(size=(20, 20_000)) * 0.3
    folded = out_of_distribution.directions(values)
    assert folded.shape == (20, out_of_distribution.WIDTH) and folded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(folded, axis=1), 1, atol=1e-5)
    places, _ = out_of_distribution.nearest(folded, folded, 5)
    assert (places // 5 == np.arange(20)[:, None] // 5).all()
    np.testing.assert_array_equal(out_of_distribution.directions(values[:1]), folded[:1])


def test_nearest_images_are_sorted_by_distance() -> None:
    bank = out_of_distribution.directions(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    places, away = out_of_distribution.nearest(bank, out_of_distribution.directions(np.array([[1.0, 0.1]])), 9)
    assert places.tolist() == [[0, 2, 1]] and (np.diff(away[0]) > 0).all()
    assert out_of_distribution.directions(np.zeros((1, 3))).tolist() == [[0.0, 0.0, 0.0]]
