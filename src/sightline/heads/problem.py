"""What every kind of head is given to fit, what it gives back, and the one scale that features are brought to."""

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
"""Told how far a fit is, as it goes: (the share of it that is done, the accuracy on held-out images so far). It may raise, to
give the fit up."""

ABSENT_LOGIT = -10.0
"""The logit of a class that was not among the training rows, where those of the others sum to zero: it is never the answer."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Labelled features and how to choose and fit on them.

    Args:
        features: float32 (n, d), finite, C-contiguous.
        y: int64 (n,), class indices.
        classes: k.
        folds: (training rows, held-out rows) of each fold.
        refit: Fit the final head on all rows of all folds, not on the first fold's training rows.
        seed: Of every random draw.
        class_weight: `balanced` counts each class alike, whatever its number of rows.
        watch: Told after the first fold, or after every epoch; None where nobody asks.
        deadline: The fit raises `OutOfTimeError` once it has passed.
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
        """int64: the rows that occur in folds, sorted."""
        return np.unique(np.concatenate([part for fold in self.folds for part in fold]))

    @property
    def final_rows(self) -> np.ndarray:
        """int64: the rows that the final head is fitted on."""
        return self.rows if self.refit else self.folds[0][0]

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """float64 (m,): how much each of `rows` counts; their sum is m."""
        if self.class_weight is None:
            return np.ones(len(rows))
        counts = np.bincount(self.y[rows], minlength=self.classes)
        per_class = len(rows) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return np.asarray(per_class[self.y[rows]])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a kind of head found.

    Args:
        arrays: Of the final head.
        chosen: The setting that it was fitted with.
        logits: float64 (n, k), out of fold, of the chosen setting; NaN rows where a row was never held out.
        path: Each setting tried, with its held-out `accuracy` and `log_loss`.
    """

    arrays: Arrays
    chosen: Setting
    logits: np.ndarray
    path: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Scale:
    """Centres features and divides them all by one number, so that their mean squared length becomes 1.

    One number, not one per feature: the features of one network share their unit, and blowing up those that hardly vary
    made heads a little worse (flowers 0.884 against 0.888). With it a rotation changes nothing, which is what lets ridge and
    logistic share work between folds.

    Args:
        mean: float64 (d,).
        length: Positive.
    """

    mean: np.ndarray
    length: float

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Features as float32 (n, d), centred and scaled."""
        scaled = features - self.mean.astype(np.float32)
        scaled *= np.float32(1 / self.length)
        return scaled

    def fold(self, weights: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        """A linear head on scaled features, (k, d) and (k,), as the same one on the features themselves, float32."""
        folded = weights / self.length
        return {"weights": folded.astype(np.float32), "bias": (bias - folded @ self.mean).astype(np.float32)}


def scale_of(features: np.ndarray) -> Scale:
    """The scale of features (n, d); constant ones keep length 1."""
    mean = features.mean(axis=0, dtype=np.float64)
    total = 0.0
    for start in range(0, len(features), 4096):
        total += float(((features[start : start + 4096] - mean) ** 2).sum())
    length = math.sqrt(total / len(features)) if len(features) else 0.0
    # What is left of a constant after rounding is no signal.
    floor = 1e-6 * float(np.sqrt((mean**2).sum()))
    return Scale(mean, length if length > floor else 1.0)


def linear_logits(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """weights · x + bias, float64 (n, k), so that a row alone and in a batch agree."""
    weights, bias = arrays["weights"].astype(np.float64), arrays["bias"].astype(np.float64)
    out = np.empty((len(features), len(bias)))
    for start in range(0, len(features), 4096):
        out[start : start + 4096] = features[start : start + 4096].astype(np.float64) @ weights.T + bias
    return out


def expect(arrays: Arrays, name: str, shape: tuple[int | None, ...], kinds: str = "f") -> np.ndarray:
    """Return one array of a head, checked.

    Args:
        arrays: Of the head.
        name: Which.
        shape: The expected shape; None stands for any length of at least 1.
        kinds: The expected kinds of numpy dtype, such as `f` or `iu`.

    Raises:
        ModelFileError: It is missing, has another shape, or holds another type of number.
    """
    if name not in arrays:
        raise ModelFileError(f"the tensor head.{name} is missing")
    array = np.asarray(arrays[name])
    if array.dtype.kind not in kinds:
        raise ModelFileError(f"the tensor head.{name} cannot hold {array.dtype} values")
    fits = array.ndim == len(shape) and all(n >= 1 if s is None else n == s for n, s in zip(array.shape, shape, strict=True))
    if not fits:
        expected = ", ".join("any" if s is None else str(s) for s in shape)
        raise ModelFileError(f"the tensor head.{name} has the shape {array.shape}, expected ({expected})")
    return array


def expect_range(array: np.ndarray, name: str, low: float, high: float) -> None:
    """Check that all values of a head's array lie between two numbers, both included.

    Raises:
        ModelFileError: One does not.
    """
    if array.size and not (array.min() >= low and array.max() <= high):
        raise ModelFileError(f"the tensor head.{name} holds values outside {low:g} to {high:g}")


def check_linear(arrays: Arrays, classes: int, width: int) -> None:
    """Check the arrays of a linear head: `weights` (classes, width) and `bias` (classes,).

    Raises:
        ModelFileError: One is missing or has another shape.
    """
    expect(arrays, "weights", (classes, width))
    expect(arrays, "bias", (classes,))


def with_absent(weights: np.ndarray, bias: np.ndarray, present: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a linear head for the classes that are `present`, centred to sum to zero, among those of all classes.

    Args:
        weights: (p, d).
        bias: (p,).
        present: int64 (p,), class indices.
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
    """Refuse numbers outside their documented ranges.

    Args:
        kind: Of head, for the message.
        values: name=(value or several, lowest, highest).

    Raises:
        RequestError: One lies outside, or a list is empty.
    """
    for name, (value, low, high) in values.items():
        several = value if isinstance(value, tuple) else (value,)
        if not several:
            raise RequestError(f"{name!r} of the {kind} head is an empty list", f"give numbers from {low:g} to {high:g}")
        for one in several:
            if not low <= one <= high:  # NaN too
                raise RequestError(f"{name!r} of the {kind} head cannot be {one:g}", f"it goes from {low:g} to {high:g}")


def as_tuple(value: T | tuple[T, ...]) -> tuple[T, ...]:
    """One value or several, as several."""
    return value if isinstance(value, tuple) else (value,)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within the block matrix products use one thread: for small ones many mostly wait for each other, and on a busy machine
    they were 5 to 100 times slower. It is folds that run side by side. So the bits don't depend on the number of cores."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1, user_api="blas"):
        yield


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`work` of each item, on as many threads as there are cores."""
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
    """A `Problem` of what the caller has.

    Raises:
        DataError: Features are not finite or not (n, d), a label is out of range, or a fold is empty.
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
    return Problem(features, y, classes, parts, refit, seed, class_weight, watch, deadline)


def check_features(features: np.ndarray) -> np.ndarray:
    """Features as float32 (n, d), C-contiguous.

    Raises:
        DataError: They have another shape, or are not finite (NaN, infinity, beyond float32).
    """
    features = np.asarray(features)
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise DataError(f"features must be numbers in (rows, columns), not {features.dtype} {features.shape}")
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(features, dtype=np.float32)
    if not np.isfinite(features.sum(dtype=np.float64)):  # any NaN or infinity makes the sum one
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        hint = "the backbone's weights or its precision may be at fault; leave these images out, or compute in float32"
        raise DataError(f"{len(bad)} of {len(features)} rows of features are not finite (the first is row {bad[0]})", hint)
    return features
