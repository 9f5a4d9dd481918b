"""HEADS: the kinds of head by name, and the functions that work on all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sightline import store
from sightline.deadline import UNLIMITED, Deadline
from sightline.errors import DataError, ModelFileError, RequestError, unknown
from sightline.heads import centroid, constant, forest, knn, logistic, mlp, ridge
from sightline.heads.kind import HeadKind, Layers, Units
from sightline.heads.problem import Watch, check_features, checked, expect, one_blas_thread
from sightline.heads.softmax import softmax
from sightline.records import Head
from sightline.schema import from_json

if TYPE_CHECKING:
    from sightline.engine.graph import Value

AUTO = "auto"
"""Value of `head` in a recipe that compares several kinds of head."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted head and its results on rows that it was not fitted on.

    Args:
        head: The final head.
        logits: Out-of-fold logits float64 (n, k) with the selected setting; NaN for rows that were never held out.
        path: Each setting (for `mlp`: each epoch) compared, its `accuracy`, its `log_loss`, and whether it was `chosen`.
        seconds: Wall-clock time of the fit, in seconds.
    """

    head: Head
    logits: np.ndarray
    path: list[dict[str, Any]]
    seconds: float


def check_name(name: str) -> None:
    """Check that a recipe's `head` is a name of HEADS or `auto`.

    Raises:
        RequestError: If it is not.
    """
    if name != AUTO and name not in HEADS:
        raise unknown("head", name, [*HEADS, AUTO])


def settings_of(name: str, settings: Mapping[str, Any]) -> Any:
    """Return the settings of a head as its dataclass.

    Args:
        name: A name of HEADS.
        settings: Setting → value, as in a recipe.

    Raises:
        RequestError: If the head or a setting is unknown, or a value is out of range.
    """
    if name not in HEADS:
        raise unknown("head", name, HEADS)
    return from_json(HEADS[name].settings, settings, f"settings of the {name} head")


def to_compare(name: str, settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the heads that a recipe fits, each with its settings: one by name, or for `auto` several, quick ones first.

    Args:
        name: A name of HEADS, or `auto`.
        settings: Settings of the named head, such as `{"C": 1.0}`.

    Raises:
        RequestError: If the head or a setting is unknown, a value is out of range, or `auto` is given settings.
    """
    check_name(name)
    if name != AUTO:
        settings_of(name, settings)
        return {name: settings}
    if settings:
        raise RequestError("settings of a head need its name", 'set head to one, such as head = "mlp"')
    kinds = sorted(HEADS.values(), key=lambda kind: kind.auto_order)
    return {kind.name: kind.auto_settings for kind in kinds if kind.auto_settings is not None}


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
    """Fit a head and select its settings on held-out rows.

    If a setting has several values, each is fitted on every fold's training rows and evaluated on its held-out rows: see
    `sightline.heads.selection.choose`. The same input gives bit-identical results on the same machine.

    Args:
        kind: A name of HEADS.
        features: float32 (n, d).
        y: int64 (n,), class indices in 0 to k - 1. A class without rows is allowed; it is never predicted.
        classes: k.
        folds: (training rows, held-out rows) of each fold; one fold for a plain validation split.
        refit: Fit the final head on all rows that occur in folds; otherwise on the first fold's training rows.
        settings: Settings of the head; see its dataclass.
        seed: Random seed.
        class_weight: `balanced` gives each class the same total weight.
        watch: Called after the first fold, or for `mlp` after every epoch; may raise an exception to stop the fit.
        deadline: Time limit of the fit.

    Raises:
        RequestError: If the kind or a setting is unknown, or a value is out of range.
        DataError: If features are not finite, or there are no rows to fit on.
        OutOfTimeError: If the deadline has passed.
    """
    started = time.perf_counter()
    parsed = settings_of(kind, settings or {})
    problem = checked(
        features, y, classes, folds, refit=refit, seed=seed, class_weight=class_weight, watch=watch, deadline=deadline
    )
    if not problem.features.shape[1] and HEADS[kind].needs_features:
        without = ", ".join(name for name, other in HEADS.items() if not other.needs_features)
        raise DataError(f"the {kind} head needs features, and there are none", f"without features use one of: {without}")
    with one_blas_thread():
        outcome = HEADS[kind].fit(problem, parsed)
    used = {**store.plain(parsed), **store.plain(outcome.chosen), "class_weight": class_weight}
    arrays = {n: np.ascontiguousarray(a) for n, a in outcome.arrays.items()}
    if problem.features.shape[1]:  # the reference point of explanations
        rows = problem.features[problem.final_rows]
        arrays["feature_mean"] = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    head = Head(kind, classes, used, arrays)
    return Fit(head, outcome.logits, outcome.path, time.perf_counter() - started)


