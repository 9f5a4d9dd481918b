"""Search spaces: the values that a hyperparameter search may draw for a setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Range:
    """A range of numbers, both ends included.

    Args:
        low, high: The ends.
        log: Draw evenly on the logarithmic scale.
        whole: Draw whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A list of values to choose from."""

    options: tuple[Any, ...]


Space = Range | Choice
Suggest = Callable[[str, Space], Any]
"""(name of a setting, its space) → the value to try next."""
