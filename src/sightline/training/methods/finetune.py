"""`finetune`: fit the head on cached features, then train the network or its last stages at a much lower learning rate."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import evaluation, heads, networks
from sightline.classifier import check_crops
from sightline.deadline import Deadline, OutOfTimeError
from sightline.records import Head, Recipe
from sightline.schema import BESIDE, from_json
from sightline.search_space import Choice, Range, Space, Suggest
from sightline.training import refit, tuning
from sightline.training.context import Candidate, Context
from sightline.training.method import Method, SearchContext, Workload
from sightline.training.plan import Plan
from sightline.training.pretrained import (
    Material,
    PretrainedStart,
    Result,
    check_backbone,
    check_ranges,
    check_units,
    count_layers,
    everything,
    finish,
    gather,
    made,
    named,
)

if TYPE_CHECKING:
    from sightline.training.backbone_head import BackboneHead
    from sightline.training.history import Trained
    from sightline.training.lr_finder import LrCurve

HEAD_PHASE, NETWORK_PHASE = 1.0, 2.0
"""Values of `phase` in the history: head alone, fitted on features; network and head."""
RATES: Mapping[str, float] = {"sgd": 0.01, "adamw": 1e-4, "adam": 1e-4, "rmsprop": 3e-5}
"""Optimizer → default learning rate of the last stage. The first steps of Adam change every weight by the full rate, which a
small data set cannot repair: with 60 photographs of flowers (MobileNetV2 at 128 px, 6 epochs) the head alone had accuracy 0.78;
fine-tuning at 3e-4 gave 0.50 to 0.56, at 1e-4 0.72, and sgd at 0.01 gave 0.78. With 300 and 500 photographs sgd at 0.01 and
AdamW at 1e-4 did not differ significantly."""


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """Settings of `finetune`.

    Args:
        head: (units, dropout) of each hidden layer, such as `[[1000, 0], [256, 0]]`: 1 to 65,536 units, dropout 0 to 0.95;
            `[]` is a linear head. None is a linear head too, except in `warmstart`, which keeps the head of the earlier
            classifier.
        unfreeze: What is trained beside the head: `all`, a number of last stages, or the name of the first stage, such as
            `layer3`.
        layer_decay: Ratio of a stage's learning rate to that of the stage after it, above 0, at most 1.
        head_rate: Learning rate of the head as a multiple of the last stage's, 0 to 1,000; the head is fitted already.
        augment: Augmentation, as in `scratch`.
        plan: Settings of the second phase; in a recipe their keys stand beside the others. The learning rate is that of the
            last stage, by default from `RATES`.
        crops: Crops per image at prediction: 1, 5 or 10.
    """

    head: tuple[tuple[int, float], ...] | None = None
    unfreeze: int | str = "all"
    layer_decay: float = 0.8
    head_rate: float = 1.0
    augment: str | Mapping[str, Any] = "auto"
    plan: Plan = field(default=Plan(epochs=12, batch_size=32, optimizer="sgd"), metadata=BESIDE)
    crops: int = 1

    def __post_init__(self) -> None:
        check_units(self.head or ())
        check_ranges(self, {"layer_decay": (1e-6, 1), "head_rate": (0, 1000)})


@dataclass(frozen=True, slots=True)
class _Alone:
    """Head on the features of the unchanged network, fitted on train and evaluated on val.

    Args:
        head: The head.
        units: (width, dropout) of its hidden layers.
        row: Row of the history.
        note: Origin of the head, unless it is a new one.
        fitted: Whether a part of it was fitted here; False for the unchanged head of an earlier classifier.
    """

    head: Head
    units: tuple[tuple[int, float], ...]
    row: Mapping[str, float]
    note: str | None = None
    fitted: bool = True


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Fine-tune the network that the recipe names."""
    settings = from_json(FinetuneSettings, recipe.settings, "settings of finetune")
    return [train(context, recipe, named(context, recipe), settings)]


