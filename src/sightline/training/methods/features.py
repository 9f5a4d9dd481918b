"""`features`: fit heads on the features of a frozen backbone, with one forward pass per image or augmented view."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from sightline import heads, networks
from sightline.classifier import check_crops
from sightline.deadline import OutOfTimeError
from sightline.errors import RequestError
from sightline.features import Features, crop_views
from sightline.records import Backbone, Head, Predictions, Recipe
from sightline.schema import from_json
from sightline.search_space import Choice, Suggest
from sightline.store import Cache
from sightline.training import precision
from sightline.training.augmented_views import view_looks
from sightline.training.context import (
    CROSS_VALIDATE_BELOW,
    VAL,
    Candidate,
    Context,
    check_validation,
    cv_estimate,
    extract,
    folds_for,
    make_classifier,
    undecodable,
)
from sightline.training.method import Method, SearchContext
from sightline.training.pretrained import check_ranges, resolve, weighted


@dataclass(frozen=True, slots=True)
class FeaturesSettings:
    """Settings of `features`.

    Args:
        refit: Fit the chosen head once more on training and validation images together, after cross-validation.
        folds: Folds of the cross-validation, 2 to 20; used with fewer than 1,000 validation images. 1 scores heads on the
            validation images alone, however few they are.
        class_weight: `balanced` gives each class the same weight; `auto` does so if one class has more than 3 times the images
            of another.
        head: Settings of the head, such as `{"C": [0.1, 1.0]}`.
        views: Augmented views per image that heads are fitted on beside the image itself, 0 to 100; heads are evaluated on
            unchanged images alone.
        augment: Augmentation of the views, as in `scratch`.
        crops: Crops per image at prediction: 1, 5 or 10.
    """

    refit: bool = True
    folds: int = 5
    class_weight: Literal["auto", "balanced", "none"] = "auto"
    head: Mapping[str, Any] = field(default_factory=dict)
    views: int = 0
    augment: str | Mapping[str, Any] = "auto"
    crops: int = 1

    def __post_init__(self) -> None:
        check_ranges(self, {"folds": (1, 20), "views": (0, 100)})


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Fit one head, or several, on the features of the recipe's backbone."""
    settings = from_json(FeaturesSettings, recipe.settings, "settings of features")
    kinds = heads.to_compare(recipe.head, settings.head)
    backbone = resolve(context, recipe)
    check_crops(settings.crops, backbone)
    if settings.views and not (backbone.is_network or backbone.source == "pixels"):
        raise RequestError(f"{backbone.name!r} does not look at pixels, so it has no augmented views", "leave views out")
    return fit_heads(context, recipe, backbone, kinds, settings)


def fit_heads(
    context: Context, recipe: Recipe, backbone: Backbone, kinds: Mapping[str, Mapping[str, Any]], settings: FeaturesSettings
) -> list[Candidate]:
    """Fit heads on the features of one backbone, in the fastest precision that agrees with float32 on these images.

    Returns:
        One candidate per head, in the order of `simplest_first`.
    """
    choice = precision.choose(context, backbone)
    extracted = extract(context, backbone, choice.precision)
    fitted = _fit_on(context, recipe, backbone, kinds, settings, extracted)
    return [dataclasses.replace(c, classifier=precision.record(c.classifier, choice)) for c in fitted]


