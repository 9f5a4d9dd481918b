"""All metrics of one sample with their intervals: in closed form where there is one, else from a thousand drawn sets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from sightline.evaluation.intervals import FEW, HIGH, auc_intervals, bootstrap, effective, normal, variance, wilson
from sightline.evaluation.metrics import CLASS_METRICS, METRICS, Metric
from sightline.evaluation.ranking import BINS, MOST_DRAWN, MOST_EXACT, influence, ranking, rankings
from sightline.evaluation.sample import Sample, sampled
from sightline.evaluation.tallies import ROUNDS, drawn, draws, tally
from sightline.records import Predictions

Ends = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """One metric of a sample.

    Args:
        metric: What it is.
        values: float64 (1,), for a metric of each class (k,); NaN where undefined.
        ends: For each value the ends of its 95 % interval, None where there is none.
        how: Where the interval comes from, in words.
    """

    metric: Metric
    values: np.ndarray
    ends: list[Ends]
    how: str


def estimates(sample: Sample, *, top: int, seed: int = 0) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """The metrics of all images, and those of each class, under their names in the registries."""
    many = _Many(sample, top, seed)
    whole = {name: many.estimate(name, metric) for name, metric in METRICS.items()}
    return whole, {name: many.estimate(name, metric) for name, metric in CLASS_METRICS.items()}


def accuracy_interval(
    predictions: Predictions, groups: np.ndarray | None = None, *, positive: str | None = None, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the accuracy alone, as `score` gives it among all others, in a fraction of the time.

    Args:
        predictions: What a classifier said of at least one labelled image.
        groups, positive, seed: As in `score`.

    Raises:
        RequestError: `positive` is no class.
        DataError: A probability is not a number, or `groups` does not hold one value per image.

    Example:
        >>> pair = Predictions(("1.jpg", "2.jpg"), ("cat", "dog"), np.array([0, 1]), np.eye(2))
        >>> low, high = accuracy_interval(pair)
        >>> round(low, 3), high
        (0.342, 1.0)
    """
    sample = sampled(predictions, positive, groups)
    n, right = len(sample), (sample.y == sample.y_pred).astype(np.float64)
    if not sample.clustered:
        return wilson(float(right.sum()), n)
    shares = np.concatenate([weights @ right / weights.sum(axis=1) for weights in draws(sample, seed)])
    share = float(right.mean())
    counts = min(n, effective(share, shares, _least(n, sample.unit), _inflation(sample)))
    return wilson(share * counts, counts)


def _least(n: float, unit: np.ndarray | None) -> float:
    """As how many independent images n count if all that belong together are right or wrong together."""
    if unit is None:
        return n
    sizes = np.bincount(unit).astype(np.float64)
    return n * float(sizes.sum() / (sizes**2).sum())


def _inflation(sample: Sample) -> float:
    """By what a variance among drawn sets falls short, as n / (n - 1)."""
    units, strata = len(sample.stratum), len(np.unique(sample.stratum))
    return units / (units - strata) if units > strata else 1.0


