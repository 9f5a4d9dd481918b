"""`finetune`: the head first, on cached features; then all of the network, or its last stages, at a much lower rate."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import evaluation, heads, networks
from sightline.classifier import check_crops
from sightline.errors import SightlineError
from sightline.plain import BESIDE, from_plain
from sightline.records import Head, Recipe
from sightline.training.plan import Plan
from sightline.training.start import (
    Material,
    Result,
    Start,
    check_ranges,
    finish,
    gather,
    named,
)
from sightline.training.work import Candidate, Work

if TYPE_CHECKING:
    from sightline.training.finder import Rates
    from sightline.training.history import Trained
    from sightline.training.stack import Stack

BEHIND_S = 10.0
"""About what comes behind training: the network converted, run on validation, its fast precision judged."""
HEAD_PHASE, NETWORK_PHASE = 1.0, 2.0
"""`phase` in the history: the head alone, fitted on features, and the network with it."""
RATES: Mapping[str, float] = {"sgd": 0.01, "adamw": 1e-4, "adam": 1e-4, "rmsprop": 3e-5}
"""The last stage's learning rate by optimiser. Adam's first steps move every weight alike by the whole rate, which a small set
does not make good again: of 60 flowers (MobileNetV2 at 128 px, 6 epochs) 3e-4 left 0.50 to 0.56 of the head's 0.78, 1e-4 0.72,
sgd at 0.01 all of it; of 300 and 500 flowers sgd at 0.01 and AdamW at 1e-4 differ by nothing that such sets can tell."""


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """Settings of `finetune`.

    Args:
        unfreeze: What learns beside the head: `all`, so many of the last stages, or from one on by its name, such as `layer3`.
        layer_decay: The factor from a stage's rate to that of the one before it, above 0, at most 1.
        head_rate: The head's rate as a multiple of the last stage's, 0 to 1,000; it has learnt already.
        augment: As in `scratch`.
        plan: How the second phase is trained; in a recipe its keys stand beside the others. Its learning rate is that of the
            last stage, of `RATES` where it names none.
        crops: Looks at each image when it is asked about: 1, 5 or 10.
    """

    unfreeze: int | str = "all"
    layer_decay: float = 0.8
    head_rate: float = 1.0
    augment: str | Mapping[str, Any] = "auto"
    plan: Plan = field(default=Plan(epochs=12, batch_size=32, optimiser="sgd"), metadata=BESIDE)
    crops: int = 1

    def __post_init__(self) -> None:
        check_ranges(self, {"layer_decay": (1e-6, 1), "head_rate": (0, 1000)})


@dataclass(frozen=True, slots=True)
class _Alone:
    """The head alone on the network as it came, fitted on train and judged on val.

    Args:
        head: It.
        logits: float64 (m, k), of the validation images.
        row: Its line in the history.
    """

    head: Head
    logits: np.ndarray
    row: Mapping[str, float]


def fit(work: Work, recipe: Recipe) -> list[Candidate]:
    """Fine-tune the network that the recipe names."""
    settings = from_plain(FinetuneSettings, recipe.settings, "settings of finetune")
    return [train(work, recipe, named(work, recipe), settings)]


def find_rate(work: Work, recipe: Recipe) -> Rates:
    """Losses by learning rate of the second phase that the recipe would begin."""
    settings = from_plain(FinetuneSettings, recipe.settings, "settings of finetune")
    return rates(work, recipe, named(work, recipe), settings)


def rates(work: Work, recipe: Recipe, start: Start, settings: FinetuneSettings) -> Rates:
    """Losses by the last stage's learning rate of the second phase that `train` would begin."""
    from sightline.training import stack as stacks

    material = gather(work, start)
    stack = _opened(work, material, start, settings, recipe.seed, _head_alone(work, material, settings, recipe.seed))
    plan, groups = _course(stack, settings)
    return stacks.look_for_rate(
        work, stack, material, start.backbone, plan, policy=settings.augment, seed=recipe.seed, groups=groups
    )


