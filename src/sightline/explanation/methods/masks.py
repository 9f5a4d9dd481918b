"""Random masks: explain any head by a ridge regression of its score on which cells of the feature map are hidden."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from sightline import store
from sightline.explanation.feature_map import IMAGE_SIDE, MapSession, from_grid, overlap, to_grid
from sightline.explanation.layers import AtLayer
from sightline.explanation.methods.record import Attribution, Method
from sightline.explanation.score import Score

MASKS = 400
MOST_SIDE = 10
"""Maximum number of cells per side; a finer map is hidden in blocks, since 400 masks cannot separate more cells."""
PENALTY = 10.0
"""Ridge penalty. A cell's sum of squares is 100; any penalty from 1 to 30 gives the same deletion score."""
_BATCH = 32
_SAME = 1e-6
"""Scores whose relative range is below this are equal in float32: no hidden cell had an effect."""


@functools.lru_cache(maxsize=8)
def mask_table(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random masks over a grid, each with its complement, and the matrix that solves the ridge regression over them.

    Each cell is shown with probability 0.5. A mask and its complement together cancel the joint effect of two cells, so that it
    is not attributed to one of them. The masks depend only on the seed and the grid, so that an image has the same heatmap
    alone and in a batch.

    Args:
        height, width: Size of the grid, in cells.
        seed: Random seed.

    Returns:
        Masks float64 (MASKS, height·width), 1 where a cell is shown; and float64 (height·width, MASKS), which maps scores to
        ridge coefficients.
    """
    half = store.stream(seed, "explanation masks", height, width).random((MASKS // 2, height * width)) < 0.5
    shown = np.concatenate([half, ~half]).astype(np.float64)
    centred = shown - shown.mean(axis=0)
    gram = centred.T @ centred + PENALTY * np.eye(height * width)
    solver = np.linalg.solve(gram, centred.T)
    shown.flags.writeable = solver.flags.writeable = False
    return shown, solver


def hidden_value(session: MapSession, last: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
    """Return the value of a hidden cell: the mean of the training images where it is known.

    At that value the prediction is open, so that evidence for every class shows. Zeros may look like one of the classes, and
    then
    its images have no evidence: with an MLP on cats and dogs the heatmap of every cat was empty. Measured by blurring the
    photograph, cells with the highest values first (cats and dogs, MobileNetV2, 18 to 24 images; mean remaining probability,
    lower is better): training mean, zeros, the image's own mean vector, random order: forest .613, .603, .652, .688
    (one cell at a time .662); nearest neighbours .723, .721, .770, .799 (.769); MLP .668, .772, -, .901.

    Args:
        session: The network.
        last: float32 (1, …), the map.
        mean: float32 (d,), the training images' mean features; None where the head does not store it.

    Returns:
        float32, (c, 1, 1) or (c, h, w): from `mean` where the features are the map or its mean. Else zeros in a convolutional
        map, and the image's own mean vector for tokens and pixels, where 0 does not mean "nothing detected".
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
    evaluate: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    mean: np.ndarray | None = None,
) -> np.ndarray:
    """Explain any head by its scores when random cells of the feature map are hidden.

    A ridge regression of the scores on the masks is solved in closed form; its coefficients are the heatmap. Hiding one cell at
    a time has almost no effect on forests and nearest neighbours. Where the network's tail is a mean, the features of all
    masked maps are one matrix product; else they pass through the tail in batches.

    Source: Ribeiro et al., LIME (2016), eq. 1, on the network's last map and with no distance kernel; Petsiuk et al., RISE
    (2018), for random masks.

    Args:
        session: The network.
        last: float32 (1, …), one last map in the network's own layout.
        evaluate: Features float32 (m, d) → the explained score (m,), such as log odds.
        seed: Seed of the masks.
        mean: float32 (d,), the training images' mean features, if known; see `hidden_value`.

    Returns:
        float32 (h, w), at most `MOST_SIDE` per side: the increase in score when a cell is shown instead of hidden.
    """
    backbone = session.backbone
    grid = to_grid(last, backbone)[0]
    most = IMAGE_SIDE if backbone.source == "pixels" else MOST_SIDE
    down, across = overlap(grid.shape[1], most), overlap(grid.shape[2], most)
    shown, solver = mask_table(len(down), len(across), seed)
    hidden = hidden_value(session, last, mean)
    if session.tail_is_mean:
        scores = evaluate(_pooled(grid, hidden, shown, down, across))
    else:
        parts = []
        for i in range(0, len(shown), _BATCH):
            blocks = shown[i : i + _BATCH].reshape(-1, len(down), len(across))
            share = np.einsum("mbd,bi,dj->mij", blocks, down, across, optimize=True).astype(np.float32)
            masked = from_grid(hidden + share[:, None] * (grid - hidden), last, backbone)
            parts.append(evaluate(session.tail(masked)))
        scores = np.concatenate(parts)
    scores = np.asarray(scores, dtype=np.float64)
    if np.ptp(scores) <= _SAME * max(1.0, float(np.abs(scores).max())):
        return np.zeros((len(down), len(across)), dtype=np.float32)  # differences are rounding only
    slopes = solver @ scores  # the solver's rows sum to 0: the scores need not be centred
    return np.asarray(slopes.reshape(len(down), len(across)), dtype=np.float32)


def _pooled(grid: np.ndarray, hidden: np.ndarray, shown: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return features float32 (m, c) of masked maps whose tail is a mean: masks times map, summed over blocks."""
    channels, height, width = grid.shape
    above = grid - hidden
    if (len(down), len(across)) != (height, width):
        rows, columns = down.astype(np.float32), across.astype(np.float32)
        above = np.einsum("bi,cij,dj->cbd", rows, above, columns, optimize=True)
    summed = above.reshape(channels, -1).T / np.float32(height * width)
    return np.asarray(hidden.mean(axis=(1, 2)) + shown.astype(np.float32) @ summed, dtype=np.float32)


def _explain(score: Score, last: np.ndarray) -> Attribution:
    session = score.session
    # The head stores the mean of features: at an inner layer that of another map, even if it has the same length.
    mean = None if isinstance(session, AtLayer) and not session.tail_is_mean else score.mean_features
    return Attribution(cell_masks(session, last, score.evaluate, score.seed, mean=mean))


METHOD = Method(explain=_explain, title="random masks", needs="map", heads="any", unit="log odds")
