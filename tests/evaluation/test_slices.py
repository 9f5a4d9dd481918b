"""A slice in which a classifier is worse is found and named; where none is, none is called so."""

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
