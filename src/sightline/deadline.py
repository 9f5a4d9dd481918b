"""Deadlines: the time at which work must end, on a clock that tests can replace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from sightline.errors import SightlineError

Clock = Callable[[], float]
"""Returns seconds since some fixed moment, as `time.perf_counter` does."""


class OutOfTimeError(SightlineError):
    """Time limit reached, or too little time left for the work as measured."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """Time at which work must end.

    Args:
        at: Clock time in seconds; infinity for no limit.
        clock: Function that returns the clock time in seconds.
    """

    at: float = math.inf
    clock: Clock = time.perf_counter

    @classmethod
    def after(cls, seconds: float | None, clock: Clock = time.perf_counter) -> Deadline:
        """Return the deadline `seconds` from now; None sets no limit."""
        return cls(math.inf if seconds is None else clock() + seconds, clock)

    @property
    def limited(self) -> bool:
        """Return whether there is a time limit."""
        return math.isfinite(self.at)

    @property
    def passed(self) -> bool:
        """Return whether no time is left."""
        return self.clock() >= self.at

    def left(self) -> float:
        """Return the remaining seconds, at least 0; infinity if there is no limit."""
        return max(0.0, self.at - self.clock())

    def within(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and `seconds` from now."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)

    def sooner(self, seconds: float) -> Deadline:
        """Return a deadline that is `seconds` earlier than this one."""
        return Deadline(self.at - seconds, self.clock)

    def fits(self, seconds: float) -> bool:
        """Return whether work that takes `seconds` ends in time."""
        return self.clock() + seconds <= self.at

    def part(self, share: float) -> Deadline:
        """Return the deadline at the fraction `share`, 0 to 1, of the remaining time."""
        return Deadline(self.clock() + share * self.left(), self.clock) if self.limited else self

    def check(self) -> None:
        """Check that time is left.

        Raises:
            OutOfTimeError: If the deadline has passed.
        """
        if self.passed:
            raise OutOfTimeError("its share of the time budget is used up", "raise --budget")


UNLIMITED = Deadline()
"""No deadline."""
