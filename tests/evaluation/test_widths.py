"""Widths of intervals: many classes, independent groups, imbalanced and rare classes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from sightline import evaluation
from sightline.evaluation.clusters import cautious_correlation, effective_sample_size, intraclass_correlation
from sightline.evaluation.intervals import auc_intervals, newcombe
from sightline.evaluation.ranking import ranking
from sightline.records import Predictions

NAMES = "abcdefghij"


def drawn(random: np.random.Generator, sizes: tuple[int, ...], skill: float) -> Predictions:
    """Return softmax probabilities of normal scores, with that of the label shifted."""
    k, y = len(sizes), np.repeat(np.arange(len(sizes)), sizes)
    scores = random.normal(size=(len(y), k))
    scores[np.arange(len(y)), y] += skill
    probs = np.exp(scores)
    return Predictions(("",) * len(y), tuple(NAMES[:k]), y, probs / probs.sum(axis=1, keepdims=True))


def width(s: dict[str, Any], name: str) -> float:
    return float(s[f"{name}_high"] - s[f"{name}_low"])


@pytest.mark.parametrize(("k", "each", "skill"), [(2, 800, 2.1), (10, 100, 2.8)])
def test_areas_near_one_have_delongs_interval_where_many_images_are_misordered(k: int, each: int, skill: float) -> None:
    p = drawn(np.random.default_rng(0), (each,) * k, skill)
    s = evaluation.score(p, positive=NAMES[k - 1])
    assert max(row["roc_auc"] for row in s["per_class"].values()) > 0.975
    if k == 2:
        plain = evaluation.auc_interval(p.y_true == 1, p.probs[:, 1])
    else:
        plain = evaluation.macro_auc_interval(p.y_true, p.probs)
    assert (s["roc_auc_low"], s["roc_auc_high"]) == pytest.approx(plain, abs=1e-12)
    assert "widened" not in s["intervals"]["roc_auc"]


def test_the_widening_fades_as_images_grow_in_number() -> None:
    random, before = np.random.default_rng(0), 1.0
    y, score = (
        np.repeat([0, 1], 50),
        np.repeat([0.0, 1.9], 50) + random.normal(size=100),
    )  # 4 of 50 images' effective_sample_size are misordered
    excess = []
    for times in (1, 2, 3, 10):
        found = auc_intervals(np.tile(y, times), np.tile(score, times)[:, None], first=1, widened=True)
        low, plain = found.each[0], evaluation.auc_interval(np.tile(y, times), np.tile(score, times))
        assert low is not None and plain is not None and low[0] <= plain[0]
        assert found.widened[0] <= before
        before = found.widened[0]
        excess.append(found.widened[0])
    assert excess[0] > 0 and excess[-1] == 0 and 0 < excess[0] < 1


def test_the_mean_of_areas_near_one_covers_the_true_value_and_averages_the_widening() -> None:
    random, k, held, plain, wide = np.random.default_rng(0), 6, 0, 0, []
    whole = drawn(random, (20_000,) * k, 3.2)
    truth = float(np.mean([evaluation.auc(whole.y_true == c, whole.probs[:, c]) for c in range(k)]))
    assert 0.99 < truth < 0.998
    for _ in range(150):
        p = drawn(random, (12,) * k, 3.2)
        found, own = auc_intervals(p.y_true, p.probs, widened=True), evaluation.macro_auc_interval(p.y_true, p.probs)
        assert found.mean is not None and own is not None
        held, plain = held + (found.mean[0] <= truth <= found.mean[1]), plain + (own[0] <= truth <= own[1])
        areas = [float(evaluation.auc(p.y_true == c, p.probs[:, c]) or 0) for c in range(k)]
        mean_of_each = float(np.mean([np.diff(newcombe(a, 12, 12 * (k - 1)))[0] for a in areas]))
        wide.append((found.mean[1] - found.mean[0]) / mean_of_each)
    assert held >= 0.94 * 150 > plain
    assert np.mean(wide) < 0.65


def test_one_small_class_still_makes_the_mean_area_uncertain() -> None:
    random, held = np.random.default_rng(1), 0
    sizes = (100, 100, 5)
    whole = drawn(random, (20_000, 20_000, 1_000), 2.0)
    truth = float(np.mean([evaluation.auc(whole.y_true == c, whole.probs[:, c]) for c in range(3)]))
    for _ in range(150):
        p = drawn(random, sizes, 2.0)
        low, high = auc_intervals(p.y_true, p.probs, widened=True).mean or (0.0, 0.0)
        held += low <= truth <= high
    assert held >= 0.93 * 150


def test_groups_without_dependence_cost_little_in_every_metric() -> None:
    random, names = np.random.default_rng(0), ("balanced_accuracy", "weighted_precision", "eer", "roc_auc", "pr_auc")
    ratios: dict[str, list[float]] = {name: [] for name in ("accuracy", *names)}
    for _ in range(5):
        p = drawn(random, (150, 150), 1.6)
        alone, together = evaluation.score(p, positive="b"), evaluation.score(p, positive="b", groups=np.arange(300) % 30)
        for name in ratios:
            ratios[name].append(width(together, name) / width(alone, name))
    assert all(np.mean(r) < 1.35 for r in ratios.values()), ratios


def test_fully_correlated_groups_count_once_in_a_mean_over_classes() -> None:
    random = np.random.default_rng(0)
    p = drawn(random, (40, 10), 2.5)
    copies = np.repeat(np.arange(50), 6)
    alone, together = evaluation.score(p, positive="b"), evaluation.score(p.select(copies), positive="b", groups=copies)
    for name in ("balanced_accuracy", "weighted_precision", "eer", "pr_auc", "roc_auc"):
        assert width(together, name) == pytest.approx(width(alone, name), rel=0.2), name


@pytest.mark.parametrize("sizes", [(490, 10), (950, 50), (400, 400, 10)])
def test_weighted_precision_weighs_by_images(sizes: tuple[int, ...]) -> None:
    s = evaluation.score(drawn(np.random.default_rng(0), sizes, 2.0))
    assert width(s, "weighted_precision") < 1.3 * width(s, "accuracy")


def test_the_average_precision_of_a_frequent_class_has_a_narrow_interval() -> None:
    frequent, rare = (evaluation.score(drawn(np.random.default_rng(0), (490, 10), 1.5), positive=c) for c in "ab")
    assert width(frequent, "pr_auc") < 0.03 < 0.1 < width(rare, "pr_auc")


def test_rare_positives_of_long_sets_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(8)
    y = np.repeat([1, 0], [20, 3_000])
    p = 1 / (1 + np.exp(-(2.6 * (2 * y - 1) + random.normal(size=len(y)))))
    answers = Predictions(("",) * len(y), ("a", "b"), y, np.stack([1 - p, p], 1))
    exact = evaluation.score(answers, positive="b")
    monkeypatch.setattr("sightline.evaluation.resampling.MOST_EXACT", 3_000)
    monkeypatch.setattr("sightline.evaluation.resampling.BINS", 200)
    binned = evaluation.score(answers, positive="b")
    assert "200 bins" in binned["intervals"]["pr_auc"] and "bins" not in exact["intervals"]["pr_auc"]
    assert float(binned["intervals"]["pr_auc"].rpartition(" ")[2].rstrip(")")) < 1e-9
    for end in ("pr_auc_low", "pr_auc_high"):
        assert binned[end] == pytest.approx(exact[end], abs=1e-9)


@pytest.mark.parametrize(("positives", "others"), [(20, 5000), (5000, 20), (2500, 2500)])
def test_bins_weight_both_kinds_equally_and_keep_ties_together(positives: int, others: int) -> None:
    random = np.random.default_rng(0)
    y = np.repeat([True, False], [positives, others])
    score = np.round(y * 1.5 + random.normal(size=len(y)), 4)
    whole, binned = ranking(y, score), ranking(y, score, 200)
    assert len(binned.start) <= 201 and set(binned.start) <= set(whole.start)
    ones = np.ones((1, len(y)))
    (exact, _, _), (coarse, _, _) = whole.scores(ones), binned.scores(ones)
    assert coarse[0] == pytest.approx(exact[0], abs=1e-12 if positives == 20 else 5e-3)
    found, passed = (np.diff(one[0], prepend=0.0) for one in binned.levels(ones))
    if positives > 100:
        assert found.max() <= positives / 100 + 2
    if others > 100:
        assert passed.max() <= others / 100 + 2


def test_intraclass_correlation_and_effective_sample_size_worked_by_hand() -> None:
    # pairs (1, 1), (0, 0), (1, 0): mean 1/2; sums in groups 1, -1, 0: (2 - 6/4) / 6 / (1/4) = 1/3, left = 1/9,
    # below = 1 - 1/9 · (12/6 - 1) = 8/9: (1/3 + 1/9) / (8/9) = 1/2
    unit = np.array([0, 0, 1, 1, 2, 2])
    assert intraclass_correlation(np.array([1, 1, 0, 0, 1, 0]), unit) == pytest.approx(0.5)
    assert cautious_correlation(np.array([1, 1, 0, 0, 1, 0]), unit) == pytest.approx((3 * 0.5 + 1) / 4)
    assert intraclass_correlation(np.zeros(6), unit) == 1.0 and intraclass_correlation(np.arange(6), np.arange(6)) == 0.0
    assert intraclass_correlation(np.arange(6), np.zeros(6, dtype=int)) == 1.0
    assert effective_sample_size(np.ones(6), unit, 0.5) == pytest.approx(6 / 1.5)
    weights = np.repeat([1 / 4, 1 / 2], [4, 2])  # classes of 4 and 2 images: 2² / (1/4 + 1/2)
    assert effective_sample_size(weights, None) == pytest.approx(16 / 3)
    assert effective_sample_size(weights, unit) == pytest.approx(4 / (0.25 + 0.25 + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            effective_sample_size(np.zeros(0), np.zeros(0, dtype=int)) == 0.0
            and intraclass_correlation(np.zeros(0), np.zeros(0, dtype=int)) == 1.0
        )
