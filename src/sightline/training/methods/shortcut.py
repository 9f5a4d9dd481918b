"""`shortcut`: classify by file properties alone, which shows whether size, brightness or compression give the classes away."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import evaluation, heads
from sightline.features import FILE_FEATURES
from sightline.records import Backbone, Predictions, Preprocess, Recipe
from sightline.schema import from_json
from sightline.training.context import Candidate, Context, cv_estimate, extract, folds_for, make_classifier, undecodable
from sightline.training.method import Method

ALARM_AUC = 0.85
"""Lower bound of the AUC that raises the alarm: planted shortcuts reached 0.97 to 1.0, clean data sets at most 0.76."""

NOTABLE_GAIN = 0.05
"""Smallest gain over the most frequent class that is worth a note, if the 95 % interval of the accuracy lies above it too."""


@dataclass(frozen=True, slots=True)
class ShortcutSettings:
    """Settings of `shortcut`.

    Args:
        trees: Number of trees, 10 to 1,000.
    """

    trees: int = 100


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Fit a forest on file size, width, height, brightness and JPEG quality, evaluated by 5-fold cross-validation.

    The candidate's `detail` is the result of `alarm`, with the single feature that best separates the class.
    """
    settings = from_json(ShortcutSettings, recipe.settings, "settings of shortcut")
    backbone = Backbone("file", "file", Preprocess(), len(FILE_FEATURES))
    features = extract(context, backbone, "f32")
    rows = np.array([i for i in context.split("train", "val") if i not in features.problems], dtype=np.int64)
    labels, values = context.labels[rows], features.values[rows]
    folds = folds_for(context, rows, 5, recipe.seed)

    def cross_validated(columns: np.ndarray, trees: int) -> heads.Fit:
        return heads.fit(
            "forest",
            np.ascontiguousarray(columns),
            labels,
            len(context.classes),
            folds=folds,
            refit=True,
            settings={"trees": trees},
            seed=recipe.seed,
            class_weight="balanced",
        )

    fitted = cross_validated(values, settings.trees)
    held = np.flatnonzero(np.isfinite(fitted.logits).all(axis=1))
    logits, y = fitted.logits[held], labels[held]
    detail = alarm(heads.softmax(logits), y, context.classes)
    temperature = heads.temperature(logits, y)
    if detail["alarm"] or detail["notable"]:
        target = y == context.classes.index(detail["class"])
        single = [heads.softmax(cross_validated(values[:, [j]], 30).logits[held]) for j in range(values.shape[1])]
        aucs = [evaluation.auc(target, p[:, context.classes.index(detail["class"])]) or 0.5 for p in single]
        detail |= {"feature": FILE_FEATURES[int(np.argmax(aucs))], "feature_auc": max(aucs)}
    exact = dataclasses.replace(recipe, backbone="file", head="forest")
    paths = tuple(context.catalog.paths[i] for i in rows[held])
    return [
        Candidate(
            classifier=make_classifier(context, exact, backbone, fitted.head, temperature=temperature),
            label="file size, brightness, … only",
            val=Predictions(paths, context.classes, y, heads.softmax(logits / temperature)),
            estimate=cv_estimate(len(folds)),
            seconds=features.seconds + fitted.seconds,
            undecodable=undecodable(context, features),
            detail=detail,
        )
    ]


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
