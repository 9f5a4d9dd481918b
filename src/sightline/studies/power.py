"""Power analysis: the number of images that McNemar's exact test needs to detect a difference."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

POWER = 0.8
"""Default probability of detecting a true difference."""
MOST_IMAGES = 1_000_000
"""Above this number only the normal approximation is used; it agrees with the exact test there."""


def images_needed(only_a: int, only_b: int, n: int, *, level: float = 0.05) -> int | None:
    """Return the number of images needed to detect the difference of two classifiers, if it is as large as observed.

    Args:
        only_a, only_b: Numbers of images that only one of them predicts correctly.
        n: Number of images.
        level: Two-sided significance level of the test.

    Returns:
        The least number of images at which the exact test reaches `POWER`, to within 1 %; None if no difference was observed.

    Source: Connor 1987, "Sample size for testing differences in proportions for the paired-sample design", equation 3 (as in
    Miettinen 1968), n = (z_α √ψ + z_β √(ψ − d²))² / d² with ψ the fraction of images on which they disagree and d the
    difference. The search for the power of the exact test, which needs a few more images, starts from there.

    Example:
        >>> images_needed(15, 10, 200)
        1639
        >>> images_needed(10, 10, 200) is None
        True
    """
    d, discordant = abs(only_a - only_b) / n, (only_a + only_b) / n
    if not d:
        return None
    z = NormalDist()
    root = z.inv_cdf(1 - level / 2) * math.sqrt(discordant) + z.inv_cdf(POWER) * math.sqrt(max(discordant - d * d, 0.0))
    start = math.ceil((root / d) ** 2)
    if start > MOST_IMAGES:
        return start
    count = max(2, math.floor(0.9 * start))
    while count < 2 * start + 100 and exact_power(count, discordant, d, level) < POWER:
        count = max(count + 1, math.ceil(1.005 * count))
    return count


def exact_power(n: int, discordant: float, difference: float, level: float = 0.05) -> float:
    """Return the power of McNemar's exact test on n images.

    Args:
        n: Number of images.
        discordant: Fraction of images that only one classifier predicts correctly.
        difference: Difference of their accuracies, positive, at most `discordant`.
        level: Two-sided significance level of the test.

    Returns:
        The probability of a significant result, summed over the binomial number of discordant images.

    Example:
        >>> round(exact_power(200, 0.125, 0.075), 3)
        0.835
    """
    from scipy import stats  # imported here to keep reports fast

    spread = 8 * math.sqrt(n * discordant * (1 - discordant)) + 8
    m = np.arange(max(0, math.floor(n * discordant - spread)), min(n, math.ceil(n * discordant + spread)) + 1)
    low = stats.binom.ppf(level / 2, m, 0.5)
    low = np.where(2 * stats.binom.cdf(low, m, 0.5) < level, low, low - 1)  # the largest tail below the level
    p = (discordant + difference) / (2 * discordant)
    significant = stats.binom.cdf(low, m, p) + stats.binom.sf(m - low - 1, m, p)
    return float((stats.binom.pmf(m, n, discordant) * significant).sum())
