"""The record of an explanation method: its function, its name in the field, and what it can explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sightline.explanation.score import Score


@dataclass(frozen=True, slots=True)
class Attribution:
    """The result of a method for one image.

    Args:
        values: float32 (h, w), raw.
        neutral: The value of a cell that is evidence neither for nor against the target.
        missed: The relative completeness error of integrated gradients; None for other methods.
    """

    values: np.ndarray
    neutral: float = 0.0
    missed: float | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """Everything that is known about an explanation method.

    Args:
        explain: (score, feature map float32 (1, …), empty for methods on pixels) → attribution.
        title: The method's name in the field.
        needs: The layer's feature `map`, or the image's `pixels`.
        heads: `any`, heads with a `gradient` (linear and MLP), or `linear` heads only.
        unit: Unit of the values.
        signed: Whether negative values are evidence against the target; else values have no sign and mean "matters".
        shares: Whether values are shares of the score, so that negative ones are drawn as well.
        class_free: Whether the heatmap is the same for every class.
        noisy: Whether values jump from pixel to pixel, so that they are smoothed for display.
        slow: Whether one image takes many seconds, so that fewer images are checked.
        layer_for: (score, feature map) → the module whose output replaces the last feature map of a transformer, or None.
    """

    explain: Callable[[Score, np.ndarray], Attribution]
    title: str
    needs: Literal["map", "pixels"]
    heads: Literal["any", "gradient", "linear"]
    unit: str
    signed: bool = True
    shares: bool = False
    class_free: bool = False
    noisy: bool = False
    slow: bool = False
    layer_for: Callable[[Score, np.ndarray], str | None] | None = None


def on_pixels(function: Callable[[Score], np.ndarray]) -> Callable[[Score, np.ndarray], Attribution]:
    """Return a function of a score alone with the signature that `Method.explain` has."""
    return lambda score, _: Attribution(function(score))
