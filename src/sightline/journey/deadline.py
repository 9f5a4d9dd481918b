"""A limit in seconds for work that is done piece by piece."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time after which no further piece of work starts.

    Args:
        ends: In seconds of the clock; infinite where there is no limit.
        clock: Returns the time in seconds.
    """

    ends: float = math.inf
    clock: Clock = time.perf_counter

    @classmethod
    def after(cls, seconds: float | None, clock: Clock = time.perf_counter) -> Deadline:
        """Return the deadline in so many seconds; None for no limit."""
        return cls(math.inf if seconds is None else clock() + seconds, clock)

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return math.isfinite(self.ends)

    def left(self) -> float:
        """Return the seconds that are left; below 0 once it has passed."""
        return self.ends - self.clock()

    def fits(self, seconds: float) -> bool:
        """Return whether a piece of work that takes so many seconds ends in time."""
        return self.left() >= seconds

    def part(self, share: float) -> Deadline:
        """Return the deadline at a share, 0 to 1, of the time that is left."""
        return Deadline(self.clock() + share * self.left(), self.clock) if self.limited else self
