"""Confidence intervals: values worked by hand, coverage by simulation, edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sightline import evaluation
from sightline.evaluation.bootstrap_counts import draws, losses
from sightline.evaluation.intervals import auc_intervals, newcombe, with_one_mistake
from sightline.evaluation.metrics import METRICS
from sightline.evaluation.sample import sampled
from sightline.records import Predictions


def test_delong_worked_by_hand() -> None:
    # positives .35 .8 beat (1, 2) of the negatives .1 .4: placements .5 1; negatives are beaten by (2, 1) of 2: 1 .5
    # var = .125/2 + .125/2 = .125; 0.75 ± 1.959964 · 0.353553 = .0570…1 (cut)
    low, high = evaluation.auc_interval(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])) or (None, None)
    assert low == pytest.approx(0.75 - 1.959963984540054 * 0.125**0.5, abs=1e-12) and high == 1.0


def test_perfect_separation_has_an_interval_of_positive_width() -> None:
    low, high = evaluation.auc_interval(np.array([0, 0, 0, 1, 1, 1]), np.arange(6.0)) or (1.0, 1.0)
    assert high == 1.0 and 0.3 < low < 0.7
    many = np.repeat([0, 1], 500)
    low, high = evaluation.auc_interval(many, many.astype(float)) or (0.0, 0.0)
    assert high == 1.0 and 0.98 < low < 1.0


def test_one_positive_image_still_has_an_interval() -> None:
    low, high = evaluation.auc_interval(np.array([0, 0, 0, 1]), np.array([0.1, 0.2, 0.9, 0.5])) or (0.0, 0.0)
    assert 0 < low < 2 / 3 < high < 1
    assert evaluation.auc_interval(np.array([1, 1]), np.array([0.1, 0.2])) is None


def test_newcombe_is_symmetric_and_its_ends_solve_its_equation() -> None:
    low, high = newcombe(0.8, 20, 30)
    assert newcombe(0.2, 30, 20) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    for t in (low, high):
        spread = 1 + 24 * (1 - t) / (2 - t) + 24 * t / (1 + t)
        assert abs(0.8 - t) == pytest.approx(1.959963984540054 * (t * (1 - t) * spread / 600) ** 0.5, abs=1e-9)


def test_macro_interval_of_two_classes_is_delongs() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    p = np.clip(0.3 + 0.3 * y + rng.normal(0, 0.25, 60), 0, 1)
    macro = evaluation.macro_auc_interval(y, np.stack([1 - p, p], 1))
    assert macro == pytest.approx(evaluation.auc_interval(y == 1, p), abs=1e-12)


@pytest.mark.parametrize("k", [2, 4])
def test_intervals_have_their_nominal_coverage(k: int) -> None:
    rng = np.random.default_rng(1)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, k, n)
        return y, rng.normal(size=(n, k)) + np.eye(k)[y]

    y, s = sample(40_000)
    truth = float(np.mean([evaluation.auc(y == c, s[:, c]) for c in range(k)]))
    found = [evaluation.macro_auc_interval(*sample(120)) or (0.0, 0.0) for _ in range(300)]
    assert 0.91 <= np.mean([low <= truth <= high for low, high in found]) <= 0.985
    widths = [high - low for low, high in found]
    assert np.mean(widths) < 0.2


def test_wilson_at_the_edges() -> None:
    assert evaluation.wilson(0, 0) == (0.0, 1.0)
    assert evaluation.wilson(0, 10)[0] == 0.0 and evaluation.wilson(10, 10)[1] == 1.0
    # Newcombe 1998, table I, method 3: 81 of 263
    assert evaluation.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_calibration_worked_by_hand() -> None:
    correct, sure = np.array([True, False, True, True]), np.array([0.95, 0.95, 0.6, 1.0])
    curve = evaluation.calibration_curve(correct, sure, bins=10)
    assert [(b.n, round(b.accuracy, 4), round(b.confidence, 4)) for b in curve] == [(1, 1.0, 0.6), (3, 0.6667, 0.9667)]
    assert evaluation.expected_calibration_error(correct, sure, bins=10) == pytest.approx(0.25 * 0.4 + 0.75 * 0.3, abs=1e-12)
    assert evaluation.expected_calibration_error(np.zeros(0, bool), np.zeros(0)) is None


def test_a_bin_includes_its_upper_edge() -> None:
    (only,) = evaluation.calibration_curve(np.array([True]), np.array([0.2]), bins=5)
    assert (only.low, only.high) == (0.0, 0.2)


def test_equal_error_rate_worked_by_hand() -> None:
    assert evaluation.equal_error_rate(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])) == pytest.approx(0.5)
    assert evaluation.equal_error_rate(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4])) == 0.0
    assert evaluation.equal_error_rate(np.array([0, 1]), np.array([0.5, 0.5])) == pytest.approx(0.5)


@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize("share", [0.8, 1.0])
def test_accuracy_interval_equals_that_of_score(each: int, share: float) -> None:
    random = np.random.default_rng(0)
    y = np.repeat(random.integers(0, 3, 30), each)
    right = np.repeat(random.random(30) < share, each)
    probs = np.eye(3)[np.where(right, y, (y + 1) % 3)] * 0.9 + 0.1 / 3
    answers = Predictions(tuple(f"{i}.jpg" for i in range(len(y))), ("a", "b", "c"), y, probs)
    groups = np.repeat(np.arange(30), each)
    found = evaluation.score(answers, groups=groups)
    assert evaluation.accuracy_interval(answers, groups) == (found["accuracy_low"], found["accuracy_high"])
    alone = evaluation.wilson(int(right.sum()), len(y))
    assert (evaluation.accuracy_interval(answers) == pytest.approx(alone)) and (
        each == 1 or found["accuracy_low"] < alone[0] - 0.01
    )


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "share"), [((200, 10), 0.9), ((60, 60, 60, 60, 2), 0.8), ((100, 100, 5), 0.9)])
def test_a_small_class_makes_the_mean_over_classes_uncertain(sizes: tuple[int, ...], share: float) -> None:
    """Bootstrap samples of five correct predictions show no variance, which must not make the interval narrow."""
    random, held, draws = np.random.default_rng(0), 0, 100
    y, k = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    for _ in range(draws):
        answer = np.where(random.random(len(y)) < share, y, (y + random.integers(1, k, len(y))) % k)
        probs = np.full((len(y), k), 0.1 / (k - 1))
        probs[np.arange(len(y)), answer] = 0.9
        found = evaluation.score(Predictions(tuple(map(str, range(len(y)))), tuple("abcde"[:k]), y, probs))
        held += found["balanced_accuracy_low"] <= share <= found["balanced_accuracy_high"]
    assert held >= 0.89 * draws


def test_the_brier_score_of_two_classes_stays_below_one() -> None:
    wrong = Predictions(("a", "b", "c"), ("x", "y"), np.array([0, 1, 1]), np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]))
    found = evaluation.score(wrong)
    assert found["brier"] == found["brier_high"] == 1.0 and found["brier_low"] < 0.6


@pytest.mark.parametrize(("small", "few"), [(10, True), (200, False)])
def test_delong_is_widened_where_it_is_too_narrow(small: int, few: bool) -> None:
    random = np.random.default_rng(0)
    y = np.repeat([0, 1], [300, small])
    p = 1 / (1 + np.exp(-(2.0 * y - 1 + random.normal(size=len(y)))))
    told = evaluation.score(Predictions(tuple(map(str, range(len(y)))), ("a", "b"), y, np.stack([1 - p, p], 1)), positive="b")
    low, high = evaluation.auc_interval(y, p) or (0.0, 0.0)
    ends, other = (told["roc_auc_low"], told["roc_auc_high"]), newcombe(told["roc_auc"], small, 300)
    assert ends == pytest.approx((min(low, other[0]), max(high, other[1])) if few else (low, high))
    assert ("widened" in told["intervals"]["roc_auc"]) == few


def test_widened_intervals_cover_the_true_value_where_delong_s_do_not() -> None:
    random, held, plain, draws = np.random.default_rng(0), 0, 0, 200
    truth = stats.norm.cdf(1.5 * 2**0.5)
    y = np.repeat([0, 1], [190, 10])
    for _ in range(draws):
        p = 1 / (1 + np.exp(-(1.5 * (2 * y - 1) + random.normal(size=len(y)))))
        both = auc_intervals(y, np.stack([1 - p, p], 1), widened=True).each[1], evaluation.auc_interval(y, p)
        inside = [ends is not None and ends[0] <= truth <= ends[1] for ends in both]
        held, plain = held + inside[0], plain + inside[1]
    assert held >= 0.92 * draws and plain < 0.85 * draws


@pytest.mark.slow
@pytest.mark.parametrize(
    ("certainty", "spread", "temperature", "n"),
    [(1.0, 1.0, 1.0, 50), (2.5, 1.5, 3.0, 100), (5.0, 2.0, 1.0, 400), (5.0, 2.0, 3.0, 100), (5.5, 1.0, 3.0, 50)],
)
def test_intervals_of_the_log_loss_cover_the_true_value(certainty: float, spread: float, temperature: float, n: int) -> None:
    """Classifiers of accuracy 0.75 to 0.99, calibrated and, at a temperature of 3, overconfident."""
    random = np.random.default_rng(n)

    def draw(size: int) -> Predictions:
        odds = np.abs(random.normal(certainty, spread, size)) * random.choice([-1, 1], size)
        y = (random.random(size) < 1 / (1 + np.exp(-odds))).astype(np.int64)
        p = 1 / (1 + np.exp(-temperature * odds[:, None] * np.array([-1, 1])))
        return Predictions(("",) * size, ("a", "b"), y, p)

    def loss(p: Predictions) -> float:
        return float(losses(sampled(p))[0].mean())

    truth = float(np.mean([loss(draw(100_000)) for _ in range(5)]))
    held = 0
    for _ in range(200):
        sample = sampled(draw(n))
        found = losses(sample)[0]
        shares = np.concatenate([w @ found / w.sum(axis=1) for w in draws(sample, 0, 200)])
        mistake = METRICS["log_loss"].mistake
        assert mistake is not None
        ends = with_one_mistake(float(found.mean()), shares, mistake(sample), n, n / (n - 2))
        held += ends is not None and ends[0] <= truth <= ends[1]
    assert held >= 0.92 * 200 - 2.33 * (200 * 0.92 * 0.08) ** 0.5  # 92 %, but for chance
