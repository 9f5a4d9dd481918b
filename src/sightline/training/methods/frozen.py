"""`frozen`: train a new head on augmented images; the pretrained network stays unchanged."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sightline.classifier import check_crops
from sightline.heads.mlp import hidden_layers
from sightline.records import Head, Recipe
from sightline.schema import BESIDE, from_json
from sightline.search_space import Range, Space, Suggest
from sightline.training import refit, tuning
from sightline.training.context import Candidate, Context
from sightline.training.method import Method, SearchContext
from sightline.training.methods.finetune import estimate_seconds
from sightline.training.plan import Plan
from sightline.training.pretrained import (
    Material,
    PretrainedStart,
    Result,
    check_backbone,
    check_units,
    count_layers,
    everything,
    finish,
    gather,
    made,
    named,
)

if TYPE_CHECKING:
    from sightline.training.history import Trained
    from sightline.training.lr_finder import LrCurve


@dataclass(frozen=True, slots=True)
class FrozenSettings:
    """Settings of `frozen`.

    Args:
        head: (units, dropout) of each hidden layer, such as `[[512, 0.3]]`: 1 to 65,536 units, dropout 0 to 0.95. Without
            hidden layers the head is linear.
        augment: Augmentation, as in `scratch`.
        plan: Training settings; in a recipe their keys stand beside the others. Every epoch is a forward pass over all
            training images; features are standardised first.
        crops: Crops per image at prediction: 1, 5 or 10.
    """

    head: tuple[tuple[int, float], ...] = ()
    augment: str | Mapping[str, Any] = "auto"
    plan: Plan = field(default=Plan(epochs=15, label_smoothing=0.0), metadata=BESIDE)
    crops: int = 1

    def __post_init__(self) -> None:
        check_units(self.head)


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Train a head on the network that the recipe names."""
    settings = from_json(FrozenSettings, recipe.settings, "settings of frozen")
    return [train(context, recipe, named(context, recipe), settings)]


def find_rate(context: Context, recipe: Recipe) -> LrCurve:
    """Run a learning-rate range test for the recipe."""
    settings = from_json(FrozenSettings, recipe.settings, "settings of frozen")
    return rates(context, recipe, named(context, recipe), settings)


def rates(context: Context, recipe: Recipe, start: PretrainedStart, settings: FrozenSettings) -> LrCurve:
    """Run a learning-rate range test for the training of `train`."""
    from sightline.training import backbone_head as stacks

    material = gather(context, start)
    stack = stacks.assemble(start, material.train_features, settings.head, len(context.classes), recipe.seed, frozen=True)
    return stacks.find_rate(context, stack, material, start.backbone, settings.plan, policy=settings.augment, seed=recipe.seed)


def train(context: Context, recipe: Recipe, start: PretrainedStart, settings: FrozenSettings) -> Candidate:
    """Train a head on a network, whose weights and BatchNorm statistics stay unchanged."""
    from sightline.training import loop

    started = time.perf_counter()
    check_crops(settings.crops, start.backbone)
    material = gather(context, start)
    head, trained = _learn(refit.first_work(context, settings.plan), recipe, start, settings, material)
    fields = {
        "note": "; ".join((*start.notes, *trained.notes)) or None,
        "history": loop.as_rows(trained.history, settings.plan.keep),
        "gradients": [dataclasses.asdict(row) for row in trained.gradients],
        "overfitting": loop.overfitting(trained.history, len(material.val)),
        "steps": trained.steps,
        "detail": {"best_epoch": trained.best_epoch, "stopped": trained.stopped},
    }
    shape = "-".join(str(units) for units, _ in settings.head)
    label = f"{start.backbone.name} frozen + {f'mlp {shape}' if shape else 'linear'}, augmented"
    result = Result(recipe, start, head, label, settings.crops, fields)
    done = finish(context, result, material, started)
    if not settings.plan.refit:
        return done
    both = everything(context, material)
    again = refit.work_for(context)
    exact = dataclasses.replace(settings, plan=refit.plan_for(settings.plan, trained.best_epoch))
    head, last = _learn(again, recipe, start, exact, both)
    return refit.replaced(
        done,
        made(context, dataclasses.replace(result, head=head), material),
        epochs=len(last.history),
        images=len(both.train),
        steps=last.steps,
        notes=last.notes,
        seconds=time.perf_counter() - started,
    )


def _learn(
    context: Context, recipe: Recipe, start: PretrainedStart, settings: FrozenSettings, material: Material
) -> tuple[Head, Trained]:
    """Train a head on the training images."""
    from sightline.training import backbone_head as stacks

    classes = len(context.classes)
    stack = stacks.assemble(start, material.train_features, settings.head, classes, recipe.seed, frozen=True)
    stacks.use_fast_engine(stack, material, start.backbone, context.device)
    trained = stacks.learn(
        context,
        stack,
        material,
        start.backbone,
        settings.plan,
        policy=settings.augment,
        seed=recipe.seed,
        deadline=stacks.training_ends(context, stack, material, start.backbone, settings.plan.batch_size),
    )
    return stacks.head_of(stack, settings.head, classes, material.train_features.mean(axis=0)), trained


RATES: Mapping[str, Space] = {
    "adamw": Range(1e-4, 1e-2, log=True),
    "adam": Range(1e-4, 1e-2, log=True),
    "sgd": Range(3e-3, 0.3, log=True),
    "rmsprop": Range(3e-5, 3e-3, log=True),
}
"""Optimizer → learning rates to search: an order of magnitude on both sides of the usual one."""
HEAD_LAYERS: Mapping[str, Space] = {
    "layers": Range(0, 2, whole=True),
    "units": Range(64, 1024, log=True, whole=True),
    "dropout": Range(0, 0.6),
}
"""Number of hidden layers of the head, units of the first, and dropout."""


def search_space(recipe: Recipe, suggest: Suggest, context: SearchContext) -> Recipe:
    """Draw learning rate, regularisation, layers of the head, augmentation and backbone."""
    rates = tuning.rate_space(recipe, RATES, FrozenSettings().plan.optimizer)
    drawn = {name: suggest(name, space) for name, space in {**tuning.TRAINING, **rates, **HEAD_LAYERS}.items()}
    drawn["head"] = hidden_layers(drawn.pop("layers"), drawn.pop("units"), drawn.pop("dropout"))
    return tuning.suggest_recipe(recipe, drawn, suggest, context)


METHOD = Method(
    name="frozen",
    title="Frozen backbone, head trained on augmented images",
    settings=FrozenSettings,
    fit=fit,
    network="pretrained",
    find_lr=find_rate,
    check=check_backbone,
    search_space=search_space,
    count_parameters=count_layers,
    estimate_seconds=estimate_seconds,
    by_epochs=True,
    distributed=True,
)
