"""The learning curve: accuracy against the number of training images, and how many more a wished accuracy would take."""

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
from sightline.store import plain, stream

SIZES = 7
FOLDS = 5
ROUNDS = 1000
FARTHEST = 10.0
"""How many times the images at hand a curve is followed; what lies beyond is not said."""
WIDEST = 10.0
"""A band whose upper end is more than so many times its lower one says nothing useful."""
_EXPONENTS = np.geomspace(0.05, 2.0, 40)


@dataclass(frozen=True, slots=True)
class Measured:
    """Who was right with how many training images.

    Args:
        sizes: m numbers of training images, rising.
        right: float (draws, m, n), whether an image that was held out was answered rightly; NaN where it was not asked.
        cluster: int64 (n,), images of one number belong together.
        seconds: What it took.
    """

    sizes: tuple[int, ...]
    right: np.ndarray
    cluster: np.ndarray
    seconds: float

    @property
    def accuracy(self) -> np.ndarray:
        """float (m,): the mean over images and draws."""
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
    """Fit one head on growing, nested parts of each fold's training images, and ask it about what the fold holds out.

    Args:
        values: float32 (n, d), features.
        labels: int64 (n,).
        cluster: int64 (n,); what belongs together enters a part together.
        folds: (training rows, held-out rows), which together hold every row out once.
        kind, settings: The head, with one value for each setting: nothing is chosen here.
        classes: k.
        seeds: How many orders the images are added in.
        seed: Of the orders.
        deadline: Looked at within each fit.

    Returns:
        What was measured, at up to 7 sizes, each about 1.7 times the one before it.

    Raises:
        RequestError: There are too few images for three sizes.
        OutOfTimeError: The deadline has passed.
    """
    started = time.perf_counter()
    sizes = grid(min(len(train) for train, _ in folds), classes)
    draws: list[np.ndarray] = []
    for order in range(seeds):
        right = np.full((len(sizes), len(labels)), np.nan)
        for number, (train, held) in enumerate(folds):
            queue = ordered(train, labels, cluster, stream(seed, "learning curve", order, number))
            for i, size in enumerate(sizes):
                some = queue[:size]
                head = heads.fit(
                    kind,
                    values,
                    labels,
                    classes,
                    folds=[(some, held)],
                    refit=False,
                    settings=settings,
                    seed=seed,
                    deadline=deadline,
                )
                right[i, held] = head.logits[held].argmax(axis=1) == labels[held]
        draws.append(right)
    return Measured(sizes, np.array(draws), cluster, time.perf_counter() - started)


def grid(most: int, classes: int) -> tuple[int, ...]:
    """Numbers of training images, up to all that a fold has.

    Example:
        >>> grid(320, 5)
        (15, 25, 41, 69, 115, 192, 320)

    Raises:
        RequestError: They would be fewer than three.
    """
    sizes = sorted({round(most * 0.6**i) for i in range(SIZES)})
    kept = tuple(s for s in sizes if s >= max(2 * classes, 8))
    if len(kept) < 3:
        raise RequestError(
            f"{most:,} training images of {classes} classes are too few for a learning curve",
            f"it needs about {math.ceil(max(2 * classes, 8) / 0.36):,}",
        )
    return kept


