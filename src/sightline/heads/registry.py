"""HEADS: the kinds of head by name, and the few verbs that work on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sightline import store
from sightline.deadline import UNLIMITED, Deadline
from sightline.errors import DataError, ModelFileError, unknown
from sightline.heads import centroid, constant, forest, knn, logistic, mlp, ridge
from sightline.heads.problem import (
    Arrays,
    Outcome,
    Problem,
    Watch,
    check_features,
    check_linear,
    checked,
    expect,
    linear_logits,
    one_blas_thread,
)
from sightline.heads.softmax import softmax
from sightline.records import Head
from sightline.schema import from_json


@dataclass(frozen=True, slots=True)
class Kind:
    """A record of HEADS.

    Args:
        settings: Its settings' dataclass.
        fit: Fits it, given a problem and settings.
        logits: (arrays, features float32 (n, d)) → float64 (n, k); numpy alone.
        check: (arrays, k, d) → None; raises ModelFileError where the arrays cannot be used.
        linear: Its arrays are `weights` (k, d) and `bias` (k,).
        layered: Its arrays are `weights.0`, `bias.0`, … of linear layers with a ReLU between them.
        complexity: Of two kinds whose held-out accuracies cannot be told apart, the one with less of it is chosen: one linear
            layer before neighbours, these before trees and layers.
    """

    settings: type
    fit: Callable[[Problem, Any], Outcome]
    logits: Callable[[Arrays, np.ndarray], np.ndarray]
    check: Callable[[Arrays, int, int], None]
    linear: bool = False
    layered: bool = False
    complexity: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted head and what is known of it from rows that it was not fitted on.

    Args:
        head: The final one.
        logits: float64 (n, k), out of fold, with the chosen setting; rows that were never held out are NaN.
        path: Each setting (for `mlp`: each epoch) tried, its `accuracy`, its `log_loss`, and whether it was `chosen`.
        seconds: What it took.
    """

    head: Head
    logits: np.ndarray
    path: list[dict[str, Any]]
    seconds: float


def fit(
    kind: str,
    features: np.ndarray,
    y: np.ndarray,
    classes: int,
    *,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    refit: bool = True,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    class_weight: Literal["balanced"] | None = None,
    watch: Watch | None = None,
    deadline: Deadline = UNLIMITED,
) -> Fit:
    """Fit a head; choose its settings on held-out rows.

    Where a setting may take several values, each is fitted on every fold's training rows and judged on what that fold holds
    out: see `sightline.heads.choosing.choose`. The same input gives the same bits on the same machine.

    Args:
        kind: A name of HEADS.
        features: float32 (n, d).
        y: int64 (n,), class indices in 0 to k - 1. A class may have no rows: it is then never the answer.
        classes: k.
        folds: (training rows, held-out rows) of each fold; one fold for a plain validation split.
        refit: Fit the final head on all rows that occur in folds; otherwise on the first fold's training rows.
        settings: The kind's own; see its dataclass.
        seed: Of every random draw.
        class_weight: `balanced` counts each class alike.
        watch: Told how good the first fold is, or for what trains every epoch; may raise to give up.
        deadline: Looked at within the fit; the default does not limit it.

    Raises:
        RequestError: The kind or a setting is not known, or a value is out of range.
        DataError: Features are not finite, or there is nothing to fit on.
        OutOfTimeError: The deadline has passed.
    """
    started = time.perf_counter()
    if kind not in HEADS:
        raise unknown("head", kind, HEADS)
    own: Any = from_json(HEADS[kind].settings, settings or {}, f"settings of the {kind} head")
    problem = checked(
        features, y, classes, folds, refit=refit, seed=seed, class_weight=class_weight, watch=watch, deadline=deadline
    )
    if not problem.features.shape[1] and kind != "constant":
        raise DataError(f"there are no features for a {kind} head to look at", "only the constant head does without")
    with one_blas_thread():
        outcome = HEADS[kind].fit(problem, own)
    used = {**store.plain(own), **store.plain(outcome.chosen), "class_weight": class_weight}
    arrays = {n: np.ascontiguousarray(a) for n, a in outcome.arrays.items()}
    if problem.features.shape[1]:  # what explanations take for "nothing there"
        fitted = problem.features[problem.final_rows]
        arrays["feature_mean"] = fitted.mean(axis=0, dtype=np.float64).astype(np.float32)
    head = Head(kind, classes, used, arrays)
    return Fit(head, outcome.logits, outcome.path, time.perf_counter() - started)


