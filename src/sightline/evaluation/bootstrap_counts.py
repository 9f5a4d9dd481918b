"""What the metrics are computed from: sums over images, for the set as it is and for a thousand sets drawn from it."""

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
"""How many sets are drawn for a bootstrap interval."""
_AT_ONCE = 400_000
"""Images times sets that are held in memory at a time."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the images of one or several sets, the sets along the first axis; all float64.

    Args:
        n: (b, k), images of each class.
        answered: (b, k), images answered with each class.
        hits: (b, k), both.
        top: (b,), images whose label is among the likeliest few; NaN where that says nothing.
        loss: (b,), the sum of the log losses in nats.
        squares: (b,), the sum of the Brier scores.
        gaps: (b, 15), for each bin of claimed certainty the images that are right less the certainties.
        precision: (b, columns), average precisions: of every class, or none where they are not drawn.
        eer: (b,), equal error rates for two classes, NaN for more.
        area: (b, columns), areas under the ROC curves, as `precision`.
    """

    n: np.ndarray
    answered: np.ndarray
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
        """(b,): all images."""
        return np.asarray(self.n.sum(axis=1))


def tally(sample: Sample, top: int, ranked: list[Ranking]) -> Tally:
    """The sums of the set as it is."""
    return _counter(sample, top, ranked)(np.ones((1, len(sample))))


def drawn(sample: Sample, top: int, *, seed: int, ranked: list[Ranking]) -> Tally:
    """The sums of a thousand sets drawn from this one.

    Units (images, or what belongs together) are drawn with replacement within their class, as many as there are. A set is
    held as how often it has each image, never as a copy of images.

    Args:
        sample: What is drawn from.
        top: How many answers count for `top`.
        seed: The draws are a function of it and of the answers.
        ranked: The classes whose average precision and equal error rate are computed in every set.
    """
    count = _counter(sample, top, ranked)
    parts = [count(weights) for weights in draws(sample, seed)]
    names = [f.name for f in dataclasses.fields(Tally)]
    return Tally(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def draws(sample: Sample, seed: int, rounds: int = ROUNDS) -> Iterator[np.ndarray]:
    """float64 (some, n) at a time, `rounds` rows in all: how often each image is in a drawn set."""
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
    """int64 (n,): how many classes come before the label, those of equal probability in their order.

    Example:
        >>> ranks(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), np.array([2, 1])).tolist()
        [1, 1]
    """
    own = probs[np.arange(len(y)), y][:, None]
    before = (probs == own) & (np.arange(probs.shape[1]) < y[:, None])
    return np.asarray((probs > own).sum(axis=1) + before.sum(axis=1), dtype=np.int64)


def losses(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """float64 (n,) each: every image's log loss in nats and its Brier score.

    For two classes the Brier score is the squared error of one probability, for more the sum over the classes, as in
    scikit-learn.
    """
    rows, k = np.arange(len(sample)), len(sample.classes)
    own = sample.probs[rows, sample.y]
    tiny = np.finfo(np.float64).eps  # scikit-learn's bound: a wrong answer of certainty 1 costs 36, not infinity
    squares = np.square(sample.probs).sum(axis=1) - 2 * own + 1
    return -np.log(np.clip(own, tiny, 1 - tiny)), squares / 2 if k == 2 else squares


def _counter(sample: Sample, top: int, ranked: list[Ranking]) -> Callable[[np.ndarray], Tally]:
    """From how often sets have each image, float64 (b, n), to their sums."""
    k, n = len(sample.classes), len(sample)
    right = sample.y == sample.y_pred
    loss, squares = losses(sample)
    sure = sample.probs[np.arange(n), sample.y_pred]
    gap = right - sure
    near = (ranks(sample.probs, sample.y) < top) if k > top else np.full(n, np.nan)
    near = near.astype(np.float64)
    by_bin = Sums(bins_of(sure), CALIBRATION_BINS)
    by_label, by_answer, by_hit = (Sums(sample.y, k), Sums(sample.y_pred, k), Sums(np.where(right, sample.y, k), k + 1))
    column = sample.column

    def count(weights: np.ndarray) -> Tally:
        nothing = np.full(len(weights), np.nan)
        curves = np.array([r.scores(weights) for r in ranked]).reshape(len(ranked), 3, len(weights))
        return Tally(
            n=by_label(weights),
            answered=by_answer(weights),
            hits=by_hit(weights)[:, :k],
            top=np.einsum("bn,n->b", weights, near),  # a matrix product would start threads that wait for each other
            loss=np.einsum("bn,n->b", weights, loss),
            squares=np.einsum("bn,n->b", weights, squares),
            gaps=by_bin(weights * gap),
            precision=curves[:, 0].T,
            eer=curves[column, 1] if len(curves) and column is not None else nothing,
            area=curves[:, 2].T,
        )

    return count


class Sums:
    """Sums of columns by group, for one grouping of the columns.

    Args:
        group: int (n,), 0 … groups - 1.
        groups: How many there are; empty ones sum to 0.
    """

    def __init__(self, group: np.ndarray, groups: int) -> None:
        self.groups, self.sorted = groups, bool((np.diff(group) >= 0).all())
        self.order = np.argsort(group, kind="stable")
        self.there, self.start = np.unique(group[self.order], return_index=True)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """float64 (b, groups) of float64 (b, n)."""
        out = np.zeros((len(weights), self.groups))
        if len(self.there):
            out[:, self.there] = np.add.reduceat(weights if self.sorted else weights[:, self.order], self.start, axis=1)
        return out
