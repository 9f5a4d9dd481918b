"""How a training is told while it goes on: which epoch, how good, how fast, how long still."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from sightline.records import Learning, Told
from sightline.training.state import State


@dataclass(frozen=True, slots=True)
class Pace:
    """A training as people follow it.

    Args:
        state: The training.
        course: The side of its images in each epoch that is planned.
        images: Learnt from in an epoch.
        batches: That they come in.
        elapsed: The seconds since this process began to train.
    """

    state: State
    course: Sequence[int]
    images: int
    batches: int
    elapsed: Callable[[], float]
    _pixels: tuple[int, ...] = field(init=False)
    _first: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pixels", tuple(accumulate((side**2 for side in self.course), initial=0)))
        object.__setattr__(self, "_first", self._epochs())

    def told(self) -> Told:
        """The epoch at hand, the scores of the last one, the images a second up to now, and the time that the rest takes.

        Such as `training: epoch 3 of 12, loss 0.41, val loss 0.52, val accuracy 0.87, 1,210 images/s, 1:05 left`.
        """
        state = self.state
        known = {}
        if state.history:
            last = state.history[-1]
            known = {
                "loss": last.train_loss,
                "accuracy": last.train_accuracy,
                "val_loss": last.val_loss,
                "val_accuracy": last.val_accuracy,
            }
        here, seconds = self._epochs(), self.elapsed()
        if here > self._first and seconds > 0:
            before, done = self._work(self._first), self._work(here)
            known["images_s"] = (here - self._first) * self.images / seconds
            known["left_s"] = (self._pixels[-1] - done) * seconds / (done - before)
        epoch, epochs = min(state.epoch + 1, state.first_epoch + len(self.course)), state.first_epoch + len(self.course)
        learning = Learning(epoch, epochs, **known)
        return Told(f"training: {words(learning)}", learning)

    def _epochs(self) -> float:
        """How many epochs of the plan are done, the one at hand with the share of it."""
        return min(self.state.epoch - self.state.first_epoch + self.state.batch / self.batches, len(self.course))

    def _work(self, epochs: float) -> float:
        """The pixels that so many epochs see of each image."""
        whole = int(epochs)
        rest = epochs - whole
        return self._pixels[whole] + (rest * self.course[whole] ** 2 if rest else 0.0)


def words(learning: Learning) -> str:
    """What is known of a training, in words.

    Example:
        >>> words(Learning(3, 12, loss=0.4123, val_accuracy=0.875, left_s=65))
        'epoch 3 of 12, loss 0.41, val accuracy 0.88, 1:05 left'
    """
    parts = [f"epoch {learning.epoch} of {learning.epochs}"]
    scores = {"loss": learning.loss, "val loss": learning.val_loss, "val accuracy": learning.val_accuracy}
    parts += [f"{name} {value:.2f}" for name, value in scores.items() if not math.isnan(value)]
    if not math.isnan(learning.images_s):
        parts.append(f"{learning.images_s:,.0f} images/s")
    if not math.isnan(learning.left_s):
        parts.append(f"{clock(learning.left_s)} left")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """A duration as a clock shows it.

    Example:
        >>> clock(65), clock(3725)
        ('1:05', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
