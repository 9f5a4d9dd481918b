"""Contract of every metric: direction, interval around the value, None with a reason, independence of the order of rows."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from sightline import evaluation
from sightline.evaluation import CLASS_METRICS, METRICS
from sightline.records import Predictions

ALL = [*METRICS, *(f"per_class.{name}" for name in CLASS_METRICS)]


def score(p: Predictions, **settings: Any) -> dict[str, Any]:
    """Return the scores; any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return evaluation.score(p, **settings)


def classes_for(name: str) -> int:
    """Return a number of classes for which the metric is defined."""
    return 2 if name in METRICS and METRICS[name].two_classes_only else 6


def answers(k: int, n: int, skill: float, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    z = rng.normal(size=(n, k))
    z[np.arange(n), y] += skill
    probs = np.exp(1.3 * z)
    return Predictions(tuple(map(str, range(n))), tuple("abcdef"[:k]), y, probs / probs.sum(axis=1, keepdims=True))


def values_of(s: dict[str, Any], name: str) -> list[tuple[float | None, float | None, float | None]]:
    """Return (value, low, high), for a metric of each class once per class."""
    if not name.startswith("per_class."):
        return [(s[name], s[f"{name}_low"], s[f"{name}_high"])]
    name = name.removeprefix("per_class.")
    return [(row[name], row[f"{name}_low"], row[f"{name}_high"]) for row in s["per_class"].values()]


def metric(name: str) -> evaluation.Metric:
    return METRICS.get(name) or CLASS_METRICS[name.removeprefix("per_class.")]


@pytest.fixture(scope="module")
def scored() -> dict[int, dict[str, Any]]:
    return {k: score(answers(k, 120, 1.5)) for k in (2, 6)}


@pytest.mark.parametrize("name", ALL)
def test_interval_contains_the_value_and_names_its_method(name: str, scored: dict[int, dict[str, Any]]) -> None:
    s = scored[classes_for(name)]
    bottom, top = metric(name).limits
    for value, low, high in values_of(s, name):
        assert value is not None and low is not None and high is not None
        assert bottom <= low <= value <= high <= top and low < high
        assert not math.isnan(value)
    words = {"wilson": "Wilson", "delong": "DeLong", "bootstrap": "bootstrap"}[metric(name).interval]
    assert words in s["intervals"][name]


@pytest.mark.parametrize("name", ALL)
def test_perfect_predictions_are_best_and_worse_ones_are_not_better(name: str) -> None:
    k = classes_for(name)
    perfect = Predictions(("",) * 60, tuple("abcdef"[:k]), np.arange(60) % k, np.eye(k)[np.arange(60) % k])
    sign = 1 if metric(name).higher_is_better else -1
    before = None
    for wrong in (0, 12, 24, 36):  # ever more images get the next class's answer
        probs = perfect.probs.copy()
        probs[:wrong] = np.roll(probs[:wrong], 1, axis=1)
        s = score(Predictions(perfect.paths, perfect.classes, perfect.y_true, probs))
        value = np.mean([v for v, _, _ in values_of(s, name) if v is not None])
        if not wrong:
            best = metric(name).limits[1 if metric(name).higher_is_better else 0]
            assert value == pytest.approx(best, abs=1e-12)
            for _, low, high in values_of(s, name):  # nobody is perfect for certain
                assert (low is None and high is None and name == "log_loss") or high - low > 0.01
        assert before is None or sign * value <= sign * before + 1e-12
        before = value
    assert before is not None and sign * before < sign * best


@pytest.mark.parametrize("name", ALL)
def test_without_images_it_is_none_with_a_reason(name: str) -> None:
    k = classes_for(name)
    s = score(Predictions((), tuple("abcdef"[:k]), np.zeros(0, dtype=np.int64), np.zeros((0, k))))
    for value, low, high in values_of(s, name):
        assert (value, low, high) == (None, None, None)
    keys = [name] if name in METRICS else [f"per_class.{c}.{name.removeprefix('per_class.')}" for c in s["per_class"]]
    assert all("no labelled images" in s["reasons"][key] for key in keys)


@pytest.mark.parametrize("k", [2, 6])
def test_the_order_of_rows_changes_nothing(k: int, scored: dict[int, dict[str, Any]]) -> None:
    p = answers(k, 120, 1.5)
    order = np.random.default_rng(3).permutation(120)
    groups = np.arange(120) // 3
    for a, b in ((scored[k], score(p.select(order))), (score(p, groups=groups), score(p.select(order), groups=groups[order]))):
        for name in ALL:
            for one, other in zip(values_of(a, name), values_of(b, name), strict=True):
                assert one == pytest.approx(other, abs=1e-12, nan_ok=False) if None not in one else one == other, name


@pytest.mark.parametrize("k", [2, 6])
def test_copies_in_one_group_count_once(k: int, scored: dict[int, dict[str, Any]]) -> None:
    p, rows = answers(k, 120, 1.5), np.repeat(np.arange(120), 4)
    copied = p.select(rows)
    together, apart = score(copied, groups=rows), score(copied)
    assert (together["clusters"], apart["clusters"]) == (120, 480)
    for name in ALL:
        if (k != 2 and metric(name).two_classes_only) or (k == 2 and name == "top_5") or name == "ece":
            continue  # of the calibration error the lower end is 0 for few images and many
        for (v, low, high), (_, a, b), (_, c, d) in zip(
            values_of(scored[k], name), values_of(together, name), values_of(apart, name), strict=True
        ):
            assert None not in (v, low, high, a, b, c, d)
            assert b - a > 1.5 * (d - c), name  # four copies of each: about twice as wide as if each told something
            assert b - a == pytest.approx(high - low, rel=0.3), name  # and as wide as without the copies


@pytest.mark.parametrize("k", [2, 3])
def test_degenerate_sets_raise_no_warning(k: int) -> None:
    names = tuple("abc"[:k])
    for y in ([0], [0, 0, 0], [0, 1], [1, 1, 0]):
        for probs in (np.full((len(y), k), 1 / k), np.eye(k)[y], np.eye(k)[[0] * len(y)]):
            for groups in (None, np.zeros(len(y), dtype=int)):
                s = score(Predictions(("",) * len(y), names, np.array(y), probs), groups=groups)
                for name in METRICS:
                    (value, low, high) = values_of(s, name)[0]
                    assert value is not None or s["reasons"][name]
                    assert (low is None) == (high is None)
                    assert low is not None or s["reasons"][f"{name}_low"]
                    assert low is None or low <= value <= high


def test_a_split_without_a_class_gives_reasons() -> None:
    p = answers(3, 60, 1.5)
    s = score(p.select(p.y_true < 2))
    row = s["per_class"]["c"]
    assert row["recall"] is None and row["roc_auc"] is None and row["pr_auc"] is None and row["specificity"] is not None
    assert s["reasons"]["per_class.c.recall"] == "no image is labelled 'c'"
    for name in ("roc_auc", "pr_auc", "balanced_accuracy"):
        assert s[name] is not None and "2 of 3 classes" in s["reasons"][name]
    two = answers(2, 40, 1.5)
    one = score(two.select(two.y_true == 0))
    for name in ("roc_auc", "pr_auc", "eer"):
        assert one[name] is None and one["reasons"][name] == "the images are all of one class"


def test_random_scores_are_not_called_inverted_and_negated_ones_are() -> None:
    rng = np.random.default_rng(4)
    for k in (2, 3):
        alarms = 0
        for _ in range(200):
            y, scores = rng.integers(0, k, 100), rng.normal(size=(100, k))
            area = float(np.mean([evaluation.auc(y == c, scores[:, c]) for c in range(k)]))
            low, high = evaluation.macro_auc_interval(y, scores) or (0.0, 1.0)
            s = {"roc_auc": area, "roc_auc_low": low, "roc_auc_high": high, "positive": "a"}
            alarms += evaluation.inversion(s, tuple("abc"[:k])) is not None
        assert alarms <= 10
    p = answers(2, 100, 1.5)
    s = score(Predictions(p.paths, p.classes, p.y_true, 1 - p.probs), positive="b")
    assert "'b'" in s["inverted"] and "the same curve" in s["inverted"]


def test_groups_and_top_are_checked() -> None:
    from sightline.errors import DataError, RequestError

    p = answers(2, 10, 1.0)
    with pytest.raises(DataError, match="3 groups are given for 10 images"):
        score(p, groups=np.arange(3))
    with pytest.raises(RequestError, match="top must be at least 1, not 0"):
        score(p, top=0)


def test_group_names_may_be_strings_and_unlabelled_images_are_left_out() -> None:
    p = answers(2, 12, 1.0)
    p = Predictions(p.paths, p.classes, np.where(np.arange(12) < 2, -1, p.y_true), p.probs)
    s = score(p, groups=np.array(["x"] * 6 + ["y", "z"] * 3))
    assert (s["n"], s["clusters"], s["unlabelled"]) == (10, 3, 2)


def test_large_sets_are_binned_and_state_the_change_of_the_value() -> None:
    p = answers(2, 20_002, 1.5)
    s = score(p)
    exact = evaluation.average_precision(p.y_true == p.classes.index(s["positive"]), p.probs[:, p.classes.index(s["positive"])])
    assert s["pr_auc"] == pytest.approx(exact, abs=1e-12)
    for name in ("pr_auc", "eer"):
        assert "2,000 bins" in s["intervals"][name]
        moved = float(s["intervals"][name].rpartition(" ")[2].rstrip(")"))
        assert 0 <= moved < 0.1 * (s[f"{name}_high"] - s[f"{name}_low"])


def test_many_classes_are_linearised_and_as_wide_as_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    p = answers(6, 300, 1.5)
    for groups in (None, np.arange(300) // 2):
        drawn = score(p, groups=groups)
        with monkeypatch.context() as patch:
            patch.setattr("sightline.evaluation.resampling.MOST_DRAWN", 10)
            linear = score(p, groups=groups)
        assert "jackknife" in linear["intervals"]["pr_auc"] and "bootstrap" in drawn["intervals"]["pr_auc"]
        for name in ("pr_auc", "per_class.pr_auc", "roc_auc"):
            for (v, low, high), (w, a, b) in zip(values_of(drawn, name), values_of(linear, name), strict=True):
                assert v == pytest.approx(w, abs=1e-12)
                assert high - low == pytest.approx(b - a, rel=0.25), name
