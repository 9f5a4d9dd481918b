"""The last map of a network on its grid, whatever order it lies in, and back; coarser grids of equal blocks."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from sightline.errors import RequestError
from sightline.records import Backbone

IMAGE_SIDE = 8
"""Blocks a side that an image that is its own map is divided into: single pixels say little and look like noise."""


class MapSession(Protocol):
    """What an explanation asks of a loaded network; `engine.Session` is one."""

    @property
    def backbone(self) -> Backbone:
        """What it computes."""
        ...

    @property
    def tail_is_mean(self) -> bool:
        """Whether the features are the plain mean of the map, as measured."""
        ...

    def run(self, images: np.ndarray, maps: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 (n, height, width, 3) → features float32 (n, d), and the last map."""
        ...

    def tail(self, maps: np.ndarray) -> np.ndarray:
        """Last maps → features float32 (n, d)."""
        ...

    def tail_gradient(self, last: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The gradient of weights · tail(last) with respect to `last`, float32 (1, …)."""
        ...

    def network(self) -> Any:
        """The network in torch, float32, in evaluation mode."""
        ...


def grid_size(backbone: Backbone) -> tuple[int, int, int]:
    """(channels, height, width) of the backbone's last map.

    Raises:
        RequestError: It has none: it does not look at places.
    """
    if backbone.map_shape is None:
        hint = "use --method occlusion or --method saliency, which look at the image's own pixels"
        raise RequestError(f"the backbone {backbone.name!r} keeps no map of places, so there is nothing to draw", hint)
    return backbone.map_shape


def to_grid(maps: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Last maps as float32 (n, c, h, w), from any layout; tokens before the patches are left out.

    Args:
        maps: float32 (n, c, h, w), (n, h, w, c) or (n, prefix + h·w, c), as the backbone's layout says.
        backbone: Whose maps they are.
    """
    channels, height, width = grid_size(backbone)
    if backbone.layout == "tokens":
        patches = maps[:, backbone.prefix :]
        return np.ascontiguousarray(patches.transpose(0, 2, 1)).reshape(len(maps), channels, height, width)
    return np.ascontiguousarray(maps if backbone.layout == "nchw" else maps.transpose(0, 3, 1, 2))


def from_grid(grid: np.ndarray, last: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Grids float32 (n, c, h, w) in the backbone's own layout; the tokens before the patches are those of `last` (1, …)."""
    if backbone.layout == "nchw":
        return grid
    if backbone.layout == "nhwc":
        return np.ascontiguousarray(grid.transpose(0, 2, 3, 1))
    patches = grid.reshape(len(grid), grid.shape[1], -1).transpose(0, 2, 1)
    before = np.broadcast_to(last[:, : backbone.prefix], (len(grid), backbone.prefix, grid.shape[1]))
    return np.concatenate([before, patches], axis=1)


def overlap(cells: int, most: int) -> np.ndarray:
    """float64 (blocks, cells): what share of each cell of a side lies in each of at most `most` equal blocks.

    The columns sum to 1: what `overlap @ heat` adds up keeps its total, and `mask @ overlap` spreads a mask of blocks over
    cells, those on a border getting the average. So a block is where it says it is, whether or not the sizes divide.

    Example:
        >>> overlap(3, 2).round(2).tolist(), overlap(2, 9).tolist()
        ([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    """
    count = min(cells, most)
    block, cell = np.arange(count)[:, None] / count, np.arange(cells)[None] / cells
    shared = np.minimum(block + 1 / count, cell + 1 / cells) - np.maximum(block, cell)
    shares = np.where(shared > 1e-12, shared, 0.0)  # rounding leaves slivers between neighbours
    return np.asarray(shares / shares.sum(axis=0))


def sum_blocks(heat: np.ndarray, most: int) -> np.ndarray:
    """Heat (h, w) added up over equal blocks, at most `most` a side, so that its total stays; float32."""
    return np.asarray(overlap(heat.shape[0], most) @ heat @ overlap(heat.shape[1], most).T, dtype=np.float32)
