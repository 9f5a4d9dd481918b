"""Calibration and training history, as figures and as text."""

from __future__ import annotations

import numpy as np
import pytest

from sightline import evaluation
from sightline.records import Predictions, Scores
from sightline.report import curves
from sightline.report.format import percent

ROWS = [{"epoch": float(e), "train_accuracy": 0.5 + e / 10, "val_accuracy": 0.6} for e in (1, 2, 3)]


def test_saved_epoch_is_named_if_it_is_not_the_last() -> None:
    (figure,) = curves.history(ROWS, "from epoch 3", saved=2)
    assert "The scores are those of epoch 2" in figure["text"] and figure["text"].endswith("Overfitting: from epoch 3.")
    for saved in (3, None):
        (figure,) = curves.history(ROWS, None, saved)
        assert "The scores are those" not in figure["text"]


def test_no_figure_is_drawn_without_epochs() -> None:
    assert curves.history([], "from epoch 3", 2) == []


def calibration(p: Predictions, groups: np.ndarray | None = None) -> str:
    (found,) = (
        f
        for f in curves.figures(p, Scores.from_json(evaluation.score(p, groups=groups)))
        if f["title"].startswith("Calibration")
    )
    return str(found["text"])


def claims(claimed: np.ndarray, right: np.ndarray, bar: tuple[str, float] | None = None) -> Predictions:
    """Two classes; image i is answered with probability claimed[i], and rightly where right[i]."""
    answer = np.arange(len(claimed)) % 2
    probs = np.where(np.arange(2) == answer[:, None], claimed[:, None], 1 - claimed[:, None])
    paths = tuple(f"{i}.jpg" for i in range(len(claimed)))
    return Predictions(paths, ("cat", "dog"), np.where(right, answer, 1 - answer), probs, threshold=bar)


def test_calibration_is_computed_for_the_predictions_with_a_threshold() -> None:
    random = np.random.default_rng(0)
    claimed = random.uniform(0.5, 1, 300)
    p = claims(claimed, random.random(300) < claimed, ("dog", 0.2))
    score = evaluation.score(p)
    rows = evaluation.curve_tables(p, score)["calibration"]
    of_table = sum(row["n"] * abs(row["accuracy"] - row["certainty"]) for row in rows) / 300
    assert of_table == pytest.approx(score["ece"])
    top = evaluation.expected_calibration_error(p.y_pred == p.y_true, p.probs.max(axis=1))
    assert percent(top) != percent(score["ece"])
    assert f"calibration error: {percent(score['ece'])} " in calibration(p)


@pytest.mark.parametrize(
    ("n", "claimed", "wrong", "verdict"),
    [
        (64, 0.977, 3, "the difference is within chance"),
        (64, 0.999, 1, "the difference is within chance"),
        (64, 0.99, 0, "the difference is within chance"),
        (640, 0.977, 30, "overconfident"),
        (400, 0.8, 40, "underconfident"),
        (400, 0.8, 0, "underconfident"),
        (400, 0.8, 400, "overconfident"),
    ],
)
def test_differences_within_chance_are_not_called_miscalibration(n: int, claimed: float, wrong: int, verdict: str) -> None:
    text = calibration(claims(np.full(n, claimed), np.arange(n) >= wrong))
    assert f": {verdict}. " in text


@pytest.mark.slow
def test_a_calibrated_classifier_is_rarely_called_miscalibrated_also_with_clusters() -> None:
    random, groups, alone, told = np.random.default_rng(1), np.repeat(np.arange(40), 6), 0, 0
    for _ in range(100):
        claimed = np.repeat(random.uniform(0.6, 1, 40), 6)
        p = claims(claimed, np.repeat(random.random(40), 6) < claimed)
        told += "chance" not in calibration(p, groups)
        alone += "chance" not in calibration(p)
    assert told <= 10 < alone


def test_without_intervals_each_image_counts() -> None:
    p = claims(np.full(64, 0.977), np.arange(64) >= 3)
    (found,) = (f for f in curves.figures(p, Scores()) if f["title"].startswith("Calibration"))
    assert "within chance" in found["text"]
