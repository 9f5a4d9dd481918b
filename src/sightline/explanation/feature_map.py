"""Feature maps on their grid (channels, height, width), independent of the network's layout."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from sightline.errors import RequestError
from sightline.records import Backbone

IMAGE_SIDE = 8
"""Blocks per side that an image which is its own feature map is divided into: single pixels look like noise."""


class MapSession(Protocol):
    """Interface of a loaded network as explanations use it; `engine.Session` implements it."""

    @property
    def backbone(self) -> Backbone:
        """Return the record of the network."""
        ...

    @property
    def tail_is_mean(self) -> bool:
        """Return whether the features were measured to be the plain mean of the map."""
        ...

    def run(self, images: np.ndarray, maps: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """Return features float32 (n, d), and the last map if `maps`, of images uint8 (n, height, width, 3)."""
        ...

    def tail(self, maps: np.ndarray) -> np.ndarray:
        """Return features float32 (n, d) of last maps."""
        ...

    def tail_gradient(self, last: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the gradient of weights · tail(last) with respect to `last`, float32 (1, …)."""
        ...

    def network(self) -> Any:
        """Return the torch network, float32, in evaluation mode."""
        ...


def grid_size(backbone: Backbone) -> tuple[int, int, int]:
    """Return the (channels, height, width) of the backbone's last map.

    Raises:
        RequestError: If it has no map with spatial positions.
    """
    if backbone.map_shape is None:
        hint = "use --method occlusion or --method saliency, which explain the image's pixels"
        raise RequestError(f"the backbone {backbone.name!r} has no spatial feature map, so there is nothing to draw", hint)
    return backbone.map_shape


def to_grid(maps: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Convert last maps from any layout to float32 (n, c, h, w), without the tokens before the patches.

    Args:
        maps: float32 (n, c, h, w), (n, h, w, c) or (n, prefix + h·w, c), depending on the backbone's layout.
        backbone: The backbone of the maps.
    """
    channels, height, width = grid_size(backbone)
    if backbone.layout == "tokens":
        patches = maps[:, backbone.prefix :]
        return np.ascontiguousarray(patches.transpose(0, 2, 1)).reshape(len(maps), channels, height, width)
    return np.ascontiguousarray(maps if backbone.layout == "nchw" else maps.transpose(0, 3, 1, 2))


def from_grid(grid: np.ndarray, last: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Convert grids float32 (n, c, h, w) to the backbone's layout, with the tokens before the patches from `last` (1, …)."""
    if backbone.layout == "nchw":
        return grid
    if backbone.layout == "nhwc":
        return np.ascontiguousarray(grid.transpose(0, 2, 3, 1))
    patches = grid.reshape(len(grid), grid.shape[1], -1).transpose(0, 2, 1)
    before = np.broadcast_to(last[:, : backbone.prefix], (len(grid), backbone.prefix, grid.shape[1]))
    return np.concatenate([before, patches], axis=1)


def overlap(cells: int, most: int) -> np.ndarray:
    """Return the share of each cell of a side in each of at most `most` equal blocks, float64 (blocks, cells).

    The columns sum to 1: `overlap @ heat` keeps the total, and `mask @ overlap` spreads a mask of blocks over cells, where
    cells on a border get the average. Blocks have exact positions, whether or not the sizes divide.

    Example:
        >>> overlap(3, 2).round(2).tolist(), overlap(2, 9).tolist()
        ([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    """
    count = min(cells, most)
    block, cell = np.arange(count)[:, None] / count, np.arange(cells)[None] / cells
    shared = np.minimum(block + 1 / count, cell + 1 / cells) - np.maximum(block, cell)
    shares = np.where(shared > 1e-12, shared, 0.0)  # rounding leaves slivers between neighbours
    return np.asarray(shares / shares.sum(axis=0))


def sum_blocks(heatmap: np.ndarray, most: int) -> np.ndarray:
    """Sum a heatmap (h, w) over equal blocks, at most `most` per side, float32; the total is unchanged."""
    return np.asarray(overlap(heatmap.shape[0], most) @ heatmap @ overlap(heatmap.shape[1], most).T, dtype=np.float32)
