"""From logits to probabilities, their log loss, and the one temperature that makes them honest."""

from __future__ import annotations

import numpy as np

from sightline.errors import DataError

TEMPERATURES = (0.01, 100.0)
"""The range of `temperature`: beyond it, logits are either all but equal or all but certain."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of logits as probabilities.

    Args:
        logits: (n, k).

    Returns:
        float64 (n, k), rows that sum to 1. The greatest logit has the greatest probability, also where others are 0.

    Example:
        >>> softmax(np.array([[0.0, 0.0]])).tolist()
        [[0.5, 0.5]]
    """
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithm of `softmax`, float64 (n, k), finite also where a probability is too small for a float."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def log_probs(probs: np.ndarray) -> np.ndarray:
    """Probabilities as logits float64 (n, k) whose softmax they are, finite also where one is 0."""
    return np.log(np.maximum(np.asarray(probs, dtype=np.float64), 1e-300))


def log_loss(logits: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The (weighted) mean of −log p of the right class.

    Args:
        logits: (n, k).
        y: int (n,).
        weights: (n,), not negative, or None for equal ones.
    """
    losses = -log_softmax(logits)[np.arange(len(y)), y]
    return float(np.average(losses, weights=weights))


def temperature(logits: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The number by which to divide logits so that their log loss is least. It never changes an answer.

    The loss is convex in 1 / T, so there is one minimum; it is sought in log T within TEMPERATURES. Where every answer is
    right, the loss would fall without end: n right answers out of n only warrant a mean confidence of (n + 1) / (n + 2)
    (Laplace's rule of succession), and T is never below what gives that.

    Args:
        logits: (n, k), of images that the head was not fitted on.
        y: int64 (n,).
        weights: (n,), or None.

    Returns:
        T; 1.0 where there is nothing to fit it on.

    Raises:
        DataError: A logit is not a number.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2.
    """
    if not len(y) or logits.shape[1] < 2:
        return 1.0
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise DataError(f"{bad} of {len(y)} rows of logits are not finite numbers", "leave them out of the calibration")
    from scipy.optimize import brentq, minimize_scalar

    def too_sure(t: float) -> float:
        confidence = softmax(logits / np.exp(t)).max(axis=1)
        return float(np.average(confidence, weights=weights)) - (len(y) + 1) / (len(y) + 2)

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda t: log_loss(logits / np.exp(t), y, weights), bounds=(low, high), method="bounded", options={"xatol": 1e-7}
    )
    # The search never tries its bounds themselves; and where T makes no difference it stays 1.
    losses = {t: log_loss(logits / np.exp(t), y, weights) for t in (0.0, float(found.x), float(low), float(high))}
    best = min(losses, key=lambda t: losses[t])
    best = best if losses[best] < losses[0.0] - 1e-12 else 0.0
    if too_sure(best) > 0:
        best = brentq(too_sure, best, high, xtol=1e-7) if too_sure(high) < 0 else high
    return float(np.exp(best))
