"""Labelled predictions, validated, sorted and grouped into independent units for metrics and bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline.errors import DataError, unknown
from sightline.records import Predictions

ROUNDING = 0.01
"""Tolerance for the sum of an image's probabilities, which should be 1."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Labelled predictions in canonical order, which doesn't depend on the order of the input rows.

    Args:
        classes: k class names.
        positive: Positive class of two; may be None for more than two.
        y: int64 (n,), true class indices.
        y_pred: int64 (n,), predicted class indices.
        probs: float64 (n, k), probabilities.
        unit: int64 (n,), 0 … units - 1; images of one unit are drawn together in the bootstrap.
        stratum: int64 (units,), class within which each unit is drawn: the most frequent label of its images.
    """

    classes: tuple[str, ...]
    positive: str | None
    y: np.ndarray
    y_pred: np.ndarray
    probs: np.ndarray
    unit: np.ndarray
    stratum: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def clustered(self) -> bool:
        """Return whether some images belong together."""
        return len(self.stratum) < len(self.y)

    @property
    def column(self) -> int | None:
        """Return the index of the positive class for two classes, else None."""
        return self.classes.index(self.positive) if len(self.classes) == 2 and self.positive is not None else None


def rarer_class(predictions: Predictions) -> str:
    """Return the class with the fewest labelled images; of equals the last by name, whatever the order of the columns.

    Example:
        >>> rarer_class(Predictions(("1.jpg", "2.jpg"), ("cat", "dog"), np.array([0, 0]), np.eye(2)))
        'dog'
    """
    k, labels = len(predictions.classes), predictions.y_true[predictions.y_true >= 0]
    counts = np.bincount(labels, minlength=k)
    return max(name for name, count in zip(predictions.classes, counts.tolist(), strict=True) if count == counts.min())


def sampled(predictions: Predictions, positive: str | None = None, groups: np.ndarray | None = None) -> Sample:
    """Return the labelled images of `predictions` as a sample.

    Args:
        predictions: Predicted probabilities of images.
        positive: Positive class for two classes; the rarer one by default.
        groups: (n,) of any type that NumPy can sort, equal for images that belong together; None if all are independent.

    Raises:
        RequestError: If `positive` is no class.
        DataError: If a probability is NaN or infinite, or `groups` does not hold one value per image.
    """
    classes = predictions.classes
    if positive is not None and positive not in classes:
        raise unknown("class", positive, classes)
    _check_probabilities(predictions)
    if groups is not None and np.shape(groups) != (len(predictions),):
        raise DataError(f"{np.size(groups)} groups are given for {len(predictions)} images", "pass one value per image")
    if positive is None and len(classes) == 2:
        positive = rarer_class(predictions)
    rows = np.flatnonzero(predictions.y_true >= 0)
    y, probs, y_pred = predictions.y_true[rows], predictions.probs[rows], predictions.y_pred[rows]
    # A row's sort key depends on its probabilities and the class names alone, so that bootstrap samples depend neither on the
    # order of rows nor on that of columns.
    place = np.argsort(np.argsort(np.array(classes, dtype=object)))
    key = (probs * np.sqrt(2.0 + place)).sum(axis=1)
    unit = np.arange(len(rows)) if groups is None else np.unique(np.asarray(groups)[rows], return_inverse=True)[1].ravel()
    size, first = np.bincount(unit, minlength=1), np.full(max(len(rows), 1), np.inf)
    np.minimum.at(first, unit, key)
    order = np.lexsort((size[unit], first[unit], key, place[y]))
    _, start, unit = np.unique(unit[order], return_index=True, return_inverse=True)
    unit = np.argsort(np.argsort(start))[unit.ravel()]  # numbered by first appearance
    y = y[order]
    strata = _strata(unit, place[y], len(classes))
    return Sample(classes, positive, y=y, y_pred=y_pred[order], probs=probs[order], unit=unit, stratum=strata)


def _strata(unit: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Return the most frequent label of each unit's images, the first of equals, int64 (units,)."""
    pairs, counts = np.unique(unit * k + y, return_counts=True)
    order = np.lexsort((-counts, pairs // k))
    return np.asarray((pairs % k)[order[np.unique((pairs // k)[order], return_index=True)[1]]], dtype=np.int64)


def _check_probabilities(predictions: Predictions) -> None:
    """Check that the probabilities are finite, at least 0 and sum to 1.

    Raises:
        DataError: If they are not; the message names the first image.
    """
    bad = np.flatnonzero(~np.isfinite(predictions.probs).all(axis=1))
    if bad.size:
        where = predictions.paths[int(bad[0])]
        hint = "check the classifier's weights and inputs for NaN"
        raise DataError(f"{bad.size} images have NaN or infinite probabilities, first {where}", hint)
    bad = np.flatnonzero((predictions.probs < -ROUNDING).any(axis=1) | (np.abs(predictions.probs.sum(axis=1) - 1) > ROUNDING))
    if bad.size:
        where = predictions.paths[int(bad[0])]
        message = f"{bad.size} images have invalid probabilities (below 0, or a sum other than 1), first {where}"
        raise DataError(message, "pass the softmax of the logits")
