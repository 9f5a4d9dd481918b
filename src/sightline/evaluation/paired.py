"""Paired comparison of classifiers on the same images: exact tests, bootstrap intervals and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.errors import DataError
from sightline.store import stream

SIGNIFICANT = 0.05
"""Significance level of (corrected) p values."""
_CONFIDENCE = 0.95
_ROUNDS = 10_000
_PRODUCTS = 10_000_000
"""Number of products above which distributions are convolved by FFT, to about 1e-16 in absolute terms."""


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Return the exact two-sided p value of McNemar's test for equal accuracy of two classifiers on the same images.

    Only images that exactly one of them classifies correctly are informative: if both are equally accurate, each such image is
    a fair coin toss.

    Args:
        right_a, right_b: bool (n,), whether each classified an image correctly, in the same order of images.

    Raises:
        DataError: If the lengths differ.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions", with the binomial
    distribution in place of its normal approximation.

    Example:
        >>> mcnemar(np.array([1] * 6 + [0]), np.array([0] * 6 + [1]))
        0.125
    """
    from scipy import stats  # imported here: it is slow, and reports don't need it

    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(f"predictions for {a.size} images cannot be paired with predictions for {b.size}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if not only_a + only_b:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def sign_flip(differences: np.ndarray) -> float:
    """Return the exact two-sided p value of a sign-flip test: each difference is equally likely to have the other sign.

    This is McNemar's exact test for several predictions per image, as by one recipe with several seeds: an image counts once,
    with the difference in its number of correct predictions, since its predictions are far from independent. With one
    prediction per image the two tests are the same.

    Args:
        differences: int (n,), per image: number of correct predictions of a minus that of b.

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
        signs = np.zeros(2 * size * count + 1)
        signs[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        direct = len(chances) * len(signs) <= _PRODUCTS
        chances = np.convolve(chances, signs) if direct else np.maximum(signal.fftconvolve(chances, signs), 0)
        low -= size * count
    sums = np.arange(len(chances)) + low
    return float(min(1.0, chances[np.abs(sums) >= abs(int(values.sum()))].sum()))


def paired_bootstrap(differences: np.ndarray) -> tuple[float, float]:
    """Return the bootstrap percentile interval of a mean difference.

    Its quantiles are expanded from the normal distribution to Student's t, with the number of images that differ: the other
    images carry no information on the variance, and without the expansion there would be slightly too many false alarms.

    Args:
        differences: float (n,), per image: the score of a minus that of b.

    Returns:
        (low, high), of 95 %. If all n images differ by the same amount, bootstrap samples have no variance; then up to a share
        of 1 - 0.025^(1 / n) of all images may differ by anything from -1 to 1: Clopper and Pearson's bound. (0, 0) without
        images.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3, 10,000 rounds;
    Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 5.3, for the expansion.
    """
    values, counts = np.unique(np.asarray(differences, dtype=np.float64), return_counts=True)
    total = int(counts.sum())
    if len(values) < 2:
        return alike(float(values[0]), total) if total else (0.0, 0.0)
    # Images with the same difference are interchangeable, so one multinomial draw of their counts is a bootstrap sample.
    drawn = stream(0, "paired bootstrap").multinomial(total, counts / total, size=_ROUNDS)
    tail = expanded_tail(int(counts[values != 0].sum()))
    low, high = np.quantile(drawn @ values / total, [tail, 1 - tail])
    return float(low), float(high)


def alike(value: float, count: int) -> tuple[float, float]:
    """Return the interval of a mean difference if all images have the same difference, as in `paired_bootstrap`.

    Example:
        >>> low, high = alike(1.0, 5)
        >>> round(low, 3), high
        (-0.044, 1.0)
    """
    most = 1 - ((1 - _CONFIDENCE) / 2) ** (1 / count)
    return value - most * (value + 1), value + most * (1 - value)


def expanded_tail(differing: int) -> float:
    """Return the bootstrap quantile that bounds an interval, given the number of images (or clusters) that differ."""
    from scipy import stats

    degrees = max(differing - 1, 1)
    reach = float(stats.t.ppf((1 + _CONFIDENCE) / 2, degrees)) * (1 + 1 / degrees) ** 0.5
    return float(stats.norm.sf(reach))


def holm(p: Sequence[float]) -> list[float]:
    """Return p values with Holm's correction, which bounds the probability of any false alarm among them.

    Args:
        p: p values of m tests, in any order.

    Returns:
        The corrected p values in the same order.

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
