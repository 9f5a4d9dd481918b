"""Perceptual hashing: compute 64-bit pHashes and find all pairs within a Hamming distance, by exact blocked comparison."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sightline import activity
from sightline.records import Progress, silent

_ROWS, _COLUMNS = 64, 4096  # block of 2 MB of XORs that fits in a core's cache
_ALL_PAIRS = 30_000**2
_BANDS = ((0, 21), (21, 21), (42, 22))  # first bit and number of bits
_BAND_RADIUS = 2
_PROBED_AT_ONCE = 1 << 17  # hashes
_BUCKET = 256  # hashes with equal bits in a band that are compared; more occur in sets of very similar images only
_OF_EQUAL = 16  # rows with equal hashes that each row is paired with


def phash(gray: np.ndarray) -> np.ndarray:
    """Compute the perceptual hash of 32×32 grey images: compare the 8×8 lowest DCT coefficients with their median.

    Args:
        gray: (n, 32, 32), grey levels.

    Returns:
        uint64 (n,).

    Source: imagehash.phash(hash_size=8, highfreq_factor=4), after its resize to 32×32.
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
    """Return all pairs of rows whose hashes differ in at most `radius` bits.

    All pairs of up to 30,000 hashes are compared. Of more, those that differ in at most 2 bits of one third of the bits are
    compared: all pairs with up to 8 differing bits and most with up to 12, in time that grows almost linearly.

    If there are more than `most` pairs, as among 100,000 similar images, the radius is lowered until there are not. Rows with
    equal hashes are each paired only with the first 16 of them.

    Args:
        left, right: uint64 (n,), two hashes of the same n images; pass the same array twice to compare one hash.
        radius: Maximum Hamming distance in bits.
        most: Approximate maximum number of pairs.
        threads: Number of worker threads.
        progress: Progress callback.

    Returns:
        Unique sorted pairs, int64 (m, 2) with i < j; and the radius used.
    """
    lefts, left_of = np.unique(left, return_inverse=True)
    rights, right_of = (lefts, left_of) if left is right else np.unique(right, return_inverse=True)
    search = _close if len(lefts) * len(rights) <= _ALL_PAIRS else _close_banded
    i, j, distance, radius = search(lefts, rights, radius, most, threads, progress)
    left_rows, right_rows = _members(left_of, len(lefts)), _members(right_of, len(rights))
    weight = np.minimum(left_rows.count[i], _OF_EQUAL) * right_rows.count[j]
    reach = np.bincount(distance, weight, minlength=65).cumsum()
    while radius > 0 and reach[radius] > most:
        radius -= 1
    i, j = i[distance <= radius], j[distance <= radius]
    if left is right:  # equal hashes too
        same = np.flatnonzero(left_rows.count > 1)
        i, j = np.concatenate([i, same]), np.concatenate([j, same])
    parts = [np.zeros((0, 2), np.int64)]
    single = (left_rows.count[i] == 1) & (right_rows.count[j] == 1)
    parts.append(np.stack([left_rows.order[left_rows.start[i[single]]], right_rows.order[right_rows.start[j[single]]]], axis=1))
    for a, b in zip(i[~single].tolist(), j[~single].tolist(), strict=True):
        one, other = left_rows.of(a), right_rows.of(b)
        parts += [_product(one[:_OF_EQUAL], other), _product(one, other[:_OF_EQUAL])]
    both = np.concatenate(parts)
    both = np.sort(both[both[:, 0] != both[:, 1]], axis=1)
    return np.unique(both, axis=0), radius


@dataclass(frozen=True, slots=True)
class _Members:
    """Rows grouped by hash: hash h has the rows `order[start[h] : start[h] + count[h]]`."""

    order: np.ndarray
    start: np.ndarray
    count: np.ndarray

    def of(self, h: int) -> np.ndarray:
        return np.asarray(self.order[self.start[h] : self.start[h] + self.count[h]])


def _members(of: np.ndarray, hashes: int) -> _Members:
    count = np.bincount(of, minlength=hashes)
    return _Members(np.argsort(of, kind="stable").astype(np.int64), np.cumsum(count) - count, count)


def _product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return all pairs of two sets of rows, (m, 2)."""
    return np.stack([np.repeat(one, len(other)), np.tile(other, len(one))], axis=1)


def _close(
    left: np.ndarray, right: np.ndarray, radius: int, most: int, threads: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return (i, j, distance, radius) of close pairs of distinct hashes; i < j if both arrays are the same."""
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    total = 0
    starts = iter(range(0, len(left), _ROWS))
    waiting: deque[Future[tuple[np.ndarray, np.ndarray, np.ndarray]]] = deque()
    with activity.workers(threads, "sightline-compare") as pool:
        for done in range(0, len(left), _ROWS):
            while len(waiting) < 2 * threads and (start := next(starts, None)) is not None:
                waiting.append(pool.submit(_block, left, right, start, radius, most))
            blocks.append(waiting.popleft().result())
            total += len(blocks[-1][2])
            if total > 2 * most:
                blocks, radius = _lower(blocks, most, radius)
                total = sum(len(d) for _, _, d in blocks)
            progress("comparing images", min(done + _ROWS, len(left)), len(left))
    if total > most:
        blocks, radius = _lower(blocks, most, radius)
    if not blocks:
        none = np.zeros(0, np.int64)
        return none, none, none, radius
    i, j, distance = (np.concatenate(part) for part in zip(*blocks, strict=True))
    keep = distance <= radius  # some blocks started before the radius was lowered
    return i[keep], j[keep], distance[keep], radius