def logits(head: Head, features: np.ndarray) -> np.ndarray:
    """Return the logits of features.

    Args:
        head: A fitted head.
        features: float32 (n, d).

    Returns:
        float64 (n, k). For `forest` and `knn` logarithms of vote shares; for `ridge` scores around ±1.

    Raises:
        DataError: If the features are not finite, or not as many as the head was fitted on.
        RequestError: If the kind of head is unknown.
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
    """Check that a head read from a file can be used.

    Args:
        head: The head.
        features: d, the number of features of its backbone.

    Raises:
        ModelFileError: If its kind is unknown, or an array is missing, is not finite, or has another shape.
    """
    if head.kind not in HEADS:
        raise ModelFileError(f"there is no head {head.kind!r}", unknown("head", head.kind, HEADS).hint)
    HEADS[head.kind].check(head.arrays, head.classes, features)
    if "feature_mean" in head.arrays:
        expect(head.arrays, "feature_mean", (features,))


def may_be_infinite(name: str) -> bool:
    """Return whether an array of some kind of head may hold infinity; all others must be finite."""
    return any(name in kind.infinite for kind in HEADS.values())


def width(head: Head) -> int | None:
    """Return d, the number of features that a head takes; None if it takes any number."""
    kind = HEADS[head.kind]
    if kind.width is not None:
        return kind.width(head.arrays)
    return None if kind.layers is None else int(kind.layers(head.arrays)[0][0].shape[1])


def probs(head: Head, features: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities float64 (n, k): the softmax of logits / temperature."""
    return softmax(logits(head, features) / temperature)


def probs_of_each(head: Head, features: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return `probs` such that the result for an image does not depend on the other rows, to the last bit."""
    if not HEADS[head.kind].by_row or len(features) < 2:
        return probs(head, features, temperature)
    return np.concatenate([probs(head, row[None], temperature) for row in features])


def in_graph(head: Head, features: Value) -> Value:
    """Append a head to an ONNX graph.

    Args:
        head: A fitted head.
        features: float32 (n, d), in the graph.

    Returns:
        Logits (n, k), in the graph.
    """
    kind = HEADS[head.kind]
    if kind.in_graph is not None:
        return kind.in_graph(head.arrays, features)
    values = features
    for number, (weights, bias) in enumerate(layers(head) or ()):
        values = values if number == 0 else values.op("Max", 0.0)
        values = values @ values.graph.const(np.ascontiguousarray(weights.T), np.float32) + bias
    return values


def linear(head: Head) -> tuple[np.ndarray, np.ndarray] | None:
    """Return weights float32 (k, d) and bias (k,) of a linear head; None for any other head."""
    if head.kind not in HEADS or not HEADS[head.kind].linear:
        return None
    return head.arrays["weights"], head.arrays["bias"]


def layers(head: Head) -> Layers | None:
    """Return weights float32 (out, in) and bias (out,) of linear layers with a ReLU between any two; None without layers."""
    kind = HEADS.get(head.kind)
    return None if kind is None or kind.layers is None else kind.layers(head.arrays)


def hidden(head: Head) -> tuple[tuple[int, float], ...] | None:
    """Return (width, dropout) of a head's hidden layers, () for a linear head; None for a head without layers."""
    fitted = layers(head)
    if fitted is None:
        return None
    recorded = [float(dropout) for _, dropout in head.settings.get("units", ())]
    dropouts = recorded if len(recorded) == len(fitted) - 1 else [0.0] * (len(fitted) - 1)
    return tuple((len(bias), dropout) for (_, bias), dropout in zip(fitted[:-1], dropouts, strict=True))


def with_units(units: Units) -> tuple[str, dict[str, Any]]:
    """Return the kind and the settings of a head of linear layers: `logistic` without hidden layers, else `mlp`.

    Example:
        >>> with_units([]), with_units([(64, 0.3)])
        (('logistic', {}), ('mlp', {'units': [[64, 0.3]]}))
    """
    return (mlp.HEAD.name, {"units": [list(u) for u in units]}) if units else (logistic.HEAD.name, {})


HEADS: dict[str, HeadKind] = {
    "constant": constant.HEAD,
    "logistic": logistic.HEAD,
    "ridge": ridge.HEAD,
    "knn": knn.HEAD,
    "centroid": centroid.HEAD,
    "forest": forest.HEAD,
    "mlp": mlp.HEAD,
}