def ordered(train: np.ndarray, labels: np.ndarray, cluster: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Training rows in an order whose every beginning has the classes in about their own proportions.

    What belongs together stands together. Of equals the rarer class comes first, so that each is there early.
    """
    _, first, number = np.unique(cluster[train], return_index=True, return_inverse=True)
    members: list[list[int]] = [[] for _ in first]
    for row, unit in zip(train.tolist(), number.tolist(), strict=True):
        members[unit].append(row)
    shuffled = [members[i] for i in draw.permutation(len(members))]
    counts = np.bincount(labels[train])
    taken = np.zeros(len(counts))
    ranked = []
    for position, unit in enumerate(shuffled):
        label = labels[unit[0]]
        ranked.append(((taken[label] + 0.5) / counts[label], counts[label], position))
        taken[label] += len(unit)
    return np.array([row for _, _, position in sorted(ranked) for row in shuffled[position]], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Curve:
    """accuracy = a − b · m^(−c), fitted once to what was measured, and once to each resampling of it.

    Args:
        a, b, c: float (1 + rounds,), the fit itself first.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray

    def at(self, images: float) -> np.ndarray:
        """float (1 + rounds,): the accuracy with so many training images, 0 to 1."""
        return np.asarray(np.clip(self.a - self.b * images**-self.c, 0.0, 1.0))

    def reach(self, goal: float) -> np.ndarray:
        """float (1 + rounds,): training images for an accuracy; infinite where the curve never gets there."""
        gap = self.a - goal
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = (self.b / gap) ** (1 / self.c)
        return np.where(gap > 0, found, np.inf)


def fit(measured: Measured, *, seed: int = 0) -> Curve:
    """The inverse power law that lies nearest, and those of up to 1,000 resamplings.

    For each of 40 exponents from 0.05 to 2 the two other numbers are a weighted line in m^(−c), kept to a ≤ 1 and b ≥ 0;
    the best exponent wins. Larger sizes count more: the law holds better there, and it is from there that one looks ahead.

    Source: Figueroa, Zeng-Treitler, Kandula, Ngo 2012, "Predicting sample size required for classification performance",
    BMC Medical Informatics and Decision Making 12:8: inverse power law by weighted least squares, the i-th of m sizes with
    weight i / m; theirs beside the inverse of the binomial variance. The band is ours: images (by cluster) and orders are
    drawn anew (Efron and Tibshirani 1993, chapter 13), and each size's distance from the curve, which holds what the draw of
    the training images does and where the law does not fit, is added with a random sign (Wu 1986, the wild bootstrap).
    """
    draws, _, _ = measured.right.shape
    _, number = np.unique(measured.cluster, return_inverse=True)
    known = np.isfinite(measured.right)
    sums = np.stack([_by(number, np.where(k, r, 0)) for k, r in zip(known, measured.right, strict=True)])  # (draws, m, g)
    asked = np.stack([_by(number, k.astype(float)) for k in known])
    generator, groups = stream(seed, "learning curve bootstrap"), sums.shape[2]
    rounds = int(np.clip(20_000_000 // groups, 200, ROUNDS))
    pieces = [(sums.mean(axis=0).sum(axis=1) / asked.mean(axis=0).sum(axis=1))[None]]
    for start in range(0, rounds, 50):  # a few at a time: many images would fill the memory
        count = min(50, rounds - start)
        weights = generator.multinomial(groups, np.full(groups, 1 / groups), size=count).astype(float)  # (count, g)
        orders = generator.multinomial(draws, np.full(draws, 1 / draws), size=count).astype(float)  # (count, draws)
        right, total = (np.einsum("rd,dmr->rm", orders, each @ weights.T) for each in (sums, asked))
        pieces.append(right / np.maximum(total, 1))
    sizes, accuracy = np.array(measured.sizes, dtype=float), np.concatenate(pieces)
    first = _power_law(sizes, accuracy[:1])
    off = accuracy[0] - (first.a - first.b * sizes**-first.c)
    off *= math.sqrt(len(sizes) / max(len(sizes) - 3, 1))  # three numbers were fitted
    accuracy[1:] += generator.choice([-1.0, 1.0], size=(rounds, len(sizes))) * off
    return _power_law(sizes, accuracy)


def _by(number: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float (m, groups): sums of rows (m, n) within clusters."""
    return np.stack([np.bincount(number, weights=row, minlength=int(number.max()) + 1) for row in rows])


def _power_law(sizes: np.ndarray, accuracy: np.ndarray) -> Curve:
    """Weighted least squares of a − b m^(−c) for each row of accuracies (rounds, m)."""
    spread = np.clip(accuracy[:1] * (1 - accuracy[:1]), 0.005, None)
    weight = np.arange(1, len(sizes) + 1) / spread  # (1, m)
    weight /= weight.sum(axis=1, keepdims=True)
    best = np.full(len(accuracy), np.inf)
    found = np.zeros((3, len(accuracy)))
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
        found[:, better] = np.stack([a, b, np.full(len(a), c)])[:, better]
    return Curve(*found)


# ----------------------------------------------------------------------------------------------------------------- words


def summarise(measured: Measured, curve: Curve, *, images: int, goal: float | None, seed: int = 0) -> dict[str, Any]:
    """The curve as points with their bands, and what may be said of more images, as plain data.

    Args:
        measured, curve: What was found.
        images: How many training images there are now.
        goal: The wished accuracy, 0 to 1; None asks for half of today's errors.
        seed: Unused draws are a function of it.

    Returns:
        `points` (images, accuracy, low, high, measured), `ahead` (the band from here on), `now`, `goal`, `asked` (whether the
        goal was named), `needed`, `needed_low`, `needed_high` (training images in all; None where they cannot be told),
        `more`, `verdict` and `words`.
    """
    now = float(curve.at(images)[0])
    wished = goal if goal is not None else 1 - (1 - now) / 2
    points = [
        {"images": m, "measured": float(y), **_band(curve, m)} for m, y in zip(measured.sizes, measured.accuracy, strict=True)
    ]
    most = FARTHEST * images
    ahead = [{"images": round(float(m)), **_band(curve, float(m))} for m in np.geomspace(measured.sizes[0], most, 40)]
    found = {
        "goal": wished,
        "asked": goal is not None,
        "now": _band(curve, images),
        "images": images,
        **reached(curve, images, wished),
    }
    found |= {"points": points, "ahead": ahead, "orders": len(measured.right), "seconds": measured.seconds}
    found["law"] = {"a": float(curve.a[0]), "b": float(curve.b[0]), "c": float(curve.c[0])}
    found["twice"] = _band(curve, 2 * images)
    told: dict[str, Any] = plain({**found, "words": words(found)})
    return told


def _band(curve: Curve, images: float) -> dict[str, float]:
    """The fitted accuracy with so many images and its 95 % band."""
    at = curve.at(images)
    low, high = np.quantile(at[1:], [0.025, 0.975])
    return {"accuracy": float(at[0]), "low": float(min(low, at[0])), "high": float(max(high, at[0]))}


def reached(curve: Curve, images: int, goal: float) -> dict[str, Any]:
    """How many images a goal takes, and whether that can be told.

    Returns:
        `verdict`: `there` (the band now lies at or over it), `told` (a number with a band), `at least` (only the lower end is
        within ten times the images at hand), `never` (hardly any resampling ever gets there), or `unknown`; `needed`,
        `needed_low`, `needed_high`, None where not told.
    """
    most = FARTHEST * images
    each = curve.reach(goal)
    low, high = (float(v) for v in np.quantile(each[1:], [0.025, 0.975], method="nearest"))
    told: dict[str, Any] = {"needed": None, "needed_low": None, "needed_high": None}
    if goal <= float(np.quantile(curve.at(images)[1:], 0.025)):
        return {**told, "verdict": "there"}
    middle = float(each[0])
    if low > most:
        return {**told, "verdict": "never"}
    if high <= most and middle <= most and high <= WIDEST * low:
        ends = {"needed": math.ceil(middle), "needed_low": math.floor(low), "needed_high": math.ceil(high)}
        return {**ends, "verdict": "told"}
    if low > images:
        return {**told, "needed_low": math.floor(low), "verdict": "at least"}
    return {**told, "verdict": "unknown"}


def words(found: Mapping[str, Any]) -> list[str]:
    """What may be said, in sentences."""
    images, goal = found["images"], found["goal"]
    now, twice = found["now"], found["twice"]
    name = f"{100 * goal:.1f} %" if found["asked"] else f"half of today's errors ({100 * goal:.1f} %)"
    said = [
        f"With twice as many training images ({2 * images:,}) expect about {_percent(twice)}, after {_percent(now)} "
        f"with {images:,}."
    ]
    if found["verdict"] == "there":
        said.append(f"{name} is reached already.")
    elif found["verdict"] == "told":
        more = [max(0, _rounded(found[k] - images)) for k in ("needed", "needed_low", "needed_high")]
        said.append(f"For {name} about {more[0]:,} more photographs would be needed (95 % band {more[1]:,} to {more[2]:,}).")
    elif found["verdict"] == "at least":
        more_low = _rounded(found["needed_low"] - images)
        said.append(f"For {name} at least {more_low:,} more photographs would be needed; how many at most can't be said.")
    elif found["verdict"] == "never":
        said.append(
            f"More photographs like these will hardly lead to {name}: even ten times as many would not. Another network or "
            f"method, or cleaner labels, may."
        )
    else:
        said.append(f"How many more photographs {name} would take can't be said: the band is too wide.")
    return said


def _percent(band: Mapping[str, float]) -> str:
    return f"{100 * band['accuracy']:.1f} % [{100 * band['low']:.1f}, {100 * band['high']:.1f}]"


def _rounded(count: int) -> int:
    """A number of images to two digits: it is no more exact."""
    step = int(10 ** max(0, len(str(abs(count))) - 2))
    return round(count / step) * step
