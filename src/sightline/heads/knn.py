"""The votes of the nearest training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sightline.heads.choosing import cross_validate
from sightline.heads.problem import Arrays, Outcome, Problem, Setting, as_tuple, check_settings, expect, expect_range

_METRICS = ("cosine", "euclidean")
_CHUNK_NUMBERS = 8_000_000
"""Distances that are held at once: 64 MB."""


@dataclass(frozen=True, slots=True)
class KnnSettings:
    """Settings of the knn head.

    Args:
        neighbours: How many vote, 1 to 10,000 (at most all). Several are compared on held-out images.
        metric: `cosine` looks at the direction of the features, `euclidean` at their distance.
    """

    neighbours: int | tuple[int, ...] = (1, 3, 5, 10, 20, 50)
    metric: Literal["cosine", "euclidean"] = "cosine"

    def __post_init__(self) -> None:
        check_settings("knn", neighbours=(self.neighbours, 1, 10_000))


def fit(problem: Problem, settings: KnnSettings) -> Outcome:
    """Keep the training rows; choose how many neighbours vote."""

    def train(rows: np.ndarray, held: np.ndarray, tries: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        weights = np.zeros(problem.classes)
        weights[problem.y[rows]] = problem.weights(rows)
        kept = {
            "features": _directions(problem.features[rows], settings.metric).astype(np.float32),
            "labels": problem.y[rows].astype(np.int32),
            "class_weights": weights.astype(np.float32),
            "metric": np.array([_METRICS.index(settings.metric)], dtype=np.int32),
        }
        counts = [int(t["neighbours"]) for t in tries]
        models: list[Arrays] = [{**kept, "neighbours": np.array([count], dtype=np.int32)} for count in counts]
        return models, _logits(kept, problem.features[held], counts)

    tries = [{"neighbours": n, "metric": settings.metric} for n in sorted(as_tuple(settings.neighbours))]
    return cross_validate(problem, tries, train)


def check(arrays: Arrays, classes: int, width: int) -> None:
    """Check the shapes of the arrays and that every label, weight and setting can be used.

    Raises:
        ModelFileError: One cannot.
    """
    rows = len(expect(arrays, "features", (None, width)))
    expect_range(expect(arrays, "labels", (rows,), "iu"), "labels", 0, classes - 1)
    expect_range(expect(arrays, "class_weights", (classes,)), "class_weights", 0, np.inf)
    expect_range(expect(arrays, "metric", (1,), "iu"), "metric", 0, len(_METRICS) - 1)
    expect_range(expect(arrays, "neighbours", (1,), "iu"), "neighbours", 1, 2**31)


def logits(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """The logarithm of the classes' shares of the votes, float64 (n, k)."""
    return np.asarray(_logits(arrays, features, [int(arrays["neighbours"][0])])[0])


def _directions(features: np.ndarray, metric: str) -> np.ndarray:
    """Features as float64; divided by their lengths where directions count. A row of zeros stays one."""
    values = features.astype(np.float64)
    if metric == "cosine":
        values /= np.maximum(np.sqrt((values**2).sum(axis=1, keepdims=True)), 1e-30)
    return values


def _logits(arrays: Arrays, features: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Logits for several numbers of neighbours, (len(counts), n, k), from one search."""
    stored = arrays["features"].astype(np.float64)
    lengths = (stored**2).sum(axis=1)
    metric = _METRICS[int(arrays["metric"][0])]
    most = min(max(counts), len(stored))
    out = np.empty((len(counts), len(features), len(arrays["class_weights"])))
    step = max(1, _CHUNK_NUMBERS // max(len(stored), stored.shape[1], 1))
    for start in range(0, len(features), step):
        values = _directions(features[start : start + step], metric)
        own = (values**2).sum(axis=1)[:, None]
        squared = own + lengths - 2 * values @ stored.T
        # Rounded to what float64 gets right, so that an image has the same neighbours alone and in a batch, and so that a
        # distance of 0 is 0.
        unit = (own + lengths.max(initial=0)) * 1e-10 + 1e-300
        squared = np.maximum(np.rint(squared / unit), 0) * unit
        near = np.argpartition(squared, most - 1, axis=1)[:, :most]
        near.sort(axis=1)
        order = np.argsort(np.take_along_axis(squared, near, axis=1), axis=1, kind="stable")
        near = np.take_along_axis(near, order, axis=1)
        distance = np.take_along_axis(squared, near, axis=1)
        for i, count in enumerate(counts):
            out[i, start : start + step] = _vote(arrays, near[:, :count], distance[:, :count])
    return out


def _vote(arrays: Arrays, near: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Logits of neighbours (n, m) at squared distances (n, m), nearest first.

    A neighbour counts exp(-distance² / that of the furthest one that votes): from 1 to 1/e, whatever the features' unit. One
    vote is spread over all classes, so that no probability is 0.
    """
    furthest = distance[:, -1:]
    votes = np.exp(-np.divide(distance, furthest, out=np.zeros_like(distance), where=furthest > 0))
    label = arrays["labels"][near]
    weights = arrays["class_weights"].astype(np.float64)
    votes *= weights[label]
    classes = len(weights)
    flat = (np.arange(len(near))[:, None] * classes + label).ravel()
    total = np.bincount(flat, weights=votes.ravel(), minlength=len(near) * classes).reshape(len(near), classes)
    return np.asarray(np.log((total + 1 / classes) / (total.sum(axis=1, keepdims=True) + 1)))