def find_rate(context: Context, recipe: Recipe) -> LrCurve:
    """Run a learning-rate range test for the second phase of the recipe."""
    settings = from_json(FinetuneSettings, recipe.settings, "settings of finetune")
    return rates(context, recipe, named(context, recipe), settings)


def rates(context: Context, recipe: Recipe, start: PretrainedStart, settings: FinetuneSettings) -> LrCurve:
    """Run a learning-rate range test for the second phase of `train`, by the learning rate of the last stage."""
    from sightline.training import backbone_head as stacks

    material = gather(context, start)
    stack = _opened(
        context, material, start, settings, recipe.seed, _head_alone(context, material, settings, start, recipe.seed)
    )
    plan, groups = _course(stack, settings)
    return stacks.find_rate(
        context, stack, material, start.backbone, plan, policy=settings.augment, seed=recipe.seed, groups=groups
    )


def train(context: Context, recipe: Recipe, start: PretrainedStart, settings: FinetuneSettings) -> Candidate:
    """Fine-tune a network; return the head alone if fine-tuning does not improve the validation accuracy.

    Source: Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution" (LP-FT: the
    head is fitted first, so that the gradients of a random head do not distort the network).

    Raises:
        RequestError: If the network has no such stages.
        OutOfTimeError: If there is not enough time for one epoch.
    """
    started = time.perf_counter()
    check_crops(settings.crops, start.backbone)
    material = gather(context, start)
    alone = _head_alone(context, material, settings, start, recipe.seed)
    stack = _opened(context, material, start, settings, recipe.seed, alone)
    first = refit.first_work(context, settings.plan)
    settings, notes, deadline = _within(first, stack, material, start, settings)
    recipe = dataclasses.replace(recipe, settings={**recipe.settings, **({"epochs": settings.plan.epochs} if notes else {})})
    trained = _learn(context, stack, material=material, start=start, settings=settings, recipe=recipe, deadline=deadline)
    origin = () if alone.note is None else (alone.note,)
    fields = _fields(alone, trained, len(material.val), settings.plan.keep, (*start.notes, *origin, *notes, *trained.notes))
    shape = "-".join(str(width) for width, _ in alone.units)
    name, kind = start.backbone.name, f"mlp {shape}" if shape else alone.head.kind
    label = f"{name} fine-tuned{'' if settings.unfreeze == 'all' else f' ({settings.unfreeze})'}{f' + {kind}' if shape else ''}"
    tuned = Result(
        recipe, _tuned(stack, start), _head_of(context, stack, alone, material, start), label, settings.crops, fields
    )
    label = f"{name} + {kind} (fine-tuning did not help)"
    before = Result(recipe, start, alone.head, label, settings.crops, fields)
    best = _compared(finish(context, tuned, material, started), finish(context, before, material, started), _goes_on(context))
    if not settings.plan.refit:
        return best
    chosen = tuned if best.detail["gain"]["kept"] == "fine-tuned" else before
    return _refitted(context, best, chosen=chosen, settings=settings, material=material, start=start, started=started)


def _head_of(context: Context, stack: BackboneHead, alone: _Alone, material: Material, start: PretrainedStart) -> Head:
    """Return the trained head as arrays."""
    from sightline.training import backbone_head as stacks

    mean = stacks.mean_features(stack, material.train_images, start.backbone)
    return stacks.head_of(stack, alone.units, len(context.classes), mean)


