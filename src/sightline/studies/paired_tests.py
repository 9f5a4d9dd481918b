"""Paired tests between fits on the same images, corrected for multiple testing, and the optimism of selecting the best."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sightline import evaluation
from sightline.errors import DataError
from sightline.records import Predictions
from sightline.records.study import SelectionOptimism
from sightline.store import stream

_HALVES = 400
"""Number of random halvings of the images in `optimism`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference in accuracy of two settings on the same images.

    Args:
        a, b: Indices of the settings.
        difference: Accuracy of a minus accuracy of b, the mean over seeds, -1 to 1.
        low, high: Its 95 % interval, by paired bootstrap over images.
        p: p value of McNemar's exact test; with several seeds, of its generalisation by sign flips.
        p_corrected: p value after Holm's correction over all pairs, since the best is selected on these images.
        by_seed: The difference for each seed.
    """

    a: int
    b: int
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    by_seed: tuple[float, ...]

    @property
    def told_apart(self) -> bool:
        """Whether the difference is statistically significant after correction."""
        return self.p_corrected < evaluation.SIGNIFICANT


def paired(answers: Sequence[Predictions]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return which images each of several fits predicts correctly, for the images that all of them predicted.

    Returns:
        bool (fits, n), and the n paths.

    Raises:
        DataError: If no image was predicted by all.
    """
    common = set(answers[0].paths).intersection(*(a.paths for a in answers[1:]))
    paths = tuple(p for p in answers[0].paths if p in common)
    if not paths:
        raise DataError("no held-out image was predicted by every fit", "add validation images, such as --val 0.15")
    rows = []
    for predictions in answers:
        correct = dict(zip(predictions.paths, (predictions.y_pred == predictions.y_true).tolist(), strict=True))
        rows.append([correct[p] for p in paths])
    return np.array(rows, dtype=bool), paths


def differences(right: np.ndarray) -> list[Difference]:
    """Test all pairs of settings.

    Args:
        right: Whether an image was predicted correctly, bool (settings, seeds, n).

    Returns:
        One difference for each pair (a, b) with a < b, corrected together.
    """
    votes = right.sum(axis=1).astype(np.int64)  # (settings, n)
    seeds = right.shape[1]
    pairs = list(itertools.combinations(range(len(right)), 2))
    raw = [evaluation.sign_flip(votes[a] - votes[b]) for a, b in pairs]
    result = []
    for (a, b), p, corrected in zip(pairs, raw, evaluation.holm(raw), strict=True):
        each = (votes[a] - votes[b]) / seeds
        low, high = evaluation.paired_bootstrap(each)
        by_seed = (right[a].mean(axis=1) - right[b].mean(axis=1)).tolist()
        result.append(
            Difference(
                a=a,
                b=b,
                difference=float(each.mean()),
                low=low,
                high=high,
                p=p,
                p_corrected=corrected,
                by_seed=tuple(by_seed),
            )
        )
    return result


def against(pairs: Sequence[Difference], one: int) -> list[Difference]:
    """Return the differences of one setting to each other, with that setting as `a`."""
    result = []
    for d in pairs:
        if d.a == one:
            result.append(d)
        elif d.b == one:
            by_seed = tuple(-v for v in d.by_seed)
            result.append(replace(d, a=d.b, b=d.a, difference=-d.difference, low=-d.high, high=-d.low, by_seed=by_seed))
    return result


def optimism(right: np.ndarray, losses: Sequence[float], *, seed: int = 0) -> SelectionOptimism:
    """Estimate the optimism of selecting the best trial: select on one half of the images, score on the other, 400 times.

    The optimism of a selection falls with the square root of the number of images, so that of n / 2 images is divided by √2.
    The gain over the default is that of a selection on n / 2 images, which is slightly too low.

    Args:
        right: Whether each trial predicts each image correctly, bool (trials, n); the first trial is the default.
        losses: Log loss of each trial, which breaks ties.
        seed: Random seed of the halves.
    """
    trials, n = right.shape
    if trials < 2 or n < 2:
        return SelectionOptimism(0.0, 0.0, trials, n)
    values = right.astype(np.float64)
    tie_break = -1e-9 * np.argsort(np.argsort(np.asarray(losses)))  # far below the weight of one image
    generator = stream(seed, "halves")
    lost, gained = [], []
    for _ in range(_HALVES):
        order = generator.permutation(n)
        first, second = values[:, order[: n // 2]].mean(axis=1), values[:, order[n // 2 :]].mean(axis=1)
        best = int((first + tie_break).argmax())
        lost.append(first[best] - second[best])
        gained.append(second[best] - second[0])
    return SelectionOptimism(max(0.0, float(np.mean(lost)) / np.sqrt(2)), float(np.mean(gained)), trials, n)
