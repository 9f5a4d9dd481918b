"""Random forest: fitted by scikit-learn, stored as arrays, evaluated by numpy with bit-identical probabilities."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import store
from sightline.errors import ModelFileError
from sightline.heads.kind import HeadKind
from sightline.heads.problem import Arrays, Outcome, Problem, Setting, check_settings, expect, expect_range
from sightline.heads.selection import cross_validate
from sightline.search_space import Choice, Range

if TYPE_CHECKING:
    from sightline.engine.graph import Value

_CHUNK_PATHS = 60_000
"""Number of paths (rows × trees) evaluated at once, so that their arrays stay in the processor's cache."""
_TREES_AT_ONCE = 20
"""Number of trees grown between two checks of the deadline; it does not change the forest."""
_COMPACT_LEVELS = 4
"""Number of levels after which paths that have reached a leaf are removed from the active ones."""


@dataclass(frozen=True, slots=True)
class ForestSettings:
    """Settings of the forest head.

    Args:
        trees: Number of trees, 1 to 5,000.
        min_leaf: Minimum number of training rows in a leaf, 1 to 1,000.
    """

    trees: int = 300
    min_leaf: int = 1

    def __post_init__(self) -> None:
        check_settings("forest", trees=(self.trees, 1, 5000), min_leaf=(self.min_leaf, 1, 1000))


