"""Softmax, log loss and temperature scaling of logits."""

from __future__ import annotations

import numpy as np

from sightline.errors import DataError

TEMPERATURES = (0.01, 100.0)
"""Range of `temperature`; beyond it, probabilities are nearly uniform or nearly 0 and 1."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits.

    Args:
        logits: (n, k).

    Returns:
        float64 (n, k); each row sums to 1.

    Example:
        >>> softmax(np.array([[0.0, 0.0]])).tolist()
        [[0.5, 0.5]]
    """
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of `softmax`, float64 (n, k), finite even if a probability underflows to 0."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def log_probs(probs: np.ndarray) -> np.ndarray:
    """Return logits float64 (n, k) whose softmax is `probs`, finite even if a probability is 0."""
    return np.log(np.maximum(np.asarray(probs, dtype=np.float64), 1e-300))


def log_loss(logits: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the (weighted) mean of −log p of the true class.

    Args:
        logits: (n, k).
        y: True class indices, int (n,).
        weights: Sample weights (n,), not negative; None for equal weights.
    """
    losses = -log_softmax(logits)[np.arange(len(y)), y]
    return float(np.average(losses, weights=weights))


def temperature(logits: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the temperature T that minimises the log loss of logits / T. It never changes a prediction.

    The loss is convex in 1 / T, so there is one minimum; it is searched in log T within TEMPERATURES. If every prediction is
    correct, the loss has no minimum: n of n correct predictions justify a mean confidence of (n + 1) / (n + 2) at most
    (Laplace's rule of succession), and T is never below the value that gives it.

    Args:
        logits: (n, k), of images that the head was not fitted on.
        y: True class indices, int64 (n,).
        weights: Sample weights (n,), or None.

    Returns:
        T; 1.0 without images or with fewer than two classes.

    Raises:
        DataError: If a logit is NaN or infinite.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2.
    """
    if not len(y) or logits.shape[1] < 2:
        return 1.0
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise DataError(f"{bad} of {len(y)} rows of logits are not finite numbers", "leave them out of the calibration")
    from scipy.optimize import brentq, minimize_scalar

    def overconfidence(t: float) -> float:
        confidence = softmax(logits / np.exp(t)).max(axis=1)
        return float(np.average(confidence, weights=weights)) - (len(y) + 1) / (len(y) + 2)

    low, high = np.log(TEMPERATURES)
    minimum = minimize_scalar(
        lambda t: log_loss(logits / np.exp(t), y, weights), bounds=(low, high), method="bounded", options={"xatol": 1e-7}
    )
    # The search never evaluates the bounds themselves; and if T makes no difference, it stays 1.
    losses = {t: log_loss(logits / np.exp(t), y, weights) for t in (0.0, float(minimum.x), float(low), float(high))}
    best = min(losses, key=lambda t: losses[t])
    best = best if losses[best] < losses[0.0] - 1e-12 else 0.0
    if overconfidence(best) > 0:
        best = brentq(overconfidence, best, high, xtol=1e-7) if overconfidence(high) < 0 else high
    return float(np.exp(best))
