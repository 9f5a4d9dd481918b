"""Scores, reasons for missing values, warning about inverted scores, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from sightline import evaluation
from sightline.errors import DataError, RequestError
from sightline.records import Predictions


def two(y: list[int], dog: list[float]) -> Predictions:
    p = np.array(dog)
    return Predictions(tuple(f"{i}.jpg" for i in range(len(y))), ("cat", "dog"), np.array(y), np.stack([1 - p, p], 1))


def test_scores_are_json_with_reasons_for_missing_values() -> None:
    s = evaluation.score(two([0, 0, 0], [0.1, 0.6, 0.2]))
    json.dumps(s, allow_nan=False)
    assert s["roc_auc"] is None and s["reasons"]["roc_auc"] == "the images are all of one class"
    assert s["per_class"]["dog"]["recall"] is None
    assert s["reasons"]["per_class.dog.recall"] == "no image is labelled 'dog'"
    assert "1 of 2 classes" in s["reasons"]["balanced_accuracy"]
    nones = {k for k, v in s.items() if v is None} - {"inverted"}
    assert nones <= set(s["reasons"])


def test_no_images_at_all() -> None:
    s = evaluation.score(Predictions((), ("a", "b", "c"), np.zeros(0, dtype=np.int64), np.zeros((0, 3))))
    json.dumps(s, allow_nan=False)
    assert s["n"] == 0 and s["accuracy"] is None and "no labelled images" in s["reasons"]["accuracy"]


def test_unlabelled_and_undecodable_images_are_counted_apart() -> None:
    p = two([0, -1, 1], [0.1, 0.9, 0.2])
    p = Predictions(p.paths, p.classes, p.y_true, p.probs, {"broken.jpg": "truncated"})
    s = evaluation.score(p)
    assert (s["n"], s["unlabelled"], s["undecodable"], s["accuracy"]) == (2, 1, 1, 0.5)
    assert [m["path"] for m in evaluation.mistakes(p)] == ["2.jpg"]


def test_the_positive_class_is_the_rarer_one_and_of_equals_the_last() -> None:
    assert evaluation.rarer_class(two([0, 1, 1], [0.1, 0.9, 0.8])) == "cat"
    assert evaluation.rarer_class(two([0, 1, -1], [0.1, 0.9, 0.8])) == "dog"
    swapped = Predictions(("a", "b"), ("dog", "cat"), np.array([0, 1]), np.eye(2))
    assert evaluation.rarer_class(swapped) == "dog"  # whatever the order of the columns
    assert evaluation.score(two([0, 1, 1], [0.1, 0.9, 0.8]))["positive"] == "cat"
    assert evaluation.score(two([0, 1, 1], [0.1, 0.9, 0.8]), positive="dog")["positive"] == "dog"
    with pytest.raises(RequestError, match="did you mean 'dog'"):
        evaluation.score(two([0, 1], [0.1, 0.9]), positive="dgo")


def test_swapping_class_and_score_keeps_the_area_and_swapping_one_mirrors_it() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80)
    p = np.clip(y * 0.3 + rng.random(80) * 0.7, 0, 1)
    area = evaluation.auc(y == 1, p)
    assert area is not None
    assert evaluation.auc(y == 0, 1 - p) == pytest.approx(area, abs=1e-12)
    assert evaluation.auc(y == 1, 1 - p) == pytest.approx(1 - area, abs=1e-12)


def test_inverted_scores_give_a_warning() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 200)
    good = np.clip(0.35 + 0.3 * y + rng.normal(0, 0.15, 200), 0.01, 0.99)
    assert evaluation.score(two(list(y), list(good)))["inverted"] is None
    s = evaluation.score(two(list(y), list(1 - good)))
    assert "entirely below 0.5" in s["inverted"] and f"the same curve has the area {1 - s['roc_auc']:.3f}" in s["inverted"]
    chance = evaluation.score(two(list(y), list(rng.random(200))))
    assert chance["inverted"] is None


def test_permuted_columns_of_many_classes_give_a_warning() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 300)
    probs = np.full((300, 3), 0.1)
    probs[np.arange(300), (y + 1) % 3] = 0.8
    probs[np.arange(300), y] = 0.05
    s = evaluation.score(Predictions(tuple(map(str, range(300))), ("a", "b", "c"), y, probs / probs.sum(1, keepdims=True)))
    assert "another order" in s["inverted"]


def test_nan_probabilities_are_refused_with_the_path() -> None:
    with pytest.raises(DataError, match=r"1\.jpg"):
        evaluation.score(two([0, 1], [0.1, float("nan")]))


def test_mistakes_are_sorted_by_confidence() -> None:
    found = evaluation.mistakes(two([0, 0, 1, 1, 0], [0.7, 0.9, 0.2, 0.9, 0.9]))
    assert [(m["path"], m["label"], m["predicted"], m["probability"]) for m in found] == [
        ("1.jpg", "cat", "dog", 0.9),
        ("4.jpg", "cat", "dog", 0.9),
        ("2.jpg", "dog", "cat", 0.8),
        ("0.jpg", "cat", "dog", 0.7),
    ]


def test_confused_pairs() -> None:
    pairs = evaluation.confused_pairs([[8, 2, 0], [0, 5, 5], [0, 0, 0]], ["a", "b", "c"])
    assert pairs == [
        {"label": "b", "predicted": "c", "n": 5, "share": 0.5},
        {"label": "a", "predicted": "b", "n": 2, "share": 0.2},
    ]


def test_import_is_light() -> None:
    code = "import sys, sightline.evaluation; print([m for m in ('torch', 'sklearn', 'scipy', 'pyarrow') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8")
    assert out.stdout.strip() == "[]"


def test_saturated_probabilities_rank_by_the_other_column_whichever_class_is_positive() -> None:
    y, rank = np.repeat([1, 0], 5), np.r_[0:5, 3:8]
    for saturated in (0, 1):
        probs = np.ones((10, 2))
        probs[:, 1 - saturated] = (1 + rank if saturated else 9 - rank) * 1e-20
        p = Predictions(tuple(map(str, range(10))), ("no", "yes"), y, probs)
        whole = [evaluation.score(p, positive=c) for c in ("no", "yes")]
        expected = float(evaluation.auc(y == 1, -rank) or 0)
        for s in whole:
            assert s["roc_auc"] == pytest.approx(expected, abs=1e-12) == 0.92
            assert (s["roc_auc_low"], s["eer"]) == (whole[0]["roc_auc_low"], whole[0]["eer"])
        curve = [row for row in evaluation.curve_tables(p, whole[1])["roc"] if row["class"] == "yes"]
        assert len(curve) > 3 and {row["threshold"] for row in curve[1:]} <= {float(v) for v in probs[:, 1]}
    assert evaluation.rank_scores(np.array([[0.2, 0.8], [0.7, 0.3], [0.2, 0.8]]))[0].tolist() == [[0, 1], [1, 0], [0, 1]]
