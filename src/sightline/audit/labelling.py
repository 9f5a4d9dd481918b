"""Labelling with an honest estimate: a random sample that is set aside first, and the accuracy of heads on it.

Photographs that are chosen because the classifier is uncertain of them are harder than the others, so the accuracy on them says
little about the whole folder, and once they have been labelled, the rest is easier than the whole. The sample is therefore
drawn before the first label, from all photographs; its photographs are never chosen and never trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sightline.evaluation.intervals import wilson
from sightline.evaluation.paired import paired_bootstrap
from sightline.records.labelling import CurvePoint, FittedHead, Gain
from sightline.store import stream

EVERY = 5
"""Every fifth photograph that is asked for comes from the random sample."""
MOST_SAMPLED = 1_000
"""Maximum size of the random sample: 1,000 photographs give an interval of at most 6 points."""
FLAT = 0.05
"""The curve is flat if the 95 % confidence interval of the gain by the last doubling of the labels lies below this."""


def random_sample(cluster: np.ndarray, usable: np.ndarray, seed: int) -> np.ndarray:
    """Draw the random sample of a folder: one photograph of each of some clusters of duplicates.

    Args:
        cluster: int64 (n,), equal for photographs that belong together.
        usable: bool (n,), photographs that can be decoded.
        seed: Random seed.

    Returns:
        int64 (m,), rows in the order in which they are asked for: a fifth of the clusters, at most `MOST_SAMPLED`. The first i
        of them are a simple random sample for every i.

    Example:
        >>> len(random_sample(np.arange(100), np.ones(100, bool), 0))
        20
    """
    rows = np.flatnonzero(usable)
    rng = stream(seed, "labelling sample")
    rows = rows[rng.permutation(len(rows))]
    _, first = np.unique(cluster[rows], return_index=True)  # a random photograph of each cluster
    chosen = rng.permutation(rows[first])
    return np.asarray(chosen[: min(math.ceil(len(chosen) / EVERY), MOST_SAMPLED)])


def asks_sample(answered: int, sampled: int) -> bool:
    """Return whether the next photograph comes from the random sample.

    Args:
        answered: Photographs that were answered.
        sampled: Those of them that come from the random sample.

    Example:
        >>> [asks_sample(n, n // 5) for n in range(6)]
        [False, False, False, False, True, False]
    """
    return sampled < (answered + 1) // EVERY


def curve(fitted: Sequence[FittedHead], answers: Sequence[str | None]) -> list[CurvePoint]:
    """Return the accuracy of every head on all photographs of the random sample that are labelled now.

    Args:
        fitted: Heads in the order of their fits.
        answers: The label of each photograph of the sample, in the order of the draw; None where there is none.
    """
    points = []
    for head in fitted:
        right = correct(head, answers)
        low, high = wilson(int(right.sum()), len(right))
        share = float(right.mean()) if len(right) else 0.0
        points.append(CurvePoint(head.labels, int(right.sum()), len(right), share, low, high))
    return points


def correct(head: FittedHead, answers: Sequence[str | None]) -> np.ndarray:
    """Return whether a head predicts each labelled photograph of the sample correctly, bool (m,)."""
    pairs = zip(head.predicted, answers, strict=True)
    return np.array([head.classes[index] == label for index, label in pairs if label is not None], dtype=bool)


def gain(fitted: Sequence[FittedHead], answers: Sequence[str | None]) -> Gain | None:
    """Return the change of the accuracy by the last doubling of the labels; None without two such heads or without a sample.

    Both heads predict the same photographs, so the difference is known better than either accuracy.

    Args:
        fitted, answers: As in `curve`.
    """
    last = fitted[-1] if fitted else None
    half = next((head for head in reversed(fitted) if last is not None and 2 * head.labels <= last.labels), None)
    if last is None or half is None or not any(label is not None for label in answers):
        return None
    difference = correct(last, answers).astype(np.float64) - correct(half, answers)
    low, high = paired_bootstrap(difference)
    verdict = "rising" if low > 0 else "flat" if high < FLAT else "unclear"
    return Gain(half.labels, last.labels, float(difference.mean()), low, high, verdict)
