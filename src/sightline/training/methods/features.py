"""Heads on the features of a frozen backbone: one forward pass per image, or one for each augmented view of it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sightline import engine, heads
from sightline.classifier import check_crops
from sightline.deadline import OutOfTimeError
from sightline.errors import RequestError
from sightline.features import Features, crop_views
from sightline.records import Backbone, Head, Predictions, Recipe
from sightline.training import precision
from sightline.training.augmented_views import view_looks
from sightline.training.context import (
    CROSS_VALIDATE_BELOW,
    VAL,
    Candidate,
    Context,
    cv_estimate,
    extract,
    folds_for,
    make_classifier,
    undecodable,
)
from sightline.training.pretrained import check_ranges, resolve, weighted


@dataclass(frozen=True, slots=True)
class FeaturesSettings:
    """Settings of `features`.

    Args:
        refit: Fit the chosen head once more on training and validation images together, after cross-validation.
        folds: Folds of the cross-validation, 2 to 20; used with fewer than 1,000 validation images.
        class_weight: `balanced` counts each class alike; `auto` does so where one has over 3 times another's images.
        head: The head's own settings, such as `{"C": [0.1, 1.0]}`.
        views: Augmented views of each image that heads are fitted on beside the image itself, 0 to 100; they are judged on
            unchanged images alone.
        augment: How views come about, as in `scratch`.
        crops: Looks at each image when it is asked about: 1, 5 or 10.
    """

    refit: bool = True
    folds: int = 5
    class_weight: Literal["auto", "balanced", "none"] = "auto"
    head: Mapping[str, Any] = field(default_factory=dict)
    views: int = 0
    augment: str | Mapping[str, Any] = "auto"
    crops: int = 1

    def __post_init__(self) -> None:
        check_ranges(self, {"folds": (2, 20), "views": (0, 100)})


def fit(context: Context, recipe: Recipe, settings: FeaturesSettings) -> list[Candidate]:
    """A head, or several, on the features of the recipe's backbone."""
    kinds = heads.to_compare(recipe.head, settings.head)
    backbone = resolve(context, recipe)
    check_crops(settings.crops, backbone)
    if settings.views and not (backbone.is_network or backbone.source == "pixels"):
        raise RequestError(f"views are of pixels, which {backbone.name!r} does not look at", "leave views out")
    return fit_heads(context, recipe, backbone, kinds, settings)


