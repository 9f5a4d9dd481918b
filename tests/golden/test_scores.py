"""Tests and intervals against published worked examples, and against their definitions worked out in full."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sightline import evaluation
from sightline.evaluation.intervals import newcombe
from sightline.records import Predictions

Z = 1.959963984540054


def pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([1, 1, 0, 0], [both, only_a, only_b, neither])
    return a, np.repeat([1, 0, 1, 0], [both, only_a, only_b, neither])


def test_mcnemar_of_fagerland_2013() -> None:
    # Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data", table 3: airway
    # hyper-responsiveness of 21 children before and after stem cell transplantation, exact conditional p = 0.070
    p = evaluation.mcnemar(*pairs(1, 1, 7, 12))
    assert p == pytest.approx(0.070, abs=5e-4)
    assert p == pytest.approx(2 * (1 + 8) / 2**8, abs=1e-15)


def test_mcnemar_of_agresti() -> None:
    # Agresti, "Categorical Data Analysis", approval of a prime minister asked twice of 1,600 Britons (794, 150, 86, 570):
    # z² = 17.36, p = 0.00003 by the normal approximation. The exact test sums the binomial's two tails.
    squared = (86 - 150) ** 2 / (86 + 150)
    assert squared == pytest.approx(17.36, abs=5e-3)
    exact = 2 * sum(math.comb(236, i) for i in range(87)) / 2**236
    p = evaluation.mcnemar(*pairs(794, 150, 86, 570))
    assert p == pytest.approx(exact, rel=1e-9)
    assert 0.00003 < p < 0.00005


def test_kappa_of_cohen_1960() -> None:
    # Cohen 1960, "A coefficient of agreement for nominal scales": 200 cases, observed 0.70, by chance 0.41, kappa 0.492
    table = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    y, answer = (np.repeat(part.ravel(), table.ravel()) for part in np.indices(table.shape))
    s = evaluation.score(Predictions(("",) * 200, tuple("abc"), y, np.eye(3)[answer]))
    assert s["accuracy"] == pytest.approx(0.70)
    assert s["kappa"] == pytest.approx(0.492, abs=5e-4) and s["kappa"] == pytest.approx(0.29 / 0.59, abs=1e-12)


def ratings() -> tuple[np.ndarray, np.ndarray]:
    """Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve", table I: 109 CT images rated 1–5."""
    normal, abnormal = np.repeat(np.arange(1, 6), [33, 6, 6, 11, 2]), np.repeat(np.arange(1, 6), [3, 2, 2, 11, 33])
    return np.repeat([False, True], [58, 51]), np.r_[normal, abnormal].astype(float)


def test_the_area_of_hanley_and_mcneil_1982() -> None:
    y, rating = ratings()
    assert evaluation.auc(y, rating) == pytest.approx(0.893, abs=5e-4)  # their table II


def delong_by_definition(y: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Area and standard error by comparing every positive image with every negative one (DeLong 1988, equations 3–6)."""
    wins = np.array([[1.0 if p > n else 0.5 if p == n else 0.0 for n in score[~y]] for p in score[y]])
    m, n, area = *wins.shape, wins.mean()
    s10 = ((wins.mean(axis=1) - area) ** 2).sum() / (m - 1)
    s01 = ((wins.mean(axis=0) - area) ** 2).sum() / (n - 1)
    return area, math.sqrt(s10 / m + s01 / n)


def test_delong_worked_by_hand_with_ties() -> None:
    # positives 3 5 5 8, negatives 1 3 4 6; wins of each positive over 1 3 4 6:
    #   3: 1 ½ 0 0 → 1.5/4    5: 1 1 1 0 → 3/4    5: 3/4    8: 1 1 1 1 → 4/4       area 11.5/16 = 0.71875
    # of each negative under 3 5 5 8:
    #   1: 1 1 1 1 → 4/4      3: ½ 1 1 1 → 3.5/4  4: 0 1 1 1 → 3/4   6: 0 0 0 1 → 1/4
    # deviations: (-.34375, .03125, .03125, .28125), (.28125, .15625, .03125, -.46875); sums of squares .19921875, .32421875
    # variance (.19921875/3)/4 + (.32421875/3)/4 = .04361979…
    y = np.repeat([True, False], 4)
    score = np.array([3.0, 5, 5, 8, 1, 3, 4, 6])
    error = math.sqrt((0.19921875 / 3 + 0.32421875 / 3) / 4)
    assert evaluation.auc(y, score) == 0.71875
    low, high = evaluation.auc_interval(y, score) or (None, None)
    assert low == pytest.approx(0.71875 - Z * error, abs=1e-12) and high == 1.0
    assert delong_by_definition(y, score) == pytest.approx((0.71875, error), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_delong_is_its_definition_with_and_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = np.arange(60) % 3 == 0
    score = np.round(rng.normal(size=60) + y, seed % 3)
    area, error = delong_by_definition(y, score)
    assert evaluation.auc(y, score) == pytest.approx(area, abs=1e-12)
    expected = (max(0.0, area - Z * error), min(1.0, area + Z * error))
    assert evaluation.auc_interval(y, score) == pytest.approx(expected, abs=1e-12)
    # with each image as its own cluster, Obuchowski's variance differs by the factors n / (n - 1) alone
    own = evaluation.auc_interval(y, score, unit=np.arange(60)) or (0.0, 0.0)
    assert own[1] - own[0] == pytest.approx(expected[1] - expected[0], rel=0.03)


def test_hanley_and_mcneils_error_is_newcombes_at_the_area() -> None:
    # their formula under exponential scores: area .893, 51 abnormal and 58 normal images → standard error .032
    area, m, n = 0.893, 51, 58
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = math.sqrt((area * (1 - area) + (m - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)) / (m * n))
    assert error == pytest.approx(0.032, abs=1e-3)
    low, high = newcombe(area, m, n)
    assert high - low == pytest.approx(2 * Z * error, rel=0.1) and low < area < high
