"""Where a classifier looked: heatmaps from a network's last map and any head on it, raw and signed; `draw` shows them."""

from sightline.explanation.gradcam import contrast, contribution, gradcam_linear, gradcam_tail
from sightline.explanation.maps import to_grid
from sightline.explanation.masks import cell_masks
from sightline.explanation.members import combine
from sightline.explanation.methods import METHODS, explain
from sightline.records import Explanation

__all__ = [
    "METHODS",
    "Explanation",
    "cell_masks",
    "combine",
    "contrast",
    "contribution",
    "explain",
    "gradcam_linear",
    "gradcam_tail",
    "to_grid",
]
