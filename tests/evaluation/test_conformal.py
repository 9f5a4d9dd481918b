"""Conformal prediction sets: coverage by simulation, minimum numbers of images, unsure predictions."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.errors import DataError, RequestError
from sightline.evaluation import conformal


def answers(n: int, seed: int, classes: int = 5, sharp: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Return overconfident probabilities, and labels drawn from calibrated ones."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, classes)) * sharp
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = np.array([random.choice(classes, p=p) for p in honest])
    wrong = np.exp(2 * logits)
    return wrong / wrong.sum(axis=1, keepdims=True), y


@pytest.mark.slow
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [100, 400])
def test_mean_coverage_is_within_one_percent_of_the_target(coverage: float, n: int) -> None:
    probs, y = answers(60_000, seed=1)
    random, shares = np.random.default_rng(2), []
    for _ in range(400):
        rows = random.integers(0, len(y), n + 500)
        bars = conformal.fit(probs[rows[:n]], y[rows[:n]], coverage)
        chosen = conformal.sets(probs[rows[n:]], bars)
        shares.append(chosen[np.arange(500), y[rows[n:]]].mean())
    assert abs(np.mean(shares) - coverage) < 0.01


def test_thresholds_by_class_give_a_rare_class_its_coverage() -> None:
    random, n = np.random.default_rng(0), 40_000
    y = (random.random(n) < 0.1).astype(int)
    likely = 1 / (1 + np.exp(-(np.where(y == 1, -0.5, -3.0) + random.normal(size=n))))
    probs = np.stack([1 - likely, likely], axis=1)
    half = n // 2
    rare = {}
    for by_class in (False, True):
        bars = conformal.fit(probs[:half], y[:half], 0.9, by_class=by_class)
        rare[by_class] = conformal.measured(conformal.sets(probs[half:], bars), y[half:])["per_class"][1]
    assert rare[False] < 0.6 and abs(rare[True] - 0.9) < 0.02


def test_too_few_images_give_infinite_thresholds() -> None:
    probs, y = answers(18, seed=3)
    assert conformal.needed(0.95) == 19
    bars = conformal.fit(probs, y, 0.95)
    assert np.isinf(bars).all() and conformal.sets(probs, bars).all()
    assert np.isfinite(conformal.fit(probs, y, 0.9)).all()
    assert np.isinf(conformal.fit(probs[:0], y[:0], 0.5)).all()


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.975, 0.99])
def test_needed_is_the_minimum_number_of_images(coverage: float) -> None:
    n = conformal.needed(coverage)
    assert np.isfinite(conformal.quantile(np.linspace(0, 1, n), coverage))
    assert n == 0 or np.isinf(conformal.quantile(np.linspace(0, 1, n - 1), coverage))


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, 95.0, float("nan")])
def test_invalid_coverage_is_refused(coverage: float) -> None:
    with pytest.raises(RequestError, match="coverage of prediction sets cannot be"):
        conformal.quantile(np.zeros(100), coverage)


def test_images_without_a_label_cannot_calibrate() -> None:
    probs, y = answers(30, seed=4)
    with pytest.raises(DataError, match="29 labels"):
        conformal.fit(probs, np.r_[y[:29], -1], 0.9)


def test_tied_scores_are_all_in_the_set() -> None:
    """Ties increase coverage, they never reduce it."""
    probs = np.tile([0.6, 0.4], (50, 1))
    y = np.repeat([0, 1], 25)
    assert conformal.sets(probs, conformal.fit(probs, y, 0.9)).all()


def test_unsure_predictions_are_neither_alone_in_their_set_nor_confident() -> None:
    probs = np.array([[0.99, 0.01], [0.97, 0.03], [0.90, 0.10], [0.55, 0.45]])
    y = probs.argmax(axis=1)
    strict, wide = conformal.sets(probs, 0.02), conformal.sets(probs, 0.6)
    assert conformal.unsure(probs, y, strict).tolist() == [False, False, True, True]  # the bar at 0.98 spares 0.97
    assert conformal.unsure(probs, y, wide).tolist() == [False, False, False, True]
    assert conformal.unsure(probs, y, wide, 0.92).tolist() == [False, False, True, True]
    assert conformal.unsure(probs, 1 - y, wide).tolist() == [True, True, True, True]  # answered by a threshold against it


@pytest.mark.parametrize(("sharp", "wish"), [(1.0, 0.6), (1.5, 0.8), (3.0, 0.95)])
def test_predictions_that_are_not_unsure_reach_the_target_accuracy(sharp: float, wish: float) -> None:
    """This also holds for a classifier that is overconfident and mostly wrong."""
    probs, y = answers(6_000, seed=7, sharp=sharp)
    y_pred = probs.argmax(axis=1)
    likely, right = probs.max(axis=1), y_pred == y
    random, hits, count = np.random.default_rng(8), 0, 0
    for _ in range(100):
        rows = random.integers(0, len(y), 1_300)
        held, asked = rows[:300], rows[300:]
        bar = conformal.confidence_threshold(likely[held], right[held], wish)
        kept = likely[asked] >= bar
        hits, count = hits + int(right[asked][kept].sum()), count + int(kept.sum())
    assert count > 1_000 and hits / count > wish - 0.01
    assert right.mean() > wish or conformal.confidence_threshold(likely, right, wish) > likely.min()


def test_confidence_threshold_keeps_ties_together_and_needs_enough_images() -> None:
    likely, right = np.repeat([0.9, 0.6], 40), np.r_[np.ones(40, bool), np.zeros(20, bool), np.ones(20, bool)]
    assert conformal.confidence_threshold(likely, right, 0.95) == 0.9
    assert conformal.confidence_threshold(likely, right[::-1], 0.95) == np.inf
    assert conformal.confidence_threshold(np.full(31, 0.9), np.ones(31, bool), 0.95) == np.inf
    assert conformal.confidence_threshold(np.full(32, 0.9), np.ones(32, bool), 0.95) == 0.0
    assert conformal.confidence_threshold(likely[:0], right[:0], 0.95) == np.inf


def test_measured_coverage_and_sizes_are_counted() -> None:
    chosen = np.array([[True, False], [True, True], [False, False], [False, True]])
    told = conformal.measured(chosen, np.array([0, 0, 0, 0]))
    assert (told["n"], told["covered"], told["mean_size"], told["single"], told["empty"]) == (4, 0.5, 1.0, 0.5, 0.25)
    assert told["per_class"] == [0.5, None]
    assert told["covered_low"] < 0.5 < told["covered_high"]
    assert conformal.measured(chosen[:0], np.zeros(0, int))["covered"] is None
