"""The heat of an ensemble: its members' heats, each counted as its score counts, added up on one grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.records import Explanation


def combine(found: Sequence[Explanation], shares: Sequence[float]) -> Explanation:
    """Heats of several classifiers for one image and one class as one.

    A heat says how much each place speaks for the class in units of its classifier's own score, so heats can be added once each
    is divided by its temperature and multiplied by its weight. That is exact for the weighted mean of the members' calibrated
    log odds; the ensemble's answer is the mean of their probabilities, which follows it where members agree. Grids and parts of
    the image that members see may differ: each cell's heat is spread evenly over its area, and what a member does not see is
    undecided for it. The sum of heats without a sign is no heat of the sum: it bounds it from above.

    Args:
        found: One explanation per member, of the same image and class.
        shares: Weight divided by temperature, of each.

    Returns:
        On cells as small as the finest member's, over all that any member sees.

    Example:
        >>> one = Explanation("a.jpg", "cat", "gradcam", "", np.ones((2, 2), np.float32), (0, 0, 8, 8))
        >>> other = Explanation("a.jpg", "cat", "masks", "", np.full((1, 1), 4, np.float32), (0, 0, 8, 8))
        >>> combine([one, other], [0.5, 0.25]).heat.tolist()
        [[0.75, 0.75], [0.75, 0.75]]
    """
    top, left = (min(e.box[axis] for e in found) for axis in (0, 1))
    bottom, right = (max(e.box[axis] + e.box[axis + 2] for e in found) for axis in (0, 1))
    rows = round((bottom - top) / min(e.box[2] / e.heat.shape[0] for e in found))
    columns = round((right - left) / min(e.box[3] / e.heat.shape[1] for e in found))
    total = np.zeros((rows, columns))
    for item, share in zip(found, shares, strict=True):
        heat = item.heat.astype(np.float64) - item.neutral
        down = _spread(rows, (top, bottom), heat.shape[0], (item.box[0], item.box[0] + item.box[2]))
        across = _spread(columns, (left, right), heat.shape[1], (item.box[1], item.box[1] + item.box[3]))
        total += share * (down @ heat @ across.T)
    methods = ", ".join(dict.fromkeys(e.method for e in found))
    layers = "; ".join(dict.fromkeys(e.layer for e in found))
    box = (top, left, bottom - top, right - left)
    where = f"sum over {len(found)} members: {layers}"
    heat, contrast = total.astype(np.float32), found[0].contrast
    return Explanation(found[0].path, found[0].target, methods, where, heat, box, contrast=contrast)


def _spread(cells: int, whole: tuple[float, float], count: int, part: tuple[float, float]) -> np.ndarray:
    """float64 (cells, count): what share of each of `count` cells over `part` lies in each of `cells` cells over `whole`."""
    edges, own = np.linspace(*whole, cells + 1), np.linspace(*part, count + 1)
    low = np.maximum(edges[:-1, None], own[None, :-1])
    high = np.minimum(edges[1:, None], own[None, 1:])
    shares: np.ndarray = np.maximum(high - low, 0) / np.diff(own)[None, :]
    return shares
