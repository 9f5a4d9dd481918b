"""Curves as data, and the numbers that are read off them: ROC, its area, the equal error rate, calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 15
"""Equal-width bins of the top probability for the calibration error. Source: Guo et al. 2017, section 5."""


def placements(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every image the share of images of the other kind that it is on the right side of, ties counted half.

    Their mean over either kind is the area under the ROC curve; their spread gives its interval (DeLong).

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher speaks for the positive class.

    Returns:
        float64 (positives,) and float64 (negatives,), in 0–1, in the order of the images.
    """
    positive, negative = np.sort(score[y]), np.sort(score[~y])
    below = np.searchsorted(negative, score[y], "left") + np.searchsorted(negative, score[y], "right")
    above = 2 * len(positive) - np.searchsorted(positive, score[~y], "left") - np.searchsorted(positive, score[~y], "right")
    return below / (2 * max(len(negative), 1)), above / (2 * max(len(positive), 1))


def auc(y: np.ndarray, score: np.ndarray) -> float | None:
    """The area under the ROC curve: the chance that a positive image scores above a negative one, ties counted half.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher speaks for the positive class.

    Returns:
        0–1, or None where one of the two kinds is absent.

    Example:
        >>> auc(np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8]))
        0.75
    """
    y = np.asarray(y, dtype=bool)
    if y.all() or not y.any():
        return None
    return float(placements(y, np.asarray(score, dtype=np.float64))[0].mean())


def roc_curve(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ROC curve, from (0, 0) to (1, 1), without the points that lie on a line between their neighbours.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher speaks for the positive class.

    Returns:
        False positive rate, true positive rate and threshold, float64 (m,) each; the first threshold is infinite. A rate
        whose class is absent is NaN throughout.

    Source: the definition of scikit-learn's `roc_curve`, to the last point.
    """
    y, score = np.asarray(y, dtype=bool), np.asarray(score, dtype=np.float64)
    if not len(y):
        return np.array([np.nan]), np.array([np.nan]), np.array([np.inf])
    order = np.argsort(score, kind="stable")[::-1]
    y, score = y[order], score[order]
    last = np.r_[np.flatnonzero(np.diff(score)), len(y) - 1]  # the last image of each run of equal scores
    tps = np.cumsum(y)[last].astype(np.float64)
    fps = 1.0 + last - tps
    if len(tps) > 2:
        corner = np.r_[True, (np.diff(fps, 2) != 0) | (np.diff(tps, 2) != 0), True]
        tps, fps, last = tps[corner], fps[corner], last[corner]
    tps, fps = np.r_[0.0, tps], np.r_[0.0, fps]
    fpr = fps / fps[-1] if fps[-1] else np.full(len(fps), np.nan)
    tpr = tps / tps[-1] if tps[-1] else np.full(len(tps), np.nan)
    return fpr, tpr, np.r_[np.inf, score[last]]


def equal_error_rate(y: np.ndarray, score: np.ndarray) -> float | None:
    """The error rate where as large a share of positives is missed as of negatives is let through.

    Between two points of the ROC curve it is read off the straight line that joins them.

    Returns:
        0–1, or None where one of the two kinds is absent.
    """
    y = np.asarray(y, dtype=bool)
    if y.all() or not y.any():
        return None
    fpr, tpr, _ = roc_curve(y, score)
    gap = fpr - (1.0 - tpr)  # rises from -1 to 1 along the curve
    right = int(np.argmax(gap >= 0))
    left = right - 1
    share = -gap[left] / (gap[right] - gap[left])
    return float(fpr[left] + share * (fpr[right] - fpr[left]))


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The images whose top probability falls into (low, high].

    Args:
        low, high: The edges of the bin.
        n: How many images fall into it.
        confidence: The mean of their top probabilities.
        accuracy: The share of them that is right.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def bins_of(confidence: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """int64 (n,): which of equally wide bins of 0–1 holds each number; a bin holds its upper edge and not its lower one."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.asarray(np.clip(np.searchsorted(edges, confidence, "left") - 1, 0, bins - 1), dtype=np.int64)


def calibration_curve(correct: np.ndarray, confidence: np.ndarray, bins: int = CALIBRATION_BINS) -> list[CalibrationBin]:
    """How often the classifier is right where it claims a certainty, in equal-width bins; empty bins are left out.

    Args:
        correct: bool (n,), whether the class of the top probability is the label.
        confidence: float (n,), the top probability, 0–1.
        bins: How many bins 0–1 is cut into; a bin holds its upper edge and not its lower one.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2.
    """
    correct, confidence = np.asarray(correct, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    edges, which = np.linspace(0.0, 1.0, bins + 1), bins_of(confidence, bins)
    n = np.bincount(which, minlength=bins)
    right = np.bincount(which, weights=correct, minlength=bins)
    claimed = np.bincount(which, weights=confidence, minlength=bins)
    return [
        CalibrationBin(float(edges[b]), float(edges[b + 1]), int(n[b]), float(claimed[b] / n[b]), float(right[b] / n[b]))
        for b in np.flatnonzero(n)
    ]


def expected_calibration_error(correct: np.ndarray, confidence: np.ndarray, bins: int = CALIBRATION_BINS) -> float | None:
    """The mean distance between claimed certainty and accuracy over the bins, weighted by their images.

    Returns:
        0–1, or None without images.
    """
    curve = calibration_curve(correct, confidence, bins)
    total = sum(b.n for b in curve)
    return sum(b.n * abs(b.accuracy - b.confidence) for b in curve) / total if total else None
