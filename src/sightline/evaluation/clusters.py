"""Clustered images: intraclass correlation and effective sample size."""

from __future__ import annotations

import numpy as np


def intraclass_correlation(values: np.ndarray, unit: np.ndarray) -> float:
    """Return the intraclass correlation of values within groups, 0–1, from all pairs, corrected for the estimated mean.

    It is 1 if it cannot be estimated: if all values are equal, or all images are of one group.

    Args:
        values: float or bool (n,), such as whether each image is misclassified.
        unit: int (n,), equal for images that belong together.

    Example:
        >>> unit = np.array([0, 0, 1, 1])
        >>> intraclass_correlation(np.array([0, 0, 1, 1]), unit), intraclass_correlation(np.array([0, 1, 0, 1]), unit)
        (1.0, 0.0)
    """
    n, sizes = len(values), np.bincount(unit, minlength=1).astype(np.float64)
    pairs, centred = float((sizes * (sizes - 1)).sum()), values - values.mean() if n else np.zeros(0)
    squares = float((centred**2).sum())
    if squares <= 1e-18:
        return 1.0
    if not pairs:
        return 0.0
    correlation = (float((np.bincount(unit, centred) ** 2).sum()) - squares) / pairs / (squares / n)
    correction = (1 - correlation) / n
    divisor = 1 - correction * (float((sizes**2).sum()) / n - 1)
    return min(1.0, max(0.0, (correlation + correction) / divisor)) if divisor > 1e-9 else 1.0


def cautious_correlation(values: np.ndarray, unit: np.ndarray) -> float:
    """Return the intraclass correlation with one more, fully correlated group added: a cautious estimate for few groups.

    Example:
        >>> round(cautious_correlation(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])), 3)
        0.333
    """
    sizes = np.bincount(unit, minlength=1).astype(np.float64)
    pairs = sizes * (sizes - 1)
    if not pairs.any():
        return 0.0
    groups = float(pairs.sum() ** 2 / (pairs**2).sum())  # effective number of groups
    return (groups * intraclass_correlation(values, unit) + 1) / (groups + 1)


def effective_sample_size(weights: np.ndarray, unit: np.ndarray | None, correlation: float = 1.0) -> float:
    """Return the effective sample size of a weighted mean of n images, given the correlation within groups; 0 without images.

    It is 1 / sum of w² for weights of sum 1 and independent images; for equal weights and groups of m images it is n divided
    by the design effect 1 + correlation (m - 1).

    Args:
        weights: float (n,), weight of each image, at least 0.
        unit: int (n,), equal for images that belong together; None if all images are independent.
        correlation: Intraclass correlation, 0–1.

    Source: Kish 1965, "Survey Sampling", sections 8.2 and 11.7.

    Example:
        >>> effective_sample_size(np.ones(6), None), effective_sample_size(np.ones(6), np.array([0, 0, 1, 1, 2, 2]))
        (6.0, 3.0)
        >>> effective_sample_size(np.array([3.0, 1.0]), None)
        1.6
    """
    total, squares = float(weights.sum()), float((weights**2).sum())
    if not squares:
        return 0.0
    if unit is not None:
        squares += correlation * (float((np.bincount(unit, weights) ** 2).sum()) - squares)
    return total**2 / squares
