"""Plan: the settings of the training loop, with ranges and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sightline.errors import RequestError, unknown
from sightline.evaluation import METRICS
from sightline.training.optimizers import OPTIMIZERS
from sightline.training.schedules import SCHEDULES

WATCHED = ("val_loss", "val_accuracy", "train_loss", "train_accuracy")
"""Scores that are computed for every epoch."""
KEPT = (*WATCHED, *(f"val_{name}" for name in METRICS if f"val_{name}" not in WATCHED), "last")
"""Values of `keep`: how the best epoch is chosen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Training settings; network, images and device are arguments of `loop.train`.

    Args:
        epochs: Largest number of epochs, 1 to 10,000; the learning-rate schedule covers all of them. None leaves it to the
            method; the loop needs a number.
        batch_size: Images per step, 2 to 4,096.
        optimizer: Name in `OPTIMIZERS`.
        learning_rate: Maximum learning rate, above 0, at most 10; None is the default of the optimizer.
        momentum: Momentum of `sgd` (Nesterov) and `rmsprop`, 0 to 0.999; None is the default of the optimizer.
        weight_decay: Weight decay of convolutions and linear layers, not of biases and BatchNorm, 0 to 10; None is the default
            of the optimizer. It is decoupled in `adamw` and added to the gradient in the others.
        schedule: Learning-rate schedule, a name in `SCHEDULES`.
        warm_up: Share of all steps in which the learning rate rises, 0 to 0.9.
        label_smoothing: Share of the target that is spread over all classes, 0 to 0.5.
        class_weight: `balanced` gives every class the same weight in the loss, whatever its number of images.
        sampling: `balanced` shows every class equally often in an epoch, repeating images of small classes; `plain` shows
            every image once.
        mixup: Parameter of the Beta distribution of mixup, 0 to 10; 0 disables it.
        clip_norm: Largest norm of the gradient, 0 to 1,000,000; 0 disables clipping.
        average: Decay of an exponential moving average of the weights, 0 to 0.99999, which is evaluated and saved in place of
            the weights; 0 disables it.
        patience: Epochs without improvement of the metric in `keep` (for `last`: the validation loss) after which training
            stops early, 0 to 10,000; 0 disables early stopping.
        keep: Metric that chooses the epoch whose weights are the result, a name in `KEPT`: by default the validation loss,
            since the best accuracy on few images is mostly due to chance; another metric such as `val_balanced_accuracy`, with
            the loss for ties; or `last`.
        refit: After validation, train again on train and val together, for as many epochs as the best one, with a schedule for
            these. The validation score stays that of the training on train alone. The loop ignores this setting.

    Raises:
        RequestError: If a value is outside its range, a name is not known, or a setting would have no effect.
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
                f"{self.optimizer} has no momentum that could be {self.momentum}", "leave it out, or use sgd or rmsprop"
            )
        if self.class_weight == "balanced" and self.sampling == "balanced":
            raise RequestError(
                "class_weight and sampling cannot both be balanced: small classes would count twice", "leave one of them out"
            )

    @property
    def peak(self) -> float:
        """Maximum learning rate; by default that of the optimizer."""
        return OPTIMIZERS[self.optimizer].learning_rate if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """Weight decay; by default that of the optimizer."""
        return OPTIMIZERS[self.optimizer].weight_decay if self.weight_decay is None else self.weight_decay

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of step `step`, counted from 0, of `steps` steps."""
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
"""Setting → range, both ends included."""
