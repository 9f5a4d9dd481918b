"""Learning curves: nested, stratified subsets; a recovered power law; a band with correct coverage; cautious sentences."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.errors import RequestError
from sightline.studies import learning_curve
from sightline.studies.learning_curve import Curve, Measured

A, B, C = 0.97, 1.2, 0.6


def law(images: float) -> float:
    return float(A - B * images**-C)


def drawn(n: int, seed: int, most: int = 320, draws: int = 1) -> Measured:
    """Images of different difficulty: one predicted correctly with few training images mostly stays so with many."""
    generator = np.random.default_rng(seed)
    sizes, hard = learning_curve.grid(most, 5), generator.random(n)
    right = [
        [(np.where(generator.random(n) < 0.8, hard, generator.random(n)) < law(m)).astype(float) for m in sizes]
        for _ in range(draws)
    ]
    return Measured(sizes, np.array(right), np.arange(n), 0.0)


def test_subsets_are_nested_stratified_and_keep_clusters_together() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 6])
    cluster = np.arange(96)
    cluster[:4] = 0
    train = np.arange(96)
    queue = learning_curve.ordered(train, labels, cluster, np.random.default_rng(0))
    assert sorted(queue.tolist()) == train.tolist()
    for size in (16, 32, 48, 96):
        counts = np.bincount(labels[queue[:size]], minlength=3)
        np.testing.assert_allclose(counts, size * np.array([60, 30, 6]) / 96, atol=3)
    places = [queue.tolist().index(i) for i in range(4)]
    assert max(places) - min(places) == 3
    other = learning_curve.ordered(train, labels, cluster, np.random.default_rng(1))
    assert queue.tolist() != other.tolist()


def test_held_out_images_are_not_trained_on() -> None:
    """A nearest neighbour is correct on its training images; with random labels it must be at chance on held-out ones."""
    generator = np.random.default_rng(0)
    values, labels = generator.normal(size=(300, 20)).astype(np.float32), generator.integers(0, 2, 300)
    order = generator.permutation(300)
    folds = [(np.setdiff1d(order, held), held) for held in np.array_split(order, 5)]
    head = {"kind": "knn", "settings": {"neighbours": 1}, "classes": 2}
    found = learning_curve.measure(values, labels, np.arange(300), folds, seeds=2, **head)
    assert found.right.shape == (2, len(found.sizes), 300) and np.isfinite(found.right).all()
    assert abs(found.accuracy - 0.5).max() < 0.1


def test_an_exact_power_law_is_recovered() -> None:
    sizes = np.array([15.0, 25, 41, 69, 115, 192, 320])
    curve = learning_curve._power_law(sizes, np.array([[law(m) for m in sizes]]))
    assert curve.at(3000)[0] == pytest.approx(law(3000), abs=0.002)
    assert curve.reach(0.95)[0] == pytest.approx((B / (A - 0.95)) ** (1 / C), rel=0.1)


@pytest.mark.slow
def test_the_band_has_its_nominal_coverage() -> None:
    """Extrapolated to 2 and 10 times the images, over 60 draws, the 95 % band contains the true accuracy in about 95 %."""
    held = np.zeros(2)
    for seed in range(60):
        curve = learning_curve.fit(drawn(400, seed), seed=seed)
        for i, images in enumerate((800, 4000)):
            low, high = np.quantile(curve.at(images)[1:], [0.025, 0.975])
            held[i] += low <= law(images) <= high
    assert (held >= 53).all(), held  # 57 expected; fewer than 53 of 60 has a chance of 2 %


def test_a_large_set_gives_an_estimate_whose_band_contains_the_truth() -> None:
    measured = drawn(20_000, 1, most=6000)
    curve = learning_curve.fit(measured)
    assert curve.a.shape == (1001,)
    found = learning_curve.summarise(measured, curve, images=400, goal=0.94)
    truth = (B / (A - 0.94)) ** (1 / C)
    assert found.verdict == "told" and found.needed_low <= truth <= found.needed_high
    assert "95 % band" in found.words[1]


@pytest.mark.parametrize(
    ("goal", "verdict", "text"),
    [
        (0.5, "there", "already reaches 50.0 %"),
        (0.999, "never", "unlikely to give 99.9 %"),
        (0.955, None, "cannot be estimated"),
    ],
)
def test_no_number_is_given_without_an_estimate(goal: float, verdict: str | None, text: str) -> None:
    measured = drawn(400, 3)
    found = learning_curve.summarise(measured, learning_curve.fit(measured), images=400, goal=goal)
    assert found.needed is None and text in found.words[1]
    assert verdict is None or found.verdict == verdict
    assert "800" in found.words[0]


def test_a_curve_below_the_target_gives_infinity() -> None:
    curve = Curve(np.array([0.9, 0.99]), np.array([1.0, 1.0]), np.array([0.5, 0.5]))
    assert curve.reach(0.95)[0] == np.inf and curve.reach(0.95)[1] == pytest.approx(625)


def test_clusters_widen_the_band() -> None:
    alone = drawn(400, 0)
    pairs = Measured(alone.sizes, np.repeat(alone.right, 4, axis=2), np.repeat(np.arange(400), 4), 0.0)
    widths = []
    for measured in (alone, pairs):
        at = learning_curve.fit(measured).at(400)[1:]
        widths.append(np.subtract(*np.quantile(at, [0.975, 0.025])))
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(RequestError, match="too few for a learning curve"):
        learning_curve.grid(20, 5)
