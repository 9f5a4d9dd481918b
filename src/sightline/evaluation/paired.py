"""Two classifiers on the same images: what differs, whether that could be chance, and how many such questions were asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.errors import DataError
from sightline.store import stream

SIGNIFICANT = 0.05
"""Differences whose (corrected) p is not below it are not told apart."""
_ROUNDS = 10_000
_PRODUCTS = 10_000_000
"""Above so many products two distributions are convolved by way of Fourier's transform, to about 1e-16 in absolute terms."""


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """The exact, two-sided p of two classifiers being equally often right, given the same images.

    Only images that one of them has right and the other wrong tell anything: if both are equally good, each such image is a
    fair coin.

    Args:
        right_a, right_b: bool (n,), whether each had an image right, in one order.

    Raises:
        DataError: They are not of one length.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions", with the binomial
    distribution in place of its normal approximation.

    Example:
        >>> mcnemar(np.array([1] * 6 + [0]), np.array([0] * 6 + [1]))
        0.125
    """
    from scipy import stats  # here, so that reports stay quick

    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(f"answers to {a.size} images cannot be paired with answers to {b.size}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if not only_a + only_b:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def sign_flip(differences: np.ndarray) -> float:
    """The exact, two-sided p of a sum of differences, each equally likely to have had the other sign.

    It is McNemar's exact test where every image is answered several times, as by one recipe under several seeds: an image
    counts once, with the difference of its right answers, since its answers are far from independent. With one answer each
    the two tests are the same.

    Args:
        differences: int (n,), per image: right answers of a less right answers of b.

    Source: Fisher 1935, "The Design of Experiments", section 21. The distribution is that of a sum of m (2 k - c), with k
    binomial, over the c images of each size m.

    Example:
        >>> sign_flip(np.array([2, 2, 1]))  # of 8 patterns of signs two give |sum| = 5
        0.25
    """
    from scipy import signal, stats

    values = np.asarray(differences, dtype=np.int64)
    sizes, counts = np.unique(np.abs(values[values != 0]), return_counts=True)
    chances, low = np.ones(1), 0  # of the sums low, low + 1, …
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        own = np.zeros(2 * size * count + 1)
        own[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        plainly = len(chances) * len(own) <= _PRODUCTS
        chances = np.convolve(chances, own) if plainly else np.maximum(signal.fftconvolve(chances, own), 0)
        low -= size * count
    sums = np.arange(len(chances)) + low
    return float(min(1.0, chances[np.abs(sums) >= abs(int(values.sum()))].sum()))


def paired_bootstrap(differences: np.ndarray, *, seed: int = 0, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of a mean difference when images are drawn anew from those at hand.

    It is expanded as Student's t is beside the normal distribution, for as many images as differ: the others tell nothing of
    the difference's spread, and plain percentiles cry wolf a little too often.

    Args:
        differences: float (n,), per image: the score of a less that of b.
        seed: The draws are a function of it.
        confidence: The share of such intervals that hold the truth, for many images.

    Returns:
        (low, high). Where all of n images differ by the same, resampling knows of no spread; then up to a share of 1 - ((1 -
        confidence) / 2)^(1 / n) of the images may differ by anything from -1 to 1 all the same: Clopper and Pearson's bound.
        (0, 0) without images.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3, 10,000 rounds;
    Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 5.3, for the expansion.
    """
    values, counts = np.unique(np.asarray(differences, dtype=np.float64), return_counts=True)
    total = int(counts.sum())
    if len(values) < 2:
        return alike(float(values[0]), total, confidence) if total else (0.0, 0.0)
    # Images of one difference are alike, so a round is one multinomial draw of how many of each kind there are.
    drawn = stream(seed, "paired bootstrap").multinomial(total, counts / total, size=_ROUNDS)
    tail = expanded_tail(int(counts[values != 0].sum()), confidence)
    low, high = np.quantile(drawn @ values / total, [tail, 1 - tail])
    return float(low), float(high)


def alike(value: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a mean difference where all that was seen differs by the same, as `paired_bootstrap` says.

    Example:
        >>> low, high = alike(1.0, 5)
        >>> round(low, 3), high
        (-0.044, 1.0)
    """
    most = 1 - ((1 - confidence) / 2) ** (1 / count)
    return value - most * (value + 1), value + most * (1 - value)


def expanded_tail(differing: int, confidence: float = 0.95) -> float:
    """The quantile of drawn means that bounds an interval, for as many images, or clusters of them, as differ."""
    from scipy import stats

    degrees = max(differing - 1, 1)
    reach = float(stats.t.ppf((1 + confidence) / 2, degrees)) * (1 + 1 / degrees) ** 0.5
    return float(stats.norm.sf(reach))


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected so that among all of them the chance of even one false alarm stays below the level.

    Args:
        p: Of m tests, in any order.

    Returns:
        The corrected ones in the same order.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = highest
    return corrected
