"""ROC curve, ROC AUC, equal error rate and calibration curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 15
"""Equal-width bins of the top probability for the calibration error. Source: Guo et al. 2017, section 5."""


def placements(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return DeLong placements: for each image the share of images of the other kind that it is ranked correctly against.

    Ties count half. Their mean over either kind is the area under the ROC curve; their variance gives its interval (DeLong).

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher means more likely positive.

    Returns:
        float64 (positives,) and float64 (negatives,), in 0–1, in the order of the images.
    """
    positive, negative = np.sort(score[y]), np.sort(score[~y])
    below = np.searchsorted(negative, score[y], "left") + np.searchsorted(negative, score[y], "right")
    above = 2 * len(positive) - np.searchsorted(positive, score[~y], "left") - np.searchsorted(positive, score[~y], "right")
    return below / (2 * max(len(negative), 1)), above / (2 * max(len(positive), 1))


def auc(y: np.ndarray, score: np.ndarray) -> float | None:
    """Return the area under the ROC curve: the probability that a positive scores above a negative, ties counted half.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher means more likely positive.

    Returns:
        0–1, or None if all images are positive or all are negative.

    Example:
        >>> auc(np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8]))
        0.75
    """
    y = np.asarray(y, dtype=bool)
    if y.all() or not y.any():
        return None
    return float(placements(y, np.asarray(score, dtype=np.float64))[0].mean())


def roc_curve(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ROC curve from (0, 0) to (1, 1), without points that lie on a line between their neighbours.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher means more likely positive.

    Returns:
        False positive rate, true positive rate and threshold, float64 (m,) each; the first threshold is infinite. The false
        positive rate is NaN without negatives, the true positive rate without positives.

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
    """Return the error rate at the threshold where the false negative rate equals the false positive rate.

    Between two points of the ROC curve it is interpolated linearly.

    Returns:
        0–1, or None if all images are positive or all are negative.
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
    """Bin of a calibration curve: the images whose confidence falls into (low, high].

    Args:
        low, high: Edges of the bin, 0–1.
        n: Number of images in it.
        confidence: Mean confidence (probability of the predicted class).
        accuracy: Share of correct predictions.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def bins_of(confidence: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Return the equal-width bin of 0–1 of each number, int64 (n,); a bin includes its upper edge and not its lower one."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.asarray(np.clip(np.searchsorted(edges, confidence, "left") - 1, 0, bins - 1), dtype=np.int64)


def calibration_curve(correct: np.ndarray, confidence: np.ndarray, bins: int = CALIBRATION_BINS) -> list[CalibrationBin]:
    """Return accuracy by confidence in equal-width bins; empty bins are left out.

    Args:
        correct: bool (n,), whether each prediction is correct.
        confidence: float (n,), probability of the predicted class, 0–1.
        bins: Number of bins; a bin includes its upper edge and not its lower one.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2.
    """
    correct, confidence = np.asarray(correct, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    edges, which = np.linspace(0.0, 1.0, bins + 1), bins_of(confidence, bins)
    n = np.bincount(which, minlength=bins)
    right = np.bincount(which, weights=correct, minlength=bins)
    summed = np.bincount(which, weights=confidence, minlength=bins)
    return [
        CalibrationBin(float(edges[b]), float(edges[b + 1]), int(n[b]), float(summed[b] / n[b]), float(right[b] / n[b]))
        for b in np.flatnonzero(n)
    ]


def expected_calibration_error(correct: np.ndarray, confidence: np.ndarray, bins: int = CALIBRATION_BINS) -> float | None:
    """Return the mean absolute gap between confidence and accuracy over bins, weighted by their number of images.

    Returns:
        0–1, or None without images.
    """
    curve = calibration_curve(correct, confidence, bins)
    total = sum(b.n for b in curve)
    return sum(b.n * abs(b.accuracy - b.confidence) for b in curve) / total if total else None
