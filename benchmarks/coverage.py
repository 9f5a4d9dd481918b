"""Measure the coverage of the 95 % intervals and the false-positive rate of the significance tests.

Wilson's interval: exact coverage as a sum over the binomial distribution, for accuracies from 0.60 to 0.99. McNemar's test:
exact false-positive rate as a sum over two binomial distributions. Everything else is simulated: predictions are drawn from a
known population, class by class, and the share of intervals that contain the population's value is counted. Widths are given
relative to 3.92 standard deviations of the drawn values, the width of an interval from the true distribution. The last line
states whether all guarantees hold.

    python benchmarks/coverage.py
    python benchmarks/coverage.py --draws 2000
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from sightline import evaluation
from sightline.evaluation import conformal
from sightline.evaluation.bootstrap_counts import tally
from sightline.evaluation.ranking import rankings
from sightline.evaluation.sample import sampled
from sightline.evaluation.slices import slices
from sightline.records import Predictions

SIZES = (30, 50, 100, 200, 500, 1000)
POPULATION = 200_000
NAMES = "abcdefghij"
EVEN = (
    *(((25,) * 2, 1.5), ((100,) * 2, 1.5), ((100,) * 2, 3.0), ((20,) * 5, 2.0), ((100,) * 5, 3.0), ((500,) * 2, 3.0)),
    ((100,) * 10, 3.0),
)
UNEVEN = (((190, 10), 1.5), ((100, 20), 1.5), ((200, 200, 10), 2.0), ((100, 100, 100, 3), 2.0), ((490, 10), 1.0))
"""(Images of each class, skill)."""


def drawn(rng: np.random.Generator, sizes: Sequence[int], skill: float) -> Predictions:
    """Draw predictions with `sizes` images of each class, calibrated for classes of equal size."""
    n, k = sum(sizes), len(sizes)
    y = np.repeat(np.arange(k), sizes)
    scores = rng.normal(size=(n, k))
    scores[np.arange(n), y] += skill
    probs = np.exp(skill * scores)
    return Predictions(("",) * n, tuple(NAMES[:k]), y, probs / probs.sum(axis=1, keepdims=True))


def even(n: int, k: int) -> list[int]:
    """Distribute n images over k classes as evenly as possible."""
    return [len(range(i, n, k)) for i in range(k)]


def wilson() -> bool:
    """Print the exact coverage of Wilson's interval over accuracies, for each number of images."""
    print("Wilson, exact: coverage in % over accuracies 0.60, 0.61, … 0.99")
    good, shares = True, np.round(np.arange(0.60, 0.995, 0.01), 2)
    for n in SIZES:
        ends = np.array([evaluation.wilson(x, n) for x in range(n + 1)])
        held = (ends[:, :1] <= shares) & (shares <= ends[:, 1:])
        each = (stats.binom.pmf(np.arange(n + 1)[:, None], n, shares) * held).sum(axis=0)
        good &= 0.94 <= each.mean() <= 0.97
        print(f"  n = {n:>5}  mean {100 * each.mean():.1f}  least {100 * each.min():.1f} at {shares[each.argmin()]:.2f}")
    ends = np.array([evaluation.wilson(x, 50) for x in range(51)])
    worst = stats.binom.pmf(np.arange(51), 50, 0.99)[(ends[:, 0] <= 0.99) & (ends[:, 1] >= 0.99)].sum()
    print(f"  n = 50, accuracy 0.99: {100 * worst:.1f}")
    return bool(good)


