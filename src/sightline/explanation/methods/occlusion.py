"""Occlusion: the drop in score when a sliding square is covered."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from sightline.explanation.methods.pixel_gradient import captum
from sightline.explanation.methods.record import Method, on_pixels
from sightline.explanation.score import Score

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 8
"""The side of the square is the image's side divided by this; it moves by half of its side."""


def occlusion(score: Score) -> np.ndarray:
    """Return how far covering a square with the mean colour lowers the score, averaged over the squares that cover each pixel.

    All three channels are covered at once. Only predictions are needed, so any head can be explained.

    Source: Zeiler & Fergus, Visualizing and Understanding Convolutional Networks (2013), section 4.2.

    Returns:
        float32 (h, w), in log odds.
    """
    import torch

    attr, session, image = captum(), score.session, score.pixels
    height, width = image.shape[:2]
    sides = (max(height // WINDOW, 1), max(width // WINDOW, 1))
    steps = (max(sides[0] // 2, 1), max(sides[1] // 2, 1))
    mean = (0.0,) * 3 if session.backbone.source == "pixels" else session.backbone.preprocess.mean
    cover = torch.tensor([round(255 * m) for m in mean], dtype=torch.float32).reshape(1, 3, 1, 1)

    def evaluate(values: Tensor) -> Tensor:
        images = values.permute(0, 2, 3, 1).to(torch.uint8).numpy()
        return torch.from_numpy(score.evaluate(session.run(images)[0]))

    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heatmap = attr.Occlusion(evaluate).attribute(
            x, (3, *sides), strides=(3, *steps), baselines=cover.expand_as(x), perturbations_per_eval=16
        )
    return np.asarray(heatmap[0, 0].float().numpy())


METHOD = Method(explain=on_pixels(occlusion), title="occlusion", needs="pixels", heads="any", unit="log odds", shares=True)