@dataclass(frozen=True, slots=True)
class _Table:
    """Training data of heads: features of the images first, then of their augmented views.

    Args:
        rows: int64 (n,), rows of the catalog.
        values: float32 (n + views, d), features.
        labels: int64 (n + views,), class indices.
        folds: Folds as positions in `values`; views occur only in training parts, together with their image.
        plain_folds: The same folds without views.
        crops: float32 (n, crops, d), features of the crops that are averaged at prediction; None for one crop.
        estimate: How the held-out predictions come about, as in `Candidate`.
        seconds: Duration of the feature extraction.
        computed: Number of forward passes.
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


def _table(context: Context, recipe: Recipe, backbone: Backbone, settings: FeaturesSettings, extracted: Features) -> _Table:
    """Return the training data and the folds of heads."""
    rows = np.array([i for i in context.split("train", "val") if i not in extracted.problems], dtype=np.int64)
    in_val = np.isin(rows, context.split("val"))
    crossed = settings.folds > 1 and in_val.sum() < CROSS_VALIDATE_BELOW
    if settings.folds == 1:
        check_validation(context, "a head with folds = 1")
    if crossed:
        folds = folds_for(context, rows, settings.folds, recipe.seed)
        estimate = cv_estimate(len(folds))
    else:
        folds, estimate = [(np.flatnonzero(~in_val), np.flatnonzero(in_val))], VAL
    n, values, labels, spread = len(rows), extracted.values[rows], context.labels[rows], folds
    seconds, computed, crops = extracted.seconds, extracted.computed, None
    if settings.views:
        view_crops = view_looks(context, backbone.preprocess, settings.views, settings.augment, recipe.seed)
        trained = np.arange(n) if crossed else np.flatnonzero(~in_val)
        view_features = extract(context, backbone, extracted.precision, rows[trained], looks=view_crops)
        values = np.concatenate([values, view_features.values.reshape(-1, values.shape[1])])
        labels = np.concatenate([labels, np.repeat(labels[trained], settings.views)])
        start = np.full(n, -1, dtype=np.int64)
        start[trained] = n + np.arange(len(trained)) * settings.views
        spread = [(_with_views(a, start, settings.views), b) for a, b in folds]
        seconds, computed = seconds + view_features.seconds, computed + view_features.computed
    if settings.crops > 1:
        crop_features = extract(
            context, backbone, extracted.precision, rows, looks=crop_views(backbone.preprocess, settings.crops)
        )
        crops = crop_features.values
        seconds, computed = seconds + crop_features.seconds, computed + crop_features.computed
    return _Table(
        rows=rows,
        values=values,
        labels=labels,
        folds=spread,
        plain_folds=folds,
        crops=crops,
        estimate=estimate,
        seconds=seconds,
        computed=computed,
    )


def _with_views(rows: np.ndarray, start: np.ndarray, views: int) -> np.ndarray:
    """Return the positions of images and of all their views."""
    return np.concatenate([rows, (start[rows][:, None] + np.arange(views)).ravel()])


def _fit_on(
    context: Context,
    recipe: Recipe,
    backbone: Backbone,
    kinds: Mapping[str, Mapping[str, Any]],
    settings: FeaturesSettings,
    extracted: Features,
) -> list[Candidate]:
    """Fit heads on the features of all images."""
    table, lost = _table(context, recipe, backbone, settings, extracted), undecodable(context, extracted)
    balanced = weighted(settings.class_weight, table.labels[: len(table.rows)])
    candidates, left_out = list[Candidate](), list[str]()
    for kind, head_settings in kinds.items():
        started = time.perf_counter()
        context.progress(f"fitting {kind}", 0, 0)
        half_s = context.deadline.left() / 2  # leave time for the next heads
        ends = context.deadline.within(half_s) if candidates else context.deadline
        try:
            fitted = heads.fit(
                kind,
                table.values,
                table.labels,
                len(context.classes),
                folds=table.folds,
                refit=settings.refit,
                settings=head_settings,
                seed=recipe.seed,
                class_weight=balanced,
                watch=context.watch,
                deadline=ends,
            )
            plain = fitted.logits[: len(table.rows)]
            logits = plain if table.crops is None else _cropped(context, table, fitted.head, recipe.seed, balanced)
        except OutOfTimeError:
            left_out.append(kind)
            continue
        held = np.flatnonzero(np.isfinite(logits).all(axis=1))
        temperature = heads.temperature(logits[held], table.labels[held])
        probs = heads.softmax(logits[held] / temperature)
        paths = tuple(context.catalog.paths[i] for i in table.rows[held])
        exact = dataclasses.replace(recipe, head=kind)
        made = make_classifier(context, exact, backbone, fitted.head, temperature=temperature, crops=settings.crops)
        views = f", {settings.views} views" if settings.views else ""
        candidates.append(
            Candidate(
                classifier=made,
                label=kind if backbone.source == "none" else f"{backbone.name} + {kind}{views}",
                val=Predictions(paths, context.classes, table.labels[held], probs),
                estimate=table.estimate,
                seconds=table.seconds + time.perf_counter() - started,
                undecodable=lost,
                **_training(fitted.path, table.computed),
            )
        )
    if not candidates:
        raise OutOfTimeError(f"not enough time to fit a head ({', '.join(left_out)})", "raise --budget")
    if left_out:
        note = f"heads left out by the time budget: {', '.join(left_out)}"
        candidates = [dataclasses.replace(c, note=note) for c in candidates]
    return simplest_first(sorted(candidates, key=lambda c: (-c.val_accuracy, c.val_log_loss)))


def _training(path: Sequence[Mapping[str, Any]], computed: int) -> dict[str, Any]:
    """Return the candidate's fields on the fit of its head: the settings tried, or the history of a head trained by epochs.

    Args:
        path: Rows of the outcome of the fit.
        computed: Number of images whose features were computed.
    """
    detail: dict[str, Any] = {"path": path, "computed": computed}
    rows = [row for row in path if "epoch" in row and row["accuracy"] is not None]
    if not rows:
        return {"detail": detail}
    detail["best_epoch"] = next((row["epoch"] for row in rows if row["chosen"]), None)
    names = {"epoch": "epoch", "train_loss": "train_loss", "log_loss": "val_loss", "accuracy": "val_accuracy"}
    return {"detail": detail, "history": [{new: row[old] for old, new in names.items()} for row in rows]}


def simplest_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates, first the one with the simplest head whose accuracy is within one standard error of the best.

    The standard error is that of the paired difference. On few images the choice of the best among several heads is partly due
    to chance, which favours flexible heads.

    Args:
        candidates: Candidates on one backbone, the best first.
    """
    best = candidates[0]
    right = dict(zip(best.val.paths, best.val.y_pred == best.val.y_true, strict=True))

    def close(c: Candidate) -> bool:
        hits = zip(c.val.paths, c.val.y_pred == c.val.y_true, strict=True)
        lost = np.array([float(right[path]) - float(hit) for path, hit in hits if path in right])
        return len(lost) > 0 and float(lost.mean()) <= float(lost.std()) / math.sqrt(len(lost))

    def complexity(c: Candidate) -> int:
        return heads.HEADS[c.classifier.card.head].complexity

    chosen = min((c for c in candidates if c is best or close(c)), key=complexity)
    if complexity(chosen) == complexity(best):
        return list(candidates)
    note = f"simpler than {best.label} ({best.val_accuracy:.1%}), and within one standard error of it"
    noted = dataclasses.replace(chosen, note=f"{chosen.note}; {note}" if chosen.note else note)
    return [noted, *(c for c in candidates if c is not chosen)]


