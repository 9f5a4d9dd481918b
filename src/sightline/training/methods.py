"""METHODS: the ways from a catalog and a recipe to classifiers. Each gives its candidates, the best first."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sightline import engine, heads, networks
from sightline.errors import DataError, RequestError, unknown
from sightline.plain import from_plain
from sightline.records import Backbone, Predictions, Preprocess, Recipe
from sightline.training import from_scratch, precision, shortcut
from sightline.training.work import (
    CROSS_VALIDATE_BELOW,
    UNBALANCED,
    Candidate,
    Work,
    adapted,
    extract,
    folds_for,
    make_classifier,
    undecodable,
)

AUTO_HEADS: Mapping[str, Mapping[str, Any]] = {
    "logistic": {},
    "ridge": {},
    "knn": {},
    "centroid": {},
    "forest": {"trees": 100, "fold_trees": 50},
}
"""What `head = "auto"` compares: everything that costs seconds. A forest by name has 300 trees, at thrice the time."""


@dataclass(frozen=True, slots=True)
class BaselineSettings:
    """`baseline` always gives the most frequent class; there is nothing to set."""


@dataclass(frozen=True, slots=True)
class FeaturesSettings:
    """Settings of `features`.

    Args:
        refit: Fit the chosen head once more on training and validation images together, after cross-validation.
        folds: Folds of the cross-validation, 2 to 20; used with fewer than 1,000 validation images.
        class_weight: `balanced` counts each class alike; `auto` does so where one has over 3 times another's images.
        head: The head's own settings, such as `{"C": [0.1, 1.0]}`.
    """

    refit: bool = True
    folds: int = 5
    class_weight: Literal["auto", "balanced", "none"] = "auto"
    head: Mapping[str, Any] = field(default_factory=dict)


def fit(work: Work, recipe: Recipe) -> list[Candidate]:
    """Carry a recipe out.

    Returns:
        Candidates, the best on held-out images first.

    Raises:
        RequestError: The method, a setting, the backbone or the head is not known.
        DataError: The photographs do not allow it: one class only, nothing in the training split.
    """
    if recipe.method not in METHODS:
        raise unknown("method", recipe.method, METHODS)
    if not len(work.split("train")):
        raise DataError("there are no usable images in the training split", "see `sightline scan` for what is left out")
    if len(np.unique(work.labels[work.split("train", "val")])) < 2:
        raise DataError("all images belong to one class", "a classifier needs at least two classes; see `sightline scan`")
    candidates = METHODS[recipe.method](work, recipe)
    return sorted(candidates, key=lambda c: (-c.val_accuracy, c.val_log_loss))


def resolve(work: Work, recipe: Recipe) -> Backbone:
    """The recipe's backbone with the pixel range that this catalog's training images call for."""
    backbone = networks.describe(
        recipe.backbone,
        weights=recipe.weights,
        image_size=recipe.image_size,
        fit=recipe.fit,
        pool=recipe.pool,
        seed=recipe.seed,
        cache=work.cache,
    )
    return dataclasses.replace(backbone, preprocess=adapted(work, backbone.preprocess))


def baseline(work: Work, recipe: Recipe) -> list[Candidate]:
    """Always the most frequent class: what any classifier has to beat."""
    from_plain(BaselineSettings, recipe.settings, "settings of baseline")
    backbone = Backbone("none", "none", Preprocess(), 0)
    return fit_heads(work, dataclasses.replace(recipe, backbone="none"), backbone, {"constant": {}}, FeaturesSettings())


def features(work: Work, recipe: Recipe) -> list[Candidate]:
    """A head, or several, on the features of a frozen backbone: one forward pass per image."""
    settings = from_plain(FeaturesSettings, recipe.settings, "settings of features")
    if recipe.head != "auto" and recipe.head not in heads.HEADS:
        raise unknown("head", recipe.head, [*heads.HEADS, "auto"])
    if recipe.head == "auto" and settings.head:
        raise RequestError("settings of a head need its name", 'set head to one, such as head = "mlp"')
    kinds = AUTO_HEADS if recipe.head == "auto" else {recipe.head: settings.head}
    return fit_heads(work, recipe, resolve(work, recipe), kinds, settings)


def fit_heads(
    work: Work, recipe: Recipe, backbone: Backbone, kinds: Mapping[str, Mapping[str, Any]], settings: FeaturesSettings
) -> list[Candidate]:
    """Fit heads on one backbone's features and judge its fast precision with the best of them.

    Returns:
        One candidate per head, best first.
    """
    networked = backbone.source not in ("none", "file", "pixels")
    fast: engine.Precision = engine.fast_precision(work.device) if networked else "f32"
    fitted = _fit_at(work, recipe, backbone, kinds, settings, fast)
    if not networked:
        return fitted
    verdict = precision.judge(work, fitted[0].classifier, fast)
    if verdict["used"] != fast:
        fitted = _fit_at(work, recipe, backbone, kinds, settings, "f32")
    return [dataclasses.replace(c, classifier=precision.record(c.classifier, verdict)) for c in fitted]


def _fit_at(
    work: Work,
    recipe: Recipe,
    backbone: Backbone,
    kinds: Mapping[str, Mapping[str, Any]],
    settings: FeaturesSettings,
    used: engine.Precision,
) -> list[Candidate]:
    """Fit heads on features of one precision."""
    found = extract(work, backbone, used)
    rows = np.array([i for i in work.split("train", "val") if i not in found.problems], dtype=np.int64)
    labels = work.labels[rows]
    in_val = np.isin(rows, work.split("val"))
    crossed = in_val.sum() < CROSS_VALIDATE_BELOW
    if crossed:
        folds = folds_for(work, rows, settings.folds, recipe.seed)
        estimate = f"{len(folds)}-fold cross-validation"
    else:
        folds, estimate = [(np.flatnonzero(~in_val), np.flatnonzero(in_val))], "validation"
    lost = undecodable(work, found)
    candidates = []
    for kind, own in kinds.items():
        started = time.perf_counter()
        work.progress(f"fitting {kind}", 0, 0)
        fit = heads.fit(
            kind,
            found.values[rows],
            labels,
            len(work.classes),
            folds=folds,
            refit=settings.refit,
            settings=own,
            seed=recipe.seed,
            class_weight=_class_weight(settings.class_weight, labels),
        )
        held = np.flatnonzero(np.isfinite(fit.logits).all(axis=1))
        temperature = heads.temperature(fit.logits[held], labels[held])
        probs = heads.softmax(fit.logits[held] / temperature)
        paths = tuple(work.catalog.paths[i] for i in rows[held])
        exact = dataclasses.replace(recipe, head=kind)
        candidates.append(
            Candidate(
                classifier=make_classifier(work, exact, backbone, fit.head, temperature=temperature),
                label=kind if backbone.source == "none" else f"{backbone.name} + {kind}",
                val=Predictions(paths, work.classes, labels[held], probs),
                estimate=estimate,
                seconds=found.seconds + time.perf_counter() - started,
                undecodable=lost,
                detail={"path": fit.path, "computed": found.computed},
            )
        )
    return sorted(candidates, key=lambda c: (-c.val_accuracy, c.val_log_loss))


def _class_weight(asked: str, labels: np.ndarray) -> Literal["balanced"] | None:
    """Whether classes are weighted, for `auto` by how unlike their sizes are."""
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    unbalanced = asked == "auto" and counts.max() > UNBALANCED * counts.min()
    return "balanced" if asked == "balanced" or unbalanced else None


METHODS: dict[str, Callable[[Work, Recipe], list[Candidate]]] = {
    "baseline": baseline,
    "shortcut": shortcut.fit,
    "features": features,
    "scratch": from_scratch.fit,
}
