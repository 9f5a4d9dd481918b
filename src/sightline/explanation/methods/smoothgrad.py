"""SmoothGrad: the gradient averaged over noisy copies of the image."""

from __future__ import annotations

import numpy as np

from sightline import store
from sightline.explanation.methods.pixel_gradient import first_of, open_score
from sightline.explanation.methods.record import Method, on_pixels
from sightline.explanation.score import Score

SAMPLES = 32
"""Number of noisy copies."""
NOISE = 0.15
"""Standard deviation of the noise, as a share of the range of the image's values."""


def smoothgrad(score: Score) -> np.ndarray:
    """Return the mean gradient over noisy copies, then the largest absolute value of three channels, float32 (h, w).

    The noise depends on the seed alone, so that an image has the same heatmap alone and in a batch.

    Source: Smilkov et al., SmoothGrad (2017), eq. 1, with its noise level of 15 %.
    """
    import torch

    with open_score(score) as (attr, module, x):
        seed = int(store.stream(score.seed, "explanation smoothgrad").integers(2**62))
        spread = NOISE * float((x.max() - x.min()).detach())
        total = torch.zeros_like(x)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(SAMPLES):
            noise = torch.randn(x.shape, generator=generator).to(x.device)
            noisy = (x.detach() + spread * noise).requires_grad_(True)
            total += attr.Saliency(module).attribute(noisy, abs=False).detach()
        return np.asarray(np.abs(first_of(total / SAMPLES)).max(axis=0))


METHOD = Method(
    explain=on_pixels(smoothgrad),
    title="SmoothGrad",
    needs="pixels",
    heads="gradient",
    signed=False,
    unit="logit per normalised value",
    noisy=True,
)
