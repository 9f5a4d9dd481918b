"""Which of several fits is better, on the same images: corrected paired tests, and what choosing among many has cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline import evaluation
from sightline.errors import DataError
from sightline.records import Predictions
from sightline.store import stream

_HALVES = 400
"""How often the images are halved to see what a choice is worth on others."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How two settings differ on the same images.

    Args:
        a, b: Their places.
        difference: Accuracy of a less that of b, the mean over seeds, -1 to 1.
        low, high: Its 95 % interval when images are drawn anew.
        p: Of McNemar's exact test; over seeds, of its generalisation by sign flips.
        p_corrected: Holm's, over all pairs of settings: the best was chosen on these very images.
        by_seed: The difference under each seed.
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
        """Whether chance alone would hardly do this."""
        return self.p_corrected < evaluation.SIGNIFICANT


def paired(answers: Sequence[Predictions]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which images each of several fits had right, on those that all of them answered.

    Returns:
        bool (fits, n), and the n paths.

    Raises:
        DataError: No image was answered by all.
    """
    common = set(answers[0].paths).intersection(*(a.paths for a in answers[1:]))
    paths = tuple(p for p in answers[0].paths if p in common)
    if not paths:
        raise DataError("no held-out image was answered by every fit", "give validation images, such as --val 0.15")
    rows = []
    for each in answers:
        right = dict(zip(each.paths, (each.y_pred == each.y_true).tolist(), strict=True))
        rows.append([right[p] for p in paths])
    return np.array(rows, dtype=bool), paths


def differences(right: np.ndarray) -> list[Difference]:
    """All pairs of settings compared.

    Args:
        right: bool (settings, seeds, n): whether an image was answered rightly.

    Returns:
        One for each pair (a, b) with a < b, corrected together.
    """
    votes = right.sum(axis=1).astype(np.int64)  # (settings, n)
    seeds = right.shape[1]
    pairs = list(itertools.combinations(range(len(right)), 2))
    raw = [evaluation.sign_flip(votes[a] - votes[b]) for a, b in pairs]
    found = []
    for (a, b), p, corrected in zip(pairs, raw, evaluation.holm(raw), strict=True):
        each = (votes[a] - votes[b]) / seeds
        low, high = evaluation.paired_bootstrap(each)
        by_seed = (right[a].mean(axis=1) - right[b].mean(axis=1)).tolist()
        found.append(Difference(a, b, float(each.mean()), low, high, p, corrected, tuple(by_seed)))
    return found


def against(found: Sequence[Difference], one: int) -> list[Difference]:
    """What was found of one setting, as that one less each other."""
    turned = []
    for d in found:
        if d.a == one:
            turned.append(d)
        elif d.b == one:
            flipped = tuple(-v for v in d.by_seed)
            turned.append(Difference(d.b, d.a, -d.difference, -d.high, -d.low, d.p, d.p_corrected, flipped))
    return turned


@dataclass(frozen=True, slots=True)
class Optimism:
    """What choosing the best of many on the same images has done to its score.

    Args:
        optimism: How much less is to be expected on other images, as a share of them.
        gain: What the choice gains over the default on images that had no part in it.
        chosen_among: How many there were.
        images: How many images chose.
    """

    optimism: float
    gain: float
    chosen_among: int
    images: int


def optimism(right: np.ndarray, losses: Sequence[float], *, default: int = 0, seed: int = 0) -> Optimism:
    """Choose on one half of the images, score on the other, 400 times.

    A half chooses worse than the whole: the loss that is seen is that of n / 2 images, and falls with their square root, so
    it is divided by √2. The gain over the default is that of choosing on half the images, a little too low.

    Args:
        right: bool (trials, n).
        losses: Log loss of each trial, which decides between equals.
        default: The trial that would have been taken without a search.
        seed: The halves are a function of it.
    """
    trials, n = right.shape
    if trials < 2 or n < 2:
        return Optimism(0.0, 0.0, trials, n)
    values = right.astype(np.float64)
    preferred = -1e-9 * np.argsort(np.argsort(np.asarray(losses)))  # far below one image
    draws = stream(seed, "halves")
    lost, gained = [], []
    for _ in range(_HALVES):
        order = draws.permutation(n)
        first, second = values[:, order[: n // 2]].mean(axis=1), values[:, order[n // 2 :]].mean(axis=1)
        best = int((first + preferred).argmax())
        lost.append(first[best] - second[best])
        gained.append(second[best] - second[default])
    return Optimism(max(0.0, float(np.mean(lost)) / np.sqrt(2)), float(np.mean(gained)), trials, n)
