"""Geometric augmentation: combine all geometric changes into one matrix per image, and that into a grid for `grid_sample`.

All matrices map backwards, from a position in the output to the position in the input that it is sampled from, in
coordinates (x, y) from -1 to 1 over the image, as in `grid_sample`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sightline.training.augment.drawing import Draw

_NEAREST_HORIZON = 0.05
"""Smallest depth of a pixel: a perspective could put it at the horizon or behind it."""


def warp_matrices(drawn: Draw, height: int, width: int) -> np.ndarray | None:
    """Return the backward warps, float32 (n, 2, 3), or (n, 3, 3) with a perspective; None if nothing moves.

    In the order of `STEPS` the image is cropped, mirrored, rotated by quarter turns, sheared, rotated and zoomed about its
    centre, shifted and seen in perspective; the elastic warp comes last. Since all are one matrix, a rotation after a crop
    brings parts of the photograph outside the crop into the frame, not padding. Angles are angles in pixels, whatever the
    aspect ratio.
    """
    steps = [step(drawn, height, width) for step in STEPS]
    moving = [matrix for matrix in steps if matrix is not None]
    if not moving and drawn.elastic is None:
        return None
    back = functools.reduce(np.matmul, moving, np.broadcast_to(np.eye(3), (len(drawn), 3, 3)))
    rows = 3 if drawn.corners.any() else 2
    return back[:, :rows].astype(np.float32)


def _matrices(n: int, **entries: np.ndarray | float) -> np.ndarray:
    """Return identity matrices (n, 3, 3) with some entries set: `m01` is row 0, column 1."""
    out = np.tile(np.eye(3), (n, 1, 1))
    for name, value in entries.items():
        out[:, int(name[1]), int(name[2])] = value
    return out


def _crop(drawn: Draw, height: int, width: int) -> np.ndarray | None:
    if not (drawn.crop != [0, 0, 1, 1]).any():
        return None
    top, left, tall, wide = drawn.crop.T
    return _matrices(len(drawn), m00=wide, m02=2 * left + wide - 1, m11=tall, m12=2 * top + tall - 1)


def _mirror(drawn: Draw, height: int, width: int) -> np.ndarray | None:
    if not (drawn.flip.any() or drawn.vertical_flip.any()):
        return None
    return _matrices(len(drawn), m00=np.where(drawn.flip, -1.0, 1.0), m11=np.where(drawn.vertical_flip, -1.0, 1.0))


def _rotation(degrees: np.ndarray, ratio: float) -> np.ndarray | None:
    if not degrees.any():
        return None
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return _matrices(len(degrees), m00=cos, m01=-sin * ratio, m10=sin / ratio, m11=cos)


def _shear(drawn: Draw, height: int, width: int) -> np.ndarray | None:
    if not drawn.shear.any():
        return None
    return _matrices(len(drawn), m01=np.tan(np.deg2rad(drawn.shear)) * height / width)


def _zoom(drawn: Draw, height: int, width: int) -> np.ndarray | None:
    if not (drawn.zoom != 1).any():
        return None
    return _matrices(len(drawn), m00=1 / drawn.zoom, m11=1 / drawn.zoom)


def _shift(drawn: Draw, height: int, width: int) -> np.ndarray | None:
    if not (drawn.shift.any() or drawn.shift_px.any()):
        return None
    down, right = (drawn.shift + drawn.shift_px / [height, width]).T
    return _matrices(len(drawn), m02=-2 * right, m12=-2 * down)  # the coordinates' range is 2 wide


def _perspective(drawn: Draw, height: int, width: int) -> np.ndarray | None:
    """Return the inverse of the map from the square to four corners.

    Source: Heckbert 1989, "Fundamentals of texture mapping and image warping", section 2.2.3.
    """
    if not drawn.corners.any():
        return None
    inwards = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])  # (down, right) of top left, top right, bottom right, bottom left
    y, x = np.moveaxis(-inwards + inwards * drawn.corners, 2, 0)  # (n, 4) each
    dx1, dx2, dx3 = x[:, 1] - x[:, 2], x[:, 3] - x[:, 2], x[:, 0] - x[:, 1] + x[:, 2] - x[:, 3]
    dy1, dy2, dy3 = y[:, 1] - y[:, 2], y[:, 3] - y[:, 2], y[:, 0] - y[:, 1] + y[:, 2] - y[:, 3]
    area = dx1 * dy2 - dx2 * dy1
    g, h = (dx3 * dy2 - dx2 * dy3) / area, (dx1 * dy3 - dx3 * dy1) / area
    forth = np.empty((len(drawn), 3, 3))
    for row, c in enumerate((x, y)):
        forth[:, row] = np.stack([c[:, 1] - c[:, 0] + g * c[:, 1], c[:, 3] - c[:, 0] + h * c[:, 3], c[:, 0]], axis=1)
    forth[:, 2] = np.stack([g, h, np.ones_like(g)], axis=1)
    from_unit = np.array([[2.0, 0, -1], [0, 2, -1], [0, 0, 1]])  # in the source the square goes from 0 to 1
    back: np.ndarray = from_unit @ np.linalg.inv(forth)
    depth: np.ndarray = back[:, 2:, 2:]  # at the centre of the frame; normalised to 1
    out: np.ndarray = back / depth
    return out


def sampling_grid(warp: Tensor, height: int, width: int, knots: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Return the grid for `grid_sample`, float32 (n, height, width, 2); x and y are stored as separate planes.

    Computed by broadcasting: `affine_grid` of torch uses a matrix product over (height·width, 3). `grid_sample` reads separate
    planes as fast as interleaved pairs, and these take several times as long to fill.

    Args:
        warp: float32 (n, 2, 3) or (n, 3, 3).
        height, width: Of the images.
        knots: float32 (n, 2, c + 3, c + 3), knots of the elastic warp, as in `Draw`.
        out: float32 (n, 2, height, width), or (n, 3, …) with a perspective: buffer for the result.
    """
    across = warp[:, :, 0:1] * _centres(width, warp.device)  # (n, 2, width)
    down = torch.addcmul(warp[:, :, 2:], warp[:, :, 1:2], _centres(height, warp.device))  # (n, 2, height)
    places = torch.add(across[:, :, None, :], down[:, :, :, None], out=out)  # (n, 2, height, width)
    if knots is not None:
        moved = displacement(knots, height, width).permute(0, 3, 1, 2).flatten(2)
        places += (warp[:, :, :2] @ moved).view_as(places)
    if warp.shape[1] == 3:
        depth = places[:, 2:].clamp_(min=_NEAREST_HORIZON)
        places = places[:, :2].div_(depth)
    return places.permute(0, 2, 3, 1)


