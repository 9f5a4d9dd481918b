"""Patch maps of transformers: gradient × (patch − mean patch) at the input of the last block."""

from __future__ import annotations

import numpy as np

from sightline.errors import RequestError
from sightline.explanation.feature_map import to_grid
from sightline.explanation.methods.hirescam import hirescam
from sightline.explanation.methods.map_gradient import map_gradient
from sightline.explanation.methods.record import Attribution, Method
from sightline.explanation.score import Score


def patch_map(grid: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return gradient · (patch − mean patch) for each patch of a transformer.

    The patches that the last block outputs have no gradient where only the class token is read. Subtracting the mean patch
    removes what all patches share, which is most of a token.

    Args:
        grid: float32 (c, h, w), the patches.
        gradient: float32 (c, h, w), of the score with respect to them.

    Returns:
        float32 (h, w), in units of the score (logits).
    """
    return hirescam(grid - grid.mean(axis=(1, 2), keepdims=True), gradient)


def _explain(score: Score, last: np.ndarray) -> Attribution:
    backbone = score.session.backbone
    if backbone.layout != "tokens":
        raise RequestError(f"{backbone.name} has no patch tokens: it is not a transformer", "use --method gradcam or hirescam")
    return Attribution(patch_map(to_grid(last, backbone)[0], map_gradient(score, last)[0]))


METHOD = Method(explain=_explain, title="patch map", needs="map", heads="gradient", unit="logit")
