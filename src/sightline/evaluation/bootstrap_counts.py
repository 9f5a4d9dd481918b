"""Sums over images from which metrics are computed, for the sample itself and for its bootstrap samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sightline.evaluation.curves import CALIBRATION_BINS, bins_of
from sightline.evaluation.ranking import Ranking
from sightline.evaluation.sample import Sample
from sightline.store import stream

ROUNDS = 1_000
"""Number of bootstrap samples for an interval."""
_AT_ONCE = 400_000
"""Images times bootstrap samples held in memory at a time."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the images of b samples, float64, with samples along the first axis.

    Args:
        n: (b, k), number of images of each class.
        predicted: (b, k), number of images predicted as each class.
        hits: (b, k), number of images of each class that are predicted correctly.
        top: (b,), number of images whose true class is among the most probable ones; NaN if there are too few classes.
        loss: (b,), sum of the log losses in nats.
        squares: (b,), sum of the Brier scores.
        gaps: (b, 15), for each bin of confidence: number of correct predictions minus the sum of confidences.
        precision: (b, k), average precision of each class; (b, 0) if it is not bootstrapped.
        eer: (b,), equal error rate for two classes, NaN for more.
        area: (b, k), area under the ROC curve of each class, or (b, 0) as for `precision`.
    """

    n: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray
    top: np.ndarray
    loss: np.ndarray
    squares: np.ndarray
    gaps: np.ndarray
    precision: np.ndarray
    eer: np.ndarray
    area: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Return the number of images, float64 (b,)."""
        return np.asarray(self.n.sum(axis=1))


def tally(sample: Sample, top: int, ranked: list[Ranking]) -> Tally:
    """Return the sums of the sample itself, b = 1."""
    return _counter(sample, top, ranked)(np.ones((1, len(sample))))


def drawn(sample: Sample, top: int, *, seed: int, ranked: list[Ranking]) -> Tally:
    """Return the sums of 1,000 bootstrap samples, stratified by class.

    Units (single images, or groups of images that belong together) are drawn with replacement within their class. A bootstrap
    sample is represented by the number of times that it contains each image.

    Args:
        sample: Labelled predictions.
        top: Number of most probable classes in which `top` looks for the true class.
        seed: Random seed.
        ranked: Rankings by the classes whose average precision and ROC AUC are computed in every sample.
    """
    count = _counter(sample, top, ranked)
    parts = [count(weights) for weights in draws(sample, seed)]
    names = [f.name for f in dataclasses.fields(Tally)]
    return Tally(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def draws(sample: Sample, seed: int, rounds: int = ROUNDS) -> Iterator[np.ndarray]:
    """Yield float64 (b, n), the number of times that each bootstrap sample contains each image; `rounds` rows in all."""
    units, random = len(sample.stratum), stream(seed, "stratified bootstrap")
    order = np.argsort(sample.stratum, kind="stable")
    sizes = np.bincount(sample.stratum, minlength=1)
    ends = np.cumsum(sizes)
    size, start = np.repeat(sizes, sizes).astype(np.float64), np.repeat(ends - sizes, sizes)
    step = max(1, _AT_ONCE // max(len(sample), 1))
    for first in range(0, rounds, step):
        b = min(step, rounds - first)
        place = (random.random((b, units)) * size).astype(np.int64) + start  # in `order`, within the stratum
        place += (np.arange(b) * units)[:, None]
        counts = np.bincount(place.ravel(), minlength=b * units).reshape(b, units)
        by_unit = np.empty((b, units))
        by_unit[:, order] = counts
        yield by_unit[:, sample.unit] if sample.clustered else by_unit


def ranks(probs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the number of classes ranked before the true class, int64 (n,); equal probabilities rank in class order.

    Example:
        >>> ranks(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), np.array([2, 1])).tolist()
        [1, 1]
    """
    true_class = probs[np.arange(len(y)), y][:, None]
    before = (probs == true_class) & (np.arange(probs.shape[1]) < y[:, None])
    return np.asarray((probs > true_class).sum(axis=1) + before.sum(axis=1), dtype=np.int64)


def losses(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Return the log loss in nats and the Brier score of each image, float64 (n,) each.

    For two classes the Brier score is the squared error of one probability, for more the sum over the classes, as in
    scikit-learn.
    """
    rows, k = np.arange(len(sample)), len(sample.classes)
    true_class = sample.probs[rows, sample.y]
    tiny = np.finfo(np.float64).eps  # scikit-learn's bound: a mistake with confidence 1 costs 36, not infinity
    squares = np.square(sample.probs).sum(axis=1) - 2 * true_class + 1
    return -np.log(np.clip(true_class, tiny, 1 - tiny)), squares / 2 if k == 2 else squares


def _counter(sample: Sample, top: int, ranked: list[Ranking]) -> Callable[[np.ndarray], Tally]:
    """Return a function from image counts of samples, float64 (b, n), to their sums."""
    k, n = len(sample.classes), len(sample)
    right = sample.y == sample.y_pred
    loss, squares = losses(sample)
    confidence = sample.probs[np.arange(n), sample.y_pred]
    gap = right - confidence
    in_top = (ranks(sample.probs, sample.y) < top) if k > top else np.full(n, np.nan)
    in_top = in_top.astype(np.float64)
    by_bin = Sums(bins_of(confidence), CALIBRATION_BINS)
    by_label, by_prediction, by_hit = (Sums(sample.y, k), Sums(sample.y_pred, k), Sums(np.where(right, sample.y, k), k + 1))
    column = sample.column

    def count(weights: np.ndarray) -> Tally:
        undefined = np.full(len(weights), np.nan)
        curves = np.array([r.scores(weights) for r in ranked]).reshape(len(ranked), 3, len(weights))
        return Tally(
            n=by_label(weights),
            predicted=by_prediction(weights),
            hits=by_hit(weights)[:, :k],
            top=np.einsum("bn,n->b", weights, in_top),  # a matrix product would start BLAS threads, which is slower here
            loss=np.einsum("bn,n->b", weights, loss),
            squares=np.einsum("bn,n->b", weights, squares),
            gaps=by_bin(weights * gap),
            precision=curves[:, 0].T,
            eer=curves[column, 1] if len(curves) and column is not None else undefined,
            area=curves[:, 2].T,
        )

    return count


class Sums:
    """Sum over columns by group, for a fixed grouping of the columns.

    Args:
        group: int (n,), group of each column, 0 … groups - 1.
        groups: Number of groups; empty ones sum to 0.
    """

    def __init__(self, group: np.ndarray, groups: int) -> None:
        self.groups, self.sorted = groups, bool((np.diff(group) >= 0).all())
        self.order = np.argsort(group, kind="stable")
        self.present, self.start = np.unique(group[self.order], return_index=True)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Return the sums by group, float64 (b, groups), of float64 (b, n)."""
        out = np.zeros((len(weights), self.groups))
        if len(self.present):
            out[:, self.present] = np.add.reduceat(weights if self.sorted else weights[:, self.order], self.start, axis=1)
        return out