def fit_heads(
    context: Context, recipe: Recipe, backbone: Backbone, kinds: Mapping[str, Mapping[str, Any]], settings: FeaturesSettings
) -> list[Candidate]:
    """Fit heads on one backbone's features and judge its fast precision with the best of them.

    Returns:
        One candidate per head, in the order of `simplest_first`.
    """
    found = extract(context, backbone, engine.fast_precision(context.device) if backbone.is_network else "f32")
    fitted = _fit_on(context, recipe, backbone, kinds, settings, found)
    if not backbone.is_network:
        return fitted
    verdict = precision.judge(context, fitted[0].classifier, found.precision)
    if verdict["used"] != found.precision:
        fitted = _fit_on(context, recipe, backbone, kinds, settings, extract(context, backbone, "f32"))
    return [dataclasses.replace(c, classifier=precision.record(c.classifier, verdict)) for c in fitted]


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows to fit heads on: the images first, then their augmented views.

    Args:
        rows: int64 (n,), the catalog's rows of the images.
        values: float32 (n + views, d).
        labels: int64 (n + views,).
        folds: Of positions in `values`; views are in the training rows of folds alone, where their image is.
        plain_folds: The same without views.
        crops: float32 (n, crops, d), how the images look when they are asked about; None where unchanged.
        estimate: How heads are judged.
        seconds: What the features cost.
        computed: How many forward passes.
    """

    rows: np.ndarray
    values: np.ndarray
    labels: np.ndarray
    folds: list[tuple[np.ndarray, np.ndarray]]
    plain_folds: list[tuple[np.ndarray, np.ndarray]]
    crops: np.ndarray | None
    estimate: str
    seconds: float
    computed: int


def _table(context: Context, recipe: Recipe, backbone: Backbone, settings: FeaturesSettings, found: Features) -> _Table:
    """All that heads are fitted on and judged by."""
    rows = np.array([i for i in context.split("train", "val") if i not in found.problems], dtype=np.int64)
    in_val = np.isin(rows, context.split("val"))
    crossed = in_val.sum() < CROSS_VALIDATE_BELOW
    if crossed:
        folds = folds_for(context, rows, settings.folds, recipe.seed)
        estimate = cv_estimate(len(folds))
    else:
        folds, estimate = [(np.flatnonzero(~in_val), np.flatnonzero(in_val))], VAL
    n, values, labels, spread = len(rows), found.values[rows], context.labels[rows], folds
    seconds, computed, crops = found.seconds, found.computed, None
    if settings.views:
        looks = view_looks(context, backbone.preprocess, settings.views, settings.augment, recipe.seed)
        learnt = np.arange(n) if crossed else np.flatnonzero(~in_val)
        seen = extract(context, backbone, found.precision, rows[learnt], looks=looks)
        values = np.concatenate([values, seen.values.reshape(-1, values.shape[1])])
        labels = np.concatenate([labels, np.repeat(labels[learnt], settings.views)])
        start = np.full(n, -1, dtype=np.int64)
        start[learnt] = n + np.arange(len(learnt)) * settings.views
        spread = [(_with_views(a, start, settings.views), b) for a, b in folds]
        seconds, computed = seconds + seen.seconds, computed + seen.computed
    if settings.crops > 1:
        looked = extract(context, backbone, found.precision, rows, looks=crop_views(backbone.preprocess, settings.crops))
        crops, seconds, computed = looked.values, seconds + looked.seconds, computed + looked.computed
    return _Table(rows, values, labels, spread, folds, crops, estimate, seconds, computed)


def _with_views(rows: np.ndarray, start: np.ndarray, views: int) -> np.ndarray:
    """Positions of images and of all their views."""
    return np.concatenate([rows, (start[rows][:, None] + np.arange(views)).ravel()])


def _fit_on(
    context: Context,
    recipe: Recipe,
    backbone: Backbone,
    kinds: Mapping[str, Mapping[str, Any]],
    settings: FeaturesSettings,
    found: Features,
) -> list[Candidate]:
    """Fit heads on the features of all images."""
    table, lost = _table(context, recipe, backbone, settings, found), undecodable(context, found)
    n = len(table.rows)
    balanced = weighted(settings.class_weight, table.labels[:n])
    candidates, left_out = list[Candidate](), list[str]()
    for kind, own in kinds.items():
        started = time.perf_counter()
        context.progress(f"fitting {kind}", 0, 0)
        ends = (
            context.deadline.within(context.deadline.left() / 2) if candidates else context.deadline
        )  # the next ones get some too
        try:
            fitted = heads.fit(
                kind,
                table.values,
                table.labels,
                len(context.classes),
                folds=table.folds,
                refit=settings.refit,
                settings=own,
                seed=recipe.seed,
                class_weight=balanced,
                watch=context.watch,
                deadline=ends,
            )
            logits = fitted.logits[:n] if table.crops is None else _cropped(context, table, fitted.head, recipe.seed, balanced)
        except OutOfTimeError:
            left_out.append(kind)
            continue
        held = np.flatnonzero(np.isfinite(logits).all(axis=1))
        labels = table.labels[held]
        temperature = heads.temperature(logits[held], labels)
        probs = heads.softmax(logits[held] / temperature)
        paths = tuple(context.catalog.paths[i] for i in table.rows[held])
        exact = dataclasses.replace(recipe, head=kind)
        made = make_classifier(context, exact, backbone, fitted.head, temperature=temperature, crops=settings.crops)
        views = f", {settings.views} views" if settings.views else ""
        candidates.append(
            Candidate(
                classifier=made,
                label=kind if backbone.source == "none" else f"{backbone.name} + {kind}{views}",
                val=Predictions(paths, context.classes, labels, probs),
                estimate=table.estimate,
                seconds=table.seconds + time.perf_counter() - started,
                undecodable=lost,
                detail={"path": fitted.path, "computed": table.computed},
            )
        )
    if not candidates:
        raise OutOfTimeError(f"not enough time to fit a head ({', '.join(left_out)})", "raise --budget")
    if left_out:
        note = f"the time budget left out the heads {', '.join(left_out)}"
        candidates = [dataclasses.replace(c, note=note) for c in candidates]
    return simplest_first(sorted(candidates, key=lambda c: (-c.val_accuracy, c.val_log_loss)))


def simplest_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with the simplest head first whose accuracy is within one standard error of the best one's.

    The standard error is that of the difference on the same images. Which of several heads looks best on few images is
    partly chance, and the more flexible ones gain more from it.

    Args:
        candidates: The best first, on one backbone.
    """
    best = candidates[0]
    right = dict(zip(best.val.paths, best.val.y_pred == best.val.y_true, strict=True))

    def close(c: Candidate) -> bool:
        own = zip(c.val.paths, c.val.y_pred == c.val.y_true, strict=True)
        lost = np.array([float(right[path]) - float(hit) for path, hit in own if path in right])
        return len(lost) > 0 and float(lost.mean()) <= float(lost.std()) / math.sqrt(len(lost))

    def complexity(c: Candidate) -> int:
        return heads.HEADS[c.classifier.card.head].complexity

    chosen = min((c for c in candidates if c is best or close(c)), key=complexity)
    if complexity(chosen) == complexity(best):
        return list(candidates)
    note = f"simpler than {best.label} ({best.val_accuracy:.1%}), and within one standard error of it"
    told = dataclasses.replace(chosen, note=f"{chosen.note}; {note}" if chosen.note else note)
    return [told, *(c for c in candidates if c is not chosen)]


def _cropped(context: Context, table: _Table, head: Head, seed: int, balanced: Literal["balanced"] | None) -> np.ndarray:
    """Logits float64 (n, k) of every image's crops, whose softmax is their mean probability, out of fold.

    The heads of the folds are fitted once more, with the settings that were chosen on unchanged images.
    """
    chosen = {k: v for k, v in head.settings.items() if k != "class_weight"}
    assert table.crops is not None
    out = np.full((len(table.rows), head.classes), np.nan)
    for (rows, held), (_, images) in zip(table.folds, table.plain_folds, strict=True):
        fitted = heads.fit(
            head.kind,
            table.values,
            table.labels,
            head.classes,
            folds=[(rows, held)],
            refit=False,
            settings=chosen,
            seed=seed,
            class_weight=balanced,
            deadline=context.deadline,
        ).head
        looks = table.crops[images]  # (m, crops, d)
        each = heads.probs(fitted, looks.reshape(-1, looks.shape[2])).reshape(*looks.shape[:2], -1)
        out[images] = heads.log_probs(each.mean(axis=1))
    return out
