"""`finetune`: the head first, on cached features; then all of the network, or its last stages, at a much lower rate."""

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
from sightline.training import refit
from sightline.training.context import Candidate, Context
from sightline.training.plan import Plan
from sightline.training.pretrained import (
    Material,
    PretrainedStart,
    Result,
    check_ranges,
    check_units,
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
"""`phase` in the history: the head alone, fitted on features, and the network with it."""
RATES: Mapping[str, float] = {"sgd": 0.01, "adamw": 1e-4, "adam": 1e-4, "rmsprop": 3e-5}
"""The last stage's learning rate by optimizer. Adam's first steps move every weight alike by the whole rate, which a small set
does not make good again: of 60 flowers (MobileNetV2 at 128 px, 6 epochs) 3e-4 left 0.50 to 0.56 of the head's 0.78, 1e-4 0.72,
sgd at 0.01 all of it; of 300 and 500 flowers sgd at 0.01 and AdamW at 1e-4 differ by nothing that such sets can tell."""


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """Settings of `finetune`.

    Args:
        head: (units, dropout) of each layer of the head before the last one, such as `[[1000, 0], [256, 0]]`: 1 to 65,536
            units, dropout 0 to 0.95; `[]` is a linear head. None is a linear head too, but `warmstart` goes on with the head of
            the earlier classifier.
        unfreeze: What learns beside the head: `all`, so many of the last stages, or from one on by its name, such as `layer3`.
        layer_decay: The factor from a stage's rate to that of the one before it, above 0, at most 1.
        head_rate: The head's rate as a multiple of the last stage's, 0 to 1,000; it has learnt already.
        augment: As in `scratch`.
        plan: How the second phase is trained; in a recipe its keys stand beside the others. Its learning rate is that of the
            last stage, of `RATES` where it names none.
        crops: Looks at each image when it is asked about: 1, 5 or 10.
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
    """The head alone on the network as it came, fitted on train and judged on val.

    Args:
        head: It.
        units: (width, dropout) of its layers before the last one.
        row: Its line in the history.
        note: Where it comes from, if it is not simply a new one.
        fitted: Whether a part of it was fitted here; else it is that of an earlier classifier as it was.
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
    """Losses by learning rate of the second phase that the recipe would begin."""
    settings = from_json(FinetuneSettings, recipe.settings, "settings of finetune")
    return rates(context, recipe, named(context, recipe), settings)


def rates(context: Context, recipe: Recipe, start: PretrainedStart, settings: FinetuneSettings) -> LrCurve:
    """Losses by the last stage's learning rate of the second phase that `train` would begin."""
    from sightline.training import backbone_head as stacks

    material = gather(context, start)
    stack = _opened(
        context, material, start, settings, recipe.seed, _head_alone(context, material, settings, start, recipe.seed)
    )
    plan, groups = _course(stack, settings)
    return stacks.look_for_rate(
        context, stack, material, start.backbone, plan, policy=settings.augment, seed=recipe.seed, groups=groups
    )


def train(context: Context, recipe: Recipe, start: PretrainedStart, settings: FinetuneSettings) -> Candidate:
    """Fine-tune a network. Where that does no better on validation than the head alone, the head alone is given back.

    Source: Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution" (LP-FT: the
    head is fitted before the network learns, so that a random head's gradients do not spoil it).

    Raises:
        RequestError: There are no such stages.
        OutOfTimeError: The time does not suffice for one epoch.
    """
    started = time.perf_counter()
    check_crops(settings.crops, start.backbone)
    material = gather(context, start)
    alone = _head_alone(context, material, settings, start, recipe.seed)
    stack = _opened(context, material, start, settings, recipe.seed, alone)
    first = refit.first_work(context, settings.plan)
    settings, notes, deadline = _within(first, stack, material, start, settings)
    recipe = dataclasses.replace(recipe, settings={**recipe.settings, **({"epochs": settings.plan.epochs} if notes else {})})
    trained = _learn(context, stack, material, start, settings, recipe, deadline)
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
    return _refitted(context, best, chosen, settings, material, start, started)


def _head_of(context: Context, stack: BackboneHead, alone: _Alone, material: Material, start: PretrainedStart) -> Head:
    """Return the head that was trained, as arrays."""
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
    """Return the better candidate, trained anew on train and val together: head and network, or the head alone.

    Args:
        work, settings, material, start: Of the validated training.
        best: The better one of fine-tuned network and head alone.
        chosen: What it was made of.
        started: When the first training began, by `time.perf_counter`.
    """
    both, recipe = everything(context, material), chosen.recipe
    alone = _head_alone(context, material, settings, start, recipe.seed, refitted=True)
    epochs, steps = 0, 0
    notes: tuple[str, ...] = ()
    if best.detail["gain"]["kept"] == "fine-tuned":
        again = refit.work_for(context)
        exact = dataclasses.replace(settings, plan=refit.plan_for(settings.plan, best.detail["best_epoch"]))
        stack = _opened(again, both, start, exact, recipe.seed, alone)
        trained = _learn(again, stack, both, start, exact, recipe, again.deadline)
        epochs, steps, notes = len(trained.history), trained.steps, trained.notes
        chosen = dataclasses.replace(chosen, start=_tuned(stack, start), head=_head_of(context, stack, alone, both, start))
    elif alone.fitted:
        chosen = dataclasses.replace(chosen, head=alone.head)
    else:
        return best  # the earlier classifier itself
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
    """The network with the head that it had alone, all or its last stages learning."""
    from sightline.training import backbone_head as stacks

    stack = stacks.assemble(start, material.train_features, alone.units, len(context.classes), seed, frozen=False)
    stack.set_layers(heads.layers(alone.head) or ())
    stack.base.unfreeze(None if settings.unfreeze == "all" else settings.unfreeze)
    return stack


def _head_alone(
    context: Context, material: Material, settings: FinetuneSettings, start: PretrainedStart, seed: int, refitted: bool = False
) -> _Alone:
    """Return the head on the features as they are: a new one fitted on train, or that of the earlier classifier.

    Args:
        work, material, settings, seed: Of the training.
        start: With the head of an earlier classifier, if training goes on from one. With the same classes that head goes on as
            it is; with others its hidden layers stay, and a new last layer is fitted. A head without layers, or another `head`
            in the settings, makes way for a new one.
        refitted: Fit what is new on train and val together, with the settings that val chose.
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


_SAME_HEAD = "the head of that classifier goes on learning"
Layers = Sequence[tuple[np.ndarray, np.ndarray]]
"""Weights (out, in) and bias (out,) of linear layers with a ReLU between any two."""


def _same_head(layers: Layers, start: PretrainedStart, classes: Sequence[str]) -> Head:
    """Return an earlier head for the same classes in their order here, its logits divided by its temperature."""
    assert start.head is not None
    order = [start.classes.index(name) for name in classes]
    weights, bias = layers[-1]
    last = (weights[order] / start.temperature, bias[order] / start.temperature)
    return _as_head([*layers[:-1], last], heads.hidden(start.head) or (), start.head.arrays.get("feature_mean"))


def _on_top(hidden: Layers, units: tuple[tuple[int, float], ...], last: Head, material: Material) -> Head:
    """Return a head of earlier hidden layers and a new last one."""
    mean = material.train_features.mean(axis=0, dtype=np.float64)
    return _as_head([*hidden, (last.arrays["weights"], last.arrays["bias"])], units, mean)


def _as_head(layers: Layers, units: tuple[tuple[int, float], ...], mean: np.ndarray | None) -> Head:
    """Return layers on the features as a head: `mlp`, or `logistic` where there is one layer."""
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
    """Return what hidden layers make of features (n, d): float32 (n, width); without layers the features themselves."""
    for weights, bias in layers:
        features = np.maximum(features @ weights.T + bias, 0)
    return features


def _new_head_note(
    start: PretrainedStart, settings: FinetuneSettings, units: tuple[tuple[int, float], ...], kept_hidden: bool
) -> str | None:
    """Return what became of the head of the earlier classifier; None where there was none."""
    if start.head is None:
        return None
    shape = "-".join(str(width) for width, _ in units)
    if kept_hidden:
        return f"the hidden layers of its head ({shape} units) go on learning under a new last layer, for other classes"
    new = f"a new head of {shape} units" if shape else "a new linear head"
    if settings.head is not None:
        return f"{new} replaces its {start.head.kind} head, as the recipe asks"
    if heads.layers(start.head) is None:
        return f"{new} replaces its {start.head.kind} head, which has no layers that could learn"
    return f"{new} replaces its linear one, for other classes"


def _within(
    context: Context, stack: BackboneHead, material: Material, start: PretrainedStart, settings: FinetuneSettings
) -> tuple[FinetuneSettings, tuple[str, ...], Deadline]:
    """As many epochs as the time allows, at most those of the settings, so that the rate's course comes to its end.

    A training that was interrupted keeps the number that it was laid out for.

    Returns:
        The settings, what to say of them, and when training has to end for the rest to fit.

    Raises:
        OutOfTimeError: No epoch fits.
    """
    if not context.deadline.limited:
        return settings, (), context.deadline
    from sightline.training import backbone_head as stacks
    from sightline.training import checkpoint

    before = None if context.checkpoint is None else checkpoint.planned_epochs(context.checkpoint)
    if before is not None:
        told = () if before == settings.plan.epochs else (f"{before} of {settings.plan.epochs} epochs, by the time budget",)
        return dataclasses.replace(settings, plan=dataclasses.replace(settings.plan, epochs=before)), told, context.deadline
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
    """The second phase."""
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
    """The second phase's plan, with a learning rate, and its parameter groups."""
    plan = settings.plan
    if plan.learning_rate is None:
        plan = dataclasses.replace(plan, learning_rate=RATES[plan.optimizer])
    rate, decay = plan.peak, plan.decay
    groups = stack.base.parameter_groups(rate, decay=settings.layer_decay, weight_decay=decay)
    if settings.head_rate:
        own = {"lr": rate * settings.head_rate, "name": "head"}
        groups.append({"params": [layer.weight for layer in stack.layers()], "weight_decay": decay, **own})
        groups.append({"params": [layer.bias for layer in stack.layers()], "weight_decay": 0.0, **own})
    else:
        stack.head.requires_grad_(False)
    return plan, groups


def _tuned(stack: BackboneHead, start: PretrainedStart) -> PretrainedStart:
    """The network as it is now."""
    tensors = networks.tensors(stack.base)
    before = start.backbone
    origin = f"fine-tuned here; before: {before.origin}" if not before.origin.startswith("fine-tuned") else before.origin
    backbone = dataclasses.replace(before, weights="run", weights_hash=networks.weights_hash(tensors), origin=origin)
    return dataclasses.replace(start, backbone=backbone, tensors=tensors)


def _fields(alone: _Alone, trained: Trained, images: int, keep: str, notes: tuple[str, ...]) -> dict[str, Any]:
    """What the candidate tells of its training: one history, in which `phase` marks the switch.

    Args:
        alone, trained: Both phases.
        images: Of the validation split.
        keep: What the plan keeps an epoch by.
        notes: What a reader should know.
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
    """Whether the network learns on from the end of an earlier run."""
    from sightline.training import checkpoint

    return context.checkpoint is not None and (context.checkpoint / checkpoint.BEFORE).is_file()


def _compared(tuned: Candidate, alone: Candidate, goes_on: bool) -> Candidate:
    """The better of the two on the same validation images, with what fine-tuning gained and whether that could be chance.

    Args:
        tuned, alone: The two.
        goes_on: Whether `tuned` learnt on from an earlier run, of which `alone` has nothing.
    """
    right = [c.val.y_pred == c.val.y_true for c in (tuned, alone)]
    p = evaluation.mcnemar(*right)
    images, gain = len(right[0]), int(right[0].sum()) - int(right[1].sum())
    better = (tuned.val_accuracy, -tuned.val_log_loss) > (alone.val_accuracy, -alone.val_log_loss)
    found = {
        "head_alone": alone.val_accuracy,
        "fine_tuned": tuned.val_accuracy,
        "images": images,
        "only_fine_tuned_right": int((right[0] & ~right[1]).sum()),
        "only_head_alone_right": int((right[1] & ~right[0]).sum()),
        "p": p,
        "kept": "fine-tuned" if better else "head alone",
    }
    told = (
        f"fine-tuned {tuned.val_accuracy:.1%}, the head alone {alone.val_accuracy:.1%} on the same {images:,} held-out images "
        f"({gain:+d}, exact McNemar p = {p:.2g})"
    )
    if not better:
        told += "; fine-tuning did not help, so the head alone is kept"
        told += "; nothing of the run that was continued is in this classifier" if goes_on else ""
    elif p > 0.05:
        told += "; that may be chance"
    chosen = tuned if better else alone
    note = f"{told}; {chosen.note}" if chosen.note else told
    return dataclasses.replace(
        chosen, note=note, detail={**chosen.detail, "gain": found}, seconds=max(tuned.seconds, alone.seconds)
    )
