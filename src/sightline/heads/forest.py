"""A random forest: scikit-learn's to fit, arrays to keep, numpy to ask; the answers are scikit-learn's to the last bit."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import store
from sightline.errors import ModelFileError
from sightline.heads.choosing import cross_validate
from sightline.heads.problem import Arrays, Outcome, Problem, Setting, check_settings, expect, expect_range

_CHUNK_WALKS = 60_000
"""Walks (rows × trees) that are held at once; their arrays stay in the processor's cache."""
_TREES_AT_ONCE = 20
"""Trees that are grown between two looks at the deadline; the forest is the same whatever their number."""
_SETTLE_LEVELS = 4
"""After so many levels the walks that have reached a leaf are put aside."""


@dataclass(frozen=True, slots=True)
class ForestSettings:
    """Settings of the forest head.

    Args:
        trees: How many, 1 to 5,000.
        min_leaf: The fewest training rows in a leaf, 1 to 1,000.
    """

    trees: int = 300
    min_leaf: int = 1

    def __post_init__(self) -> None:
        check_settings("forest", trees=(self.trees, 1, 5000), min_leaf=(self.min_leaf, 1, 1000))


def fit(problem: Problem, settings: ForestSettings) -> Outcome:
    """Fit scikit-learn's RandomForestClassifier. Its seed is a function of ours; its bits don't depend on the cores."""
    seed = int(store.stream(problem.seed, "forest").integers(2**31))

    def train(rows: np.ndarray, held: np.ndarray, tries: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        from sklearn.ensemble import RandomForestClassifier

        forest = RandomForestClassifier(
            min_samples_leaf=settings.min_leaf,
            class_weight=problem.class_weight,
            random_state=seed,
            n_jobs=os.cpu_count() or 1,
            warm_start=True,
        )
        values = np.asfortranarray(problem.features[rows])  # a column lies together: 6 % faster
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "class_weight presets")  # the rows are the same at every call
            for trees in [*range(_TREES_AT_ONCE, settings.trees, _TREES_AT_ONCE), settings.trees]:
                problem.deadline.check()
                forest.set_params(n_estimators=trees).fit(values, problem.y[rows])
        arrays = as_arrays(forest, problem.classes)
        return [arrays], logits(arrays, problem.features[held])[None]

    return cross_validate(problem, [{"trees": settings.trees, "min_leaf": settings.min_leaf}], train, parallel=False)


def as_arrays(forest: Any, classes: int) -> dict[str, np.ndarray]:
    """A fitted forest as arrays, its trees one after the other, each node's two children side by side.

    Args:
        forest: scikit-learn's RandomForestClassifier, fitted on labels that are class indices.
        classes: k; the forest may know fewer.

    Returns:
        `root` int32 (trees,): where each tree begins. `feature` int32 (nodes,), `threshold` float32 (nodes,), `left` int32
        (nodes,): go to `left` where x[feature] <= threshold, else to `left` + 1; a leaf leads to itself, its threshold is
        infinite. `leaf_start` int32 (nodes + 1,): the entries of each leaf, `leaf_class` int32 and `leaf_value` float64.
        `classes` and `width` int32 (1,): k and d.
    """
    parts = [_tree_arrays(estimator.tree_) for estimator in forest.estimators_]
    sizes = np.array([len(p["feature"]) for p in parts])
    root = np.cumsum(sizes) - sizes
    joined = {name: np.concatenate([p[name] for p in parts]) for name in ("feature", "threshold", "counts")}
    left = np.concatenate([p["left"] + offset for p, offset in zip(parts, root, strict=True)])
    known = np.asarray(forest.classes_, dtype=np.int32)
    return {
        "root": root.astype(np.int32),
        "feature": joined["feature"].astype(np.int32),
        "threshold": joined["threshold"],
        "left": left.astype(np.int32),
        "leaf_start": np.concatenate([[0], np.cumsum(joined["counts"])]).astype(np.int32),
        "leaf_class": known[np.concatenate([p["class"] for p in parts])],
        "leaf_value": np.concatenate([p["value"] for p in parts]),
        "classes": np.array([classes], dtype=np.int32),
        "width": np.array([forest.n_features_in_], dtype=np.int32),
    }


def _tree_arrays(tree: Any) -> dict[str, np.ndarray]:
    """One tree in breadth-first order, so that siblings lie side by side."""
    old_left, old_right = tree.children_left, tree.children_right
    order = [np.zeros(1, dtype=np.int64)]
    while True:
        inner = order[-1][old_left[order[-1]] >= 0]
        if not len(inner):
            break
        order.append(np.stack([old_left[inner], old_right[inner]], axis=1).ravel())
    old = np.concatenate(order)  # (nodes,): the old number of each new node
    leaf = old_left[old] < 0
    left = np.arange(len(old))
    left[~leaf] = 1 + 2 * np.arange(np.count_nonzero(~leaf))
    values = tree.value[old, 0, :] * leaf[:, None]
    where, label = np.nonzero(values)
    return {
        "feature": np.where(leaf, 0, tree.feature[old]),
        "threshold": np.where(leaf, np.float32(np.inf), rounded_down(tree.threshold[old])),
        "left": left,
        "counts": np.bincount(where, minlength=len(old)),
        "class": label,
        "value": values[where, label],
    }


