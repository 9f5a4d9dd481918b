"""How a training is told while it goes on: which epoch, how good, how fast, how long still."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from sightline.deadline import UNLIMITED, Deadline
from sightline.records import Learning, TrainingStage
from sightline.training.state import State

_WARM_UP_STEPS = 2
"""The first steps of a process are slower than those that follow, and are not measured."""
_MEASURED_STEPS = 5
"""After so many steps the measured pace is trusted to tell whether an epoch will fit."""
TOLERANCE = 0.1
"""The share of its time by which a training may overrun its deadline to finish the epoch at hand."""


@dataclass(slots=True)
class ProgressLine:
    """The measured pace of a training: what people are told of it, and whether the rest fits before its deadline.

    Args:
        state: The training.
        course: The side of its images in each epoch that is planned.
        images: Learnt from in an epoch.
        batches: That they come in.
        deadline: When training has to end; its clock measures the pace.
    """

    state: State
    course: Sequence[int]
    images: int
    batches: int
    deadline: Deadline = UNLIMITED
    _pixels: tuple[int, ...] = field(init=False)
    _began: float = field(init=False)
    _first_step: int = field(init=False)
    _mark: tuple[float, float] = field(init=False)  # (time, epochs done) from which the pace is measured
    _warm: bool = False

    def __post_init__(self) -> None:
        self._pixels = tuple(accumulate((side**2 for side in self.course), initial=0))
        self._began = self.deadline.clock()
        self._first_step = self.state.step
        self._mark = (self._began, self._epochs())

    @property
    def limited(self) -> bool:
        """Whether there is a deadline."""
        return self.deadline.limited

    @property
    def allotted_s(self) -> float:
        """The seconds from the beginning of this process's training to its deadline."""
        return max(0.0, self.deadline.at - self._began)

    def told(self) -> TrainingStage:
        """The epoch at hand, the scores of the last one, the images a second up to now, and the time that the rest takes.

        Such as `training: epoch 3 of 12, loss 0.41, val loss 0.52, val accuracy 0.87, 1,210 images/s, 1:05 left`.
        """
        state = self.state
        known: dict[str, Any] = {}
        if state.history:
            last = state.history[-1]
            known = {
                "loss": last.train_loss,
                "accuracy": last.train_accuracy,
                "val_loss": last.val_loss,
                "val_accuracy": last.val_accuracy,
            }
        seconds, done = self.deadline.clock() - self._mark[0], self._epochs() - self._mark[1]
        if done > 0 and seconds > 0:
            known["images_s"] = done * self.images / seconds
        rest, epochs = self.rest_s(len(self.course)), state.first_epoch + len(self.course)
        if rest is not None:
            known["left_s"] = min(rest, self.deadline.left())
            known["fits"] = state.first_epoch + self.fitting() if rest > self.deadline.left() else 0
        learning = Learning(min(state.epoch + 1, epochs), epochs, **known)
        return TrainingStage(f"training: {words(learning)}", learning)

    def rest_s(self, epochs: float) -> float | None:
        """Return the predicted seconds until so many epochs of the plan are done; None where no pace is measured yet."""
        seconds, before, done = self.deadline.clock() - self._mark[0], self._work(self._mark[1]), self._work(self._epochs())
        if not (done > before and seconds > 0):
            return None
        return max(0.0, self._work(epochs) - done) * seconds / (done - before)

    def fitting(self) -> int:
        """Return how many epochs of the plan will be done before the deadline, at the measured pace."""
        done, left = int(self._epochs()), self.deadline.left()
        return max((e for e in range(done, len(self.course) + 1) if (self.rest_s(e) or 0.0) <= left), default=done)

    def next_fits(self) -> bool:
        """Return whether the next epoch will be done before the deadline; what has not been measured is tried."""
        rest = self.rest_s(int(self._epochs()) + 1)
        return not self.deadline.passed and (rest is None or rest <= self.deadline.left())

    def hopeless(self) -> bool:
        """Return whether the epoch at hand would overrun the deadline by more than `TOLERANCE` of the allotted time."""
        if self.state.batch >= self.batches:
            return False
        measured = self.state.step - self._first_step >= _MEASURED_STEPS
        rest = (self.rest_s(int(self._epochs()) + 1) or 0.0) if measured else 0.0
        return self.deadline.clock() + rest > self.deadline.at + TOLERANCE * self.allotted_s

    def epoch_s(self) -> float | None:
        """Return the predicted seconds of one whole epoch like the one at hand; None where no pace is measured yet."""
        rest, done = self.rest_s(len(self.course)), self._epochs()
        if rest is None or done >= len(self.course):
            return None
        epoch = int(done)
        return rest * (self._work(epoch + 1) - self._work(epoch)) / (self._pixels[-1] - self._work(done))

    def step_done(self) -> None:
        """Take note of a step: the pace is measured from behind the first ones of this process."""
        if not self._warm and self.state.step - self._first_step >= _WARM_UP_STEPS and self.batches > _MEASURED_STEPS:
            self._mark, self._warm = (self.deadline.clock(), self._epochs()), True

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
    if learning.fits:
        parts.append(f"at most {clock(learning.left_s)} left (budget): {learning.fits} of {learning.epochs} epochs will fit")
    elif not math.isnan(learning.left_s):
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
