"""Trade-off curves: values worked by hand and edge cases."""

from __future__ import annotations

import numpy as np
import pytest

from sightline import evaluation
from sightline.evaluation.ranking import influence, ranking
from sightline.records import Predictions

Y, P = np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8])


def test_accuracy_over_coverage_worked_by_hand() -> None:
    share, accuracy, level = evaluation.accuracy_coverage(np.array([1, 0, 1, 1]), np.array([0.9, 0.6, 0.6, 0.99]))
    assert share.tolist() == [0.25, 0.5, 1.0]
    assert accuracy.tolist() == [1.0, 1.0, 0.75]
    assert level.tolist() == [0.99, 0.9, 0.6]
    assert all(not len(part) for part in evaluation.accuracy_coverage(np.zeros(0, bool), np.zeros(0)))


def test_thresholds_worked_by_hand() -> None:
    c = evaluation.threshold_curve(Y, P, missed=5, alarm=1)
    assert c.threshold == pytest.approx([0.05, 0.225, 0.375, 0.6, 0.9])
    assert c.precision[:4] == pytest.approx([0.5, 2 / 3, 0.5, 1.0]) and np.isnan(c.precision[4])
    assert c.recall == pytest.approx([1, 1, 0.5, 0.5, 0])
    assert c.cost == pytest.approx([2 / 4, 1 / 4, 6 / 4, 5 / 4, 10 / 4])
    cheapest = evaluation.threshold(Predictions(("",) * 4, ("a", "b"), Y.astype(int), np.stack([1 - P, P], 1)), "b", "cost=5:1")
    assert c.threshold[np.argmin(c.cost)] == pytest.approx(cheapest)


def test_det_curve_worked_by_hand() -> None:
    fpr, fnr, _ = evaluation.det_curve(Y, P)
    assert list(zip(fpr.tolist(), fnr.tolist(), strict=True)) == [(0, 1), (0, 0.5), (0.5, 0.5), (0.5, 0), (1, 0)]


def test_both_classes_have_one_curve() -> None:
    fpr, fnr, _ = evaluation.det_curve(Y, P)
    other = evaluation.det_curve(~Y, 1 - P)
    assert sorted(zip(fpr, fnr, strict=True)) == sorted(zip(other[1], other[0], strict=True))


def test_influence_is_the_derivative_by_an_images_weight() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.random(40) < 0.4, np.round(rng.random(40), 1)
    ranked, weights, step = ranking(y, p), np.ones((1, 40)), 1e-6
    slopes = influence(ranked)
    assert slopes.sum() == pytest.approx(0, abs=1e-12)
    for i in range(40):
        near = np.repeat(weights, 2, axis=0)
        near[:, i] += (step, -step)
        up, down = ranked.scores(near)[0]
        assert slopes[i] == pytest.approx((up - down) / (2 * step), abs=1e-6)


def two(n: int, k: int = 2) -> Predictions:
    rng = np.random.default_rng(0)
    y = np.arange(n) % k
    probs = rng.random((n, k)) + np.eye(k)[y]
    return Predictions(tuple(map(str, range(n))), tuple("abcdefgh"[:k]), y, probs / probs.sum(axis=1, keepdims=True))


def test_tables_of_curves() -> None:
    p = two(3000)
    tables = evaluation.curve_tables(p, evaluation.score(p, positive="b"), "cost=5:1")
    assert list(tables) == ["roc", "det", "precision_recall", "calibration", "accuracy_coverage", "thresholds"]
    assert {row["class"] for row in tables["roc"]} == {"a", "b"} and {row["class"] for row in tables["thresholds"]} == {"b"}
    assert len(tables["precision_recall"]) == 2000  # a thousand points of each
    first, last = tables["roc"][0], tables["roc"][-1]
    assert (first["false_positive_rate"], first["true_positive_rate"], first["threshold"]) == (0.0, 0.0, "")
    assert (last["false_positive_rate"], last["true_positive_rate"]) == (1.0, 1.0)
    assert sum(row["n"] for row in tables["calibration"]) == 3000
    assert max(row["cost"] for row in tables["thresholds"]) == pytest.approx(2.5)


def test_a_class_without_images_has_no_curve() -> None:
    p = two(30, 3)
    p = p.select(p.y_true < 2)
    tables = evaluation.curve_tables(p, evaluation.score(p))
    assert {row["class"] for row in tables["roc"]} == {"a", "b"} and "thresholds" not in tables
    none = p.select(np.zeros(0, dtype=int))
    assert evaluation.curve_tables(none, evaluation.score(none)) == {}
    one = two(30).select(np.arange(0, 30, 2))
    assert list(evaluation.curve_tables(one, evaluation.score(one))) == ["calibration", "accuracy_coverage"]