def rounded_down(values: np.ndarray) -> np.ndarray:
    """The greatest float32 that is not above each float64: a float32 x is <= the one exactly where it is <= the other."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


def votes(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """The mean of the trees' probabilities, float64 (n, k), as scikit-learn's `predict_proba` on one thread."""
    trees = len(arrays["root"])
    classes = int(arrays["classes"][0])
    out = np.empty((len(features), classes))
    step = max(1, _CHUNK_WALKS // trees)
    for start in range(0, len(features), step):
        part = features[start : start + step]
        leaf = _walk(arrays, part)  # (rows · trees,)
        row = np.repeat(np.arange(len(part)), trees)
        first, count = arrays["leaf_start"][leaf], np.diff(arrays["leaf_start"])[leaf]
        if (count != 1).any():
            row, first = np.repeat(row, count), np.repeat(first, count)
            first = first + np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
        flat = row * classes + arrays["leaf_class"][first]
        # In the order of the trees, as scikit-learn sums them.
        total = np.bincount(flat, weights=arrays["leaf_value"][first], minlength=len(part) * classes)
        out[start : start + step] = total.reshape(len(part), classes) / trees
    return out


def _walk(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """The leaf of every tree for every row, int (rows · trees,): all walks go down one level at a time."""
    # Indices of the machine's own width: numpy would convert others at every level.
    feature, left, root = (arrays[name].astype(np.intp) for name in ("feature", "left", "root"))
    threshold = arrays["threshold"]
    node = np.tile(root, len(features))
    base = np.repeat(np.arange(len(features), dtype=np.intp) * features.shape[1], len(root))
    flat = features.ravel()
    active = np.arange(len(node))
    here = node
    level = 0
    while len(active):
        value = flat.take(base + feature.take(here))
        here = left.take(here) + (value > threshold.take(here))
        level += 1
        if level % _SETTLE_LEVELS == 0:
            node[active] = here
            open_ = left.take(here) != here
            active, here, base = active[open_], here[open_], base[open_]
    return np.asarray(node)


def check(arrays: Arrays, classes: int, width: int) -> None:
    """Check that every tree can be walked to a leaf, and that the leaves speak of known classes.

    Raises:
        ModelFileError: An array is missing, has another shape, or leads nowhere.
    """
    for name, value in (("classes", classes), ("width", width)):
        expect_range(expect(arrays, name, (1,), "iu"), name, value, value)
    nodes = len(expect(arrays, "feature", (None,), "iu"))
    left = expect(arrays, "left", (nodes,), "iu")
    threshold = expect(arrays, "threshold", (nodes,))
    start = expect(arrays, "leaf_start", (nodes + 1,), "iu")
    entries = len(expect(arrays, "leaf_class", (None,), "iu"))
    expect_range(arrays["feature"], "feature", 0, width - 1)
    expect_range(expect(arrays, "root", (None,), "iu"), "root", 0, nodes - 1)
    expect_range(arrays["leaf_class"], "leaf_class", 0, classes - 1)
    expect_range(expect(arrays, "leaf_value", (entries,)), "leaf_value", 0, np.inf)
    here = np.arange(nodes)
    leaf = left == here
    if np.isnan(threshold).any() or not np.array_equal(np.isposinf(threshold), leaf):
        raise ModelFileError("the tensor head.threshold is not finite in an inner node, or finite in a leaf")
    if not (leaf | ((left > here) & (left < nodes - 1))).all():  # children follow their parent: no walk is endless
        raise ModelFileError("the tensor head.left leads out of a tree")
    children = np.concatenate([left[~leaf], left[~leaf] + 1])
    if not np.array_equal(np.sort(arrays["root"]), np.setdiff1d(here, children)):
        raise ModelFileError("the tensor head.root does not begin every tree once")
    if start[0] != 0 or start[-1] != entries or not (np.diff(start) >= leaf).all():
        raise ModelFileError("the tensor head.leaf_start does not divide the entries of the leaves")


def logits(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """The logarithm of `votes`, float64 (n, k); none counts less than half a tree, or a tenth of an equal share."""
    classes = int(arrays["classes"][0])
    return np.asarray(np.log(np.maximum(votes(arrays, features), min(0.5 / len(arrays["root"]), 0.1 / classes))))
