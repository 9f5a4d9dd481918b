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


def simulated(seed: int) -> tuple[float, float, float]:
    """Return the errors of three estimates of the accuracy in one simulated session: random sample, chosen ones, rest."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 300)
    values = rng.normal((2 * y[:, None] - 1) * [1.0] + [0.0] * 8, 1.0, (300, 8)).astype(np.float32)
    values[:, 1:] *= 0.5
    cluster, sample = np.arange(300), labelling.random_sample(np.arange(300), np.ones(300, bool), seed)
    free = ~np.isin(np.arange(300), sample)
    rows, asked = rng.permutation(np.flatnonzero(free))[:12].tolist(), list[tuple[int, bool]]()
    for _ in range(12):
        fitted = heads.fit("logistic", values[rows], y[rows], 2, folds=[(np.arange(len(rows)), np.zeros(0, int))], settings={"C": 1.0})
        pool = np.flatnonzero(free & ~np.isin(cluster, rows))
        probs = heads.probs(fitted.head, values[pool])
        chosen = [int(pool[p.row]) for p in label_next(values[pool], 4, labelled=values[rows], probs=probs, seed=seed)]
        asked += [(row, bool(heads.probs(fitted.head, values[[row]]).argmax() == y[row])) for row in chosen]
        rows += chosen
    right = heads.probs(fitted.head, values).argmax(axis=1) == y
    untouched = np.ones(300, bool)
    untouched[rows] = untouched[sample] = False
    truth = right[~np.isin(cluster, rows)].mean() * 0 + _truth(fitted.head, rng)
    return right[sample].mean() - truth, np.mean([ok for _, ok in asked]) - truth, right[untouched].mean() - truth


def _truth(head: object, rng: np.random.Generator) -> float:
    """Return the accuracy of a head on many new photographs of the same kind."""
    y = rng.integers(0, 2, 20_000)
    values = rng.normal((2 * y[:, None] - 1) * [1.0] + [0.0] * 8, 1.0, (20_000, 8)).astype(np.float32)
    values[:, 1:] *= 0.5
    return float((heads.probs(head, values).argmax(axis=1) == y).mean())  # type: ignore[arg-type]
