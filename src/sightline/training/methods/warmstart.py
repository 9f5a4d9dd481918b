"""`warmstart`: continue training from an earlier classifier, for the same or for other classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline import classifier, heads
from sightline.errors import RequestError, unknown
from sightline.records import Preprocess, Recipe
from sightline.schema import BESIDE, from_json
from sightline.search_space import Suggest
from sightline.store import Cache
from sightline.training.context import Candidate, Context, adapted
from sightline.training.method import Method, SearchContext, Workload
from sightline.training.methods import finetune, frozen
from sightline.training.methods.finetune import FinetuneSettings
from sightline.training.methods.frozen import FrozenSettings
from sightline.training.plan import Plan
from sightline.training.pretrained import PretrainedStart

if TYPE_CHECKING:
    from sightline.training.lr_finder import LrCurve


@dataclass(frozen=True, slots=True)
class WarmstartSettings:
    """Settings of `warmstart`: `frozen`, and all settings of the method that it selects.

    Args:
        frozen: If true, train a new head and leave the network unchanged, as in `frozen`. Else train network and head, as in
            `finetune`: for the same classes beginning with the whole head, for others with its hidden layers and a new last
            one. A `head` in the settings replaces it.
    """

    frozen: bool = False


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Continue training from the classifier that the recipe's `backbone` names: a run folder or a `.safetensors` file."""
    settings, start = _settled(recipe), earlier(context, recipe)
    if isinstance(settings, FrozenSettings):
        shape = "-".join(str(units) for units, _ in settings.head)
        new = f"a new head of {shape} units" if shape else "a new linear head"
        note = f"{new} replaces its head, and the network stays unchanged"
        return [frozen.train(context, recipe, dataclasses.replace(start, notes=(*start.notes, note)), settings)]
    return [finetune.train(context, recipe, start, settings)]


def find_rate(context: Context, recipe: Recipe) -> LrCurve:
    """Run a learning-rate range test for the recipe."""
    settings, start = _settled(recipe), earlier(context, recipe)
    if isinstance(settings, FrozenSettings):
        return frozen.rates(context, recipe, start, settings)
    return finetune.rates(context, recipe, start, settings)


def _settled(recipe: Recipe) -> FrozenSettings | FinetuneSettings:
    """Return the settings of the method that continues the training."""
    given = dict(recipe.settings)
    first = from_json(WarmstartSettings, {k: given.pop(k) for k in ("frozen",) if k in given}, "settings of warmstart")
    kind: Any = FrozenSettings if first.frozen else FinetuneSettings
    known = [f.name for f in (*dataclasses.fields(kind), *dataclasses.fields(Plan)) if f.metadata != BESIDE]
    for key in given:
        if key not in known:
            raise unknown("setting in the settings of warmstart", key, ["frozen", *known])
    settings: FrozenSettings | FinetuneSettings = from_json(kind, given, "settings of warmstart")
    return settings


def earlier(context: Context, recipe: Recipe) -> PretrainedStart:
    """Return the network of an earlier classifier and the images that it was trained on.

    Raises:
        RequestError: If there is no such classifier, it has no network, or the recipe asks for another image size.
        ModelFileError: If its file is damaged.
    """
    check_file(recipe)
    loaded = classifier.load(recipe.backbone)
    backbone = loaded.card.backbone
    if not backbone.is_network:
        what = "is an ensemble" if backbone.source == "ensemble" else f"has no network ({backbone.name})"
        raise RequestError(f"the classifier {recipe.backbone} {what}", "name one that has a network")
    if backbone.source == "user":
        hint = f"use the method finetune with backbone = {backbone.name!r} and weights = a file of its weights"
        raise RequestError(f"the network of {recipe.backbone} is user-defined code, which is not stored in its file", hint)
    if recipe.image_size not in (None, *backbone.preprocess.size):
        hint = "leave image_size out"
        raise RequestError(f"{recipe.backbone} takes images of {backbone.preprocess.size[0]} px, not {recipe.image_size}", hint)
    preprocess = adapted(context, backbone.preprocess)
    notes = (*_seen(context, loaded, recipe), *_ranges(backbone.preprocess, preprocess))
    if recipe.fit is not None:
        preprocess = dataclasses.replace(preprocess, fit=recipe.fit)
    now = dataclasses.replace(backbone, preprocess=preprocess)
    return PretrainedStart(
        backbone=now,
        tensors=loaded.tensors,
        seen=loaded.seen,
        notes=notes,
        head=loaded.head,
        classes=loaded.classes,
        temperature=loaded.card.temperature,
    )


