"""`frozen`: a pretrained network that stays as it is, and a new head that learns on augmented images."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sightline.classifier import check_crops
from sightline.plain import from_plain
from sightline.records import Recipe
from sightline.training.start import (
    Result,
    Start,
    check_ranges,
    check_units,
    class_weights,
    finish,
    gather,
    named,
)
from sightline.training.work import Candidate, Work


@dataclass(frozen=True, slots=True)
class FrozenSettings:
    """Settings of `frozen`.

    Args:
        head: (units, dropout) of each layer of the head before the last one, such as `[[512, 0.3]]`: 1 to 65,536 units, dropout
            0 to 0.95. None at all is a linear head.
        epochs: At most, 1 to 10,000. Each is a forward pass over all training images.
        batch_size: 2 to 4,096.
        learning_rate: The highest on its course, above 0, at most 1; features are brought to about 1 first.
        weight_decay: 0 to 10.
        label_smoothing: 0 to 0.5.
        augment: As in `scratch`.
        patience: Stop after so many epochs without a better validation loss, 0 to 10,000; 0 goes to the end.
        keep: Which epoch's head is the result.
        class_weight: `balanced` counts each class alike; `auto` does so where one has over 3 times another's images.
        crops: Looks at each image when it is asked about: 1, 5 or 10.
    """

    head: tuple[tuple[int, float], ...] = ()
    epochs: int = 15
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    augment: str | Mapping[str, Any] = "auto"
    patience: int = 0
    keep: Literal["val_loss", "val_accuracy", "last"] = "val_loss"
    class_weight: Literal["auto", "balanced", "none"] = "auto"
    crops: int = 1

    def __post_init__(self) -> None:
        check_units(self.head)
        ranges: dict[str, tuple[float, float]] = {"epochs": (1, 10_000), "batch_size": (2, 4096), "learning_rate": (1e-9, 1)}
        ranges |= {"weight_decay": (0, 10), "label_smoothing": (0, 0.5), "patience": (0, 10_000)}
        check_ranges(self, ranges)


def fit(work: Work, recipe: Recipe) -> list[Candidate]:
    """Train a head on the network that the recipe names."""
    settings = from_plain(FrozenSettings, recipe.settings, "settings of frozen")
    return [train(work, recipe, named(work, recipe), settings)]


def train(work: Work, recipe: Recipe, start: Start, settings: FrozenSettings) -> Candidate:
    """Train a head on a network. The classifier's backbone is that very network, weights and statistics."""
    from sightline.training import loop
    from sightline.training import stack as stacks

    started = time.perf_counter()
    check_crops(settings.crops, start.backbone)
    material = gather(work, start)
    classes = len(work.classes)
    stack = stacks.assemble(start, material.train_features, settings.head, classes, recipe.seed, frozen=True)
    plan = loop.Plan(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        label_smoothing=settings.label_smoothing,
        patience=settings.patience,
        keep=settings.keep,
    )
    trained = stacks.learn(
        work,
        stack,
        material,
        start.backbone,
        plan,
        policy=settings.augment,
        seed=recipe.seed,
        budget_s=work.budget_s - (time.perf_counter() - started),
        class_weights=class_weights(settings.class_weight, work.labels[material.train], classes),
    )
    head = stacks.head_of(stack, settings.head, classes, material.train_features.mean(axis=0))
    fields = {
        "note": "; ".join((*start.notes, *trained.notes)) or None,
        "history": [dataclasses.asdict(epoch) for epoch in trained.history],
        "overfitting": loop.overfitting(trained.history),
        "steps": trained.steps,
    }
    shape = "-".join(str(units) for units, _ in settings.head)
    label = f"{start.backbone.name} frozen + {f'mlp {shape}' if shape else 'linear'}, augmented"
    return finish(work, Result(recipe, start, head, label, settings.crops, fields), material, started)