def train(work: Work, recipe: Recipe, start: Start, settings: FinetuneSettings) -> Candidate:
    """Fine-tune a network. Where that does no better on validation than the head alone, the head alone is given back.

    Source: Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution" (LP-FT: the
    head is fitted before the network learns, so that a random head's gradients do not spoil it).

    Raises:
        RequestError: There are no such stages.
        SightlineError: The time does not suffice for one epoch.
    """
    from sightline.training import stack as stacks

    started = time.perf_counter()
    check_crops(settings.crops, start.backbone)
    material = gather(work, start)
    classes = len(work.classes)
    alone = _head_alone(work, material, settings, recipe.seed)
    stack = _opened(work, material, start, settings, recipe.seed, alone)
    left = work.budget_s - (time.perf_counter() - started)
    settings, notes = _within(work, stack, material, start, settings, left)
    recipe = dataclasses.replace(recipe, settings={**recipe.settings, **({"epochs": settings.plan.epochs} if notes else {})})
    trained = _learn(work, stack, material, start, settings, recipe, left - (BEHIND_S if notes else 0.0))
    head = stacks.head_of(stack, (), classes, stacks.mean_features(stack, material.train_images, start.backbone))
    tuned = _tuned(stack, start)
    fields = _fields(alone, trained, settings.plan.keep, (*start.notes, *notes, *trained.notes))
    label = f"{start.backbone.name} fine-tuned{'' if settings.unfreeze == 'all' else f' ({settings.unfreeze})'}"
    done = finish(work, Result(recipe, tuned, head, label, settings.crops, fields), material, started)
    label = f"{start.backbone.name} + logistic (fine-tuning did not help)"
    before = Result(recipe, start, alone.head, label, settings.crops, fields)
    return _compared(done, finish(work, before, material, started), _goes_on(work))


def _opened(work: Work, material: Material, start: Start, settings: FinetuneSettings, seed: int, alone: _Alone) -> Stack:
    """The network with the head that it had alone, all or its last stages learning."""
    from sightline.training import stack as stacks

    stack = stacks.assemble(start, material.train_features, (), len(work.classes), seed, frozen=False)
    stack.set_linear(alone.head.arrays["weights"].astype(np.float64), alone.head.arrays["bias"].astype(np.float64))
    stack.base.unfreeze(None if settings.unfreeze == "all" else settings.unfreeze)
    return stack


def _head_alone(work: Work, material: Material, settings: FinetuneSettings, seed: int) -> _Alone:
    """The logistic head on the features as they are, its penalty chosen on the validation images."""
    y, val_y = work.labels[material.train], work.labels[material.val]
    n = len(y)
    fitted = heads.fit(
        "logistic",
        np.concatenate([material.train_features, material.val_features]),
        np.concatenate([y, val_y]),
        len(work.classes),
        folds=[(np.arange(n), n + np.arange(len(val_y)))],
        refit=False,
        seed=seed,
        class_weight=settings.plan.class_weight,
    )
    logits, on_train = fitted.logits[n:], heads.logits(fitted.head, material.train_features)
    row = {
        "train_loss": heads.log_loss(on_train, y),
        "train_accuracy": float((on_train.argmax(axis=1) == y).mean()),
        "val_loss": heads.log_loss(logits, val_y),
        "val_accuracy": float((logits.argmax(axis=1) == val_y).mean()),
        "seconds": fitted.seconds,
    }
    return _Alone(fitted.head, logits, row)


