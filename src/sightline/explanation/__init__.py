"""Where a classifier looked: heatmaps from a network's last map and any head on it, raw and signed; `draw` shows them."""

from sightline.explanation.ensemble import combine
from sightline.explanation.feature_map import to_grid
from sightline.explanation.methods import METHODS, Method, explain
from sightline.explanation.methods.activation import ChannelMaps, channel_maps
from sightline.explanation.methods.gradcam import (
    contrast,
    contribution,
    gradcam_linear,
    gradcam_plus_plus,
    gradcam_tail,
    hirescam,
)
from sightline.explanation.methods.masks import cell_masks
from sightline.explanation.tta import explain_crops
from sightline.records import Explanation

__all__ = [
    "METHODS",
    "ChannelMaps",
    "Explanation",
    "Method",
    "cell_masks",
    "channel_maps",
    "combine",
    "contrast",
    "contribution",
    "explain",
    "explain_crops",
    "gradcam_linear",
    "gradcam_plus_plus",
    "gradcam_tail",
    "hirescam",
    "to_grid",
]