def _cropped(context: Context, table: _Table, head: Head, seed: int, balanced: Literal["balanced"] | None) -> np.ndarray:
    """Return out-of-fold logits, float64 (n, k), whose softmax is the mean probability over the crops of each image.

    The heads of the folds are fitted again with the settings that were chosen on unchanged images.
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
        crops = table.crops[images]  # (m, crops, d)
        probs = heads.probs(fitted, crops.reshape(-1, crops.shape[2])).reshape(*crops.shape[:2], -1)
        out[images] = heads.log_probs(probs.mean(axis=1))
    return out


def check(recipe: Recipe, settings: Mapping[str, Any], classes: int, cache: Cache) -> None:
    """Check the names of head and backbone and the settings of the head.

    Raises:
        RequestError: If a name is not known or a value is out of range.
        WeightsError: If the weights of the backbone are not available.
    """
    heads.to_compare(recipe.head, settings["head"])
    networks.describe_recipe(recipe, cache)


def count_parameters(recipe: Recipe, classes: int, image_size: int, cache: Cache) -> int:
    """Return the number of parameters of backbone and head; `auto` counts as a linear head."""
    backbone = networks.describe_recipe(recipe, cache)
    if recipe.head == heads.AUTO:
        return backbone.parameters + heads.layer_parameters([backbone.features, classes])
    settings = heads.settings_of(recipe.head, recipe.settings.get("head", {}))
    return backbone.parameters + heads.HEADS[recipe.head].count_parameters(settings, backbone.features, classes)


PIXEL_SIZES = (8, 16, 24)
"""Image sides, in pixels, to search if the pixels themselves are the features."""


def search_space(recipe: Recipe, suggest: Suggest, context: SearchContext) -> Recipe:
    """Draw backbone, head and the head's settings; features are cached, so a trial costs one fit of a head.

    The number of views is drawn only if the recipe has some: each view is another forward pass over all images.
    """
    backbone, image_size = recipe.backbone, recipe.image_size
    if len(context.backbones) > 1:
        backbone = suggest("backbone", Choice(context.backbones))
    elif recipe.backbone == "pixels":
        image_size = suggest("image_size", Choice(PIXEL_SIZES))
    head = suggest("head", Choice(tuple(name for name, kind in heads.HEADS.items() if kind.search_space)))
    kind = heads.HEADS[head]
    drawn = {name: suggest(f"{head}.{name}", space) for name, space in kind.search_space.items()}
    settings = {**recipe.settings, "head": kind.from_search(drawn)}
    if settings.get("views"):
        settings["views"] = suggest("views", Choice((0, settings["views"])))
    return dataclasses.replace(recipe, backbone=backbone, image_size=image_size, head=head, settings=settings)


METHOD = Method(
    name="features",
    title="Head on features of a frozen backbone",
    settings=FeaturesSettings,
    fit=fit,
    network="pretrained",
    check=check,
    search_space=search_space,
    count_parameters=count_parameters,
    estimate_seconds=lambda workload: workload.features_s,
    by_default=True,
    fits_heads=True,
)
