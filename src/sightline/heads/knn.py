"""k-nearest neighbours: weighted votes of the nearest training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sightline.heads.kind import HeadKind
from sightline.heads.problem import Arrays, Outcome, Problem, Setting, as_tuple, check_settings, expect, expect_range
from sightline.heads.selection import cross_validate
from sightline.search_space import Choice, Range

if TYPE_CHECKING:
    from sightline.engine.graph import Value

_METRICS = ("cosine", "euclidean")
_CHUNK_NUMBERS = 8_000_000
"""Number of distances in memory at once: 64 MB."""


@dataclass(frozen=True, slots=True)
class KnnSettings:
    """Settings of the knn head.

    Args:
        neighbours: Number of neighbours that vote, 1 to 10,000, limited to the number of training images. Several values are
            compared on held-out images.
        metric: Distance between feature vectors.
    """

    neighbours: int | tuple[int, ...] = (1, 3, 5, 10, 20, 50)
    metric: Literal["cosine", "euclidean"] = "cosine"

    def __post_init__(self) -> None:
        check_settings("knn", neighbours=(self.neighbours, 1, 10_000))


def fit(problem: Problem, settings: KnnSettings) -> Outcome:
    """Store the training rows and select the number of neighbours."""

    def train(rows: np.ndarray, held: np.ndarray, candidates: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        weights = np.zeros(problem.classes)
        weights[problem.y[rows]] = problem.weights(rows)
        stored = {
            "features": _normalised(problem.features[rows], settings.metric).astype(np.float32),
            "labels": problem.y[rows].astype(np.int32),
            "class_weights": weights.astype(np.float32),
            "metric": np.array([_METRICS.index(settings.metric)], dtype=np.int32),
        }
        counts = [int(candidate["neighbours"]) for candidate in candidates]
        models: list[Arrays] = [{**stored, "neighbours": np.array([count], dtype=np.int32)} for count in counts]
        return models, _logits(stored, problem.features[held], counts)

    candidates = [{"neighbours": n, "metric": settings.metric} for n in sorted(as_tuple(settings.neighbours))]
    return cross_validate(problem, candidates, train)


def check(arrays: Arrays, classes: int, width: int) -> None:
    """Check the shapes of the arrays and the range of every label, weight and setting.

    Raises:
        ModelFileError: If an array is missing, has another shape or a value out of range.
    """
    rows = len(expect(arrays, "features", (None, width)))
    expect_range(expect(arrays, "labels", (rows,), "iu"), "labels", 0, classes - 1)
    expect_range(expect(arrays, "class_weights", (classes,)), "class_weights", 0, np.inf)
    expect_range(expect(arrays, "metric", (1,), "iu"), "metric", 0, len(_METRICS) - 1)
    expect_range(expect(arrays, "neighbours", (1,), "iu"), "neighbours", 1, 2**31)


def logits(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """Return the logarithm of each class's share of the votes, float64 (n, k)."""
    return np.asarray(_logits(arrays, features, [int(arrays["neighbours"][0])])[0])


def _normalised(features: np.ndarray, metric: str) -> np.ndarray:
    """Return features as float64, scaled to unit length for the cosine metric; a row of zeros stays zero."""
    values = features.astype(np.float64)
    if metric == "cosine":
        values /= np.maximum(np.sqrt((values**2).sum(axis=1, keepdims=True)), 1e-30)
    return values


def _logits(arrays: Arrays, features: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Return logits for several numbers of neighbours, (len(counts), n, k), from one neighbour search."""
    stored = arrays["features"].astype(np.float64)
    lengths = (stored**2).sum(axis=1)
    metric = _METRICS[int(arrays["metric"][0])]
    most = min(max(counts), len(stored))
    out = np.empty((len(counts), len(features), len(arrays["class_weights"])))
    step = max(1, _CHUNK_NUMBERS // max(len(stored), stored.shape[1], 1))
    for start in range(0, len(features), step):
        values = _normalised(features[start : start + step], metric)
        length = (values**2).sum(axis=1)[:, None]
        squared = length + lengths - 2 * values @ stored.T
        # Rounded to the precision of float64, so that an image has the same neighbours alone and in a batch, and so that a
        # distance of 0 is exactly 0.
        unit = (length + lengths.max(initial=0)) * 1e-10 + 1e-300
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
    """Return the logits of neighbours (n, m) at squared distances (n, m), nearest first.

    A neighbour has the weight exp(-distance² / distance² of the furthest voting neighbour): 1 to 1/e, independent of the unit
    of the features. One vote is spread evenly over all classes, so that no probability is 0.
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


def in_graph(arrays: Arrays, features: Value) -> Value:
    """Append the neighbour search and the vote of `logits`."""
    graph, real = features.graph, features.graph.real
    stored, weights = arrays["features"], arrays["class_weights"]
    values = features.cast(real)
    if _METRICS[int(arrays["metric"][0])] == "cosine":
        values = values / (values * values).sum(1, keep=True).op("Sqrt").op("Max", 1e-30)
    lengths = (stored.astype(np.float64) ** 2).sum(axis=1)
    length = (values * values).sum(1, keep=True)
    bank = graph.const(np.ascontiguousarray(stored.T), np.float32).cast(real)
    squared = (values @ bank) * -2.0 + length + graph.const(lengths[None], real)
    relative, least = (1e-10, 1e-300) if real == np.float64 else (1e-5, 1e-30)  # rounded as in `_logits`
    unit = (length + float(lengths.max(initial=0))) * relative + least
    squared = (squared / unit).op("Round") * unit
    count = min(int(arrays["neighbours"][0]), len(stored))
    distance, near = graph.smallest(squared.op("Max", 0.0), count)
    furthest = distance.slice([count - 1], [count], [1])
    votes = (distance * -1.0 / furthest.op("Max", 1e-30)).op("Exp")
    table = np.eye(len(weights), dtype=np.float32)[arrays["labels"]] * weights
    total = (graph.const(table, np.float32).take(near).cast(real) * votes.reshape(0, count, 1)).sum(1)  # (n, k)
    return ((total + 1 / len(weights)) / (total.sum(1, keep=True) + 1.0)).op("Log")


HEAD = HeadKind(
    name="knn",
    title="k-nearest neighbours",
    settings=KnnSettings,
    fit=fit,
    logits=logits,
    in_graph=in_graph,
    check=check,
    width=lambda arrays: int(arrays["features"].shape[1]),
    complexity=4,
    quick=True,
    auto_settings={},
    auto_order=3,
    search_space={"neighbours": Range(1, 50, log=True, whole=True), "metric": Choice(("cosine", "euclidean"))},
)
