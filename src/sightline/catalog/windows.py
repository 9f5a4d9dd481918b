"""Window descriptors: find images that may show the same picture, whole, cropped, framed, mirrored or turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.records import Progress, silent

_CELLS = 12
_WHOLE = (0.0, 0.0, 1.0, 1.0)
_CENTRED = tuple((0.0, 0.0, s, s) for s in (0.93, 0.86, 0.78, 0.68, 0.6))
_CORNERS = tuple((x, y, s, s) for s in (0.92, 0.85) for x in (s - 1, 1 - s) for y in (s - 1, 1 - s))
_SIDES = tuple(
    box
    for s in (0.92, 0.85)
    for box in ((0.0, s - 1, 1.0, s), (0.0, 1 - s, 1.0, s), (s - 1, 0.0, s, 1.0), (1 - s, 0.0, s, 1.0))
)
WINDOWS = (_WHOLE, *_CENTRED, *_CORNERS, *_SIDES)
"""Windows (centre x, centre y, half width, half height) of an image, -1 to 1, that are compared with other whole images."""
_COVERED = tuple(i for i, (x, _, _, s) in enumerate(WINDOWS) if x == 0 and s == 0.85)  # a strip at an edge is covered
_TURNED_WINDOWS = 4  # of WINDOWS; mirrored and turned images are compared with these alone
TURNS = 8
"""Number of the ways to mirror and turn a square: bit 0 mirrors left–right, bit 1 top–bottom, bit 2 transposes first."""
_QUERIES_AT_ONCE = 512
TINY_PX = 48
"""Shorter side in pixels below which an image is compared whole or slightly cropped: smaller windows show a few pixels only."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of images that may show the same picture.

    Args:
        pairs: int64 (m, 2), (first, second), unique as sets.
        similarity: float32 (m,), correlation of the descriptors, -1 to 1.
        turn: int64 (m,), how the first image must be turned, see `TURNS`.
        place: float32 (m, 2, 3), approximate transform from the turned first image to the second, see `alignment.align`.
    """

    pairs: np.ndarray
    similarity: np.ndarray
    turn: np.ndarray
    place: np.ndarray


def turned(images: np.ndarray, turn: int) -> np.ndarray:
    """Mirror and turn square images, (n, s, s) or (n, s, s, c), by one of the `TURNS`."""
    if turn & 4:
        images = images.swapaxes(1, 2)
    if turn & 1:
        images = images[:, :, ::-1]
    return images[:, ::-1] if turn & 2 else images


def descriptors(luma: np.ndarray, window: tuple[float, float, float, float]) -> np.ndarray:
    """Return the content of a window of each image in 12×12 cells, standardised, float32 (n, 144).

    Args:
        luma: uint8 (n, s, s).
        window: One of `WINDOWS`.
    """
    return standardised(resampled(luma, window, _CELLS).reshape(len(luma), _CELLS**2))


def resampled(luma: np.ndarray, window: tuple[float, float, float, float], cells: int) -> np.ndarray:
    """Return the mean grey levels of a window of each image in a grid of cells, float32 (n, cells, cells)."""
    x, y, half_width, half_height = window
    s = luma.shape[1]
    rows, columns = _weights(y, half_height, s, cells), _weights(x, half_width, s, cells)
    out = np.empty((len(luma), cells, cells), np.float32)
    for start in range(0, len(luma), 4096):
        out[start : start + 4096] = rows @ luma[start : start + 4096].astype(np.float32) @ columns.T
    return out


def standardised(values: np.ndarray) -> np.ndarray:
    """Bring rows to mean 0, limit them to two standard deviations, and bring them to length 1."""
    values = values - values.mean(axis=1, keepdims=True)
    values = np.clip(values / np.maximum(values.std(axis=1, keepdims=True), 1e-3), -2, 2)
    values -= values.mean(axis=1, keepdims=True)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6))


def _weights(centre: float, half: float, s: int, cells: int) -> np.ndarray:
    """Return the weights of s pixels in each of the cells of an interval, float32 (cells, s)."""
    edges = (centre + half * (np.arange(cells + 1) / cells * 2 - 1) + 1) * (s / 2)
    pixel = np.arange(s)
    weights = np.clip(np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


NEAREST, MOST = 3, 12
"""Candidates per image above `LOWEST`, and above `SURE`."""
LOWEST, SURE = 0.65, 0.85
"""Similarities. Of 1,260 altered copies of 35 kinds, the least similar had 0.67, and all were among the nearest 3."""


def candidates(luma: np.ndarray, tiny: np.ndarray | None = None, progress: Progress = silent) -> Candidates:
    """Return pairs in which one whole image, in any of the `TURNS`, resembles a window of the other.

    Time and memory grow with n²; of more images, pass pairs that another search has found to `locate`.

    Args:
        luma: uint8 (n, s, s).
        tiny: bool (n,), images whose shorter side is below `TINY_PX`, for which fewer windows are searched; None for none.
        progress: Progress callback.
    """
    n = len(luma)
    tiny = np.zeros(n, bool) if tiny is None else tiny
    index = np.stack([descriptors(luma, w) for w in WINDOWS])  # (w, n, d)
    best: dict[tuple[int, int], tuple[float, int, int]] = {}
    whole = index[0].reshape(n, _CELLS, _CELLS)
    done = 0
    for few, members in ((False, np.flatnonzero(~tiny)), (True, np.flatnonzero(tiny))):
        for start in range(0, len(members), _QUERIES_AT_ONCE):
            rows = members[start : start + _QUERIES_AT_ONCE]
            similarity, code = _best_windows(index, whole, rows, few)
            _collect(best, rows, similarity, code)
            done += len(rows)
            progress("comparing images", done, n)
    return _placed(best)


def _best_windows(index: np.ndarray, whole: np.ndarray, rows: np.ndarray, few: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the best similarity of some whole images to any window of each image, and the code of its turn and window.

    Args:
        index: float32 (w, n, d), descriptors of all windows.
        whole: float32 (n, 12, 12), descriptors of the whole images.
        rows: int64 (m,), images to compare with all others.
        few: Whether to leave out most windows, since the images are tiny.

    Returns:
        float32 (m, n), -1 for an image with itself; uint8 (m, n).
    """
    similarity = np.full((len(rows), index.shape[1]), -1.0, np.float32)
    code = np.zeros(similarity.shape, np.uint8)
    values = np.empty_like(similarity)
    better = np.empty(similarity.shape, bool)

    def offer(query: np.ndarray, window: int, number: int) -> None:
        np.matmul(query, index[window].T, out=values)
        np.greater(values, similarity, out=better)
        np.maximum(values, similarity, out=similarity)
        np.copyto(code, np.uint8(number), where=better)

    for turn in range(TURNS):
        query = turned(whole[rows], turn).reshape(len(rows), _CELLS**2)
        count = len(WINDOWS) if turn == 0 else _TURNED_WINDOWS
        if few:
            count = _TURNED_WINDOWS if turn == 0 else 1
        for w in range(count):
            offer(query, w, turn * len(WINDOWS) + w)
    if not few:
        for w in _COVERED:
            offer(index[w][rows], w, 0)  # neither image is moved
    similarity[np.arange(len(rows)), rows] = -1
    return similarity, code


