"""Thresholds by criterion: worked by hand, against brute force over all cuts, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.errors import DataError, RequestError
from sightline.evaluation import threshold
from sightline.inputs import read_predictions
from sightline.records import Predictions


def made(y: list[int], scores: list[float]) -> Predictions:
    probs = np.array([[1 - s, s] for s in scores])
    return Predictions(tuple(f"{i}.jpg" for i in range(len(y))), ("cat", "dog"), np.array(y), probs)


def errors(y: list[int], scores: list[float], cut: float) -> tuple[int, int, int]:
    """Return the numbers of missed positives, false alarms and hits."""
    said = np.array(scores) >= cut
    true = np.array(y) == 1
    return int((true & ~said).sum()), int((~true & said).sum()), int((true & said).sum())


def test_by_hand() -> None:
    y, scores = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.35, 0.6, 0.9]
    assert threshold(made(y, scores), "dog", "half") == 0.5
    assert threshold(made(y, scores), "dog", "youden") == pytest.approx(0.475)  # 2 of 3 found without alarm; or 0.25: 3 and 1
    assert threshold(made(y, scores), "dog", "cost=5:1") == pytest.approx(0.25)
    assert threshold(made(y, scores), "dog", "cost=1:5") == pytest.approx(0.475)
    assert threshold(made(y, scores), "dog", "fpr=0.34") == pytest.approx(0.25)
    assert threshold(made(y, scores), "dog", "fpr=0") == pytest.approx(0.475)
    assert threshold(made(y, scores), "dog", "f1") == pytest.approx(0.25)  # 2·3/7 above 2·2/5
    assert threshold(made(y, scores), "dog", "eer") == pytest.approx(0.325)  # one of three each way


def test_from_the_other_class() -> None:
    y, scores = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.35, 0.6, 0.9]
    assert threshold(made(y, scores), "cat", "youden") == pytest.approx(0.525)


def test_no_image_may_be_positive() -> None:
    cut = threshold(made([1, 0, 1], [0.2, 1.0, 0.4]), "dog", "fpr=0")
    assert cut > 1
    assert not errors([1, 0, 1], [0.2, 1.0, 0.4], cut)[1]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5, 0.7, 0.9, 1.0])), min_size=2, max_size=30),
    st.sampled_from(["youden", "eer", "f1", "cost=5:1", "cost=1:3", "fpr=0.2"]),
)
def test_no_cut_is_better(rows: list[tuple[int, float]], criterion: str) -> None:
    y, scores = [r[0] for r in rows], [r[1] for r in rows]
    if len(set(y)) < 2:
        return
    positives, negatives = sum(y), len(y) - sum(y)

    def value(cut: float) -> float:
        missed, alarms, found = errors(y, scores, cut)
        if criterion == "youden":
            return found / positives - alarms / negatives
        if criterion == "eer":
            return -abs(alarms / negatives - missed / positives)
        if criterion == "f1":
            return 2 * found / (positives + found + alarms)
        if criterion == "fpr=0.2":
            return found if alarms <= 0.2 * negatives else -1
        a, b = (float(v) for v in criterion.removeprefix("cost=").split(":"))
        return -(a * missed + b * alarms)

    cut = threshold(made(y, scores), "dog", criterion)
    assert value(cut) >= max(value(c) for c in np.linspace(-0.01, 1.01, 205)) - 1e-9
    assert cut >= 0


@pytest.mark.parametrize("wrong", ["yuden", "cost", "cost=5", "cost=0:0", "cost=a:b", "fpr", "fpr=2", "fpr=-1", "f1=3", ""])
def test_wrong_criteria(wrong: str) -> None:
    with pytest.raises(RequestError):
        threshold(made([0, 1], [0.2, 0.8]), "dog", wrong)


def test_one_class_only() -> None:
    with pytest.raises(DataError, match="both classes"):
        threshold(made([1, 1], [0.2, 0.8]), "dog", "f1")
    three = Predictions(("a",), ("a", "b", "c"), np.array([0]), np.eye(3)[:1])
    with pytest.raises(DataError, match="two classes"):
        threshold(three, "a", "f1")


def test_predictions_use_the_threshold_and_their_table_keeps_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    answers = made([0, 1, 1], [0.1, 0.3, 0.8])
    assert answers.y_pred.tolist() == [0, 0, 1]
    import dataclasses

    thresholded = dataclasses.replace(answers, threshold=("dog", 0.3))
    assert thresholded.y_pred.tolist() == [0, 1, 1]
    assert dataclasses.replace(answers, threshold=("cat", 0.95)).y_pred.tolist() == [1, 1, 1]
    file = tmp_path / "p.csv"
    file.write_text(thresholded.to_csv(), encoding="utf-8")
    assert read_predictions(file).threshold == ("dog", 0.3)
    assert read_predictions(file).y_pred.tolist() == [0, 1, 1]
    file.write_text(answers.to_csv(), encoding="utf-8")
    assert read_predictions(file).threshold is None
    file.write_text(thresholded.to_csv().replace("0.3\n", "0.4\n", 1), encoding="utf-8")
    assert read_predictions(file).thresholds.tolist() == [0.4, 0.3, 0.3]  # as folds have them
    file.write_text(thresholded.to_csv().replace("0.3\n", "much\n", 1), encoding="utf-8")
    with pytest.raises(DataError, match="a number in each row"):
        read_predictions(file)
