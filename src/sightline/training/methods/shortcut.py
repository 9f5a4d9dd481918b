"""A classifier that never sees a photograph, only its file: where it does well, the classes differ by how they were saved."""

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

ALARM_AUC = 0.85
"""Planted shortcuts measured 0.97 to 1.0 here, clean sets at most 0.76."""

NOTABLE_GAIN = 0.05
"""The accuracy above chance from which file properties are worth a note, if the 95 % interval lies above chance too."""


@dataclass(frozen=True, slots=True)
class ShortcutSettings:
    """Settings of `shortcut`.

    Args:
        trees: Trees of the forest, 10 to 1,000.
    """

    trees: int = 100


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """A forest on file size, width, height, brightness and JPEG quality, judged by 5-fold cross-validation.

    The candidate's `detail` is the alarm: the class whose one-versus-rest AUC has the highest lower bound, and the feature
    that alone tells most of it.
    """
    settings = from_json(ShortcutSettings, recipe.settings, "settings of shortcut")
    backbone = Backbone("file", "file", Preprocess(), len(FILE_FEATURES))
    found = extract(context, backbone, "f32")
    rows = np.array([i for i in context.split("train", "val") if i not in found.problems], dtype=np.int64)
    labels, values = context.labels[rows], found.values[rows]
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
            seconds=found.seconds + fitted.seconds,
            undecodable=undecodable(context, found),
            detail=detail,
        )
    ]


def alarm(probs: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Whether files alone give a class away.

    Args:
        probs: float64 (n, k), out-of-fold.
        labels: int64 (n,).
        classes: k names.

    Returns:
        `score` and `chance` (accuracies), `alarm`, `notable` (below the alarm, but clearly above chance), `class`, `auc`,
        `auc_low`, `feature` (None), `per_class`; `class` is None and both areas 0.5 where the held-out images are of one class.
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
    rings = areas["auc_low"] > ALARM_AUC
    return {
        "score": score,
        "chance": chance,
        "alarm": rings,
        "notable": worst is not None and not rings and low > chance and score - chance >= NOTABLE_GAIN,
        "class": worst,
        "feature": None,
        **areas,
        "per_class": per_class,
    }
