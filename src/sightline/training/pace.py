"""How a training is told while it goes on: which epoch, how good, how fast."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from sightline.training.state import State


@dataclass(frozen=True, slots=True)
class Pace:
    """A training as people follow it.

    Args:
        state: The training.
        epochs: How many are planned.
        images: Learnt from in an epoch.
        elapsed: The seconds since this process began to train.
    """

    state: State
    epochs: int
    images: int
    elapsed: Callable[[], float]
    _first: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_first", self.state.epoch)

    def told(self) -> str:
        """The epoch that begins, the scores of the last one, and the images a second up to now.

        Such as `training: epoch 3 of 12, loss 0.41, val 0.87, 1,210 images/s`.
        """
        state, last = self.state, self.state.history[-1] if self.state.history else None
        parts = [f"epoch {state.epoch + 1} of {state.first_epoch + self.epochs}"]
        if last is not None:
            parts.append(f"loss {last.train_loss:.2f}")
            if not math.isnan(last.val_accuracy):
                parts.append(f"val {last.val_accuracy:.2f}")
        done = state.epoch - self._first
        if done > 0:
            parts.append(f"{done * self.images / max(self.elapsed(), 1e-9):,.0f} images/s")
        return f"training: {', '.join(parts)}"