def _within(
    work: Work, stack: Stack, material: Material, start: Start, settings: FinetuneSettings, left_s: float
) -> tuple[FinetuneSettings, tuple[str, ...]]:
    """As many epochs as the time allows, at most those of the settings, so that the rate's course comes to its end.

    A training that was interrupted keeps the number that it was laid out for.
    """
    if math.isinf(left_s):
        return settings, ()
    from sightline.training import checkpoint
    from sightline.training import stack as stacks

    before = None if work.checkpoint is None else checkpoint.planned_epochs(work.checkpoint)
    if before is not None:
        told = () if before == settings.plan.epochs else (f"{before} of {settings.plan.epochs} epochs, by the time budget",)
        return dataclasses.replace(settings, plan=dataclasses.replace(settings.plan, epochs=before)), told
    each = 1.15 * stacks.epoch_seconds(stack, material, start.backbone, settings.plan.batch_size, work.device)
    most = int((left_s - BEHIND_S) / each)
    if most < 1:
        why = f"an epoch takes about {each:.0f} s here, and {max(left_s, 0):.0f} s are left"
        raise SightlineError(f"{start.backbone.name} cannot be fine-tuned in the time: {why}", "raise --budget")
    wanted = settings.plan.epochs or 1
    if most >= wanted:
        return settings, ()
    note = f"{most} of {wanted} epochs, by the time budget (about {each:.0f} s each)"
    return dataclasses.replace(settings, plan=dataclasses.replace(settings.plan, epochs=most)), (note,)


def _learn(
    work: Work, stack: Stack, material: Material, start: Start, settings: FinetuneSettings, recipe: Recipe, budget_s: float
) -> Trained:
    """The second phase."""
    from sightline.training import stack as stacks

    plan, groups = _course(stack, settings)
    return stacks.learn(
        work,
        stack,
        material,
        start.backbone,
        plan,
        policy=settings.augment,
        seed=recipe.seed,
        budget_s=budget_s,
        groups=groups,
    )


def _course(stack: Stack, settings: FinetuneSettings) -> tuple[Plan, list[dict[str, Any]]]:
    """The second phase's plan, with a learning rate, and its parameter groups."""
    plan = settings.plan
    if plan.learning_rate is None:
        plan = dataclasses.replace(plan, learning_rate=RATES[plan.optimiser])
    rate, decay = plan.peak, plan.decay
    groups = stack.base.parameter_groups(rate, decay=settings.layer_decay, weight_decay=decay)
    if settings.head_rate:
        (layer,) = stack.layers()
        own = {"lr": rate * settings.head_rate, "name": "head"}
        groups.append({"params": [layer.weight], "weight_decay": decay, **own})
        groups.append({"params": [layer.bias], "weight_decay": 0.0, **own})
    else:
        stack.head.requires_grad_(False)
    return plan, groups


def _tuned(stack: Stack, start: Start) -> Start:
    """The network as it is now."""
    tensors = networks.tensors(stack.base)
    before = start.backbone
    origin = f"fine-tuned here; before: {before.origin}" if not before.origin.startswith("fine-tuned") else before.origin
    backbone = dataclasses.replace(before, weights="run", weights_hash=networks.weights_hash(tensors), origin=origin)
    return dataclasses.replace(start, backbone=backbone, tensors=tensors)


def _fields(alone: _Alone, trained: Trained, keep: str, notes: tuple[str, ...]) -> dict[str, Any]:
    """What the candidate tells of its training: one history, in which `phase` marks the switch."""
    from sightline.training import loop

    epochs = [{**row, "phase": NETWORK_PHASE} for row in loop.as_rows(trained.history, keep)]
    first = {**dict.fromkeys(epochs[0], math.nan), **alone.row, "epoch": 0, "phase": HEAD_PHASE}
    return {
        "note": "; ".join(notes) or None,
        "history": [first, *epochs],
        "gradients": [dataclasses.asdict(row) for row in trained.gradients],
        "overfitting": loop.overfitting(trained.history),
        "steps": trained.steps,
        "detail": {"best_epoch": trained.best_epoch},
    }


def _goes_on(work: Work) -> bool:
    """Whether the network learns on from the end of an earlier run."""
    from sightline.training import checkpoint

    return work.checkpoint is not None and (work.checkpoint / checkpoint.BEFORE).is_file()


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
