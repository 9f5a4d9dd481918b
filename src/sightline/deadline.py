"""A deadline: the moment on a clock at which work has to end. Tests replace the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from sightline.errors import SightlineError

Clock = Callable[[], float]
"""Returns seconds since some fixed moment, as `time.perf_counter` does."""


class OutOfTimeError(SightlineError):
    """The time that the work was given is over, or will not suffice as measured."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment at which work has to end.

    Args:
        at: On the clock, in seconds; infinite where nothing limits the work.
        clock: Tells the time.
    """

    at: float = math.inf
    clock: Clock = time.perf_counter

    @classmethod
    def after(cls, seconds: float | None, clock: Clock = time.perf_counter) -> Deadline:
        """Return the deadline `seconds` from now; None sets no limit."""
        return cls(math.inf if seconds is None else clock() + seconds, clock)

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return math.isfinite(self.at)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.clock() >= self.at

    def left(self) -> float:
        """Return the seconds that are left, never below zero; infinite where nothing limits the work."""
        return max(0.0, self.at - self.clock())

    def within(self, seconds: float) -> Deadline:
        """Return the earlier one of this deadline and the moment so many seconds from now."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)

    def sooner(self, seconds: float) -> Deadline:
        """Return this deadline moved forward, so that so many seconds remain behind the new one."""
        return Deadline(self.at - seconds, self.clock)

    def fits(self, seconds: float) -> bool:
        """Return whether work that takes `seconds` ends in time."""
        return self.clock() + seconds <= self.at

    def part(self, share: float) -> Deadline:
        """Return the deadline at a share, 0 to 1, of the remaining time."""
        return Deadline(self.clock() + share * self.left(), self.clock) if self.limited else self

    def check(self) -> None:
        """Raise where no time is left.

        Raises:
            OutOfTimeError: The deadline has passed.
        """
        if self.passed:
            raise OutOfTimeError("its share of the time budget is used up", "raise --budget")


UNLIMITED = Deadline()
"""No deadline."""
