"""Drift: how predictions differ from what the classifier saw in training, and class counts corrected for confusion."""

from __future__ import annotations

import array
import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline import features, pixels
from sightline.classifier import Classifier
from sightline.errors import ImageError
from sightline.evaluation import quantification
from sightline.evaluation.intervals import wilson
from sightline.store import stream

MOST_MEASURED = 500
"""Number of new images whose brightness, size and quality are measured."""
_SIGNIFICANT = 0.01
"""Largest p-value of drift, after Holm's correction for the number of comparisons."""
_LEAST_SHARE, _LEAST_CONFIDENCE, _LEAST_DISTANCE = 0.05, 0.05, 0.15
"""Smallest differences that count as drift: of shares, of the mean confidence, of distributions (Kolmogorov-Smirnov)."""
_DRAWS = 300

Entries = Callable[[], Iterator[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity now and in training.

    Args:
        name: The quantity.
        training, now: Its values.
        low, high: 95 % interval of the difference, now minus training.
        p: p-value of no difference, after correction.
        drift: Whether it differs both significantly and by a relevant amount.
    """

    name: str
    training: float
    now: float
    low: float
    high: float
    p: float
    drift: bool


@dataclass(frozen=True, slots=True)
class Count:
    """Number of images of one class: as predicted, and corrected for the measured confusion; each with its 95 % interval."""

    label: str
    predicted: int
    predicted_low: float
    predicted_high: float
    adjusted: float | None = None
    adjusted_low: float | None = None
    adjusted_high: float | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """Result of the comparison.

    Args:
        images: Number of images with a prediction.
        held_out: Number of held-out training images that they are compared with.
        comparisons: Quantities, those of classes first.
        counts: Class counts.
        notes: What could not be compared.
    """

    images: int
    held_out: int
    comparisons: list[Comparison]
    counts: list[Count]
    notes: list[str] = field(default_factory=list)

    @property
    def drifted(self) -> list[str]:
        """Return the names of the quantities that have drifted."""
        return [c.name for c in self.comparisons if c.drift]

    def as_json(self) -> dict[str, Any]:
        """Return the value that `predict --summary --json` prints."""
        return {**dataclasses.asdict(self), "drifted": self.drifted}

    def lines(self) -> Iterator[str]:
        """Yield the summary as text."""
        yield f"compared with {self.held_out:,} held-out training images ({self.images:,} predicted now):"
        for c in self.comparisons:
            mark, interval = "DRIFT" if c.drift else "ok", f"difference 95 % CI [{c.low:.3g}, {c.high:.3g}]"
            yield f"  {mark:<6}{c.name}: {c.training:.3g} in training, {c.now:.3g} now, {interval}"
        yield f"drifted: {', '.join(self.drifted)}" if self.drifted else "nothing has drifted"
        yield "images per class, 95 % CI:"
        for n in self.counts:
            line = f"  {n.label}: {n.predicted:,} predicted [{n.predicted_low:,.0f}, {n.predicted_high:,.0f}]"
            if n.adjusted is not None:
                line += f"; corrected for confusion {n.adjusted:,.0f} [{n.adjusted_low:,.0f}, {n.adjusted_high:,.0f}]"
            yield line
        yield from (f"note: {note}" for note in self.notes)


@dataclass(slots=True)
class _Now:
    """Counts and statistics of the new images.

    Args:
        counts: int64 (k,), predictions per class.
        confidence: Probabilities of the predicted classes.
        out_of_distribution: Number of out-of-distribution images.
        paths: A sample of paths.
    """

    counts: np.ndarray
    confidence: array.array[float] = field(default_factory=lambda: array.array("d"))
    out_of_distribution: int = 0
    paths: list[str] = field(default_factory=list)


def compare(model: Classifier, entries: Entries) -> Drift:
    """Compare predictions with the held-out predictions and the images of training that the classifier's file describes.

    Args:
        model: The classifier.
        entries: Yields the entries of images.
    """
    now = _read(model, entries)
    n, notes, comparisons = int(now.counts.sum()), list[str](), list[Comparison]()
    confusion = confusion_of(model)
    if confusion is None:
        notes.append("the classifier's file holds no held-out predictions by class: train it again to compare class shares")
    elif n:
        comparisons += _shares(model.classes, confusion.sum(axis=0), now.counts)
    if n and model.card.uncertainty.images:
        comparisons.append(_means("mean confidence", model.limits["answers"], np.array(now.confidence), _LEAST_CONFIDENCE))
    limits = model.card.uncertainty
    if n and limits.ood_rate is not None:
        comparisons.append(
            _rate("share of out-of-distribution images", limits.ood_rate, limits.ood_images, now.out_of_distribution, n)
        )
    if "statistics" not in model.limits:
        notes.append("the classifier's file holds no statistics of its training images: train it again to compare them")
    elif n:
        comparisons += _statistics(model.limits["statistics"], now.paths)
    held_out = model.card.uncertainty.images
    return Drift(n, held_out, _corrected(comparisons), _counts(model.classes, confusion, now.counts, notes), notes)


def confusion_of(model: Classifier) -> np.ndarray | None:
    """Return the confusion matrix of the held-out images, int64 (k, k): rows are true classes; None for older files.

    Predictions are those of the classifier's decision threshold.
    """
    if "predicted" not in model.limits:
        return None
    predicted, labels = model.limits["predicted"].astype(np.int64), model.limits["labels"].astype(np.int64)
    decision = model.card.decision
    if decision is not None:
        positive = model.classes.index(decision[0])
        answers = model.limits["answers"]
        predicted = np.where(np.where(predicted == positive, answers, 1 - answers) >= decision[1], positive, 1 - positive)
    confusion = np.zeros((len(model.classes),) * 2, dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return confusion


def _read(model: Classifier, entries: Entries) -> _Now:
    """Read all entries once; of the paths, keep a random sample."""
    index = {name: i for i, name in enumerate(model.classes)}
    now, draw = _Now(np.zeros(len(index), dtype=np.int64)), stream(0, "sample of new images")
    for entry in entries():
        if "error" in entry:
            continue
        number = len(now.confidence)
        now.counts[index[entry["label"]]] += 1
        now.confidence.append(entry["probability"])
        now.out_of_distribution += entry.get("ood_threshold") is not None and entry["ood_score"] > entry["ood_threshold"]
        if len(now.paths) < MOST_MEASURED:
            now.paths.append(entry["path"])
        elif (place := int(draw.integers(number + 1))) < MOST_MEASURED:  # reservoir sampling
            now.paths[place] = entry["path"]
    return now


def _shares(classes: tuple[str, ...], before: np.ndarray, now: np.ndarray) -> list[Comparison]:
    """Return the comparisons of the shares of predicted classes."""
    n0, n1 = int(before.sum()), int(now.sum())
    pairs = zip(classes, before.tolist(), now.tolist(), strict=True)
    return [_proportions(f"share of {name}", b, n0, a, n1) for name, b, a in pairs]


def _proportions(name: str, x0: int, n0: int, x1: int, n1: int) -> Comparison:
    """Return the comparison of two proportions, with Newcombe's interval and Fisher's exact test.

    Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    from scipy.stats import fisher_exact

    p0, p1 = x0 / n0, x1 / n1
    (l0, u0), (l1, u1) = wilson(x0, n0), wilson(x1, n1)
    low = p1 - p0 - math.hypot(p1 - l1, u0 - p0)
    high = p1 - p0 + math.hypot(u1 - p1, p0 - l0)
    p = float(fisher_exact([[x0, n0 - x0], [x1, n1 - x1]]).pvalue)
    return Comparison(name, p0, p1, low=low, high=high, p=p, drift=abs(p1 - p0) >= _LEAST_SHARE)


def _rate(name: str, rate: float, held_out: int, count: int, n: int) -> Comparison:
    """Return the comparison of a proportion with the rate at which a threshold was set on held-out images."""
    return dataclasses.replace(_proportions(name, round(rate * held_out), held_out, count, n), training=rate)


def _means(name: str, before: np.ndarray, now: np.ndarray, least: float) -> Comparison:
    """Return the comparison of two means, with Welch's interval and the Kolmogorov-Smirnov test."""
    from scipy.stats import ks_2samp

    training, present = float(before.mean()), float(now.mean())
    difference = present - training
    half = 1.96 * math.sqrt(float(now.var()) / len(now) + float(before.var()) / len(before))
    p = float(ks_2samp(before, now).pvalue)
    low, high = difference - half, difference + half
    return Comparison(name, training, present, low=low, high=high, p=p, drift=abs(difference) >= least)


def _statistics(before: np.ndarray, paths: list[str]) -> list[Comparison]:
    """Return the comparisons of the medians of image statistics, with bootstrap intervals."""
    from scipy.stats import ks_2samp

    now = np.array([row for row in map(_measure, paths) if row is not None], dtype=np.float64)
    if not len(now):
        return []
    comparisons = []
    for column, name in enumerate(features.FILE_FEATURES):
        a, b = before[:, column].astype(np.float64), now[:, column]
        if name == "JPEG quality":  # -1 for other formats
            a, b = a[a >= 0], b[b >= 0]
        if len(a) < 5 or len(b) < 5:
            continue
        if name == "file size":
            a, b = np.exp(a) / 1000, np.exp(b) / 1000
        draw = stream(0, "drift", name)
        differences = [np.median(draw.choice(b, len(b))) - np.median(draw.choice(a, len(a))) for _ in range(_DRAWS)]
        low, high = np.quantile(differences, [0.025, 0.975])
        test = ks_2samp(a, b)
        title = {"file size": "file size in kB", "width": "width in px", "height": "height in px"}.get(name, name)
        comparisons.append(
            Comparison(
                f"median {title}",
                float(np.median(a)),
                float(np.median(b)),
                low=float(low),
                high=float(high),
                p=float(test.pvalue),
                drift=float(test.statistic) >= _LEAST_DISTANCE,
            )
        )
    return comparisons


def _measure(path: str) -> np.ndarray | None:
    """Return the file features of an image, None if it cannot be read any more."""
    try:
        return features.of_file_bytes(*pixels.read(Path(path)))
    except ImageError:
        return None


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    """Return the comparisons with p-values corrected by Holm's method; drift needs significance as well as a relevant size.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(comparisons)), key=lambda i: comparisons[i].p)
    corrected, largest = list(comparisons), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, comparisons[i].p * (len(comparisons) - rank)))
        corrected[i] = dataclasses.replace(comparisons[i], p=largest, drift=comparisons[i].drift and largest <= _SIGNIFICANT)
    return corrected


def _counts(classes: tuple[str, ...], confusion: np.ndarray | None, now: np.ndarray, notes: list[str]) -> list[Count]:
    """Return class counts, corrected where the confusion is known; add notes, in place, on what could not be."""
    n = int(now.sum())
    bounds = [wilson(int(x), n) for x in now]
    raw = [Count(name, int(x), n * low, n * high) for name, x, (low, high) in zip(classes, now, bounds, strict=True)]
    if confusion is None or not n:
        return raw
    if len(classes) > quantification.MOST_CLASSES:
        notes.append(f"counts of more than {quantification.MOST_CLASSES} classes are not corrected")
        return raw
    absent = [name for name, total in zip(classes, confusion.sum(axis=1), strict=True) if not total]
    if absent:
        notes.append(f"no held-out image of {', '.join(absent[:5])}: the correction takes their predictions as right")
    counts, low, high = quantification.adjusted_counts(confusion, now)
    return [
        dataclasses.replace(one, adjusted=float(c), adjusted_low=float(a), adjusted_high=float(b))
        for one, c, a, b in zip(raw, counts, low, high, strict=True)
    ]
