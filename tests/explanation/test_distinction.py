"""Check whether a classifier separates the explained class from its contrast."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.explanation.checks.distinction import judge_classes, judge_distinction
from sightline.records import Predictions

CLASSES = ("dogA", "dogB", "flower")


def answers(confusion: list[list[int]], classes: tuple[str, ...] = CLASSES) -> Predictions:
    """Images with these answers, rows the label; the label has the second highest probability where the answer is wrong."""
    true, probs = [], []
    for label, row in enumerate(confusion):
        for said, n in enumerate(row):
            p = np.full(len(classes), 0.01)
            p[label] = 0.2
            p[said] = 0.7
            true += [label] * n
            probs += [p / p.sum()] * n
    return Predictions(tuple(f"{i}.jpg" for i in range(len(true))), classes, np.array(true), np.array(probs))


HALVES = answers([[3, 13, 0], [8, 8, 0], [0, 0, 16]])


def test_two_halves_of_a_kind_are_not_passed_for_a_third_kind_beside_them() -> None:
    for target, contrast in ((0, 1), (1, 0), (0, None), (1, None)):
        found = judge_distinction(HALVES, target, contrast)
        assert found.word == "don't rely on this", found.text
    assert found.text.startswith("the classifier is not shown to separate dogB from dogA (8 of 16 and 3 of 16")
    assert judge_distinction(HALVES, 2).word == "passes" and judge_distinction(HALVES, 0, 2).word == "passes"
    whole = judge_classes(HALVES)
    assert whole.word == "weak" and whole.text.startswith(
        "2 of 3 classes are not shown to be separated from the others: the classifier is not"
    )


def test_a_good_classifier_passes_in_every_class() -> None:
    good = answers([[14, 1, 1], [1, 15, 0], [0, 1, 15]])
    assert judge_classes(good).word == "passes"
    assert all(judge_distinction(good, c).word == "passes" for c in range(3))


@pytest.mark.parametrize(
    ("confusion", "word"),
    [
        ([[16, 4], [3, 197]], "passes"),  # 96 % right where naming the commoner gets 91 %
        ([[0, 20], [0, 200]], "don't rely on this"),  # 91 % right by naming the commoner
        ([[10, 10], [100, 100]], "don't rely on this"),
        ([[3, 1], [0, 4]], "weak"),  # too few to tell
    ],
)
def test_imbalanced_classes_are_judged_by_the_accuracy_of_both(confusion: list[list[int]], word: str) -> None:
    found = judge_distinction(answers(confusion, ("rare", "common")), 0)
    assert found.word == word, found


def test_a_guessing_classifier_rarely_passes() -> None:
    random, passed = np.random.default_rng(0), 0
    for _ in range(400):
        right = random.binomial(20, 0.5, 2)
        passed += (
            judge_distinction(answers([[right[0], 20 - right[0]], [20 - right[1], right[1]]], ("a", "b")), 0).word == "passes"
        )
    assert passed <= 9  # 400 at 0.5 %: ten or more come once in 20,000 times


def test_classes_that_are_not_confused_do_not_ask_for_more_images() -> None:
    rare = answers([[15, 1, 0], [1, 15, 0], [0, 0, 2]])
    assert judge_distinction(rare, 0).word == "passes" and judge_distinction(rare, 2).word == "passes"
    assert judge_distinction(answers([[15, 1, 0], [1, 15, 0], [0, 0, 0]]), 2).word == "weak"
