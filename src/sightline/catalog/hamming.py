"""Perceptual hashes of glances, and all pairs of them that are alike: exact, blocked, without an index."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sightline.records import Progress, silent

_ROWS, _COLUMNS = 256, 8192  # 16 MB of XORs stay in the cache of a core; measured best of five shapes


def phash(gray: np.ndarray) -> np.ndarray:
    """imagehash's `phash` of 32×32 grey images: the signs of the 8×8 lowest cosine terms against their median.

    Args:
        gray: (n, 32, 32).

    Returns:
        uint64 (n,).

    Source: imagehash.phash(hash_size=8, highfreq_factor=4), from its own 32×32 image on.
    """
    from scipy.fft import dctn

    if not len(gray):
        return np.zeros(0, np.uint64)
    low = dctn(gray.astype(np.float32), axes=(1, 2))[:, :8, :8].reshape(len(gray), 64)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def pairs(
    left: np.ndarray, right: np.ndarray, radius: int, most: int, *, threads: int = 2, progress: Progress = silent
) -> tuple[np.ndarray, int]:
    """All pairs of rows whose hashes differ in at most `radius` bits.

    Where there are more than `most`, the radius is lowered until there are not (never below 0): a set of a hundred thousand
    look-alikes has more pairs than anyone can check.

    Args:
        left, right: uint64 (n,), two hashes of the same n images; the same array for plain pairs.
        radius: In bits.
        most: About how many pairs may come back.

    Returns:
        int64 (m, 2) with i < j, sorted, each once; and the radius used.
    """
    n = len(left)
    symmetric = left is right
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    total = 0
    with ThreadPoolExecutor(threads) as pool:
        starts = range(0, n, _ROWS)
        blocks = pool.map(lambda s: _block(left, right, s, symmetric, radius), starts)
        for done, block in enumerate(blocks, 1):
            found.append(block)
            total += len(block[0])
            if total > 2 * most and radius > 0:
                found, total, radius = _lower(found, most, radius)
            progress("comparing images", min(done * _ROWS, n), n)
    if total > most and radius > 0:
        found, total, radius = _lower(found, most, radius)
    if not total:
        return np.zeros((0, 2), np.int64), radius
    i, j, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    keep = (distance <= radius) & (i != j)
    both = np.stack([np.minimum(i, j), np.maximum(i, j)], axis=1)[keep]
    return np.unique(both, axis=0), radius


def _block(
    left: np.ndarray, right: np.ndarray, start: int, symmetric: bool, radius: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(i, j, distance) of the close pairs with i in one block of rows; only j ≥ start where the matrix is symmetric."""
    rows = left[start : start + _ROWS, None]
    out: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for column in range(start if symmetric else 0, len(right), _COLUMNS):
        distance = np.bitwise_count(rows ^ right[None, column : column + _COLUMNS])
        close = distance <= radius
        if close.any():
            i, j = np.nonzero(close)
            keep = (i + start < j + column) if symmetric else (i + start != j + column)
            i, j = i[keep], j[keep]
            out.append((i + start, j + column, distance[i, j]))
    if not out:
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0, np.uint8)
    i, j, d = (np.concatenate(part) for part in zip(*out, strict=True))
    return i, j, d


def _lower(
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], most: int, radius: int
) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], int, int]:
    """The pairs within the largest radius that leaves at most `most` of them."""
    counts = np.sum([np.bincount(d, minlength=65) for _, _, d in found], axis=0).cumsum()
    fitting = np.flatnonzero(counts[: radius + 1] <= most)
    radius = int(fitting[-1]) if len(fitting) else 0
    kept = [(i[d <= radius], j[d <= radius], d[d <= radius]) for i, j, d in found]
    return kept, sum(len(d) for _, _, d in kept), radius
