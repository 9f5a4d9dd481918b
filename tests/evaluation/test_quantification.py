"""Adjusted class counts."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.evaluation import quantification
from sightline.evaluation.quantification import adjusted_counts


def test_the_intervals_cover_the_true_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantification, "DRAWS", 100)
    draw, rates = np.random.default_rng(1), np.array([[0.9, 0.1], [0.25, 0.75]])
    covered = 0
    for _ in range(20):
        confusion = np.stack([draw.multinomial(150, row) for row in rates])
        predicted = draw.multinomial(120, rates[0]) + draw.multinomial(280, rates[1])
        counts, low, high = adjusted_counts(confusion, predicted)
        assert counts.sum() == pytest.approx(400)
        covered += low[0] <= 120 <= high[0]
    assert covered >= 17


def test_a_class_that_was_never_predicted_may_still_be_there() -> None:
    _, low, high = adjusted_counts(np.diag([60, 60, 60]), np.array([100, 400, 0]))
    assert low[2] < 1 and 0.5 < high[2] < 20
