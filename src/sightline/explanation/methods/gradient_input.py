"""Gradient × input."""

from __future__ import annotations

import numpy as np

from sightline.explanation.methods.pixel_gradient import first_of, open_score
from sightline.explanation.methods.record import Method, on_pixels
from sightline.explanation.score import Score


def gradient_input(score: Score) -> np.ndarray:
    """Return gradient × input, summed over channels, float32 (h, w); the input is 0 at the mean colour.

    Source: Shrikumar et al., Not Just a Black Box (2016).
    """
    with open_score(score) as (attr, module, x):
        return np.asarray(first_of(attr.InputXGradient(module).attribute(x)).sum(axis=0))


METHOD = Method(
    explain=on_pixels(gradient_input),
    title="gradient × input",
    needs="pixels",
    heads="gradient",
    unit="logit",
    shares=True,
    noisy=True,
)
