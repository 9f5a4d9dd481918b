"""Learning curve: accuracy against the number of training images, and the number needed for a target accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import heads
from sightline.deadline import UNLIMITED, Deadline
from sightline.errors import RequestError
from sightline.records import LearningCurveRecord
from sightline.store import plain, stream

SIZES = 7
FOLDS = 5
ROUNDS = 1000
FARTHEST = 10.0
"""The curve is extrapolated to at most this many times the current number of images."""
WIDEST = 10.0
"""A band whose upper end exceeds its lower end by more than this factor is too wide to report."""
_EXPONENTS = np.geomspace(0.05, 2.0, 40)


@dataclass(frozen=True, slots=True)
class Measured:
    """Correct held-out predictions by number of training images.

    Args:
        sizes: m numbers of training images, increasing.
        right: float (draws, m, n), 1 if a held-out image was predicted correctly, else 0; NaN if it was not held out.
        cluster: Cluster of each image, int64 (n,).
        seconds: Wall-clock time, in seconds.
    """

    sizes: tuple[int, ...]
    right: np.ndarray
    cluster: np.ndarray
    seconds: float

    @property
    def accuracy(self) -> np.ndarray:
        """Mean accuracy over images and draws, float (m,)."""
        return np.asarray(np.nanmean(self.right, axis=(0, 2)))


def measure(
    values: np.ndarray,
    labels: np.ndarray,
    cluster: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    kind: str,
    settings: Mapping[str, Any],
    classes: int,
    seeds: int = 1,
    seed: int = 0,
    deadline: Deadline = UNLIMITED,
) -> Measured:
    """Fit one head on growing, nested subsets of each fold's training images, and predict the held-out images.

    Args:
        values: Features float32 (n, d).
        labels: Class indices int64 (n,).
        cluster: Cluster of each image, int64 (n,); the images of a cluster are added together.
        folds: (training rows, held-out rows); every row is held out once.
        kind, settings: The head, with one value for each setting, so that nothing is selected here.
        classes: k.
        seeds: Number of random orders in which images are added.
        seed: Random seed of the orders.
        deadline: Time limit.

    Returns:
        The predictions at up to 7 sizes, each about 1.7 times the one before it.

    Raises:
        RequestError: If there are too few images for three sizes.
        OutOfTimeError: If the deadline has passed.
    """
    started = time.perf_counter()
    sizes = grid(min(len(train) for train, _ in folds), classes)
    draws: list[np.ndarray] = []
    for order in range(seeds):
        right = np.full((len(sizes), len(labels)), np.nan)
        for number, (train, held) in enumerate(folds):
            rows = ordered(train, labels, cluster, stream(seed, "learning curve", order, number))
            for i, size in enumerate(sizes):
                fitted = heads.fit(
                    kind,
                    values,
                    labels,
                    classes,
                    folds=[(rows[:size], held)],
                    refit=False,
                    settings=settings,
                    seed=seed,
                    deadline=deadline,
                )
                right[i, held] = fitted.logits[held].argmax(axis=1) == labels[held]
        draws.append(right)
    return Measured(sizes, np.array(draws), cluster, time.perf_counter() - started)


def grid(most: int, classes: int) -> tuple[int, ...]:
    """Return the numbers of training images to measure at, up to all `most` images of a fold.

    Example:
        >>> grid(320, 5)
        (15, 25, 41, 69, 115, 192, 320)

    Raises:
        RequestError: If there would be fewer than three.
    """
    sizes = tuple(s for s in sorted({round(most * 0.6**i) for i in range(SIZES)}) if s >= max(2 * classes, 8))
    if len(sizes) < 3:
        raise RequestError(
            f"{most:,} training images of {classes} classes are too few for a learning curve",
            f"add images; it needs about {math.ceil(max(2 * classes, 8) / 0.36):,}",
        )
    return sizes


def ordered(train: np.ndarray, labels: np.ndarray, cluster: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return training rows in a random order in which every prefix is about stratified by class.

    The rows of a cluster stay together. Ties go to the rarer class, so that every class appears early.
    """
    _, first, number = np.unique(cluster[train], return_index=True, return_inverse=True)
    members: list[list[int]] = [[] for _ in first]
    for row, unit in zip(train.tolist(), number.tolist(), strict=True):
        members[unit].append(row)
    shuffled = [members[i] for i in draw.permutation(len(members))]
    counts = np.bincount(labels[train])
    taken = np.zeros(len(counts))
    ranked = []
    for position, rows in enumerate(shuffled):
        label = labels[rows[0]]
        ranked.append(((taken[label] + 0.5) / counts[label], counts[label], position))
        taken[label] += len(rows)
    return np.array([row for _, _, position in sorted(ranked) for row in shuffled[position]], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Curve:
    """Inverse power law, accuracy = a − b · m^(−c), fitted to the measurements and to each bootstrap resample.

    Args:
        a, b, c: float (1 + rounds,), the fit to the measurements first.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray

    def at(self, images: float) -> np.ndarray:
        """Return the accuracy at a number of training images, float (1 + rounds,), 0 to 1."""
        return np.asarray(np.clip(self.a - self.b * images**-self.c, 0.0, 1.0))

    def reach(self, goal: float) -> np.ndarray:
        """Return the training images needed for an accuracy, float (1 + rounds,); infinity if the curve never reaches it."""
        gap = self.a - goal
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            images = (self.b / gap) ** (1 / self.c)
        return np.where(gap > 0, images, np.inf)


def fit(measured: Measured, *, seed: int = 0) -> Curve:
    """Fit an inverse power law to the measurements and to up to 1,000 bootstrap resamples.

    For each of 40 exponents c from 0.05 to 2, a and b are fitted by weighted least squares in m^(−c) under a ≤ 1 and b ≥ 0;
    the exponent of least loss is taken. Larger sizes have more weight: the law fits better there, and the extrapolation starts
    there.

    Source: Figueroa, Zeng-Treitler, Kandula, Ngo 2012, "Predicting sample size required for classification performance",
    BMC Medical Informatics and Decision Making 12:8: inverse power law by weighted least squares, the i-th of m sizes with
    weight i / m, here multiplied by the inverse of the binomial variance. The band is our own: images (by cluster) and orders
    are resampled (Efron and Tibshirani 1993, chapter 13), and each size's residual, which holds the effect of the drawn
    training images and the misfit of the law, is added with a random sign (Wu 1986, the wild bootstrap).
    """
    draws, _, _ = measured.right.shape
    _, number = np.unique(measured.cluster, return_inverse=True)
    known = np.isfinite(measured.right)
    sums = np.stack([_by(number, np.where(k, r, 0)) for k, r in zip(known, measured.right, strict=True)])  # (draws, m, g)
    counts = np.stack([_by(number, k.astype(float)) for k in known])
    generator, groups = stream(seed, "learning curve bootstrap"), sums.shape[2]
    rounds = int(np.clip(20_000_000 // groups, 200, ROUNDS))
    pieces = [(sums.mean(axis=0).sum(axis=1) / counts.mean(axis=0).sum(axis=1))[None]]
    for start in range(0, rounds, 50):  # 50 at a time to limit memory
        count = min(50, rounds - start)
        weights = generator.multinomial(groups, np.full(groups, 1 / groups), size=count).astype(float)  # (count, g)
        orders = generator.multinomial(draws, np.full(draws, 1 / draws), size=count).astype(float)  # (count, draws)
        right, total = (np.einsum("rd,dmr->rm", orders, each @ weights.T) for each in (sums, counts))
        pieces.append(right / np.maximum(total, 1))
    sizes, accuracy = np.array(measured.sizes, dtype=float), np.concatenate(pieces)
    first = _power_law(sizes, accuracy[:1])
    residual = accuracy[0] - (first.a - first.b * sizes**-first.c)
    residual *= math.sqrt(len(sizes) / max(len(sizes) - 3, 1))  # three parameters were fitted
    accuracy[1:] += generator.choice([-1.0, 1.0], size=(rounds, len(sizes))) * residual
    return _power_law(sizes, accuracy)


def _by(number: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the sums of rows (m, n) within clusters, float (m, groups)."""
    return np.stack([np.bincount(number, weights=row, minlength=int(number.max()) + 1) for row in rows])


def _power_law(sizes: np.ndarray, accuracy: np.ndarray) -> Curve:
    """Fit a − b m^(−c) by weighted least squares to each row of accuracies (rounds, m)."""
    spread = np.clip(accuracy[:1] * (1 - accuracy[:1]), 0.005, None)
    weight = np.arange(1, len(sizes) + 1) / spread  # (1, m)
    weight /= weight.sum(axis=1, keepdims=True)
    best = np.full(len(accuracy), np.inf)
    parameters = np.zeros((3, len(accuracy)))
    for c in _EXPONENTS:
        x = sizes**-c
        mean_x, mean_y = (weight * x).sum(axis=1), (weight * accuracy).sum(axis=1)
        slope = (weight * (x - mean_x[:, None]) * accuracy).sum(axis=1) / (weight * (x - mean_x[:, None]) ** 2).sum(axis=1)
        b = np.maximum(-slope, 0.0)
        a = mean_y + b * mean_x
        over = a > 1  # on the boundary a = 1 the slope is a weighted line through it
        through = (weight * x * (1 - accuracy)).sum(axis=1) / (weight * x * x).sum(axis=1)
        a, b = np.where(over, 1.0, a), np.where(over, np.maximum(through, 0.0), b)
        loss = (weight * (accuracy - a[:, None] + b[:, None] * x) ** 2).sum(axis=1)
        better = loss < best
        best = np.where(better, loss, best)
        parameters[:, better] = np.stack([a, b, np.full(len(a), c)])[:, better]
    return Curve(*parameters)


def summarise(measured: Measured, curve: Curve, *, images: int, goal: float | None) -> LearningCurveRecord:
    """Return the curve as points with their bands, and the number of images needed for a target accuracy.

    Args:
        measured, curve: The measurements and the curve fitted to them.
        images: Current number of training images.
        goal: Target accuracy, 0 to 1; by default half the current error rate.
    """
    now = float(curve.at(images)[0])
    target = goal if goal is not None else 1 - (1 - now) / 2
    points = [
        {"images": m, "measured": float(y), **_band(curve, m)} for m, y in zip(measured.sizes, measured.accuracy, strict=True)
    ]
    most = FARTHEST * images
    ahead = [{"images": round(float(m)), **_band(curve, float(m))} for m in np.geomspace(measured.sizes[0], most, 40)]
    summary = {
        "goal": target,
        "asked": goal is not None,
        "now": _band(curve, images),
        "images": images,
        **reached(curve, images, target),
        "points": points,
        "ahead": ahead,
        "orders": len(measured.right),
        "seconds": measured.seconds,
        "law": {"a": float(curve.a[0]), "b": float(curve.b[0]), "c": float(curve.c[0])},
        "twice": _band(curve, 2 * images),
    }
    return LearningCurveRecord.from_json(plain({**summary, "words": sentences(summary)}))


def _band(curve: Curve, images: float) -> dict[str, float]:
    """Return the fitted accuracy at a number of images and its 95 % band."""
    at = curve.at(images)
    low, high = np.quantile(at[1:], [0.025, 0.975])
    return {"accuracy": float(at[0]), "low": float(min(low, at[0])), "high": float(max(high, at[0]))}


def reached(curve: Curve, images: int, goal: float) -> dict[str, Any]:
    """Return the number of images needed for a target accuracy, if it can be estimated.

    Returns:
        `verdict`: `there` (the current band lies at or above the target), `told` (a number with a band), `at least` (only the
        lower end is within ten times the current images), `never` (hardly any resample reaches it within that), or `unknown`;
        `needed`, `needed_low`, `needed_high`, None if not estimated.
    """
    most = FARTHEST * images
    needed = curve.reach(goal)
    low, high = (float(v) for v in np.quantile(needed[1:], [0.025, 0.975], method="nearest"))
    unknown: dict[str, Any] = {"needed": None, "needed_low": None, "needed_high": None}
    if goal <= float(np.quantile(curve.at(images)[1:], 0.025)):
        return {**unknown, "verdict": "there"}
    middle = float(needed[0])
    if low > most:
        return {**unknown, "verdict": "never"}
    if high <= most and middle <= most and high <= WIDEST * low:
        ends = {"needed": math.ceil(middle), "needed_low": math.floor(low), "needed_high": math.ceil(high)}
        return {**ends, "verdict": "told"}
    if low > images:
        return {**unknown, "needed_low": math.floor(low), "verdict": "at least"}
    return {**unknown, "verdict": "unknown"}


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """Return the result of a learning curve in sentences."""
    images, goal = summary["images"], summary["goal"]
    target = f"{100 * goal:.1f} % accuracy" + ("" if summary["asked"] else " (half the current errors)")
    lines = [
        f"Doubling the training images from {images:,} to {2 * images:,} would change the accuracy from about "
        f"{_percent(summary['now'])} to about {_percent(summary['twice'])}."
    ]
    if summary["verdict"] == "there":
        lines.append(f"The classifier already reaches {target}.")
    elif summary["verdict"] == "told":
        more, low, high = (max(0, _rounded(summary[k] - images)) for k in ("needed", "needed_low", "needed_high"))
        lines.append(f"About {more:,} more images are needed for {target} (95 % band {low:,} to {high:,}).")
    elif summary["verdict"] == "at least":
        low = _rounded(summary["needed_low"] - images)
        lines.append(f"At least {low:,} more images are needed for {target}; the uncertainty is too large for an upper limit.")
    elif summary["verdict"] == "never":
        lines.append(
            f"Even ten times as many images are unlikely to give {target}. Try another network or method, or clean the labels."
        )
    else:
        lines.append(f"The number of images needed for {target} cannot be estimated: the uncertainty is too large.")
    return lines


def _percent(band: Mapping[str, float]) -> str:
    return f"{100 * band['accuracy']:.1f} % [{100 * band['low']:.1f}, {100 * band['high']:.1f}]"


def _rounded(count: int) -> int:
    """Return a number of images rounded to two significant digits."""
    step = int(10 ** max(0, len(str(abs(count))) - 2))
    return round(count / step) * step
