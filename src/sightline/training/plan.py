"""How a network is trained: every setting of the loop once, with its range and its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sightline.errors import RequestError, unknown
from sightline.evaluation import METRICS
from sightline.training.optimizers import OPTIMIZERS
from sightline.training.schedules import SCHEDULES

WATCHED = ("val_loss", "val_accuracy", "train_loss", "train_accuracy")
"""What is known of every epoch."""
KEPT = (*WATCHED, *(f"val_{name}" for name in METRICS if f"val_{name}" not in WATCHED), "last")
"""By what an epoch can be kept."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train. What is trained on what are arguments of `loop.train`.

    Args:
        epochs: How often every image is seen, at most, 1 to 10,000; the learning rate's course is laid out for all of them.
            None leaves it to the method; the loop itself needs a number.
        batch_size: Images a step, 2 to 4,096.
        optimizer: A name of `OPTIMIZERS`.
        learning_rate: The highest on its course, above 0, at most 10; None takes the optimizer's own.
        momentum: Of `sgd` (Nesterov's) and `rmsprop`, 0 to 0.999; None takes the optimizer's own.
        weight_decay: On weights of convolutions and linear layers, not on biases and BatchNorm, 0 to 10; None takes the
            optimizer's own. `adamw` takes it off the weights beside the step, the others add it to the gradient.
        schedule: The course of the learning rate, a name of `SCHEDULES`.
        warm_up: The share of all steps in which the rate rises, 0 to 0.9.
        label_smoothing: The share of the target that is spread over all classes, 0 to 0.5.
        class_weight: `balanced` counts every class the same in the loss, however many images it has.
        sampling: `balanced` shows every class equally often in an epoch, the images of a small one again and again; `plain`
            shows every image once.
        mixup: The parameter of the Beta distribution by which two images and their labels are mixed, 0 to 10; 0 never mixes.
        clip_norm: The gradient's largest norm, 0 to 1,000,000; 0 never clips.
        average: The decay of an exponential moving average of the weights, 0 to 0.99999, that is scored and kept in their
            place; 0 takes no average.
        patience: Epochs without a better value of what `keep` names (the validation loss for `last`) after which training
            stops, 0 to 10,000; 0 never stops early.
        keep: Which epoch's weights are the result, a name of `KEPT`: the one with the best validation loss (the best of many
            accuracies on a few images is mostly luck), or the best of another metric such as `val_balanced_accuracy` (between
            equals the loss decides), or the last.
        refit: After validation, train again on train and val together, for as many epochs as were kept and on a rate's course
            laid out for these. The validation score stays that of the training on train alone. The loop itself does not look
            at this.

    Raises:
        RequestError: A value lies outside its range, a name is not known, or a setting would have no effect.
    """

    epochs: int | None = None
    batch_size: int = 64
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: Literal["cosine", "onecycle", "step", "constant"] = "cosine"
    warm_up: float = 0.2
    label_smoothing: float = 0.1
    class_weight: Literal["balanced"] | None = None
    sampling: Literal["plain", "balanced"] = "plain"
    mixup: float = 0.0
    clip_norm: float = 1.0
    average: float = 0.0
    patience: int = 0
    keep: str = "val_loss"
    refit: bool = False

    def __post_init__(self) -> None:
        for kind, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("keep", KEPT)):
            if getattr(self, kind) not in known:
                raise unknown(kind, getattr(self, kind), known)
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise RequestError(f"{name} cannot be {value}", f"it lies between {low:g} and {high:g}")
        if self.momentum is not None and OPTIMIZERS[self.optimizer].momentum is None:
            raise RequestError(
                f"{self.optimizer} has no momentum that could be {self.momentum}", "leave it out, or take sgd or rmsprop"
            )
        if self.class_weight == "balanced" and self.sampling == "balanced":
            raise RequestError(
                "class_weight and sampling cannot both be balanced: small classes would count twice", "leave one of them out"
            )

    @property
    def peak(self) -> float:
        """The highest learning rate, the optimizer's own where none is set."""
        return OPTIMIZERS[self.optimizer].learning_rate if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """The weight decay, the optimizer's own where none is set."""
        return OPTIMIZERS[self.optimizer].weight_decay if self.weight_decay is None else self.weight_decay

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step (from 0) of so many."""
        return self.peak * SCHEDULES[self.schedule](step, steps, self.warm_up)


RANGES: Mapping[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "batch_size": (2, 4096),
    "learning_rate": (1e-9, 10),
    "momentum": (0, 0.999),
    "weight_decay": (0, 10),
    "warm_up": (0, 0.9),
    "label_smoothing": (0, 0.5),
    "mixup": (0, 10),
    "clip_norm": (0, 1e6),
    "average": (0, 0.99999),
    "patience": (0, 10_000),
}
"""Between which numbers each setting lies, both ends included."""
