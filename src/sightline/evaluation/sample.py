"""The labelled images of one set of predictions, laid out for counting: sorted, checked, and with what belongs together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline.errors import DataError, unknown
from sightline.records import Predictions

ROUNDING = 0.01
"""How far the sum of an image's probabilities may lie from 1."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Labelled answers, in an order that is a function of the answers and not of the table that they came in.

    Args:
        classes: k names.
        positive: The class that two-class curves speak of; None for more than two without one.
        y: int64 (n,), class indices.
        y_pred: int64 (n,), the answers.
        probs: float64 (n, k).
        unit: int64 (n,), images of one number are drawn together when the set is resampled; 0 … units - 1.
        stratum: int64 (units,), the class that each unit is drawn within: the most frequent label of its images.
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
        """Whether some images belong together."""
        return len(self.stratum) < len(self.y)

    @property
    def column(self) -> int | None:
        """The positive class's index where there are two classes."""
        return self.classes.index(self.positive) if len(self.classes) == 2 and self.positive is not None else None


def rarer_class(predictions: Predictions) -> str:
    """The class with the fewest labelled images; of equals the last by name, whatever the order of the columns.

    Example:
        >>> rarer_class(Predictions(("1.jpg", "2.jpg"), ("cat", "dog"), np.array([0, 0]), np.eye(2)))
        'dog'
    """
    k, known = len(predictions.classes), predictions.y_true[predictions.y_true >= 0]
    counts = np.bincount(known, minlength=k)
    return max(name for name, count in zip(predictions.classes, counts.tolist(), strict=True) if count == counts.min())


def sampled(predictions: Predictions, positive: str | None = None, groups: np.ndarray | None = None) -> Sample:
    """The labelled images of `predictions` as a sample.

    Args:
        predictions: What a classifier said of images.
        positive: For two classes, the one that curves speak of; else the rarer one.
        groups: (n,) of any kind that NumPy can sort, equal for images that belong together; None where each is on its own.

    Raises:
        RequestError: `positive` is no class.
        DataError: A probability is not a number, or `groups` does not hold one value per image.
    """
    classes = predictions.classes
    if positive is not None and positive not in classes:
        raise unknown("class", positive, classes)
    _check_probabilities(predictions)
    if groups is not None and np.shape(groups) != (len(predictions),):
        raise DataError(f"{np.size(groups)} groups are given for {len(predictions)} images", "give one value per image")
    if positive is None and len(classes) == 2:
        positive = rarer_class(predictions)
    rows = np.flatnonzero(predictions.y_true >= 0)
    y, probs, y_pred = predictions.y_true[rows], predictions.probs[rows], predictions.y_pred[rows]
    # A row's key is a function of its own numbers and of names, so that the resamples depend on the order of neither rows nor
    # columns.
    place = np.argsort(np.argsort(np.array(classes, dtype=object)))
    key = (probs * np.sqrt(2.0 + place)).sum(axis=1)
    unit = np.arange(len(rows)) if groups is None else np.unique(np.asarray(groups)[rows], return_inverse=True)[1].ravel()
    size, first = np.bincount(unit, minlength=1), np.full(max(len(rows), 1), np.inf)
    np.minimum.at(first, unit, key)
    order = np.lexsort((size[unit], first[unit], key, place[y]))
    _, start, unit = np.unique(unit[order], return_index=True, return_inverse=True)
    unit = np.argsort(np.argsort(start))[unit.ravel()]  # numbered by first appearance
    y = y[order]
    return Sample(classes, positive, y, y_pred[order], probs[order], unit, _strata(unit, place[y], len(classes)))


def _strata(unit: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """int64 (units,): the most frequent label of each unit's images, the first of equals."""
    pairs, counts = np.unique(unit * k + y, return_counts=True)
    order = np.lexsort((-counts, pairs // k))
    return np.asarray((pairs % k)[order[np.unique((pairs // k)[order], return_index=True)[1]]], dtype=np.int64)


def _check_probabilities(predictions: Predictions) -> None:
    """Refuse what are no probabilities, naming the first image."""
    bad = np.flatnonzero(~np.isfinite(predictions.probs).all(axis=1))
    if bad.size:
        where = predictions.paths[int(bad[0])]
        hint = "the classifier's weights or its inputs hold values that are not numbers"
        raise DataError(f"{bad.size} images have probabilities that are not numbers, {where} the first", hint)
    bad = np.flatnonzero((predictions.probs < -ROUNDING).any(axis=1) | (np.abs(predictions.probs.sum(axis=1) - 1) > ROUNDING))
    if bad.size:
        where = predictions.paths[int(bad[0])]
        what = f"{bad.size} images have numbers that are no probabilities (below 0, or not 1 in sum), {where} the first"
        raise DataError(what, "give a softmax of the scores")
