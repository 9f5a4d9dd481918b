"""Saliency: the absolute gradient of the score with respect to each pixel."""

from __future__ import annotations

import numpy as np

from sightline.explanation.methods.pixel_gradient import first_of, open_score
from sightline.explanation.methods.record import Method, on_pixels
from sightline.explanation.score import Score


def saliency(score: Score) -> np.ndarray:
    """Return the largest |∂score/∂x| of each pixel's three channels, float32 (h, w).

    Source: Simonyan et al., Deep Inside Convolutional Networks (2013), section 3.1.
    """
    with open_score(score) as (attr, module, x):
        return np.asarray(np.abs(first_of(attr.Saliency(module).attribute(x, abs=False))).max(axis=0))


METHOD = Method(
    explain=on_pixels(saliency),
    title="saliency",
    needs="pixels",
    heads="gradient",
    signed=False,
    unit="logit per normalised value",
    noisy=True,
)
