"""Quantification: estimate how many images of each class there are from predictions that are sometimes wrong.

Source: Forman 2008, "Quantifying counts and costs via classification", section 3 (adjusted count); for several classes, the
constrained least-squares form of Bunse 2022, "On multi-class extensions of adjusted classify and count".
"""

from __future__ import annotations

import numpy as np

from sightline.store import stream

DRAWS = 300
"""Bootstrap samples for the intervals."""
MOST_CLASSES = 200
"""With more classes, counts are not corrected: the confusion matrix is too large to be estimated."""


def adjusted_shares(confusion: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the estimated share of each class, float64 (k,).

    Args:
        confusion: float (k, k), number of held-out images of each class (rows) with each prediction (columns). A class without
            held-out images is taken as always predicted right.
        predicted: float (k,), number of new images with each prediction.

    Example:
        >>> confusion = np.array([[90, 10], [20, 80]])
        >>> adjusted_shares(confusion, np.array([62, 38])).round(6).tolist()
        [0.6, 0.4]
    """
    from scipy.optimize import nnls

    rates = _rates(confusion)
    shares = predicted / predicted.sum()
    weight = 1e3  # of the condition that the shares sum to 1
    matrix, target = np.vstack([rates.T, np.full(len(shares), weight)]), np.append(shares, weight)
    solution = nnls(matrix, target)[0]
    return np.asarray(solution / solution.sum())


def adjusted_counts(confusion: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return estimated class counts with their 95 % intervals, float64 (k,) each: counts, lower and upper ends.

    The intervals come from a Bayesian bootstrap of both the held-out images, class by class, and the new predictions; with a
    prior of one image in all, a class that was never predicted has an interval too.

    Args:
        confusion, predicted: As in `adjusted_shares`, whole numbers.
    """
    total = int(predicted.sum())
    counts = total * adjusted_shares(confusion, predicted)
    random, prior = stream(0, "adjusted counts"), 1 / len(predicted)
    known = confusion.sum(axis=1) > 0
    samples = []
    for _ in range(DRAWS):
        drawn = np.stack([random.dirichlet(row + prior) for row in confusion]) * known[:, None]
        samples.append(total * adjusted_shares(drawn, random.dirichlet(predicted + prior)))
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    return counts, np.minimum(low, counts), np.maximum(high, counts)


def _rates(confusion: np.ndarray) -> np.ndarray:
    """Return the share of each prediction among the images of each class, float64 (k, k)."""
    values = np.asarray(confusion, dtype=np.float64)
    total = values.sum(axis=1, keepdims=True)
    return np.where(total > 0, values / np.maximum(total, 1), np.eye(len(values)))
