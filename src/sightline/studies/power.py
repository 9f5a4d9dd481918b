"""How many images a paired comparison needs: the power of McNemar's exact test."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

POWER = 0.8
"""How often a difference that is there shall be found."""
MOST_IMAGES = 1_000_000
"""Above it the normal approximation stands alone; the exact test is no different there."""


def images_needed(only_a: int, only_b: int, n: int, *, level: float = 0.05, power: float = POWER) -> int | None:
    """How many images would tell two classifiers apart, if on others they differ as they did on these.

    Args:
        only_a, only_b: Images that one had right and the other wrong.
        n: Images in all.
        level: The test's, two-sided.
        power: The wanted chance that p falls below the level.

    Returns:
        The least number whose power in the exact test reaches `power`, to within 1 %; None where no difference was seen, so
        that nothing can be said.

    Source: Connor 1987, "Sample size for testing differences in proportions for the paired-sample design", equation 3 (as in
    Miettinen 1968), n = (z_α √ψ + z_β √(ψ − d²))² / d² with ψ the share of images on which they disagree and d the
    difference. From there the exact test's own power is looked for, which needs some more.

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
    reach = z.inv_cdf(1 - level / 2) * math.sqrt(discordant) + z.inv_cdf(power) * math.sqrt(max(discordant - d * d, 0.0))
    start = math.ceil((reach / d) ** 2)
    if start > MOST_IMAGES:
        return start
    count = max(2, math.floor(0.9 * start))
    while count < 2 * start + 100 and exact_power(count, discordant, d, level) < power:
        count = max(count + 1, math.ceil(1.005 * count))
    return count


def exact_power(n: int, discordant: float, difference: float, level: float = 0.05) -> float:
    """How often McNemar's exact test finds a difference on n images.

    Args:
        n: Images.
        discordant: The share of images that one has right and the other wrong.
        difference: Of their accuracies, positive, at most `discordant`.
        level: The test's, two-sided.

    Returns:
        The sum over all numbers of discordant images, binomial, of the chance to fall into the test's tails.

    Example:
        >>> round(exact_power(200, 0.125, 0.075), 3)
        0.835
    """
    from scipy import stats  # here, so that reports stay quick

    spread = 8 * math.sqrt(n * discordant * (1 - discordant)) + 8
    m = np.arange(max(0, math.floor(n * discordant - spread)), min(n, math.ceil(n * discordant + spread)) + 1)
    low = stats.binom.ppf(level / 2, m, 0.5)
    low = np.where(2 * stats.binom.cdf(low, m, 0.5) < level, low, low - 1)  # the largest tail below the level
    share = (discordant + difference) / (2 * discordant)
    found = stats.binom.cdf(low, m, share) + stats.binom.sf(m - low - 1, m, share)
    return float((stats.binom.pmf(m, n, discordant) * found).sum())
