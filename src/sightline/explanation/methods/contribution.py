"""Exact contributions of places to a linear score on an unpooled feature map (linear SHAP)."""

from __future__ import annotations

import numpy as np

from sightline import heads
from sightline.errors import RequestError
from sightline.explanation.feature_map import IMAGE_SIDE, sum_blocks, to_grid
from sightline.explanation.methods.map_gradient import tangent_plane
from sightline.explanation.methods.record import Attribution, Method
from sightline.explanation.score import Score
from sightline.records import Backbone


def contribution(last: np.ndarray, weights: np.ndarray, reference: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Return each place's exact share of a linear score whose features are the map itself, unpooled.

    The share is weight × (value − reference), summed over channels: how far the place moves the score away from that of the
    mean training image. Grad-CAM's mean over places would discard the differences between places. For `pixels` a missing stroke
    counts as much as a present one: a positive value on an empty spot means that ink there would be evidence for another class.

    Source: Lundberg & Lee, SHAP (2017), corollary 1 (linear SHAP), for independent features.

    Args:
        last: float32 (1, …), one last map in the network's own layout.
        weights: float32, the same shape: the feature direction that is explained.
        reference: float32, the same shape: the mean of the training images' features.
        backbone: The backbone of the map.

    Returns:
        float32 (h, w), in units of the score (logits); adds up to weights · (features − reference).
    """
    return np.asarray(to_grid(weights * (last - reference), backbone)[0].sum(axis=0), dtype=np.float32)


def _explain(score: Score, last: np.ndarray) -> Attribution:
    backbone = score.session.backbone
    if backbone.pool != "flatten" or score.session.tail(last).size != last.size:
        hint = 'use --method gradcam, or train with pool = "flatten"'
        raise RequestError("exact contributions are defined only where the features are the unpooled feature map", hint)
    if heads.linear(score.head) is None:
        hint = "use --method masks, which explains any head"
        raise RequestError(
            f"exact contributions are defined for linear heads, not for a head of kind {score.head.kind!r}", hint
        )
    weights = tangent_plane(score, last)[0].reshape(1, *last.shape[1:])
    mean = score.mean_features
    reference = np.zeros_like(last) if mean is None else np.asarray(mean, dtype=np.float32).reshape(last.shape)
    heatmap = contribution(last, weights, reference, backbone)
    return Attribution(sum_blocks(heatmap, IMAGE_SIDE) if backbone.source == "pixels" else heatmap)


METHOD = Method(explain=_explain, title="exact contributions", needs="map", heads="linear", unit="logit", shares=True)
