"""The fitting problem of a head: labelled features, folds, the scale of features, and the outcome of a fit."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from sightline import activity
from sightline.deadline import UNLIMITED, Deadline
from sightline.errors import DataError, ModelFileError, RequestError

Arrays = Mapping[str, np.ndarray]
Setting = Mapping[str, Any]
T = TypeVar("T")
R = TypeVar("R")

Watch = Callable[[float, float], None]
"""Progress callback of a fit: (fraction done, accuracy on held-out images so far). It may raise an exception to stop it."""

ABSENT_LOGIT = -10.0
"""Logit of a class without training rows, where those of the other classes sum to zero: it is never predicted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Labelled features, folds and options of a fit.

    Args:
        features: float32 (n, d), finite, C-contiguous.
        y: int64 (n,), class indices.
        classes: k.
        folds: (training rows, held-out rows) of each fold.
        refit: Fit the final head on all rows of all folds; otherwise on the first fold's training rows.
        seed: Random seed.
        class_weight: `balanced` gives each class the same total weight.
        watch: Called after the first fold, or after every epoch.
        deadline: Time limit; the fit raises `OutOfTimeError` once it has passed.
    """

    features: np.ndarray
    y: np.ndarray
    classes: int
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]
    refit: bool
    seed: int
    class_weight: Literal["balanced"] | None
    watch: Watch | None = None
    deadline: Deadline = UNLIMITED

    @property
    def rows(self) -> np.ndarray:
        """Rows that occur in folds, sorted, int64."""
        return np.unique(np.concatenate([part for fold in self.folds for part in fold]))

    @property
    def final_rows(self) -> np.ndarray:
        """Rows that the final head is fitted on, int64."""
        return self.rows if self.refit else self.folds[0][0]

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """Return the sample weights of `rows`, float64 (m,), which sum to m."""
        if self.class_weight is None:
            return np.ones(len(rows))
        counts = np.bincount(self.y[rows], minlength=self.classes)
        per_class = len(rows) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return np.asarray(per_class[self.y[rows]])


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of fitting a head.

    Args:
        arrays: Arrays of the final head.
        chosen: The selected setting, with which the final head was fitted.
        logits: Out-of-fold logits float64 (n, k) with the selected setting; NaN for rows that were never held out.
        path: The settings compared, each with its held-out `accuracy` and `log_loss`.
    """

    arrays: Arrays
    chosen: Setting
    logits: np.ndarray
    path: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Scale:
    """Centring and scaling of features by one factor, after which their mean squared length is 1.

    One factor, not one per feature: the features of a network share a unit, and standardising those that hardly vary made
    heads slightly worse (flowers: accuracy 0.884 against 0.888). One factor also commutes with rotations, which lets ridge and
    logistic share work between folds.

    Args:
        mean: float64 (d,).
        length: Root mean squared length of the centred features, positive.
    """

    mean: np.ndarray
    length: float

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Return features centred and scaled, float32 (n, d)."""
        scaled = features - self.mean.astype(np.float32)
        scaled *= np.float32(1 / self.length)
        return scaled

    def fold(self, weights: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        """Return float32 arrays of a linear head on unscaled features, given weights (k, d) and bias (k,) on scaled ones."""
        folded = weights / self.length
        return {"weights": folded.astype(np.float32), "bias": (bias - folded @ self.mean).astype(np.float32)}


def scale_of(features: np.ndarray) -> Scale:
    """Return the scale of features (n, d); constant features get the length 1."""
    mean = features.mean(axis=0, dtype=np.float64)
    total = 0.0
    for start in range(0, len(features), 4096):
        total += float(((features[start : start + 4096] - mean) ** 2).sum())
    length = math.sqrt(total / len(features)) if len(features) else 0.0
    # The rounding error of constant features is no signal.
    rounding = 1e-6 * float(np.sqrt((mean**2).sum()))
    return Scale(mean, length if length > rounding else 1.0)


def expect(arrays: Arrays, name: str, shape: tuple[int | None, ...], kinds: str = "f") -> np.ndarray:
    """Return one array of a head after checking its shape and dtype.

    Args:
        arrays: Arrays of the head.
        name: Name of the array.
        shape: The expected shape; None stands for any length of at least 1.
        kinds: The allowed kinds of numpy dtype, such as `f` or `iu`.

    Raises:
        ModelFileError: If the array is missing or has another shape or dtype.
    """
    if name not in arrays:
        raise ModelFileError(f"the tensor head.{name} is missing")
    array = np.asarray(arrays[name])
    if array.dtype.kind not in kinds:
        raise ModelFileError(f"the tensor head.{name} cannot hold {array.dtype} values")
    matches = array.ndim == len(shape) and all(n >= 1 if s is None else n == s for n, s in zip(array.shape, shape, strict=True))
    if not matches:
        expected = ", ".join("any" if s is None else str(s) for s in shape)
        raise ModelFileError(f"the tensor head.{name} has the shape {array.shape}, expected ({expected})")
    return array


def expect_range(array: np.ndarray, name: str, low: float, high: float) -> None:
    """Check that all values of a head's array lie between two numbers, both included.

    Raises:
        ModelFileError: If a value lies outside.
    """
    if array.size and not (array.min() >= low and array.max() <= high):
        raise ModelFileError(f"the tensor head.{name} holds values outside {low:g} to {high:g}")


def with_absent(weights: np.ndarray, bias: np.ndarray, present: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Extend a linear head to classes without training rows, and centre the others' weights and biases to sum to zero.

    Args:
        weights: (p, d).
        bias: (p,).
        present: int64 (p,), class indices of the rows of `weights`.
        classes: k.

    Returns:
        float64 (k, d) and (k,).
    """
    full = np.zeros((classes, weights.shape[1]))
    shift = np.full(classes, ABSENT_LOGIT)
    full[present] = weights - weights.mean(axis=0)
    shift[present] = bias - bias.mean()
    return full, shift


