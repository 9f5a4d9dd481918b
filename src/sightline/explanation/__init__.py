"""Heatmaps: explanations of a classifier's predictions, raw and signed; `draw` renders them."""

from sightline.explanation.channel_maps import ChannelMaps, channel_maps
from sightline.explanation.ensemble import combine
from sightline.explanation.feature_map import to_grid
from sightline.explanation.methods import METHODS, explain
from sightline.explanation.methods.contribution import contribution
from sightline.explanation.methods.gradcam import gradcam_linear, gradcam_tail
from sightline.explanation.methods.gradcam_plus_plus import gradcam_plus_plus
from sightline.explanation.methods.hirescam import hirescam
from sightline.explanation.methods.masks import cell_masks
from sightline.explanation.methods.record import Method
from sightline.explanation.options import ExplainOptions
from sightline.explanation.tta import explain_crops
from sightline.records import Explanation

__all__ = [
    "METHODS",
    "ChannelMaps",
    "ExplainOptions",
    "Explanation",
    "Method",
    "cell_masks",
    "channel_maps",
    "combine",
    "contribution",
    "explain",
    "explain_crops",
    "gradcam_linear",
    "gradcam_plus_plus",
    "gradcam_tail",
    "hirescam",
    "to_grid",
]