def _refitted(
    context: Context,
    best: Candidate,
    chosen: Result,
    settings: FinetuneSettings,
    material: Material,
    start: PretrainedStart,
    started: float,
) -> Candidate:
    """Return the better candidate, trained again on train and val together: head and network, or the head alone.

    Args:
        context, settings, material, start: Those of the validated training.
        best: Candidate with the fine-tuned network or with the head alone, whichever is better.
        chosen: Parts of that candidate.
        started: Start of the first training, by `time.perf_counter`.
    """
    both, recipe = everything(context, material), chosen.recipe
    alone = _head_alone(context, material, settings, start, recipe.seed, refitted=True)
    epochs, steps = 0, 0
    notes: tuple[str, ...] = ()
    if best.detail["gain"]["kept"] == "fine-tuned":
        again = refit.work_for(context)
        exact = dataclasses.replace(settings, plan=refit.plan_for(settings.plan, best.detail["best_epoch"]))
        stack = _opened(again, both, start, exact, recipe.seed, alone)
        trained = _learn(again, stack, material=both, start=start, settings=exact, recipe=recipe, deadline=again.deadline)
        epochs, steps, notes = len(trained.history), trained.steps, trained.notes
        chosen = dataclasses.replace(chosen, start=_tuned(stack, start), head=_head_of(context, stack, alone, both, start))
    elif alone.fitted:
        chosen = dataclasses.replace(chosen, head=alone.head)
    else:
        return best  # the unchanged earlier classifier
    return refit.replaced(
        best,
        made(context, chosen, material),
        epochs=epochs,
        images=len(both.train),
        steps=steps,
        notes=notes,
        seconds=time.perf_counter() - started,
    )


def _opened(
    context: Context, material: Material, start: PretrainedStart, settings: FinetuneSettings, seed: int, alone: _Alone
) -> BackboneHead:
    """Return the network with the fitted head, with all stages or the last ones unfrozen."""
    from sightline.training import backbone_head as stacks

    stack = stacks.assemble(start, material.train_features, alone.units, len(context.classes), seed, frozen=False)
    stack.set_layers(heads.layers(alone.head) or ())
    stack.base.unfreeze(None if settings.unfreeze == "all" else settings.unfreeze)
    return stack


def _head_alone(
    context: Context, material: Material, settings: FinetuneSettings, start: PretrainedStart, seed: int, refitted: bool = False
) -> _Alone:
    """Return the head before fine-tuning: a new one fitted on features of train, or that of the earlier classifier.

    Args:
        context, material, settings, seed: Those of the training.
        start: Holds the head of an earlier classifier, if training begins with one. For the same classes that head is used
            unchanged; for others its hidden layers stay, and a new last layer is fitted. A head without layers is replaced, and
            so is any head if the settings name a `head`.
        refitted: Fit new layers on train and val together, with the settings chosen on val.
    """
    began = time.perf_counter()
    y, val_y = context.labels[material.train], context.labels[material.val]
    layers = None if start.head is None or settings.head is not None else heads.layers(start.head)
    units = settings.head or ()
    if start.head is not None and layers is not None:
        units = heads.hidden(start.head) or ()
    if layers is not None and set(start.classes) == set(context.classes):
        note: str | None
        head, note = _same_head(layers, start, context.classes), _SAME_HEAD
    else:
        hidden = [] if layers is None else layers[:-1]
        features = [_hidden(f, hidden) for f in (material.train_features, material.val_features)]
        kind, head_settings = heads.with_units(() if hidden else units)
        fitted = heads.fit(
            kind,
            np.concatenate(features),
            np.concatenate([y, val_y]),
            len(context.classes),
            folds=[(np.arange(len(y)), len(y) + np.arange(len(val_y)))],
            refit=refitted,
            settings=head_settings,
            seed=seed,
            class_weight=settings.plan.class_weight,
        )
        head = _on_top(hidden, units, fitted.head, material) if hidden else fitted.head
        note = _new_head_note(start, settings, units, bool(hidden))
    on_train, on_val = heads.logits(head, material.train_features), heads.logits(head, material.val_features)
    row = {
        "train_loss": heads.log_loss(on_train, y),
        "train_accuracy": float((on_train.argmax(axis=1) == y).mean()),
        "val_loss": heads.log_loss(on_val, val_y),
        "val_accuracy": float((on_val.argmax(axis=1) == val_y).mean()),
        "seconds": time.perf_counter() - began,
    }
    return _Alone(head, units, row, note, fitted=note != _SAME_HEAD)


