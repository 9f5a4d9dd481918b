"""Images that belong together: how alike they are, and as how many independent ones they count."""

from __future__ import annotations

import numpy as np


def likeness(values: np.ndarray, unit: np.ndarray) -> float:
    """The correlation of two images of one group, 0–1: from all pairs, corrected for the mean being estimated too.

    It is 1 where it cannot be known: where all values are equal, or all images are of one group.

    Args:
        values: float or bool (n,), such as whether each image is answered wrongly.
        unit: int (n,), equal for images that belong together.

    Example:
        >>> likeness(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])), likeness(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
        (1.0, 0.0)
    """
    n, sizes = len(values), np.bincount(unit, minlength=1).astype(np.float64)
    pairs, apart = float((sizes * (sizes - 1)).sum()), values - values.mean() if n else np.zeros(0)
    squares = float((apart**2).sum())
    if squares <= 1e-18:
        return 1.0
    if not pairs:
        return 0.0
    found = (float((np.bincount(unit, apart) ** 2).sum()) - squares) / pairs / (squares / n)
    left = (1 - found) / n
    below = 1 - left * (float((sizes**2).sum()) / n - 1)
    return min(1.0, max(0.0, (found + left) / below)) if below > 1e-9 else 1.0


def cautious(values: np.ndarray, unit: np.ndarray) -> float:
    """`likeness` with one more group counted in that is all alike: few groups hardly tell it, three may be alike by chance.

    Example:
        >>> round(cautious(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])), 3)
        0.333
    """
    sizes = np.bincount(unit, minlength=1).astype(np.float64)
    pairs = sizes * (sizes - 1)
    if not pairs.any():
        return 0.0
    many = float(pairs.sum() ** 2 / (pairs**2).sum())  # as many groups of one size
    return (many * likeness(values, unit) + 1) / (many + 1)


def worth(weights: np.ndarray, unit: np.ndarray | None, alike: float = 1.0) -> float:
    """As how many independent images a weighted mean of n images counts, given how alike those of a group are; 0 of none.

    1 / sum of w² for weights of sum 1, with what images of one group share: for equal weights and groups of m images n
    divided by the design effect 1 + alike (m - 1).

    Args:
        weights: float (n,), how much each image weighs, at least 0.
        unit: int (n,), equal for images that belong together; None where each is on its own.
        alike: The correlation of two images of one group, 0–1.

    Source: Kish 1965, "Survey Sampling", sections 8.2 and 11.7.

    Example:
        >>> worth(np.ones(6), None), worth(np.ones(6), np.array([0, 0, 1, 1, 2, 2])), worth(np.array([3.0, 1.0]), None)
        (6.0, 3.0, 1.6)
    """
    total, squares = float(weights.sum()), float((weights**2).sum())
    if not squares:
        return 0.0
    if unit is not None:
        squares += alike * (float((np.bincount(unit, weights) ** 2).sum()) - squares)
    return total**2 / squares
