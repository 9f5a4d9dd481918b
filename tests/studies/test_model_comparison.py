"""Model comparison: alignment of images, exact power, and the verdict on a pair."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sightline.errors import DataError
from sightline.evaluation import alignment
from sightline.evaluation.alignment import NamedPredictions
from sightline.records import Predictions
from sightline.studies import model_comparison, power


def sheet(name: str, right: str, keys: str = "", classes: tuple[str, ...] = ("x", "y"), label: str = "x") -> NamedPredictions:
    """Predictions of one image per letter, 1 for a correct one; all images have the same label."""
    paths = tuple(keys or "abcdefghijklmnopqrstuvwxyz"[: len(right)])
    truth = classes.index(label)
    probs = np.array([np.eye(2)[truth if r == "1" else 1 - truth] * 0.8 + 0.1 for r in right])
    return NamedPredictions(name, Predictions(paths, classes, np.full(len(right), truth), probs), paths)


def test_predictions_are_aligned_by_image_and_class_name() -> None:
    aligned = alignment.align([sheet("a", "110", "pqr"), sheet("b", "011", "rqp", ("y", "x"))])
    assert aligned.paths == ("p", "q", "r") and aligned.labels == ("x", "x", "x")
    np.testing.assert_array_equal(aligned.right, [[1, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize(
    ("sheets", "message"),
    [
        (
            [sheet("a", "1111"), sheet("b", "11", "cz")],
            r"a \(4 images\) and b \(2\) .* 1 in both, 3 only in a \(such as a\) and 1 only in b \(such as z\)",
        ),
        ([sheet("a", "11"), sheet("b", "111")], r"2 in both, 1 only in b \(such as c\)"),
        ([sheet("a", "11", "pp"), sheet("b", "11", "pq")], "a has more than one prediction for p"),
        ([sheet("a", "11"), sheet("b", "11", label="y")], "labels of a differ: 'x' in a, 'y' in b"),
    ],
)
def test_other_images_or_labels_are_refused_with_what_differs(sheets: list[NamedPredictions], message: str) -> None:
    with pytest.raises(DataError, match=message):
        alignment.align(sheets)


def test_a_table_without_labels_takes_those_of_the_other() -> None:
    bare = sheet("b", "10")
    none = Predictions(bare.answers.paths, bare.answers.classes, np.full(2, -1), bare.answers.probs)
    aligned = alignment.align([NamedPredictions("b", none, bare.keys), sheet("a", "11")])
    np.testing.assert_array_equal(aligned.right, [[1, 0], [1, 1]])
    with pytest.raises(DataError, match="2 images have no label, or one that is not a class of any table, such as a"):
        alignment.align([NamedPredictions("b", none, bare.keys), NamedPredictions("c", none, bare.keys)])


def test_a_comparison_equals_the_worked_example() -> None:
    a, b = "1" * 12, "0" * 9 + "111"
    aligned = alignment.align([sheet("a", a), sheet("b", b)])
    (pair,) = model_comparison.compared_pairs(aligned)
    assert (pair.only_a, pair.only_b, pair.difference) == (9, 0, 0.75)
    assert pair.p == pytest.approx(2 / 2**9) and pair.p_corrected == pair.p
    assert pair.significant and pair.images_needed is None
    assert pair.verdict.startswith("a is better than b by 75.0 percentage points [41.7, ")
    assert [s.wrong for s in model_comparison.compared_scores(aligned)] == [0, 9]


def test_the_verdict_names_the_better_one_first() -> None:
    aligned = alignment.align([sheet("b", "0" * 9 + "111"), sheet("a", "1" * 12)])
    (pair,) = model_comparison.compared_pairs(aligned)
    assert pair.difference == -0.75 and pair.verdict.startswith("a is better than b by 75.0 percentage points [41.7, ")


def test_no_difference_gives_no_number_of_images() -> None:
    (pair,) = model_comparison.compared_pairs(alignment.align([sheet("a", "110"), sheet("b", "011")]))
    assert pair.images_needed is None and pair.verdict.endswith("both have equally many correct predictions")
    assert pair.verdict.startswith("the difference between a and b is not significant with 3 test images")


def test_more_than_two_are_corrected_together() -> None:
    a, b = "1" * 12, "0" * 6 + "1" * 6
    found = model_comparison.compared_pairs(alignment.align([sheet("a", a), sheet("b", b), sheet("c", a)]))
    p = {(x.a, x.b): (x.p, x.p_corrected, x.significant) for x in found}
    assert p["a", "b"] == pytest.approx((2 / 64, 6 / 64, False))
    alone = model_comparison.compared_pairs(alignment.align([sheet("a", a), sheet("b", b)]))[0]
    assert alone.significant
    needed = next(x.images_needed for x in found if (x.a, x.b) == ("a", "b"))
    assert needed > power.images_needed(6, 0, 12, level=0.05)  # a stricter level needs more


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(15, 10, 200), (5, 0, 200), (8, 3, 100), (40, 20, 300)])
def test_the_number_of_images_gives_the_stated_power(only_a: int, only_b: int, n: int) -> None:
    """In simulations with that many images, the exact test detects the difference in 80 % of draws."""
    needed = power.images_needed(only_a, only_b, n)
    assert needed is not None
    shares = [only_a / n, only_b / n, 1 - (only_a + only_b) / n]
    draws = np.random.default_rng(0).multinomial(needed, shares, size=20_000)
    smaller, total = draws[:, :2].min(axis=1), draws[:, :2].sum(axis=1)
    p = np.minimum(1, 2 * stats.binom.cdf(smaller, total, 0.5))
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.015)


def test_power_against_a_worked_example() -> None:
    """Connor 1987's formula by hand: psi = 0.125, d = 0.025 gives (1.959964 * 0.353553 + 0.841621 * 0.352668)^2 / 0.025^2."""
    by_hand = ((1.959964 * 0.353553 + 0.841621 * 0.352668) / 0.025) ** 2
    needed = power.images_needed(15, 10, 200)
    assert needed is not None and by_hand < needed < 1.06 * by_hand


def test_disagreements_put_the_most_confident_errors_first() -> None:
    rows = alignment.disagreements(alignment.align([sheet("a", "1100"), sheet("b", "1010")]))
    assert [r.path for r in rows] == ["b", "c"]
    assert [a.right for a in rows[0].predictions] == [True, False]


def test_images_of_a_cluster_are_not_independent() -> None:
    """Nine images of one cluster count as one observation."""
    aligned = alignment.align([sheet("a", "1" * 12), sheet("b", "0" * 9 + "111")])
    (pair,) = model_comparison.compared_pairs(aligned, cluster=np.array([0] * 9 + [1, 2, 3]))
    assert pair.p == 1.0 and not pair.significant
    assert pair.low == 0.0 and pair.high > 0.75 and pair.images_needed > 20
    alone = model_comparison.compared_pairs(aligned, cluster=np.arange(12))[0]
    assert alone == model_comparison.compared_pairs(aligned)[0]


@pytest.mark.slow
def test_false_positives_stay_rare_with_clusters() -> None:
    """Without a true difference, clusters of five images: tests by image often give p < 0.05, tests by cluster rarely."""
    generator, alarms = np.random.default_rng(0), np.zeros(2)
    cluster = np.repeat(np.arange(30), 5)
    for _ in range(200):
        right = np.repeat(generator.random((2, 30)) < 0.7, 5, axis=1)
        for i, groups in enumerate((None, cluster)):
            (d,) = model_comparison._differences(right, groups)
            alarms[i] += d.p < 0.05
    assert alarms[0] > 60 and alarms[1] <= 18