_SAME_HEAD = "training continues with the head of that classifier"
Layers = Sequence[tuple[np.ndarray, np.ndarray]]
"""Weights (out, in) and bias (out,) of linear layers with a ReLU between any two."""


def _same_head(layers: Layers, start: PretrainedStart, classes: Sequence[str]) -> Head:
    """Return an earlier head with its classes in the order of `classes` and its logits divided by its temperature."""
    assert start.head is not None
    order = [start.classes.index(name) for name in classes]
    weights, bias = layers[-1]
    last = (weights[order] / start.temperature, bias[order] / start.temperature)
    return _as_head([*layers[:-1], last], heads.hidden(start.head) or (), start.head.arrays.get("feature_mean"))


def _on_top(hidden: Layers, units: tuple[tuple[int, float], ...], last: Head, material: Material) -> Head:
    """Return a head of earlier hidden layers and a new last layer."""
    mean = material.train_features.mean(axis=0, dtype=np.float64)
    return _as_head([*hidden, (last.arrays["weights"], last.arrays["bias"])], units, mean)


def _as_head(layers: Layers, units: tuple[tuple[int, float], ...], mean: np.ndarray | None) -> Head:
    """Return linear layers as a head: `logistic` for one layer, else `mlp`."""
    if units:
        arrays = {f"{name}.{i}": a for i, pair in enumerate(layers) for name, a in zip(("weights", "bias"), pair, strict=True)}
    else:
        arrays = dict(zip(("weights", "bias"), layers[0], strict=True))
    if mean is not None:
        arrays["feature_mean"] = mean
    kind, settings = heads.with_units(units)
    exact = {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in arrays.items()}
    return Head(kind, len(layers[-1][1]), settings, exact)


def _hidden(features: np.ndarray, layers: Layers) -> np.ndarray:
    """Return the output of hidden layers on features (n, d): float32 (n, width); without layers the features themselves."""
    for weights, bias in layers:
        features = np.maximum(features @ weights.T + bias, 0)
    return features


def _new_head_note(
    start: PretrainedStart, settings: FinetuneSettings, units: tuple[tuple[int, float], ...], kept_hidden: bool
) -> str | None:
    """Return a note on what happens to the head of the earlier classifier; None without one."""
    if start.head is None:
        return None
    shape = "-".join(str(width) for width, _ in units)
    if kept_hidden:
        return f"training continues with the hidden layers of its head ({shape} units) and a new last layer, for other classes"
    new = f"a new head of {shape} units" if shape else "a new linear head"
    if settings.head is not None:
        return f"{new} replaces its {start.head.kind} head, as the recipe asks"
    if heads.layers(start.head) is None:
        return f"{new} replaces its {start.head.kind} head, which has no layers that could learn"
    return f"{new} replaces its linear one, for other classes"


def _within(
    context: Context, stack: BackboneHead, material: Material, start: PretrainedStart, settings: FinetuneSettings
) -> tuple[FinetuneSettings, tuple[str, ...], Deadline]:
    """Reduce the number of epochs to what the time allows, so that the learning-rate schedule is completed.

    A training that was interrupted keeps its number of epochs.

    Returns:
        The settings, notes on them, and the deadline of training, which leaves time for the steps after it.

    Raises:
        OutOfTimeError: If there is not enough time for one epoch.
    """
    if not context.deadline.limited:
        return settings, (), context.deadline
    from sightline.training import backbone_head as stacks
    from sightline.training import checkpoint

    before = None if context.checkpoint is None else checkpoint.planned_epochs(context.checkpoint)
    if before is not None:
        notes = () if before == settings.plan.epochs else (f"{before} of {settings.plan.epochs} epochs, by the time budget",)
        return dataclasses.replace(settings, plan=dataclasses.replace(settings.plan, epochs=before)), notes, context.deadline
    cost = stacks.cost(stack, material, start.backbone, settings.plan.batch_size, context.device, context.deadline.clock)
    each, deadline = 1.15 * cost.epoch_s, context.deadline.sooner(cost.behind_s)
    most = int(deadline.left() / each)
    if most < 1:
        why = f"one epoch takes about {each:.0f} s here, {deadline.left():.0f} s are left for training"
        raise OutOfTimeError(f"not enough time to fine-tune {start.backbone.name}: {why}", "raise --budget")
    wanted = settings.plan.epochs or 1
    if most >= wanted:
        return settings, (), deadline
    note = f"{most} of {wanted} epochs, by the time budget (about {each:.0f} s each)"
    return dataclasses.replace(settings, plan=dataclasses.replace(settings.plan, epochs=most)), (note,), deadline


