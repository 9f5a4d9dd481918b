"""Heat for any head: hide random halves of the map, see how the answer changes, and fit a plane to it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from sightline import store
from sightline.explanation.feature_map import IMAGE_SIDE, MapSession, from_grid, overlap, to_grid

MASKS = 400
MOST_SIDE = 10
"""Cells a side that are hidden on their own; a finer map is hidden in blocks, since 400 masks cannot tell more apart."""
PENALTY = 10.0
"""Of the ridge. A cell's own sum of squares is 100; anything from 1 to 30 gives the same deletion score."""
_BATCH = 32
_SAME = 1e-6
"""Answers that differ by less than this share are the same one in float32: nothing that was hidden counted."""


@functools.lru_cache(maxsize=8)
def mask_table(height: int, width: int, seed: int, masks: int = MASKS) -> tuple[np.ndarray, np.ndarray]:
    """Random masks over a grid, each with its complement, and the matrix that solves the ridge over them.

    Half of the cells are shown on average. A mask and its complement together cancel what two cells do jointly, so that it
    is not taken for what one of them does. The masks depend on the seed and the grid alone: an image explained by itself
    and one in a batch get the same heat.

    Args:
        height, width: Of the grid, in cells.
        seed: Of the draw.
        masks: How many; even.

    Returns:
        Masks float64 (masks, height·width), 1 where a cell is shown; and float64 (height·width, masks), which turns
        answers into ridge coefficients.
    """
    half = store.stream(seed, "explanation masks", height, width).random((masks // 2, height * width)) < 0.5
    shown = np.concatenate([half, ~half]).astype(np.float64)
    centred = shown - shown.mean(axis=0)
    gram = centred.T @ centred + PENALTY * np.eye(height * width)
    solver = np.linalg.solve(gram, centred.T)
    shown.flags.writeable = solver.flags.writeable = False
    return shown, solver


def hidden_value(session: MapSession, last: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
    """What a hidden cell holds: the mean of the training images, where it can be told.

    There the answer is open, so evidence for every class shows. Zeros, "nothing found" in a rectified map, may read as one of
    the classes, and then its images have nothing to show: with an MLP on cats and dogs every cat came out empty. Measured
    by blurring the photograph itself, the hottest cells first (cats and dogs, MobileNetV2, 18 to 24 images; mean probability
    left, lower is better): training mean, zeros, the image's own mean vector, random order: forest .613, .603, .652, .688
    (one cell at a time .662); nearest neighbours .723, .721, .770, .799 (.769); MLP .668, .772, -, .901.

    Args:
        session: The network.
        last: float32 (1, …), the map.
        mean: float32 (d,), the training images' mean features; None where the head does not keep it.

    Returns:
        float32, (c, 1, 1) or (c, h, w): from `mean` where the features are the map or its mean. Else zeros in a convolutional
        map, and the image's own mean vector for tokens and pixels, of which none says "nothing".
    """
    backbone = session.backbone
    grid = to_grid(last, backbone)[0]
    if mean is not None and session.tail_is_mean and mean.size == len(grid):
        return np.asarray(mean, dtype=np.float32).reshape(-1, 1, 1)
    if mean is not None and backbone.pool == "flatten" and mean.size == last.size:
        return np.asarray(to_grid(np.asarray(mean, dtype=np.float32).reshape(last.shape), backbone)[0])
    if backbone.layout == "tokens" or backbone.source == "pixels":
        return np.asarray(grid.mean(axis=(1, 2), keepdims=True), dtype=np.float32)
    return np.zeros((len(grid), 1, 1), dtype=np.float32)


def cell_masks(
    session: MapSession,
    last: np.ndarray,
    answer_of: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    masks: int = MASKS,
    mean: np.ndarray | None = None,
) -> np.ndarray:
    """Explain any head by what it answers when random cells of the map are hidden.

    A plane is fitted by ridge to the answers over the masks, in closed form; its slopes are the heat. Hiding one cell at a
    time is nearly blind for forests and neighbours, whose answer seldom moves for one. Where the network's tail is a mean, the
    features of all masked maps are one matrix product; else they go through the tail in batches.

    Source: Ribeiro et al., LIME (2016), eq. 1, on the network's last map and with no distance kernel; Petsiuk et al., RISE
    (2018), for random masks.

    Args:
        session: The network.
        last: float32 (1, …), one last map in the network's own layout.
        answer_of: Features float32 (m, d) → the score (m,) that is explained, such as log odds.
        seed: Of the masks.
        masks: How many; even.
        mean: float32 (d,), the training images' mean features, if they are known; see `hidden_value`.

    Returns:
        float32 (h, w), at most `MOST_SIDE` a side: how much the score rises when a cell is shown rather than hidden.
    """
    backbone = session.backbone
    grid = to_grid(last, backbone)[0]
    most = IMAGE_SIDE if backbone.source == "pixels" else MOST_SIDE
    down, across = overlap(grid.shape[1], most), overlap(grid.shape[2], most)
    shown, solver = mask_table(len(down), len(across), seed, masks)
    hidden = hidden_value(session, last, mean)
    if session.tail_is_mean:
        features = _pooled(grid, hidden, shown, down, across)
        answers = answer_of(features)
    else:
        answers = np.concatenate(
            [
                answer_of(session.tail(_masked(last, grid, hidden, shown[i : i + _BATCH], down, across, session)))
                for i in range(0, len(shown), _BATCH)
            ]
        )
    answers = np.asarray(answers, dtype=np.float64)
    if np.ptp(answers) <= _SAME * max(1.0, float(np.abs(answers).max())):
        return np.zeros((len(down), len(across)), dtype=np.float32)  # rounding is no evidence
    slopes = solver @ answers  # the solver's rows sum to 0: the answers need no centring
    return np.asarray(slopes.reshape(len(down), len(across)), dtype=np.float32)


def _pooled(grid: np.ndarray, hidden: np.ndarray, shown: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Features float32 (m, c) of masked maps whose tail is a mean: the masks times the map, summed over blocks."""
    channels, height, width = grid.shape
    above = grid - hidden
    if (len(down), len(across)) != (height, width):
        rows, columns = down.astype(np.float32), across.astype(np.float32)
        above = np.einsum("bi,cij,dj->cbd", rows, above, columns, optimize=True)
    summed = above.reshape(channels, -1).T / np.float32(height * width)
    return np.asarray(hidden.mean(axis=(1, 2)) + shown.astype(np.float32) @ summed, dtype=np.float32)


def _masked(
    last: np.ndarray,
    grid: np.ndarray,
    hidden: np.ndarray,
    shown: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
    session: MapSession,
) -> np.ndarray:
    """Masked maps float32 (m, …) in the network's own layout."""
    blocks = shown.reshape(len(shown), len(down), len(across))
    share = np.einsum("mbd,bi,dj->mij", blocks, down, across, optimize=True).astype(np.float32)
    return from_grid(hidden + share[:, None] * (grid - hidden), last, session.backbone)