def check_settings(kind: str, **values: tuple[Any, float, float]) -> None:
    """Check that settings lie in their documented ranges.

    Args:
        kind: Name of the head, for the message.
        values: name=(value or tuple of values, minimum, maximum).

    Raises:
        RequestError: If a value is out of range, or a list is empty.
    """
    for name, (value, low, high) in values.items():
        if value == ():
            raise RequestError(f"{name!r} of the {kind} head is an empty list", f"give numbers from {low:g} to {high:g}")
        for number in as_tuple(value):
            if not low <= number <= high:  # NaN too
                raise RequestError(
                    f"{name!r} of the {kind} head cannot be {number:g}", f"give a number from {low:g} to {high:g}"
                )


def as_tuple(value: T | tuple[T, ...]) -> tuple[T, ...]:
    """Return a tuple as it is, and any other value as a tuple of one."""
    return value if isinstance(value, tuple) else (value,)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let matrix products use one thread within the block.

    Threads of small products mostly wait for each other (on a busy machine they were 5 to 100 times slower), folds run in
    parallel anyway, and the results don't depend on the number of cores.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1, user_api="blas"):
        yield


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply `work` to each item in parallel threads, one per core."""
    cores = os.cpu_count() or 1
    if len(items) < 2 or cores < 2:
        return [work(item) for item in items]
    with activity.workers(min(cores, len(items)), "sightline-fit") as pool:
        return list(pool.map(work, items))


def checked(
    features: np.ndarray,
    y: np.ndarray,
    classes: int,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    refit: bool,
    seed: int,
    class_weight: Literal["balanced"] | None,
    watch: Watch | None = None,
    deadline: Deadline = UNLIMITED,
) -> Problem:
    """Return a `Problem` after checking its arrays.

    Raises:
        DataError: If features are not finite or not (n, d), a label is out of range, or a fold has no training rows.
    """
    features = check_features(features)
    y = np.ascontiguousarray(y, dtype=np.int64)
    if y.shape != (len(features),):
        raise DataError(f"there are {len(features)} rows of features and {y.size} labels")
    if len(y) and not (y.min() >= 0 and y.max() < classes):
        raise DataError(f"the labels go from {y.min()} to {y.max()}, but there are {classes} classes (0 to {classes - 1})")
    parts = tuple((np.asarray(a, dtype=np.int64), np.asarray(b, dtype=np.int64)) for a, b in folds)
    if not parts or not all(len(a) for a, _ in parts):
        raise DataError("there are no rows to fit a head on", "add photographs to the training split")
    return Problem(
        features=features,
        y=y,
        classes=classes,
        folds=parts,
        refit=refit,
        seed=seed,
        class_weight=class_weight,
        watch=watch,
        deadline=deadline,
    )


def check_features(features: np.ndarray) -> np.ndarray:
    """Return features as float32 (n, d), C-contiguous.

    Raises:
        DataError: If they have another shape, or are not finite (NaN, infinity, beyond the range of float32).
    """
    features = np.asarray(features)
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise DataError(f"features must be numbers in (rows, columns), not {features.dtype} {features.shape}")
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(features, dtype=np.float32)
    if not np.isfinite(features.sum(dtype=np.float64)):  # cheaper than a test of every number
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        hint = "check the backbone's weights and precision; leave these images out, or compute in float32"
        raise DataError(f"{len(bad)} of {len(features)} rows of features are not finite (the first is row {bad[0]})", hint)
    return features