def simulated(draws: int, settings: Sequence[tuple[tuple[int, ...], float]]) -> None:
    """Print coverage and width of every metric's interval."""
    names = list(evaluation.METRICS)
    print(
        f"All metrics, simulated with {draws:,} draws (± {196 * (0.0475 / draws) ** 0.5:.1f}): coverage in %, width / 3.92 sd"
    )
    print(f"  {'':<20}" + "".join(f"{_shape(sizes):>16}" for sizes, _ in settings))
    table: dict[str, list[str]] = {name: [] for name in [*names, "accuracy of it"]}
    for sizes, skill in settings:
        rng = np.random.default_rng(0)
        whole = sampled(drawn(rng, [s * (POPULATION // sum(sizes)) for s in sizes], skill), positive=NAMES[len(sizes) - 1])
        sums = tally(whole, 5, rankings(whole))
        truth = {name: float(metric.value(sums, whole)[0]) for name, metric in evaluation.METRICS.items()}
        found = [evaluation.score(drawn(rng, sizes, skill), positive=NAMES[len(sizes) - 1]) for _ in range(draws)]
        for name in names:
            table[name].append(_held(found, name, truth[name]))
        table["accuracy of it"].append(f"{truth['accuracy']:.3f}")
    for name, cells in table.items():
        print(f"  {name:<20}" + "".join(f"{c:>16}" for c in cells))


def _held(found: Sequence[dict[str, Any]], name: str, truth: float) -> str:
    """Format coverage in % and relative width, such as `95.2 1.04`."""
    if np.isnan(truth):
        return "–"
    rows = np.array([(s[name], s[f"{name}_low"], s[f"{name}_high"]) for s in found], dtype=np.float64)
    value, low, high = rows.T
    held = (low <= truth) & (truth <= high)  # NaN, of an interval that is not there, holds nothing
    return f"{100 * held.mean():.1f} {np.nanmean(high - low) / (3.92 * np.nanstd(value)):.2f}"


def _shape(sizes: tuple[int, ...]) -> str:
    """Format the number of classes and images, such as `k=2 n=50`, with class sizes if they differ."""
    return f"k={len(sizes)} n={sum(sizes)}" if len(set(sizes)) == 1 else "+".join(map(str, sizes))


def clusters(draws: int) -> None:
    """Print the coverage for groups of images with correlated predictions, with and without `groups`, and independent ones."""
    print(
        "100 scenes of 4 equal images, without and with `groups`; 30 groups of 10 unlike ones: coverage in %, width / 3.92 sd"
    )
    rng = np.random.default_rng(1)
    whole = sampled(drawn(rng, [POPULATION // 2] * 2, 1.5), positive="a")
    sums = tally(whole, 5, rankings(whole))
    names = ("accuracy", "balanced_accuracy", "weighted_precision", "mcc", "log_loss", "roc_auc", "pr_auc", "eer")
    truth = {name: float(evaluation.METRICS[name].value(sums, whole)[0]) for name in names}
    scenes, tens = np.repeat(np.arange(100), 4), np.arange(300) % 30
    found: list[list[dict[str, Any]]] = [[], [], []]
    for _ in range(draws):
        p = drawn(rng, (50, 50), 1.5).select(scenes)
        found[0].append(evaluation.score(p, positive="a"))
        found[1].append(evaluation.score(p, positive="a", groups=scenes))
        found[2].append(evaluation.score(drawn(rng, (150, 150), 1.5), positive="a", groups=tens))
    for name in names:
        print(f"  {name:<20}" + "".join(f"{_held(some, name, truth[name]):>14}" for some in found))


def mcnemar() -> bool:
    """Print the exact false-positive rate of McNemar's exact test for equally good classifiers, by share of discordance."""
    good = True
    print("McNemar's exact test, exact: false alarms in % where there is no difference (at most 5.5)")
    for n in (30, 100, 300, 1000):
        worst = 0.0
        for differing in (0.02, 0.05, 0.1, 0.3):
            rate = 0.0
            for d in range(n + 1):
                chance = stats.binom.pmf(d, n, differing)
                if chance > 1e-12:
                    tail = stats.binom.cdf(np.arange(d + 1), d, 0.5)
                    p = np.minimum(1, 2 * np.minimum(tail, tail[::-1]))
                    rate += chance * stats.binom.pmf(np.arange(d + 1), d, 0.5)[p <= evaluation.SIGNIFICANT].sum()
            worst = max(worst, rate)
        good &= worst <= 0.055
        print(f"  n = {n:>5}  at most {100 * worst:.2f}")
    return good


def paired(draws: int) -> bool:
    """Print simulated false-positive rates of the paired tests for equally accurate classifiers."""
    good = True
    print(f"Tests of pairs, simulated with {draws * 10:,} draws: false alarms in % (at most 5.5)")
    tests: dict[str, Callable[[np.ndarray, np.ndarray], bool]] = {
        "mcnemar": lambda a, b: evaluation.mcnemar(a[0], b[0]) <= 0.05,
        "sign_flip, 3 seeds": lambda a, b: evaluation.sign_flip(a.sum(axis=0) - b.sum(axis=0)) <= 0.05,
        "paired_bootstrap": lambda a, b: not _around_zero(evaluation.paired_bootstrap(a[0] - b[0])),
    }
    for name, alarm in tests.items():
        rng, alarms = np.random.default_rng(3), 0
        rounds = draws * 10
        for _ in range(rounds):
            easy = rng.beta(4, 1, 200)
            a, b = ((rng.random((3, 200)) < easy).astype(np.int64) for _ in range(2))
            alarms += alarm(a, b)
        print(f"  {name:<20}{100 * alarms / rounds:.2f}")
        good &= alarms / rounds <= 0.055
    return good


def _around_zero(ends: tuple[float, float]) -> bool:
    return ends[0] <= 0 <= ends[1]


def sets(draws: int) -> bool:
    """Print the coverage of conformal sets, averaged over draws of calibration and new images.

    For scores without ties the coverage of one calibration on n images is Beta(r, n + 1 - r) with r = ⌈(n + 1) · promise⌉, so
    its mean is r / (n + 1), exactly.
    """
    good = True
    print(f"Conformal sets: the right class is in them, in %, exactly and simulated with {draws:,} draws")
    for n in (30, 100, 200):
        for promise in (0.8, 0.9, 0.95):
            rng, held = np.random.default_rng(4), []
            for _ in range(draws):
                kept, new = drawn(rng, even(n, 5), 1.5), drawn(rng, even(500, 5), 1.5)
                chosen = conformal.sets(new.probs, conformal.fit(kept.probs, kept.y_true, promise))
                held.append(chosen[np.arange(500), new.y_true].mean())
            exact = math.ceil((n + 1) * promise - 1e-9) / (n + 1)
            good &= abs(np.mean(held) - promise) <= (0.01 if n >= 100 else 0.02)
            print(f"  n = {n:<4} promised {100 * promise:.0f}  exact {100 * exact:.2f}  kept {100 * np.mean(held):.2f}")
    return bool(good)


def inverted(draws: int) -> bool:
    """Print how often random scores are reported as inverted."""
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(draws):
        y, score = rng.random(100) < 0.5, rng.random(100)
        low, high = evaluation.auc_interval(y, score) or (0.0, 1.0)
        s = {"roc_auc": evaluation.auc(y, score), "roc_auc_low": low, "roc_auc_high": high, "positive": "a"}
        alarms += evaluation.inversion(s, ("a", "b")) is not None
    print(f"Scores by chance called inverted: {100 * alarms / draws:.1f} % of {draws:,} draws (at most 5)")
    return alarms / draws <= 0.05


def groups(draws: int) -> bool:
    """Print false-positive rate and power of the test for slices with a higher error rate, for grouped images."""
    print(f"Slices by a column that groups share, {draws:,} sets each: false alarms in % (at most 5.5), 30 points more found")
    rng, good = np.random.default_rng(2), True
    for count, size in ((60, 8), (20, 10), (300, 2)):
        unit, told = np.repeat(np.arange(count), size), []
        for more in (0.0, 0.3):
            hits = 0
            for _ in range(draws):
                camera = rng.integers(0, 3, count)
                rate = 0.15 + more * (camera == 0)
                wrong = rng.random((count, size)) < rng.beta(rate, 1 - rate)[:, None]  # correlation within a group: 1 / 2
                column = [f"c{c}" for c in np.repeat(camera, size)]
                hits += any(s["worse"] for s in slices(~wrong.ravel(), {"camera": column}, unit))
            told.append(100 * hits / draws)
        good &= told[0] <= 5.5
        print(f"  {count:>4} groups of {size:<3} {told[0]:>6.1f} {told[1]:>6.1f}")
    return bool(good)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    draws = parser.parse_args().draws
    good = [wilson(), mcnemar(), paired(draws), sets(draws), inverted(draws), groups(draws)]
    simulated(draws, EVEN)
    simulated(draws, UNEVEN)
    clusters(max(draws // 4, 20))
    print(f"what is promised: {'kept' if all(good) else 'MISSED'}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