def farthest(warp: np.ndarray, knots: np.ndarray | None) -> float:
    """Return the largest coordinate, in absolute value, that is sampled with these matrices; infinite with a perspective."""
    if warp.shape[1] == 3:
        return math.inf
    moved = 0.0 if knots is None else 2 * float(np.abs(knots).max(initial=0.0))
    linear = np.abs(warp[:, :, :2]).sum(axis=2) * (1 + moved)
    return float((linear + np.abs(warp[:, :, 2])).max(initial=0.0))


def fold(grid: Tensor, scratch: Tensor) -> Tensor:
    """Mirror sampling positions at the edges of the image, in place, for positions from -3 to 3.

    `grid_sample` can then use its padding `border`, which takes two thirds of the time of `reflection`. `scratch` is a buffer
    of the same shape.
    """
    return grid.lerp_(torch.clamp(grid, -1, 1, out=scratch), 2.0)  # twice the edge, less the position


@functools.lru_cache(maxsize=64)
def _centres(size: int, device: torch.device) -> Tensor:
    """Return the pixel centres along a side, from -1 to 1: float32 (size,)."""
    return (torch.arange(size, device=device, dtype=torch.float32) * 2 + 1) / size - 1


def displacement(knots: Tensor, height: int, width: int) -> Tensor:
    """Return a smooth displacement field, (right, down) in coordinates from -1 to 1: float32 (n, height, width, 2), as planes.

    It is a uniform cubic B-spline with random knots: twice continuously differentiable, similar to Gaussian-smoothed noise, and
    computed with two small matrix products.

    Source: Simard et al. 2003, "Best practices for convolutional neural networks"; there the noise is smoothed pixel by pixel.
    """
    cells = knots.shape[-1] - 3
    down, across = (_spline(size, cells, knots.device) for size in (height, width))
    return (2 * (down @ knots @ across.T)).permute(0, 2, 3, 1)


@functools.lru_cache(maxsize=64)
def _spline(size: int, cells: int, device: torch.device) -> Tensor:
    """Return the B-spline weight of each knot for each pixel along a side: float32 (size, cells + 3), rows sum to 1."""
    at = (np.arange(size) + 0.5) / size * cells
    first = np.minimum(at.astype(np.int64), cells - 1)
    t = at - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    out = np.zeros((size, cells + 3), dtype=np.float32)
    for k in range(4):
        out[np.arange(size), first + k] = weights[:, k]
    return torch.from_numpy(out).to(device)


STEPS: tuple[Callable[[Draw, int, int], np.ndarray | None], ...] = (
    _crop,
    _mirror,
    lambda drawn, height, width: _rotation(90.0 * drawn.turns, height / width),
    _shear,
    lambda drawn, height, width: _rotation(drawn.angle, height / width),
    _zoom,
    _shift,
    _perspective,
)
"""Operations in their order; each returns backward matrices (n, 3, 3), or None if it changes nothing."""
