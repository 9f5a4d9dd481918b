"""Heatmap of an ensemble: the weighted sum of its members' heatmaps on one grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.records import Explanation


def combine(explanations: Sequence[Explanation], shares: Sequence[float]) -> Explanation:
    """Combine the heatmaps of several classifiers for one image and one class.

    A heatmap is measured in units of its classifier's score, so heatmaps can be added once each is divided by its temperature
    and multiplied by its weight. That is exact for the weighted mean of the members' calibrated log odds; the ensemble's
    prediction is the mean of their probabilities, which is close to it where members agree. Grids and crops of the members may
    differ: each cell's value is spread evenly over its area, and what a member does not see is neutral for it. The sum of
    unsigned heatmaps is an upper bound of the heatmap of the sum.

    Args:
        explanations: One per member, of the same image and class.
        shares: Weight divided by temperature, of each.

    Returns:
        An explanation on cells as small as the finest member's, over all that any member sees.

    Example:
        >>> one = Explanation("a.jpg", "cat", "gradcam", "", np.ones((2, 2), np.float32), (0, 0, 8, 8))
        >>> other = Explanation("a.jpg", "cat", "masks", "", np.full((1, 1), 4, np.float32), (0, 0, 8, 8))
        >>> combine([one, other], [0.5, 0.25]).heat.tolist()
        [[0.75, 0.75], [0.75, 0.75]]
    """
    top, left = (min(e.box[axis] for e in explanations) for axis in (0, 1))
    bottom, right = (max(e.box[axis] + e.box[axis + 2] for e in explanations) for axis in (0, 1))
    rows = round((bottom - top) / min(e.box[2] / e.heat.shape[0] for e in explanations))
    columns = round((right - left) / min(e.box[3] / e.heat.shape[1] for e in explanations))
    total = np.zeros((rows, columns))
    for item, share in zip(explanations, shares, strict=True):
        heatmap = item.heat.astype(np.float64) - item.neutral
        down = _spread(rows, (top, bottom), heatmap.shape[0], (item.box[0], item.box[0] + item.box[2]))
        across = _spread(columns, (left, right), heatmap.shape[1], (item.box[1], item.box[1] + item.box[3]))
        total += share * (down @ heatmap @ across.T)
    methods = ", ".join(dict.fromkeys(e.method for e in explanations))
    layers = "; ".join(dict.fromkeys(e.layer for e in explanations))
    box = (top, left, bottom - top, right - left)
    where = f"sum over {len(explanations)} members: {layers}"
    heatmap, contrast = total.astype(np.float32), explanations[0].contrast
    return Explanation(explanations[0].path, explanations[0].target, methods, where, heatmap, box, contrast=contrast)


def _spread(cells: int, whole: tuple[float, float], count: int, part: tuple[float, float]) -> np.ndarray:
    """Return the share of each of `count` cells over `part` that lies in each of `cells` cells over `whole`."""
    edges, part_edges = np.linspace(*whole, cells + 1), np.linspace(*part, count + 1)
    low = np.maximum(edges[:-1, None], part_edges[None, :-1])
    high = np.minimum(edges[1:, None], part_edges[None, 1:])
    shares: np.ndarray = np.maximum(high - low, 0) / np.diff(part_edges)[None, :]
    return shares