def _collect(
    best: dict[tuple[int, int], tuple[float, int, int]],
    rows: np.ndarray,
    similarity: np.ndarray,
    code: np.ndarray,
) -> None:
    """Add the candidates of some rows to `best`: (row, row) in ascending order → (similarity, first row, code)."""
    count = min(MOST, similarity.shape[1] - 1)
    order = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    order = np.take_along_axis(order, np.argsort(-np.take_along_axis(similarity, order, 1), axis=1), 1)
    values = np.take_along_axis(similarity, order, 1)
    good = (values > SURE) | ((values > LOWEST) & (np.arange(count) < NEAREST))
    codes = np.take_along_axis(code, order, 1)
    for i, k in zip(*(x.tolist() for x in np.nonzero(good)), strict=True):
        a, b, value = int(rows[i]), int(order[i, k]), float(values[i, k])
        key = (min(a, b), max(a, b))
        if value > best.get(key, (-1.0, 0, 0))[0]:
            best[key] = (value, a, int(codes[i, k]))


def _placed(best: dict[tuple[int, int], tuple[float, int, int]]) -> Candidates:
    """Return collected candidates as arrays, in the order of their rows."""
    keys = sorted(best)
    first = [best[k][1] for k in keys]
    pairs = np.array([(a, k[0] + k[1] - a) for k, a in zip(keys, first, strict=True)], np.int64).reshape(-1, 2)
    codes = np.array([best[k][2] for k in keys], np.int64)
    similarity = np.array([best[k][0] for k in keys], np.float32)
    return Candidates(pairs, similarity, codes // len(WINDOWS), _places(codes % len(WINDOWS)))


def locate(luma: np.ndarray, pairs: np.ndarray) -> Candidates:
    """Find the turn and the window in which the images of given pairs resemble each other most.

    Args:
        luma: uint8 (n, s, s).
        pairs: int64 (m, 2).
    """
    found = [_empty()]
    for start in range(0, len(pairs), 1024):
        block = pairs[start : start + 1024]
        index = [np.stack([descriptors(luma[rows], w) for w in WINDOWS], axis=1) for rows in block.T]  # (m, w, d)
        best, code = np.full(len(block), -2.0, np.float32), np.zeros(len(block), np.int64)
        for swap in (0, 1):
            whole = index[swap][:, 0].reshape(-1, _CELLS, _CELLS)
            for turn in range(TURNS):
                count = len(WINDOWS) if turn == 0 else _TURNED_WINDOWS
                query = turned(whole, turn).reshape(len(block), -1, 1)
                values = (index[1 - swap][:, :count] @ query)[..., 0]
                top = values.argmax(axis=1)
                value = values[np.arange(len(block)), top]
                better = value > best
                best[better], code[better] = value[better], ((swap * TURNS + turn) * len(WINDOWS) + top)[better]
        swapped = code >= TURNS * len(WINDOWS)
        ordered = np.where(swapped[:, None], block[:, ::-1], block)
        turns, window = np.divmod(code % (TURNS * len(WINDOWS)), len(WINDOWS))
        found.append(Candidates(ordered, best, turns, _places(window)))
    return joined(found)


def _empty() -> Candidates:
    """Return no candidates."""
    none = np.zeros(0, np.int64)
    return Candidates(none.reshape(0, 2), np.zeros(0, np.float32), none, np.zeros((0, 2, 3), np.float32))


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Return several results as one."""
    return Candidates(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("pairs", "similarity", "turn", "place")))


def _places(window: np.ndarray) -> np.ndarray:
    """Return the transforms from a whole image to windows, float32 (m, 2, 3)."""
    box = np.array(WINDOWS, np.float32)[window].reshape(-1, 4)
    place = np.zeros((len(box), 2, 3), np.float32)
    place[:, 0, 0], place[:, 1, 1], place[:, 0, 2], place[:, 1, 2] = box[:, 2], box[:, 3], box[:, 0], box[:, 1]
    return place
