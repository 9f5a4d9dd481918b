"""The random sample measures the accuracy on the whole folder; the chosen photographs do not."""

from __future__ import annotations

import numpy as np
import pytest

from sightline import heads
from sightline.audit import labelling
from sightline.audit.label_next import label_next
from sightline.records.labelling import FittedHead


def test_the_sample_has_one_photograph_of_a_cluster_and_is_drawn_from_all() -> None:
    cluster = np.array([0] * 50 + list(range(1, 51)))
    usable = np.ones(100, bool)
    usable[60:70] = False
    sample = labelling.random_sample(cluster, usable, 0)
    assert len(sample) == 9 and len(set(cluster[sample])) == 9 and usable[sample].all()
    drawn = np.concatenate([labelling.random_sample(cluster, usable, seed)[:3] for seed in range(400)])
    counts = np.bincount(cluster[drawn], minlength=51)[np.unique(cluster[usable])]
    assert counts.min() > 0 and abs(counts[0] - counts.mean()) < 4 * counts.mean() ** 0.5, "a large cluster is not more likely"
    assert len(labelling.random_sample(np.arange(20_000), np.ones(20_000, bool), 0)) == labelling.MOST_SAMPLED


def test_every_fifth_question_comes_from_the_sample() -> None:
    asked, sampled = [], 0
    for answered in range(20):
        asked.append(labelling.asks_sample(answered, sampled))
        sampled += asked[-1]
    assert np.flatnonzero(asked).tolist() == [4, 9, 14, 19]


def head(labels: int, predicted: list[int]) -> FittedHead:
    return FittedHead(labels, labels, ("cat", "dog"), predicted)


def test_the_curve_measures_every_head_on_all_labelled_photographs_of_the_sample() -> None:
    answers = ["cat", None, "dog", "dog", "bird"]
    points = labelling.curve([head(4, [0, 0, 0, 1, 0]), head(8, [0, 1, 1, 1, 1])], answers)
    assert [(p.labels, p.correct, p.images, p.accuracy) for p in points] == [(4, 2, 4, 0.5), (8, 3, 4, 0.75)]
    assert round(points[1].low, 3) == 0.301 and round(points[1].high, 3) == 0.954  # Wilson, by hand
    assert labelling.curve([head(4, [0])], [None])[0].images == 0


@pytest.mark.parametrize(("right_before", "n", "verdict"), [(40, 100, "rising"), (100, 100, "flat"), (10, 12, "unclear")])
def test_the_gain_of_the_last_doubling_is_paired(right_before: int, n: int, verdict: str) -> None:
    before, after = [0] * right_before + [1] * (n - right_before), [0] * n
    found = labelling.gain([head(10, before), head(19, before), head(20, after)], ["cat"] * n)
    assert found is not None and (found.before, found.after, found.verdict) == (10, 20, verdict)
    assert found.low <= found.change <= found.high and found.change == pytest.approx(1 - right_before / n)
    assert labelling.gain([head(15, before), head(20, after)], ["cat"] * n) is None


def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw features of two overlapping classes."""
    y, values = rng.integers(0, 2, n), rng.normal(0, 0.5, (n, 6))
    values[:, 0] = 2 * y - 1 + rng.normal(0, 1, n)
    return values.astype(np.float32), y


def errors_of_estimates(seed: int) -> tuple[float, float]:
    """Return the errors of two estimates of the accuracy in a session: by the random sample, and by the chosen photographs."""
    rng, none, everything = np.random.default_rng(seed), np.zeros(0, np.int64), np.arange(200)
    values, y = draw(rng, 200)
    sample = labelling.random_sample(everything, np.ones(200, bool), seed)
    free = np.setdiff1d(everything, sample)
    rows, right = free[:12].tolist(), list[bool]()
    kind, _ = heads.with_units([])
    for _ in range(4):
        folds = [(np.arange(len(rows)), none)]
        fitted = heads.fit(kind, values[rows], y[rows], 2, folds=folds, settings={"C": 1.0}).head
        pool = np.setdiff1d(free, rows)
        proposed = label_next(values[pool], 8, labelled=values[rows], probs=heads.probs(fitted, values[pool]), seed=seed)
        chosen = pool[[each.row for each in proposed]]
        right += (heads.probs(fitted, values[chosen]).argmax(axis=1) == y[chosen]).tolist()
        rows += chosen.tolist()
    new, labels = draw(rng, 5_000)
    truth = float((heads.probs(fitted, new).argmax(axis=1) == labels).mean())
    predicted = heads.probs(fitted, values[sample]).argmax(axis=1)
    names = ("a", "b")
    (point,) = labelling.curve([FittedHead(len(rows), 0, names, predicted.tolist())], [names[i] for i in y[sample]])
    return point.accuracy - truth, float(np.mean(right)) - truth


def test_the_estimate_by_the_random_sample_is_unbiased_and_that_by_chosen_photographs_is_not() -> None:
    errors = np.array([errors_of_estimates(seed) for seed in range(24)])
    mean, deviation = errors.mean(axis=0), errors.std(axis=0, ddof=1) / len(errors) ** 0.5
    assert abs(mean[0]) < 2 * deviation[0] < 0.05, (mean, deviation)
    assert mean[1] < -0.1 and abs(mean[1]) > 5 * deviation[1], "chosen photographs are harder than the others"