class _Many:
    """A sample, what was drawn from it, and what its curves give in closed form; each computed once."""

    def __init__(self, sample: Sample, top: int, seed: int) -> None:
        self.sample, k = sample, len(sample.classes)
        self.unit = sample.unit if sample.clustered else None
        self.binned = len(sample) > MOST_EXACT
        self.linear = k > 2 and len(sample) * k > MOST_DRAWN
        exact = [] if self.linear else rankings(sample)
        ranked = rankings(sample, BINS) if self.binned and not self.linear else exact
        self.now = tally(sample, top, exact)
        self.coarse = tally(sample, top, ranked) if self.binned else self.now
        self.drawn = drawn(sample, top, seed=seed, ranked=ranked)
        self.areas = auc_intervals(sample.y, sample.probs, unit=self.unit, widened=True) if len(sample) else ([None] * k, None)
        self.inflation = _inflation(sample)
        self.spreads, self.spread = self._one_by_one() if self.linear else ([], 0.0)

    def _one_by_one(self) -> tuple[list[float], float]:
        """Each class's curves in turn, so that one ranking is held at a time.

        Returns:
            The variances of the classes' average precisions, and of their mean.
        """
        sample, spreads, total = self.sample, [], np.zeros(len(self.sample))
        found = np.full((2, 1, len(sample.classes)), np.nan)
        for c in range(len(sample.classes)):
            ranked = ranking(sample.y == c, sample.probs[:, c])
            precision, _, area = ranked.scores(np.ones((1, len(sample))))
            found[:, 0, c] = precision[0], area[0]
            slope = influence(ranked)
            spreads.append(variance(slope, sample.y, self.unit))
            total += slope
        self.now = dataclasses.replace(self.now, precision=found[0], area=found[1])
        return spreads, variance(total / max(int((~np.isnan(found[0])).sum()), 1), sample.y, self.unit)

    def estimate(self, name: str, metric: Metric) -> Estimate:
        """One metric with its interval."""
        values = metric.value(self.now, self.sample)[0] if metric.per_class else metric.value(self.now, self.sample)
        if metric.interval == "delong":
            single = self.areas[1] if self.sample.column is None else self.areas[0][self.sample.column]
            ends, how = (self.areas[0] if metric.per_class else [single]), "DeLong" + self._together(" with {} (Obuchowski)")
            few = self.now.n[0][self.now.n[0] > 0].min(initial=FEW) < FEW
            if few or np.nanmax(values, initial=0.0) > HIGH:
                how += ", widened to Newcombe's near 1 and where a class has few images"
        elif metric.interval == "wilson":
            ends, how = self._shares(metric, values)
        elif name == "pr_auc" and self.linear:
            ends, how = self._linear(metric, values)
        else:
            ends, how = self._bootstrap(name, metric, values)
        known = [None if np.isnan(v) else e for v, e in zip(values.tolist(), ends, strict=True)]
        return Estimate(metric, values, known, how)

    def _together(self, text: str) -> str:
        """The text, where some images belong together."""
        return text.format(f"{len(self.sample.stratum):,} clusters of images") if self.unit is not None else ""

    def _shares(self, metric: Metric, values: np.ndarray) -> tuple[list[Ends], str]:
        """Wilson's interval; of what belongs together as many images count as the drawn sets' spread is worth."""
        assert metric.trials is not None
        trials = np.atleast_1d(
            metric.trials(self.now, self.sample)[0] if metric.per_class else metric.trials(self.now, self.sample)
        )
        if self.unit is None:
            return [wilson(v * t, t) if t else None for v, t in zip(values.tolist(), trials.tolist(), strict=True)], "Wilson"
        each = metric.value(self.drawn, self.sample).reshape(ROUNDS, -1)
        least = _least(1.0, self.unit)
        ends: list[Ends] = []
        for v, t, column in zip(values.tolist(), trials.tolist(), each.T, strict=True):
            n = min(t, effective(v, column, least * t, self.inflation))
            ends.append(wilson(v * n, n) if t and not np.isnan(v) else None)
        return ends, self._together("cluster bootstrap of {}, laid out as Wilson's")

    def _worth(self, metric: Metric, count: int) -> list[float]:
        """As how many independent images the set counts for each value of a metric, if it were a share."""
        sizes = self.now.n[0]
        if metric.per_class:
            return [_least(float(n), self.unit) for n in sizes.tolist()]
        whole = float(sizes.sum())
        known = sizes[sizes > 0]
        even = len(known) ** 2 / float((1 / known).sum()) if len(known) else 0.0
        return [_least(whole if metric.weighs == "images" else even, self.unit)] * count

    def _linear(self, metric: Metric, values: np.ndarray) -> tuple[list[Ends], str]:
        """From the average precision's derivative by each image, where drawing every class's ranking would take minutes."""
        spreads = self.spreads if metric.per_class else [self.spread]
        ends: list[Ends] = []
        for v, spread, least in zip(values.tolist(), spreads, self._worth(metric, len(values)), strict=True):
            surer = metric.capped and v * (1 - v) > least * spread
            ends.append(wilson(v * least, least) if surer else normal(v, spread))
        return ends, "infinitesimal jackknife" + self._together(" over {}")

    def _bootstrap(self, name: str, metric: Metric, values: np.ndarray) -> tuple[list[Ends], str]:
        """From the spread of the drawn sets."""
        each = metric.value(self.drawn, self.sample).reshape(ROUNDS, -1)
        limits = metric.limits
        if len(self.sample.classes) == 2 and metric.limits_of_two is not None:
            limits = metric.limits_of_two
        ends = [
            bootstrap(v, column, limits, least, self.inflation, capped=metric.capped)
            for v, column, least in zip(values.tolist(), each.T, self._worth(metric, len(values)), strict=True)
        ]
        if metric.bias is not None:
            ends = [e and (max(limits[0], e[0] - metric.bias(self.sample)), e[1]) for e in ends]
        how = self._together("cluster bootstrap of {}") or "stratified bootstrap"
        how += f", {ROUNDS:,} rounds"
        if self.binned and name in ("pr_auc", "eer"):
            off = np.nanmax(np.abs(metric.value(self.coarse, self.sample) - metric.value(self.now, self.sample)), initial=0)
            how += f" over {BINS:,} bins of the score (which move the value by {off:.1g})"
        return ends, how
