"""Error analysis by slices: planted slices are found, and false alarms are rare."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sightline.evaluation.slices import slices


def columns(random: np.random.Generator, n: int) -> dict[str, list[object]]:
    return {
        "brightness": random.random(n).tolist(),
        "size": random.integers(32, 1000, n).tolist(),
        "aspect": random.normal(1, 0.2, n).tolist(),
        "camera": random.choice(["canon", "nikon", "phone"], n).tolist(),
        "year": random.integers(2019, 2025, n).tolist(),
    }


def test_a_planted_dark_slice_is_found_and_nothing_else() -> None:
    random, n = np.random.default_rng(0), 300
    made = columns(random, n)
    dark = np.array(made["brightness"]) < 0.15
    right = random.random(n) > np.where(dark, 0.6, 0.04)
    found = slices(right, made)
    worse = [row for row in found if row["worse"]]
    assert [row["column"] for row in worse] == ["brightness"] and worse[0] is found[0]
    (row,) = worse
    assert row["high"] < 0.35 and row["accuracy"] < row["rest_accuracy"] and row["value"] is None
    assert row["slice"].startswith("brightness ")
    inside = (np.array(made["brightness"]) >= row["low"]) & (np.array(made["brightness"]) <= row["high"])
    assert (row["n"], row["wrong"]) == (inside.sum(), (~right & inside).sum())


def test_a_bad_camera_is_found_by_its_name() -> None:
    random, n = np.random.default_rng(1), 400
    made = columns(random, n)
    phone = np.array(made["camera"]) == "phone"
    right = random.random(n) > np.where(phone, 0.35, 0.05)
    assert [row["value"] for row in slices(right, made) if row["worse"]] == ["phone"]


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [0.6, 0.9])
def test_under_no_difference_a_false_alarm_is_rare(accuracy: float) -> None:
    random = np.random.default_rng(5)
    alarms = 0
    for _ in range(300):
        made = columns(random, 200)
        alarms += any(row["worse"] for row in slices(random.random(200) < accuracy, made))
    assert alarms <= stats.binom.ppf(0.999, 300, 0.05)


def test_p_is_fisher_s() -> None:
    right = np.array([True] * 60 + [False] * 10 + [True] * 29 + [False])
    kind = ["a"] * 70 + ["b"] * 30
    found = {row["value"]: row for row in slices(right, {"kind": kind})}
    expected = stats.fisher_exact([[10, 60], [1, 29]], alternative="greater").pvalue
    assert found["a"]["p"] == pytest.approx(expected, rel=1e-10)
    assert found["a"]["p_corrected"] == pytest.approx(min(1, 2 * expected), rel=1e-10)
    assert found["a"]["rest_accuracy"] == pytest.approx(29 / 30)


def test_cells_without_a_value_and_small_slices_are_left_out() -> None:
    right = np.ones(100, dtype=bool)
    kind = ["a"] * 50 + ["b"] * 5 + [None] * 25 + [""] * 20
    assert [row["value"] for row in slices(right, {"kind": kind})] == ["a"]
    numbers = [float("nan")] * 20 + list(np.arange(80.0))
    found = slices(right, {"x": numbers})
    assert sum(row["n"] for row in found) == 80 and len(found) == 4
    assert slices(right, {"x": [3.0] * 100, "none": [None] * 100}) == []


def test_numbers_written_as_text_are_numbers_and_few_of_them_are_names() -> None:
    right = np.ones(120, dtype=bool)
    assert [row["low"] for row in slices(right, {"x": [str(i) for i in range(120)]})] == [0, 30, 60, 90]
    assert {row["value"] for row in slices(right, {"stars": [1, 2, 3] * 40})} == {"1", "2", "3"}
    assert slices(right[:0], {"x": []}) == []


def test_equal_numbers_stay_together() -> None:
    found = slices(np.ones(100, dtype=bool), {"x": [0] * 60 + list(range(1, 41))})
    assert sum(row["n"] for row in found) == 100
    assert next(row for row in found if row["low"] == 0)["n"] == 60


GROUPS = np.repeat(np.arange(60), 8)


def grouped(random: np.random.Generator, errors: np.ndarray, likeness: float) -> np.ndarray:
    """Return bool (480,), correct or not: 60 groups of 8 with these error rates and this correlation within groups."""
    if likeness == 1:
        return np.repeat(random.random(60) >= errors, 8)
    strength = 1 / likeness - 1
    rates = random.beta(errors * strength, (1 - errors) * strength)
    return np.asarray(random.random(480) >= np.repeat(rates, 8))


@pytest.mark.parametrize("likeness", [0.3, 1.0])
def test_correlated_groups_do_not_raise_false_alarms(likeness: float) -> None:
    random, alarms, blind = np.random.default_rng(6), 0, 0
    for _ in range(80):
        right = grouped(random, np.full(60, 0.15), likeness)
        scene = np.repeat(random.normal(size=60), 8) + random.normal(size=480)
        made = {"camera": np.repeat(random.choice(["a", "b", "c"], 60), 8).tolist(), "scene": scene.tolist()}
        alarms += any(row["worse"] for row in slices(right, made, GROUPS))
        blind += any(row["worse"] for row in slices(right, made))
    assert alarms <= stats.binom.ppf(0.999, 80, 0.05) < blind


def test_three_large_groups_that_are_all_right_do_not_make_the_others_worse() -> None:
    random = np.random.default_rng(9)
    groups = np.concatenate([np.repeat(np.arange(3), 40), np.arange(3, 103)])
    right = np.concatenate([np.ones(120, dtype=bool), random.permutation(np.arange(100) >= 20)])
    kind = {"kind": ["large"] * 120 + ["single"] * 100}
    assert any(row["worse"] for row in slices(right, kind)) and not any(row["worse"] for row in slices(right, kind, groups))


def test_a_bad_camera_is_found_among_groups() -> None:
    random, found = np.random.default_rng(7), 0
    for _ in range(50):
        camera = random.choice(["a", "b", "c"], 60)
        right = grouped(random, np.where(camera == "c", 0.5, 0.1), 0.3)
        worse = [row["value"] for row in slices(right, {"camera": np.repeat(camera, 8).tolist()}, GROUPS) if row["worse"]]
        found += worse == ["c"]
    assert found >= 45


def test_fully_correlated_groups_count_once() -> None:
    right = np.array([True] * 60 + [False] * 10 + [True] * 29 + [False])
    kind = ["a"] * 70 + ["b"] * 30
    single = slices(right, {"kind": kind})
    groups = np.repeat(np.arange(100), 10)
    many = slices(np.repeat(right, 10), {"kind": np.repeat(kind, 10).tolist()}, groups)
    assert [row["p"] for row in many] == pytest.approx([row["p"] for row in single], rel=0.02)
    for one, ten in zip(single, many, strict=True):
        assert ten["n"] == 10 * one["n"] and ten["accuracy"] == one["accuracy"]
        assert ten["accuracy_low"] == pytest.approx(one["accuracy_low"], abs=0.003)


def test_groups_of_one_and_slices_within_a_single_group_leave_fisher_s_test() -> None:
    right = np.random.default_rng(8).random(100) < 0.8
    kind = {"kind": ["a", "b"] * 50}
    assert slices(right, kind, np.arange(100)) == slices(right, kind)
    within = slices(right, kind, np.zeros(100, int))
    assert [row["p"] for row in within] == [row["p"] for row in slices(right, kind)]
    assert slices(right[:0], {"x": []}, np.zeros(0, int)) == []


@pytest.mark.parametrize("word", ["nan", "NaN", "NA", "n/a", "NULL", "None", " "])
def test_words_for_missing_values_are_missing_values(word: str) -> None:
    right = np.ones(100, dtype=bool)
    found = slices(right, {"iso": [word] * 20 + [str(v) for v in range(80)], "kind": [word] * 50 + ["a"] * 50})
    assert [row["low"] for row in found if row["column"] == "iso"] == [0, 20, 40, 60]
    assert [row["value"] for row in found if row["column"] == "kind"] == ["a"]