def _ranges(before: Preprocess, now: Preprocess) -> tuple[str, ...]:
    """Return a note if images of more than 8 bits are scaled to another range than in the earlier classifier."""
    if before.value_range == now.value_range:
        return ()
    old, new = ("no such" if r is None else f"{r[0]:g} to {r[1]:g}" for r in (before.value_range, now.value_range))
    if now.value_range is None:
        return (f"its images of more than 8 bits had the range {old}; these training images have 8 bits",)
    return (f"images of more than 8 bits are scaled to the range of these training images, {new}; before it was {old}",)


def _seen(context: Context, loaded: classifier.Classifier, recipe: Recipe) -> tuple[str, ...]:
    """Return notes on validation and test images that the earlier classifier was trained on."""
    contents = context.catalog.column("content")
    notes = [f"begins with {recipe.backbone} ({loaded.card.method}, {len(loaded.classes)} classes)"]
    for split in ("val", "test"):
        rows = context.split(split)
        count = int(loaded.was_trained_on([contents[i] for i in rows]).sum())
        if count:
            notes.append(f"{count:,} of the {len(rows):,} {split} images were in its train or val: scores on them are too high")
    return tuple(notes)


def check_file(recipe: Recipe) -> None:
    """Check that the classifier that a recipe begins with exists.

    Raises:
        RequestError: If there is no such file or folder.
    """
    if not Path(recipe.backbone).exists():
        hint = 'set backbone to a run\'s folder or a classifier.safetensors, such as backbone = "runs/mine"'
        raise RequestError(f"warmstart begins with an earlier classifier, and {recipe.backbone} does not exist", hint)


def check(recipe: Recipe, settings: Mapping[str, Any], classes: int, cache: Cache) -> None:
    """Check that the classifier that the recipe begins with exists."""
    check_file(recipe)


def inner_settings(recipe: Recipe) -> type[FrozenSettings] | type[FinetuneSettings]:
    """Return the settings of the method that trains on: `frozen` if the recipe sets `frozen`, else `finetune`."""
    return FrozenSettings if recipe.settings.get("frozen") else FinetuneSettings


def count_parameters(recipe: Recipe, classes: int, image_size: int, cache: Cache) -> int:
    """Return the number of parameters of the earlier network and the head on it."""
    earlier_classifier = classifier.load(recipe.backbone)
    backbone, units = earlier_classifier.card.backbone, _settled(recipe).head
    hidden = heads.hidden(earlier_classifier.head) if units is None else units
    return backbone.parameters + heads.layer_parameters([backbone.features, *(width for width, _ in hidden or ()), classes])


def search_space(recipe: Recipe, suggest: Suggest, context: SearchContext) -> Recipe:
    """Draw the settings that `frozen` or `finetune`, whichever trains on, searches."""
    draw = frozen.search_space if inner_settings(recipe) is FrozenSettings else finetune.search_space
    return draw(recipe, suggest, context)


def estimate_seconds(workload: Workload) -> float:
    """Return the estimated duration in seconds: the network is not known before its file is read."""
    return workload.budget_s / 2


METHOD = Method(
    name="warmstart",
    title="Earlier classifier, trained on",
    settings=WarmstartSettings,
    further_settings=inner_settings,
    fit=fit,
    network="classifier",
    find_lr=find_rate,
    check=check,
    search_space=search_space,
    count_parameters=count_parameters,
    estimate_seconds=estimate_seconds,
    source_files=lambda recipe: (recipe.backbone,),
    by_epochs=True,
    distributed=True,
    fills_time=True,
)