def logits(head: Head, features: np.ndarray) -> np.ndarray:
    """What a head says of features, before the softmax.

    Args:
        head: A fitted one.
        features: float32 (n, d).

    Returns:
        float64 (n, k). For `forest` and `knn` logarithms of their shares of votes; for `ridge` scores around ±1.

    Raises:
        DataError: The features are not finite, or not as many as the head was fitted on.
        RequestError: The head is of an unknown kind.
    """
    if head.kind not in HEADS:
        raise unknown("head", head.kind, HEADS)
    values = check_features(features)
    expected = width(head)
    if expected is not None and values.shape[1] != expected:
        hint = "it belongs to another backbone, or to another image size or pooling"
        raise DataError(f"an image has {values.shape[1]} features here, but the {head.kind} head takes {expected}", hint)
    return HEADS[head.kind].logits(head.arrays, values)


def check(head: Head, features: int) -> None:
    """Check that a head which was read from a file can be used.

    Args:
        head: Any.
        features: d, the number of features that its backbone gives.

    Raises:
        ModelFileError: Its kind is unknown, or one of its arrays is missing, is not finite, or has another shape.
    """
    if head.kind not in HEADS:
        raise ModelFileError(f"there is no head {head.kind!r}", unknown("head", head.kind, HEADS).hint)
    HEADS[head.kind].check(head.arrays, head.classes, features)
    if "feature_mean" in head.arrays:
        expect(head.arrays, "feature_mean", (features,))


def width(head: Head) -> int | None:
    """d, the number of features that a head takes; None where it takes any number or does not know."""
    for name in ("weights", "weights.0", "features"):
        if name in head.arrays:
            return int(head.arrays[name].shape[1])
    return int(head.arrays["width"][0]) if "width" in head.arrays else None


def probs(head: Head, features: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities float64 (n, k): the softmax of logits / temperature."""
    return softmax(logits(head, features) / temperature)


def linear(head: Head) -> tuple[np.ndarray, np.ndarray] | None:
    """Weights float32 (k, d) and bias (k,) whose product with the features are the logits; None where there are none."""
    if head.kind not in HEADS or not HEADS[head.kind].linear:
        return None
    return head.arrays["weights"], head.arrays["bias"]


def layers(head: Head) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Weights float32 (out, in) and bias (out,) of linear layers with a ReLU between any two; None where a head is no such."""
    found = linear(head)
    if found is not None:
        return [found]
    if head.kind not in HEADS or not HEADS[head.kind].layered:
        return None
    depth = sum(name.startswith("weights.") for name in head.arrays)
    return [(head.arrays[f"weights.{i}"], head.arrays[f"bias.{i}"]) for i in range(depth)]


def hidden(head: Head) -> tuple[tuple[int, float], ...] | None:
    """Return (width, dropout) of a head's layers before the last one, () for a linear head; None where it has no layers."""
    found = layers(head)
    if found is None:
        return None
    given = [float(dropout) for _, dropout in head.settings.get("units", ())]
    dropouts = given if len(given) == len(found) - 1 else [0.0] * (len(found) - 1)
    return tuple((len(bias), dropout) for (_, bias), dropout in zip(found[:-1], dropouts, strict=True))


HEADS: dict[str, Kind] = {
    "constant": Kind(constant.ConstantSettings, constant.fit, constant.logits, constant.check),
    "logistic": Kind(logistic.LogisticSettings, logistic.fit, linear_logits, check_linear, linear=True, complexity=1),
    "ridge": Kind(ridge.RidgeSettings, ridge.fit, linear_logits, check_linear, linear=True, complexity=2),
    "knn": Kind(knn.KnnSettings, knn.fit, knn.logits, knn.check, complexity=4),
    "centroid": Kind(centroid.CentroidSettings, centroid.fit, linear_logits, check_linear, linear=True, complexity=3),
    "forest": Kind(forest.ForestSettings, forest.fit, forest.logits, forest.check, complexity=5),
    "mlp": Kind(mlp.MlpSettings, mlp.fit, mlp.logits, mlp.check, layered=True, complexity=6),
}