def fit(problem: Problem, settings: ForestSettings) -> Outcome:
    """Fit scikit-learn's RandomForestClassifier; the result does not depend on the number of cores."""
    seed = int(store.stream(problem.seed, "forest").integers(2**31))

    def train(rows: np.ndarray, held: np.ndarray, candidates: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        from sklearn.ensemble import RandomForestClassifier

        forest = RandomForestClassifier(
            min_samples_leaf=settings.min_leaf,
            class_weight=problem.class_weight,
            random_state=seed,
            n_jobs=os.cpu_count() or 1,
            warm_start=True,
        )
        values = np.asfortranarray(problem.features[rows])  # contiguous columns: 6 % faster
        with warnings.catch_warnings():
            for trees in [*range(_TREES_AT_ONCE, settings.trees, _TREES_AT_ONCE), settings.trees]:
                problem.deadline.check()
                # The rows are the same at every call. Added each time, because scikit-learn's threads reset all filters, and
                # it warns about itself if there is none.
                warnings.filterwarnings("ignore", "class_weight presets")
                forest.set_params(n_estimators=trees).fit(values, problem.y[rows])
        arrays = as_arrays(forest, problem.classes)
        return [arrays], logits(arrays, problem.features[held])[None]

    return cross_validate(problem, [{"trees": settings.trees, "min_leaf": settings.min_leaf}], train, parallel=False)


def as_arrays(forest: Any, classes: int) -> dict[str, np.ndarray]:
    """Convert a fitted forest to arrays: the trees one after another, the two children of each node adjacent.

    Args:
        forest: scikit-learn's RandomForestClassifier, fitted on class indices.
        classes: k; the forest may have been fitted on fewer classes.

    Returns:
        `root` int32 (trees,): index of each tree's root. `feature` int32 (nodes,), `threshold` float32 (nodes,), `left` int32
        (nodes,): the next node is `left` if x[feature] <= threshold, else `left` + 1; a leaf points to itself and has an
        infinite threshold. `leaf_start` int32 (nodes + 1,): offsets of each node's entries in `leaf_class` int32 and
        `leaf_value` float64. `classes` and `width` int32 (1,): k and d.
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
    """Return the arrays of one tree in breadth-first order, so that siblings are adjacent."""
    old_left, old_right = tree.children_left, tree.children_right
    order = [np.zeros(1, dtype=np.int64)]
    while True:
        inner = order[-1][old_left[order[-1]] >= 0]
        if not len(inner):
            break
        order.append(np.stack([old_left[inner], old_right[inner]], axis=1).ravel())
    old = np.concatenate(order)  # (nodes,): the old index of each new node
    leaf = old_left[old] < 0
    left = np.arange(len(old))
    left[~leaf] = 1 + 2 * np.arange(np.count_nonzero(~leaf))
    values = tree.value[old, 0, :] * leaf[:, None]
    node, label = np.nonzero(values)
    return {
        "feature": np.where(leaf, 0, tree.feature[old]),
        "threshold": np.where(leaf, np.float32(np.inf), round_down(tree.threshold[old])),
        "left": left,
        "counts": np.bincount(node, minlength=len(old)),
        "class": label,
        "value": values[node, label],
    }


def round_down(values: np.ndarray) -> np.ndarray:
    """Return the greatest float32 not above each float64, so that `x <= value` keeps its result for every float32 x."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


def votes(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """Return the mean of the trees' probabilities, float64 (n, k), equal to scikit-learn's `predict_proba` on one thread."""
    trees = len(arrays["root"])
    classes = int(arrays["classes"][0])
    out = np.empty((len(features), classes))
    step = max(1, _CHUNK_PATHS // trees)
    for start in range(0, len(features), step):
        part = features[start : start + step]
        leaf = _leaves(arrays, part)  # (rows · trees,)
        row = np.repeat(np.arange(len(part)), trees)
        first, count = arrays["leaf_start"][leaf], np.diff(arrays["leaf_start"])[leaf]
        if (count != 1).any():
            row, first = np.repeat(row, count), np.repeat(first, count)
            first = first + np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
        flat = row * classes + arrays["leaf_class"][first]
        # Summed in the order of the trees, as scikit-learn does.
        total = np.bincount(flat, weights=arrays["leaf_value"][first], minlength=len(part) * classes)
        out[start : start + step] = total.reshape(len(part), classes) / trees
    return out


def _leaves(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """Return the leaf that each row reaches in each tree, int (rows · trees,); all paths descend one level at a time."""
    # Indices of the platform's width: numpy would convert others at every level.
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
        if level % _COMPACT_LEVELS == 0:
            node[active] = here
            inner = left.take(here) != here
            active, here, base = active[inner], here[inner], base[inner]
    return np.asarray(node)


def check(arrays: Arrays, classes: int, width: int) -> None:
    """Check that every path through every tree ends in a leaf, and that the leaves hold existing classes.

    Raises:
        ModelFileError: If an array is missing, has another shape, or describes no valid tree.
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
    if not (leaf | ((left > here) & (left < nodes - 1))).all():  # children follow their parent, so every path ends
        raise ModelFileError("the tensor head.left points outside its tree")
    children = np.concatenate([left[~leaf], left[~leaf] + 1])
    if not np.array_equal(np.sort(arrays["root"]), np.setdiff1d(here, children)):
        raise ModelFileError("the tensor head.root does not hold the root of every tree exactly once")
    if start[0] != 0 or start[-1] != entries or not (np.diff(start) >= leaf).all():
        raise ModelFileError("the tensor head.leaf_start does not divide the entries of the leaves")


def logits(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """Return the logarithm of `votes`, float64 (n, k), each vote raised to at least half a tree or 0.1 / k."""
    classes = int(arrays["classes"][0])
    return np.asarray(np.log(np.maximum(votes(arrays, features), min(0.5 / len(arrays["root"]), 0.1 / classes))))


def in_graph(arrays: Arrays, features: Value) -> Value:
    """Append the descent of all trees, one level at a time, and the mean of their leaves."""
    graph, classes, trees = features.graph, int(arrays["classes"][0]), len(arrays["root"])
    feature, left = (graph.const(arrays[name], np.int64) for name in ("feature", "left"))
    threshold = graph.const(arrays["threshold"], np.float32)
    node = (features.sum(1, keep=True) * 0.0).cast(np.int64) + graph.const(arrays["root"][None], np.int64)  # (n, trees)
    for _ in range(_depth(arrays)):
        value = features.op("GatherElements", feature.take(node), axis=1)
        node = left.take(node) + (threshold.take(node) < value).cast(np.int64)
    start, count = arrays["leaf_start"][:-1], np.diff(arrays["leaf_start"])
    place = np.arange(int(count.max()))[None]  # (1, entries)
    entry = np.minimum(start[:, None] + place, len(arrays["leaf_class"]) - 1)
    label = graph.const(arrays["leaf_class"][entry], np.int64).take(node).reshape(0, -1)
    share = np.where(place < count[:, None], arrays["leaf_value"][entry], 0)
    chosen = graph.op("OneHot", label, graph.const(classes, np.int64), graph.const([0, 1], np.float32), dtype=np.float32)
    votes = (graph.const(share, np.float32).take(node).reshape(0, 1, -1) @ chosen).sum(1) / float(trees)
    return votes.op("Max", min(0.5 / trees, 0.1 / classes)).op("Log")


def _depth(arrays: Arrays) -> int:
    """Return the number of levels below the roots."""
    node, levels = arrays["root"], 0
    while True:
        node = node[arrays["left"][node] != node]
        if not len(node):
            return levels
        node = np.concatenate([arrays["left"][node], arrays["left"][node] + 1])
        levels += 1


HEAD = HeadKind(
    name="forest",
    title="random forest",
    settings=ForestSettings,
    fit=fit,
    logits=logits,
    in_graph=in_graph,
    check=check,
    width=lambda arrays: int(arrays["width"][0]),
    complexity=5,
    by_row=False,
    infinite=("threshold",),
    auto_settings={"trees": 100},  # a third of the time of the default 300
    auto_order=5,
    search_space={"trees": Choice((100, 300)), "min_leaf": Range(1, 10, log=True, whole=True)},
)
