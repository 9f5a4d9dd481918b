"""`shortcut`: classify by file properties alone, which shows whether size, brightness or compression give the classes away."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import evaluation, heads, pixels
from sightline.evaluation.shortcut_rules import PRESENT, edge_rules, shortcut_rules
from sightline.features import FILE_FEATURES, Features
from sightline.records import Backbone, Predictions, Preprocess, Recipe
from sightline.records.candidates import ShortcutRule
from sightline.schema import fields_to_json, from_json
from sightline.training.context import Candidate, Context, cv_estimate, extract, folds_for, make_classifier, undecodable
from sightline.training.method import Method

ALARM_AUC = 0.85
"""Lower bound of the AUC that raises the alarm: planted shortcuts reached 0.97 to 1.0, clean data sets at most 0.76."""

NOTABLE_GAIN = 0.05
"""Smallest gain over the most frequent class that is worth a note, if the 95 % interval of the accuracy lies above it too."""
BORDER_SHARE = 0.01
"""Share of the height or width from which a margin of one colour counts as a border."""
EDGE_PX = 64
"""Median shorter side in pixels from which borders and edges are examined: in smaller images, the object reaches the edges."""
SIDES = ("top", "bottom", "left", "right")


@dataclass(frozen=True, slots=True)
class ShortcutSettings:
    """Settings of `shortcut`.

    Args:
        trees: Number of trees, 10 to 1,000.
    """

    trees: int = 100


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A forest on file properties, with its out-of-fold logits float64 (m, k) of `rows`."""

    head: heads.Fit
    features: Features
    rows: np.ndarray
    logits: np.ndarray
    y: np.ndarray
    folds: int
    detail: dict[str, Any]


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Fit a forest on file size, width, height, brightness and JPEG quality, evaluated by 5-fold cross-validation.

    The candidate's `detail` is the result of `alarm`, with the single feature that best separates the class, and the rules of
    `find_rules`.
    """
    settings = from_json(ShortcutSettings, recipe.settings, "settings of shortcut")
    found = _fitted(context, settings.trees, recipe.seed)
    temperature = heads.temperature(found.logits, found.y)
    exact = dataclasses.replace(recipe, backbone="file", head="forest")
    paths = tuple(context.catalog.paths[i] for i in found.rows)
    return [
        Candidate(
            classifier=make_classifier(context, exact, _backbone(), found.head.head, temperature=temperature),
            label="file size, brightness, … only",
            val=Predictions(paths, context.classes, found.y, heads.softmax(found.logits / temperature)),
            estimate=cv_estimate(found.folds),
            seconds=found.features.seconds + found.head.seconds,
            undecodable=undecodable(context, found.features),
            detail=found.detail,
        )
    ]


def detail(context: Context) -> dict[str, Any]:
    """Return the result of the shortcut check on train and val, as in run.json, without a classifier."""
    return _fitted(context, ShortcutSettings().trees, 0).detail


def _backbone() -> Backbone:
    return Backbone("file", "file", Preprocess(), len(FILE_FEATURES))


def _fitted(context: Context, trees: int, seed: int) -> _Fitted:
    """Fit the forest and find the rules."""
    features = extract(context, _backbone(), "f32")
    rows = np.array([i for i in context.split("train", "val") if i not in features.problems], dtype=np.int64)
    labels, values = context.labels[rows], features.values[rows]
    folds = folds_for(context, rows, 5, seed)

    def cross_validated(columns: np.ndarray, trees: int) -> heads.Fit:
        return heads.fit(
            "forest",
            np.ascontiguousarray(columns),
            labels,
            len(context.classes),
            folds=folds,
            refit=True,
            settings={"trees": trees},
            seed=seed,
            class_weight="balanced",
        )

    fitted = cross_validated(values, trees)
    held = np.flatnonzero(np.isfinite(fitted.logits).all(axis=1))
    logits, y = fitted.logits[held], labels[held]
    result = alarm(heads.softmax(logits), y, context.classes)
    if result["alarm"] or result["notable"]:
        target = y == context.classes.index(result["class"])
        single = [heads.softmax(cross_validated(values[:, [j]], 30).logits[held]) for j in range(values.shape[1])]
        aucs = [evaluation.auc(target, p[:, context.classes.index(result["class"])]) or 0.5 for p in single]
        result |= {"feature": FILE_FEATURES[int(np.argmax(aucs))], "feature_auc": max(aucs)}
    result = with_rules(result, find_rules(context, rows))
    return _Fitted(fitted, features, rows=rows[held], logits=logits, y=y, folds=len(folds), detail=result)


def find_rules(context: Context, rows: np.ndarray) -> list[ShortcutRule]:
    """Return the file properties, borders and edges that give a class, or a part of one, away.

    Borders and edges of images smaller than `EDGE_PX` are not examined.

    Args:
        context: Holds the catalog, labels and clusters.
        rows: int64 (n,), rows of the catalog.
    """
    files, contents = context.catalog.files(), context.catalog.column("content")
    some, keys = [files[i] for i in rows], [contents[i] or "" for i in rows]
    properties = catalogs.file_properties(some, keys, context.cache, context.progress)
    columns: dict[str, list[str | None]] = {
        name: [each.get(key) for each in properties] for key, name in pixels.PROPERTIES.items()
    }
    labels = context.labels[rows]
    edges: dict[str, np.ndarray] = {}
    middle: dict[str, np.ndarray] = {}
    if _shorter_side(context, rows) >= EDGE_PX:
        statistics, edges, middle = catalogs.edges_of(some, keys, context.cache, context.progress)
        borders = {side: statistics[f"border_{side}"] > BORDER_SHARE for side in SIDES}
        borders["every side"] = np.logical_and.reduce(list(borders.values()))
        columns |= {f"border at {side}": [PRESENT if v else None for v in has.tolist()] for side, has in borders.items()}
    rules = shortcut_rules(columns, labels, context.classes, context.cluster[rows])
    return [*rules, *edge_rules(edges, labels, context.classes, middle=middle)]


def _shorter_side(context: Context, rows: np.ndarray) -> float:
    """Return the median shorter side in pixels of some images, 0 for none."""
    sides = [context.catalog.column(name) for name in ("width", "height")]
    return float(np.median([min(side[i] or 0 for side in sides) for i in rows])) if len(rows) else 0.0


def with_rules(result: Mapping[str, Any], rules: Sequence[ShortcutRule]) -> dict[str, Any]:
    """Return the result of `alarm` with rules, any of which raises the alarm."""
    if not rules:
        return {**result, "rules": []}
    first = rules[0]
    return {
        **result,
        "rules": [fields_to_json(rule) for rule in rules],
        "alarm": True,
        "notable": False,
        "feature": first.feature,
        "feature_auc": first.auc,
        "class": first.class_name,
    }


def alarm(probs: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Measure how well out-of-fold predictions from file properties separate each class from the others.

    Args:
        probs: float64 (n, k), out-of-fold probabilities.
        labels: int64 (n,), class indices.
        classes: Names of the k classes.

    Returns:
        `score` (accuracy) and `chance` (accuracy of the most frequent class), `alarm`, `notable` (below the alarm, but clearly
        above chance), `class` (the one whose one-versus-rest AUC has the highest lower bound), `auc`, `auc_low`, `feature`
        (None), `per_class`. `class` is None and both AUC values are 0.5 if the held-out images belong to one class.
    """
    per_class: dict[str, dict[str, float]] = {}
    for k, name in enumerate(classes):
        target = labels == k
        if target.all() or not target.any():
            continue
        area, interval = evaluation.auc(target, probs[:, k]), evaluation.auc_interval(target, probs[:, k])
        if area is not None and interval is not None:
            per_class[name] = {"auc": area, "auc_low": interval[0]}
    worst = max(per_class, key=lambda c: per_class[c]["auc_low"], default=None)
    areas = {"auc": 0.5, "auc_low": 0.5} if worst is None else per_class[worst]
    score, chance = float((probs.argmax(axis=1) == labels).mean()), float(np.bincount(labels).max() / len(labels))
    low = score - 1.96 * float(np.sqrt(score * (1 - score) / len(labels)))
    raised = areas["auc_low"] > ALARM_AUC
    return {
        "score": score,
        "chance": chance,
        "alarm": raised,
        "notable": worst is not None and not raised and low > chance and score - chance >= NOTABLE_GAIN,
        "class": worst,
        "feature": None,
        **areas,
        "per_class": per_class,
    }


METHOD = Method(
    name="shortcut",
    title="File properties only",
    settings=ShortcutSettings,
    fit=fit,
    network="none",
    role="shortcut_check",
    fixed_backbone="file",
    fixed_head="forest",
    by_default=True,
)
