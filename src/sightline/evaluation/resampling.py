"""Estimates of all metrics with their intervals: in closed form where there is one, else by stratified bootstrap."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from sightline.evaluation.bootstrap_counts import ROUNDS, drawn, draws, tally
from sightline.evaluation.clusters import cautious_correlation, effective_sample_size, intraclass_correlation
from sightline.evaluation.curves import placements
from sightline.evaluation.intervals import (
    Areas,
    auc_intervals,
    bootstrap,
    effective_trials,
    normal,
    variance,
    wilson,
    with_one_mistake,
)
from sightline.evaluation.metrics import CLASS_METRICS, METRICS, Metric
from sightline.evaluation.ranking import BINS, MOST_DRAWN, MOST_EXACT, influence, rank_scores, ranking, rankings
from sightline.evaluation.sample import Sample, sampled
from sightline.records import Predictions

Ends = tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Value of one metric with its interval.

    Args:
        metric: Record of the metric.
        values: float64 (1,), for a metric of each class (k,); NaN where undefined.
        ends: Ends of each value's 95 % interval, or None.
        how: Method of the interval, in words.
    """

    metric: Metric
    values: np.ndarray
    ends: list[Ends]
    how: str


def estimates(sample: Sample, *, top: int, seed: int = 0) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Return the metrics of all images and those of each class, by name."""
    estimator = _Estimator(sample, top, seed)
    whole = {name: estimator.estimate(metric) for name, metric in METRICS.items()}
    return whole, {name: estimator.estimate(metric) for name, metric in CLASS_METRICS.items()}


def accuracy_interval(
    predictions: Predictions, groups: np.ndarray | None = None, *, positive: str | None = None
) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy alone, the same as that of `score`, in a fraction of the time.

    Args:
        predictions: Predicted probabilities with at least one labelled image.
        groups, positive: As in `score`.

    Raises:
        RequestError: If `positive` is no class.
        DataError: If a probability is NaN or infinite, or `groups` does not hold one value per image.

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
    shares = np.concatenate([weights @ right / weights.sum(axis=1) for weights in draws(sample, 0)])
    share = float(right.mean())
    counts = min(n, effective_trials(share, shares, effective_sample_size(np.ones(n), sample.unit), _inflation(sample)))
    return wilson(share * counts, counts)


def _inflation(sample: Sample) -> float:
    """Return the factor by which the bootstrap variance is too small, like n / (n - 1)."""
    units, strata = len(sample.stratum), len(np.unique(sample.stratum))
    return units / (units - strata) if units > strata else 1.0


class _Estimator:
    """Sample with its bootstrap sums and closed-form AUC intervals, each computed once."""

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
        self.areas = Areas([None] * k, None, [0.0] * k, 0.0)
        if len(sample):
            self.areas = auc_intervals(sample.y, rank_scores(sample.probs)[0], unit=self.unit, widened=True)
        self.correlation, self.correlation_positives = self._correlations()
        self.inflation = _inflation(sample)
        self.spreads, self.spread = self._one_by_one() if self.linear else ([], 0.0)

    def _one_by_one(self) -> tuple[list[float], float]:
        """Compute each class's ranking metrics in turn, so that one ranking is in memory at a time.

        Returns:
            The variance of each class's average precision, and that of their mean.
        """
        sample, spreads, total = self.sample, [], np.zeros(len(self.sample))
        values = np.full((2, 1, len(sample.classes)), np.nan)
        for c in range(len(sample.classes)):
            ranked = ranking(sample.y == c, sample.probs[:, c])
            precision, _, area = ranked.scores(np.ones((1, len(sample))))
            values[:, 0, c] = precision[0], area[0]
            slope = influence(ranked)
            spreads.append(variance(slope, sample.y, self.unit))
            total += slope
        self.now = dataclasses.replace(self.now, precision=values[0], area=values[1])
        return spreads, variance(total / max(int((~np.isnan(values[0])).sum()), 1), sample.y, self.unit)

    def estimate(self, metric: Metric) -> Estimate:
        """Return one metric with its interval."""
        values = metric.formula(self.now, self.sample)[0] if metric.per_class else metric.formula(self.now, self.sample)
        if metric.interval == "delong":
            column, areas = self.sample.column, self.areas
            single = (areas.mean, areas.mean_widened) if column is None else (areas.each[column], areas.widened[column])
            ends, far = (areas.each, areas.widened) if metric.per_class else ([single[0]], [single[1]])
            how = "DeLong" + self._together(" with {} (Obuchowski)")
            if max(far):
                how += ", widened towards Newcombe's where few images are misordered"
        elif metric.interval == "wilson":
            ends, how = self._proportions(metric, values)
        elif metric.from_ranking and not metric.two_classes_only and self.linear:
            ends, how = self._linear(metric, values)
        else:
            ends, how = self._bootstrap(metric, values)
        intervals = [None if np.isnan(v) else e for v, e in zip(values.tolist(), ends, strict=True)]
        return Estimate(metric, values, intervals, how)

    def _together(self, text: str) -> str:
        """Return the text with the number of clusters, or "" if all images are independent."""
        return text.format(f"{len(self.sample.stratum):,} clusters of images") if self.unit is not None else ""

    def _proportions(self, metric: Metric, values: np.ndarray) -> tuple[list[Ends], str]:
        """Return Wilson's intervals; for clustered images, with an effective number of images."""
        assert metric.trials is not None
        trials = np.atleast_1d(
            metric.trials(self.now, self.sample)[0] if metric.per_class else metric.trials(self.now, self.sample)
        )
        if self.unit is None:
            return [wilson(v * t, t) if t else None for v, t in zip(values.tolist(), trials.tolist(), strict=True)], "Wilson"
        each = metric.formula(self.drawn, self.sample).reshape(ROUNDS, -1)
        least = effective_sample_size(np.ones(len(self.sample)), self.unit) / max(len(self.sample), 1)
        ends: list[Ends] = []
        for v, t, column in zip(values.tolist(), trials.tolist(), each.T, strict=True):
            n = min(t, effective_trials(v, column, least * t, self.inflation))
            ends.append(wilson(v * n, n) if t and not np.isnan(v) else None)
        return ends, self._together("cluster bootstrap of {}, in the form of Wilson's")

    def _correlations(self) -> tuple[float, float]:
        """Return the intraclass correlation of mistakes beyond class differences, and that of the positives for two classes."""
        sample = self.sample
        if self.unit is None:
            return 0.0, 0.0
        wrong = (sample.y != sample.y_pred).astype(np.float64)
        rate = np.bincount(sample.y, wrong) / np.maximum(np.bincount(sample.y), 1)
        correlation, y = intraclass_correlation(wrong - rate[sample.y], self.unit), sample.y == sample.column
        placed = placements(y, rank_scores(sample.probs)[0][:, sample.column or 0])[0]
        return correlation, max(correlation, cautious_correlation(placed, self.unit[y]) if y.any() else 0.0)

    def _effective_sizes(self, metric: Metric, count: int) -> list[tuple[float, float]]:
        """Return the effective number of independent images for each value of a metric, as if it were a proportion.

        Returns:
            For each value two numbers: one for bootstrap samples without any spread, which assumes fully correlated clusters,
            and an upper bound by the measured correlation of mistakes; the latter is infinite unless the metric is `capped`.
        """
        y, sizes, column = self.sample.y, self.now.n[0], self.sample.column
        if metric.per_class:
            return [(effective_sample_size((y == c).astype(np.float64), self.unit), math.inf) for c in range(count)]
        ways = [np.ones(len(y)) if metric.weighs == "images" else 1 / sizes[y]]
        if metric.weighs == "positives" and column is not None:
            ways.append((y == column).astype(np.float64))
        correlation, far = self.correlation, 1.0
        if metric.weighs == "positives":  # enough misordered images show the variance by themselves
            correlation, far = (
                self.correlation_positives,
                self.areas.mean_widened if column is None else self.areas.widened[column],
            )
        most = max(effective_sample_size(w, self.unit, correlation) for w in ways) / far if metric.capped and far else math.inf
        return [(max(effective_sample_size(w, self.unit) for w in ways), most)] * count

    def _linear(self, metric: Metric, values: np.ndarray) -> tuple[list[Ends], str]:
        """Return intervals by the infinitesimal jackknife, where bootstrapping every class's ranking would take minutes."""
        spreads = self.spreads if metric.per_class else [self.spread]
        ends: list[Ends] = []
        for v, spread, (least, most) in zip(values.tolist(), spreads, self._effective_sizes(metric, len(values)), strict=True):
            n = most if spread > 1e-18 else least
            narrower = metric.capped and v * (1 - v) > n * spread
            ends.append(wilson(v * n, n) if narrower else normal(v, spread))
        return ends, "infinitesimal jackknife" + self._together(" over {}")

    def _bootstrap(self, metric: Metric, values: np.ndarray) -> tuple[list[Ends], str]:
        """Return intervals from the bootstrap variance."""
        each = metric.formula(self.drawn, self.sample).reshape(ROUNDS, -1)
        limits = metric.limits
        if len(self.sample.classes) == 2 and metric.limits_of_two is not None:
            limits = metric.limits_of_two
        ends = [
            bootstrap(v, column, limits, least, self.inflation, most=most)
            for v, column, (least, most) in zip(
                values.tolist(), each.T, self._effective_sizes(metric, len(values)), strict=True
            )
        ]
        if metric.mistake is not None and len(self.sample.classes) > 1 and len(self.sample):
            count = effective_sample_size(np.ones(len(self.sample)), self.unit)
            ends = [with_one_mistake(float(values[0]), each[:, 0], metric.mistake(self.sample), count, self.inflation)]
        if metric.bias is not None:
            ends = [e and (max(limits[0], e[0] - metric.bias(self.sample)), e[1]) for e in ends]
        how = self._together("cluster bootstrap of {}") or "stratified bootstrap"
        how += f", {ROUNDS:,} rounds"
        if self.binned and metric.from_ranking:
            off = np.nanmax(np.abs(metric.formula(self.coarse, self.sample) - metric.formula(self.now, self.sample)), initial=0)
            how += f" over {BINS:,} bins of the score (which change the value by {off:.1g})"
        return ends, how