def _learn(
    context: Context,
    stack: BackboneHead,
    material: Material,
    start: PretrainedStart,
    settings: FinetuneSettings,
    recipe: Recipe,
    deadline: Deadline,
) -> Trained:
    """Train network and head: the second phase."""
    from sightline.training import backbone_head as stacks

    plan, groups = _course(stack, settings)
    return stacks.learn(
        context,
        stack,
        material,
        start.backbone,
        plan,
        policy=settings.augment,
        seed=recipe.seed,
        deadline=deadline,
        groups=groups,
    )


def _course(stack: BackboneHead, settings: FinetuneSettings) -> tuple[Plan, list[dict[str, Any]]]:
    """Return the plan of the second phase, with a learning rate, and its parameter groups."""
    plan = settings.plan
    if plan.learning_rate is None:
        plan = dataclasses.replace(plan, learning_rate=RATES[plan.optimizer])
    rate, decay = plan.peak, plan.decay
    groups = stack.base.parameter_groups(rate, decay=settings.layer_decay, weight_decay=decay)
    if settings.head_rate:
        head_options = {"lr": rate * settings.head_rate, "name": "head"}
        groups.append({"params": [layer.weight for layer in stack.layers()], "weight_decay": decay, **head_options})
        groups.append({"params": [layer.bias for layer in stack.layers()], "weight_decay": 0.0, **head_options})
    else:
        stack.head.requires_grad_(False)
    return plan, groups


def _tuned(stack: BackboneHead, start: PretrainedStart) -> PretrainedStart:
    """Return the fine-tuned network with its new weights."""
    tensors = networks.tensors(stack.base)
    before = start.backbone
    origin = f"fine-tuned here; before: {before.origin}" if not before.origin.startswith("fine-tuned") else before.origin
    backbone = dataclasses.replace(before, weights="run", weights_hash=networks.weights_hash(tensors), origin=origin)
    return dataclasses.replace(start, backbone=backbone, tensors=tensors)


def _fields(alone: _Alone, trained: Trained, images: int, keep: str, notes: tuple[str, ...]) -> dict[str, Any]:
    """Return the candidate's fields on its training; `phase` in the history marks the switch from head to network.

    Args:
        alone, trained: Results of both phases.
        images: Number of validation images.
        keep: Metric that chooses the epoch, as in the plan.
        notes: Notes for the user.
    """
    from sightline.training import loop

    epochs = [{**row, "phase": NETWORK_PHASE} for row in loop.as_rows(trained.history, keep)]
    first = {**dict.fromkeys(epochs[0], math.nan), **alone.row, "epoch": 0, "phase": HEAD_PHASE}
    return {
        "note": "; ".join(notes) or None,
        "history": [first, *epochs],
        "gradients": [dataclasses.asdict(row) for row in trained.gradients],
        "overfitting": loop.overfitting(trained.history, images),
        "steps": trained.steps,
        "detail": {"best_epoch": trained.best_epoch, "stopped": trained.stopped},
    }