def _close_banded(
    left: np.ndarray, right: np.ndarray, radius: int, most: int, threads: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return (i, j, distance, radius) of pairs of hashes that are close in one band; i < j if both arrays are the same.

    Source: Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing".
    """
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [
        (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))
    ]
    total = done = 0
    with activity.workers(threads, "sightline-compare") as pool:
        for first, width in _BANDS:
            masks = [sum(1 << b for b in bits) for n in range(_BAND_RADIUS + 1) for bits in combinations(range(width), n)]
            keys, index = _band(left, first, width), _Buckets.of(_band(right, first, width), width)
            for start in range(0, len(masks), 4 * threads):
                some = masks[start : start + 4 * threads]
                blocks += pool.map(lambda mask: _probe(left, right, keys, index, mask, radius), some)  # noqa: B023 - awaited here
                total = sum(len(d) for _, _, d in blocks)
                if total > 4 * most:
                    blocks, radius = _lower([_distinct(blocks)], most, radius)
                done += len(some)
                progress("comparing images", min(done, 3 * len(masks)), 3 * len(masks))
    blocks, radius = _lower([_distinct(blocks)], most, radius)
    i, j, distance = blocks[0]
    return i, j, distance, radius


@dataclass(frozen=True, slots=True)
class _Buckets:
    """Hashes sorted by a band of their bits: those with key k are `order[start[k] : start[k + 1]]`."""

    order: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray, width: int) -> _Buckets:
        """Sort keys, int64 (n,), of `width` bits."""
        order = np.argsort(keys, kind="stable").astype(np.int32)
        start = np.zeros((1 << width) + 1, np.int32)
        np.cumsum(np.bincount(keys, minlength=1 << width), out=start[1:])
        return cls(order, start)


def _band(hashes: np.ndarray, first: int, width: int) -> np.ndarray:
    """Return some bits of each hash, int64 (n,)."""
    return np.asarray((hashes >> np.uint64(first)) & np.uint64((1 << width) - 1)).astype(np.int64)


def _probe(
    left: np.ndarray, right: np.ndarray, keys: np.ndarray, index: _Buckets, mask: int, radius: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (i, j, distance) of close pairs whose bits in a band differ exactly by `mask`."""
    wanted = keys ^ mask
    start = index.start[wanted]
    count = np.minimum(index.start[wanted + 1] - start, _BUCKET)
    hit = np.flatnonzero(count)
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))]
    for begin in range(0, len(hit), _PROBED_AT_ONCE):
        rows = hit[begin : begin + _PROBED_AT_ONCE]
        many = count[rows]
        i = np.repeat(rows, many)
        within = np.arange(len(i)) - np.repeat(np.cumsum(many) - many, many)
        j = index.order[np.repeat(start[rows], many) + within].astype(np.int64)
        if left is right:
            i, j = i[i < j], j[i < j]
        distance = np.bitwise_count(left[i] ^ right[j])
        good = distance <= radius
        found.append((i[good], j[good], distance[good]))
    i, j, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    return i, j, distance


def _distinct(blocks: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of several blocks, each once."""
    i, j, distance = (np.concatenate(part) for part in zip(*blocks, strict=True))
    _, first = np.unique(i << 32 | j, return_index=True)
    return i[first], j[first], distance[first]


def _block(
    left: np.ndarray, right: np.ndarray, start: int, radius: int, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (i, j, distance) of close pairs with i in one block of rows; only j > i if both arrays are the same."""
    rows = left[start : start + _ROWS, None]
    symmetric = left is right
    xor = np.empty((len(rows), _COLUMNS), np.uint64)
    bits = np.empty((len(rows), _COLUMNS), np.uint8)
    close = np.empty((len(rows), _COLUMNS), np.bool_)
    out = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))]
    for column in range(start if symmetric else 0, len(right), _COLUMNS):
        n = min(_COLUMNS, len(right) - column)
        np.bitwise_xor(rows, right[None, column : column + n], out=xor[:, :n])
        np.bitwise_count(xor[:, :n], out=bits[:, :n])
        np.less_equal(bits[:, :n], radius, out=close[:, :n])
        if not close[:, :n].any():
            continue
        i, j = np.nonzero(close[:, :n])
        if symmetric:
            i, j = (x[i + start < j + column] for x in (i, j))
        out.append((i + start, j + column, bits[i, j]))
        if sum(len(d) for _, _, d in out) > most:
            out, radius = _lower(out, most, radius)
    i, j, distance = (np.concatenate(part) for part in zip(*out, strict=True))
    return i, j, distance


def _lower(
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]], most: int, radius: int
) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], int]:
    """Return the pairs within the largest radius that gives at most `most` pairs, and this radius."""
    counts = np.sum([np.bincount(d, minlength=65) for _, _, d in blocks], axis=0).cumsum()
    fitting = np.flatnonzero(counts[: radius + 1] <= most)
    radius = int(fitting[-1]) if len(fitting) else 0
    return [(i[d <= radius], j[d <= radius], d[d <= radius]) for i, j, d in blocks], radius
