"""`warmstart`: one's own earlier classifier as the network to begin with, for the same classes or others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline import classifier
from sightline.errors import RequestError, unknown
from sightline.records import Preprocess, Recipe
from sightline.schema import BESIDE, from_json
from sightline.training.context import Candidate, Context, adapted
from sightline.training.methods import finetune, frozen
from sightline.training.methods.finetune import FinetuneSettings
from sightline.training.methods.frozen import FrozenSettings
from sightline.training.plan import Plan
from sightline.training.pretrained import PretrainedStart

if TYPE_CHECKING:
    from sightline.training.lr_finder import LrCurve


@dataclass(frozen=True, slots=True)
class WarmstartSettings:
    """Settings of `warmstart`; beside `frozen`, all those of the method that it stands for.

    Args:
        frozen: Whether the network stays as it is and a new head alone learns, as in `frozen`; else network and head go on
            learning, as in `finetune`: with the same classes the head as it is, with others its hidden layers and a new last
            one. A `head` in the settings replaces it.
    """

    frozen: bool = False


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Train on from the classifier that the recipe's `backbone` names: a run's folder or a `.safetensors` file."""
    settings, start = _settled(recipe), earlier(context, recipe)
    if isinstance(settings, FrozenSettings):
        shape = "-".join(str(units) for units, _ in settings.head)
        new = f"a new head of {shape} units" if shape else "a new linear head"
        note = f"{new} replaces its own, and the network stays as it is"
        return [frozen.train(context, recipe, dataclasses.replace(start, notes=(*start.notes, note)), settings)]
    return [finetune.train(context, recipe, start, settings)]


def find_rate(context: Context, recipe: Recipe) -> LrCurve:
    """Losses by learning rate of the training that the recipe would begin."""
    settings, start = _settled(recipe), earlier(context, recipe)
    if isinstance(settings, FrozenSettings):
        return frozen.rates(context, recipe, start, settings)
    return finetune.rates(context, recipe, start, settings)


def _settled(recipe: Recipe) -> FrozenSettings | FinetuneSettings:
    """The settings of the method that it stands for."""
    given = dict(recipe.settings)
    own = from_json(WarmstartSettings, {k: given.pop(k) for k in ("frozen",) if k in given}, "settings of warmstart")
    kind: Any = FrozenSettings if own.frozen else FinetuneSettings
    known = [f.name for f in (*dataclasses.fields(kind), *dataclasses.fields(Plan)) if f.metadata != BESIDE]
    for key in given:
        if key not in known:
            raise unknown("setting in the settings of warmstart", key, ["frozen", *known])
    settings: FrozenSettings | FinetuneSettings = from_json(kind, given, "settings of warmstart")
    return settings


def earlier(context: Context, recipe: Recipe) -> PretrainedStart:
    """The network of an earlier classifier, with what it was trained on.

    Raises:
        RequestError: There is no such classifier, it has no network of its own, or the recipe wants another image size.
        ModelFileError: Its file is damaged.
    """
    if not Path(recipe.backbone).exists():
        hint = 'set backbone to a run\'s folder or a classifier.safetensors, such as backbone = "runs/mine"'
        raise RequestError(f"warmstart begins with an earlier classifier, and {recipe.backbone} does not exist", hint)
    loaded = classifier.load(recipe.backbone)
    backbone = loaded.card.backbone
    if not backbone.is_network:
        what = "is an ensemble" if backbone.source == "ensemble" else f"has no network ({backbone.name})"
        raise RequestError(f"the classifier {recipe.backbone} {what}", "name one with a network of its own")
    if backbone.source == "user":
        hint = f"use the method finetune with backbone = {backbone.name!r} and weights = a file of its weights"
        raise RequestError(f"the network of {recipe.backbone} is your own code, which no file carries", hint)
    if recipe.image_size not in (None, *backbone.preprocess.size):
        hint = "leave image_size out"
        raise RequestError(f"{recipe.backbone} sees images of {backbone.preprocess.size[0]} px, not {recipe.image_size}", hint)
    preprocess = adapted(context, backbone.preprocess)
    notes = (*_seen(context, loaded, recipe), *_ranges(backbone.preprocess, preprocess))
    if recipe.fit is not None:
        preprocess = dataclasses.replace(preprocess, fit=recipe.fit)
    now = dataclasses.replace(backbone, preprocess=preprocess)
    return PretrainedStart(now, loaded.tensors, loaded.seen, notes, loaded.head, loaded.classes, loaded.card.temperature)


def _ranges(before: Preprocess, now: Preprocess) -> tuple[str, ...]:
    """What to say where images of more than 8 bits are not scaled as the earlier classifier scaled its own."""
    if before.value_range == now.value_range:
        return ()
    old, new = ("no such" if r is None else f"{r[0]:g} to {r[1]:g}" for r in (before.value_range, now.value_range))
    if now.value_range is None:
        return (f"its images of more than 8 bits had the range {old}; here the training images hold none of them",)
    return (f"images of more than 8 bits are scaled by the range of these training images, {new}; before it was {old}",)


def _seen(context: Context, loaded: classifier.Classifier, recipe: Recipe) -> tuple[str, ...]:
    """What to say where images that are to judge were learnt from before."""
    contents = context.catalog.column("content")
    notes = [f"begins with {recipe.backbone} ({loaded.card.method}, {len(loaded.classes)} classes)"]
    for split in ("val", "test"):
        rows = context.split(split)
        count = int(loaded.was_trained_on([contents[i] for i in rows]).sum())
        if count:
            notes.append(f"{count:,} of the {len(rows):,} {split} images were in its train or val: scores on them flatter")
    return tuple(notes)