def _goes_on(context: Context) -> bool:
    """Return whether training continues from the end of an earlier run."""
    from sightline.training import checkpoint

    return context.checkpoint is not None and (context.checkpoint / checkpoint.BEFORE).is_file()


def _compared(tuned: Candidate, alone: Candidate, goes_on: bool) -> Candidate:
    """Return the better of the two on the same validation images, with the gain of fine-tuning and its p-value.

    Args:
        tuned, alone: Candidates with the fine-tuned network and with the head alone.
        goes_on: Whether `tuned` continued an earlier run, which `alone` did not.
    """
    right = [c.val.y_pred == c.val.y_true for c in (tuned, alone)]
    p = evaluation.mcnemar(*right)
    images, gain = len(right[0]), int(right[0].sum()) - int(right[1].sum())
    better = (tuned.val_accuracy, -tuned.val_log_loss) > (alone.val_accuracy, -alone.val_log_loss)
    gain_facts = {
        "head_alone": alone.val_accuracy,
        "fine_tuned": tuned.val_accuracy,
        "images": images,
        "only_fine_tuned_right": int((right[0] & ~right[1]).sum()),
        "only_head_alone_right": int((right[1] & ~right[0]).sum()),
        "p": p,
        "kept": "fine-tuned" if better else "head alone",
    }
    note = (
        f"fine-tuned {tuned.val_accuracy:.1%}, the head alone {alone.val_accuracy:.1%} on the same {images:,} held-out images "
        f"({gain:+d}, exact McNemar p = {p:.2g})"
    )
    if not better:
        note += "; fine-tuning did not help, so the head alone is kept"
        note += "; this classifier contains nothing of the continued run" if goes_on else ""
    elif p > 0.05:
        note += "; the difference may be due to chance"
    chosen = tuned if better else alone
    note = f"{note}; {chosen.note}" if chosen.note else note
    return dataclasses.replace(
        chosen, note=note, detail={**chosen.detail, "gain": gain_facts}, seconds=max(tuned.seconds, alone.seconds)
    )


SEARCH_RATES: Mapping[str, Space] = {
    "adamw": Range(1e-5, 1e-3, log=True),
    "adam": Range(1e-5, 1e-3, log=True),
    "sgd": Range(1e-3, 0.1, log=True),
    "rmsprop": Range(3e-6, 3e-4, log=True),
}
"""Optimizer → learning rates of the last stage to search: an order of magnitude on both sides of `RATES`."""
STAGES: Mapping[str, Space] = {"layer_decay": Range(0.5, 1), "unfreeze": Choice((1, 2, "all"))}
"""Settings of the unfrozen stages to search."""


def search_space(recipe: Recipe, suggest: Suggest, context: SearchContext) -> Recipe:
    """Draw learning rate, regularisation, unfrozen stages, augmentation and backbone."""
    rates = tuning.rate_space(recipe, SEARCH_RATES, FinetuneSettings().plan.optimizer)
    drawn = {name: suggest(name, space) for name, space in {**tuning.TRAINING, **rates, **STAGES}.items()}
    return tuning.suggest_recipe(recipe, drawn, suggest, context)


TRAINING_COST = 20.0
"""Duration of training on an image relative to a forward pass: 3 times the arithmetic, in torch instead of OpenVINO."""


def estimate_seconds(workload: Workload) -> float:
    """Return the estimated duration in seconds of fine-tuning the fastest of the networks."""
    accelerated = 0.3 if workload.device != "cpu" else 1.0
    return 10 + TRAINING_COST * (FinetuneSettings().plan.epochs or 1) * workload.forward_s * accelerated


METHOD = Method(
    name="finetune",
    title="Fine-tuned network",
    settings=FinetuneSettings,
    fit=fit,
    network="pretrained",
    find_lr=find_rate,
    check=check_backbone,
    search_space=search_space,
    count_parameters=count_layers,
    estimate_seconds=estimate_seconds,
    by_default=True,
    by_epochs=True,
    distributed=True,
    fills_time=True,
)
