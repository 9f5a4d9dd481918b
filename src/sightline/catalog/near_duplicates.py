"""Duplicate detection: find identical files, and re-encoded, resized or slightly cropped copies confirmed by their pixels."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import activity, pixels, store
from sightline.catalog import alignment, phash, thumbnails
from sightline.errors import ImageError
from sightline.records import Catalog, Progress, silent
from sightline.store import Cache, log

_VERSION = 1
_SIDE_PX = 64
_BLANK_SD = 2.0  # grey levels; images with a lower standard deviation are blank and never compared
_PROBE_MARGIN = 0.05  # a hash of the inner 90 % finds copies that were cropped on each side
_PAIRS_PER_IMAGE, _ALIGNED_PER_IMAGE = 20, 5  # bound the time for sets of very similar images, such as video frames
_COARSE_AT_ONCE, _FINE_AT_ONCE = 64, 16  # blocks that fit in a core's cache
_PAIRS_AT_ONCE = 4096  # pairs whose thumbnails (12 kB each) are in memory at once
_MIN_ROUGH, _MIN_COARSE, _MIN_FINE = 0.8, 0.95, 0.97
_GAIN, _OFFSET, _COLOUR = 1.35, 30.0, 14.0

# (minimum shorter side in pixels of the smaller image, maximum number of differing hash bits, maximum residual). Copies of
# photographs measured a residual up to 0.12 (JPEG quality 30, half size, 10 % cropped); the most similar different images 0.16
# (8 px digits), 0.20 (signs, another photograph of the same hand) and 0.26 (manipulated faces).
_LIMITS = ((0, 6, 0.05), (24, 12, 0.10), (48, 14, 0.15))


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Duplicate images of a catalog, among the rows without a problem.

    Args:
        exact: Sets of two or more paths with identical bytes.
        near: Sets of paths that show the same pixels but are not all byte-identical. Every two images of a set are confirmed
            duplicates; a chain of small differences does not join its ends.
        conflicts: Sets of either kind whose images have different labels.
        cluster: int64 (n,), cluster number per row; rows with the same number are duplicates according to these sets.
        links: int64 (m, 2), pairs of rows that are confirmed near duplicates but belong to different sets.
    """

    exact: list[list[str]]
    near: list[list[str]]
    conflicts: list[list[str]]
    cluster: np.ndarray
    links: np.ndarray


def find_duplicates(catalog: Catalog, cache: Cache, progress: Progress = silent) -> Duplicates:
    """Find exact and near duplicates.

    Exact duplicates have equal SHA-256 hashes. Candidates for near duplicates are pairs with similar perceptual hashes, of the
    whole image or of its inner part; each pair is aligned and compared in grey and colour.

    Args:
        catalog: Catalog from `scan`.
        cache: Cache for thumbnails and results, by content.
        progress: Progress callback.
    """
    problems, contents, labels, paths = (catalog.column(c) for c in ("problem", "content", "label", "path"))
    members: dict[str, list[int]] = defaultdict(list)
    for row, (content, problem) in enumerate(zip(contents, problems, strict=True)):
        if problem is None and content:
            members[content].append(row)
    unique = sorted(members)
    alike = _near_contents(catalog, unique, [members[c][0] for c in unique], cache, progress)
    groups = cliques(len(unique), alike)
    cluster = np.arange(len(catalog), dtype=np.int64)
    exact = [rows for rows in members.values() if len(rows) > 1]
    near: list[list[int]] = []
    of = np.arange(len(unique))
    for group in groups:
        of[group] = group[0]
        near.append(sorted(row for g in group for row in members[unique[g]]))
    for rows in [*exact, *near]:
        cluster[rows] = min(rows)
    separate = [(unique[a], unique[b]) for a, b, _ in alike if of[a] != of[b]]
    links = [(i, j) for a, b in separate for i in members[a] for j in members[b]]
    near_rows = {row for rows in near for row in rows}
    sets = [*near, *(rows for rows in exact if rows[0] not in near_rows)]
    conflicts = [rows for rows in sets if len({labels[r] for r in rows if labels[r] is not None}) > 1]

    def named(lists: Sequence[list[int]]) -> list[list[str]]:
        return sorted(([paths[r] for r in rows] for rows in lists), key=lambda names: (-len(names), names))

    return Duplicates(named(exact), named(near), named(conflicts), cluster, np.array(links, np.int64).reshape(-1, 2))


def cliques(n: int, alike: Sequence[tuple[int, int, float]]) -> list[list[int]]:
    """Cluster items into sets in which every pair is confirmed, from the most similar pair on (complete linkage).

    Args:
        n: Number of items.
        alike: Confirmed pairs (a, b, similarity).

    Example:
        >>> cliques(4, [(0, 1, 0.99), (1, 2, 0.98), (2, 3, 0.97)])
        [[0, 1], [2, 3]]
    """
    linked: list[set[int]] = [set() for _ in range(n)]
    for a, b, _ in alike:
        linked[a].add(b)
        linked[b].add(a)
    of: dict[int, set[int]] = {}
    for a, b, _ in sorted(alike, key=lambda pair: (-pair[2], pair[0], pair[1])):
        one, other = of.get(a, {a}), of.get(b, {b})
        if one is not other and all(other <= linked[x] for x in one):
            joined = one | other
            of.update(dict.fromkeys(joined, joined))
    return sorted(sorted(group) for group in {id(g): g for g in of.values()}.values())


# ------------------------------------------------------------------------------------------------------- near duplicates


def _near_contents(
    catalog: Catalog, unique: Sequence[str], rows: Sequence[int], cache: Cache, progress: Progress
) -> list[tuple[int, int, float]]:
    """Return confirmed pairs (index, index, correlation) of images with different content, from the cache if available."""
    key = f"duplicates/{store.digest([_VERSION, thumbnails.VERSION, list(unique)])}"
    known = cache.read_json(key)
    if known is not None:
        return [(int(a), int(b), float(c)) for a, b, c in known]
    files = [catalog.file(catalog_path) for catalog_path in _take(catalog.paths, rows)]
    gray = thumbnails.grays(files, unique, cache, progress)
    sides = [min(w or 0, h or 0) for w, h in zip(catalog.column("width"), catalog.column("height"), strict=True)]
    side = np.array(_take(sides, rows), dtype=np.int64)
    candidates, places = _candidates(gray, side, progress)
    confirmed, failed = _confirm(files, side, candidates, places, progress)
    if not failed:
        cache.write_json(key, confirmed)
    return confirmed


def _take(values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    return [values[r] for r in rows]


def _limit(side: np.ndarray, which: int) -> np.ndarray:
    """Return a column of `_LIMITS` for each shorter side in pixels."""
    row = np.searchsorted([limit[0] for limit in _LIMITS], side, side="right") - 1
    return np.array([limit[which] for limit in _LIMITS])[np.maximum(row, 0)]


def _candidates(gray: np.ndarray, side: np.ndarray, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs with similar hashes whose aligned thumbnails correlate, int64 (m, 2), and alignments, float32 (m, 4)."""
    good = np.flatnonzero(gray.std(axis=(1, 2)) > _BLANK_SD)
    if len(good) < 2:
        return np.zeros((0, 2), np.int64), np.zeros((0, 4), np.float32)
    gray, side = gray[good], side[good]
    inner = _inner(gray)
    whole_hash, inner_hash = phash.phash(gray), phash.phash(inner)
    most = max(100_000, _PAIRS_PER_IMAGE * len(gray))
    largest = int(_limit(side, 1).max())
    threads = min(4, os.cpu_count() or 1)
    parts = []
    for right in (whole_hash, inner_hash):
        pairs, radius = phash.pairs(whole_hash, right, largest, most, threads=threads, progress=progress)
        if radius < largest:
            log.info("many images are similar: compared only pairs with at most %d differing bits, not %d", radius, largest)
        distance = np.minimum(
            np.bitwise_count(whole_hash[pairs[:, 0]] ^ right[pairs[:, 1]]),
            np.bitwise_count(whole_hash[pairs[:, 1]] ^ right[pairs[:, 0]]),
        )
        parts.append(pairs[distance <= _limit(side[pairs].min(axis=1), 1)])
    pairs = np.unique(np.concatenate(parts), axis=0)
    rough = _rough(gray, inner, pairs)
    likeliest = np.argsort(-rough, kind="stable")[: max(100_000, _ALIGNED_PER_IMAGE * len(gray))]
    pairs = pairs[np.sort(likeliest[rough[likeliest] > _MIN_ROUGH])]
    similar, places = [pairs[:0]], [np.zeros((0, 4), np.float32)]
    for start in range(0, len(pairs), _COARSE_AT_ONCE):
        block = pairs[start : start + _COARSE_AT_ONCE]
        correlation, place = alignment.coarse(gray[block[:, 0]], gray[block[:, 1]])
        similar.append(block[correlation > _MIN_COARSE])
        places.append(place[correlation > _MIN_COARSE])
        progress("comparing similar images", min(start + _COARSE_AT_ONCE, len(pairs)), len(pairs))
    return np.asarray(good[np.concatenate(similar)], dtype=np.int64), np.concatenate(places)


def _inner(gray: np.ndarray) -> np.ndarray:
    """Crop 32×32 thumbnails to their inner part, and resize it to 32×32."""
    at = ((np.arange(32) + 0.5) / 32 * (1 - 2 * _PROBE_MARGIN) + _PROBE_MARGIN) * 32 - 0.5
    base = np.minimum(at.astype(int), 30)
    weights = np.zeros((32, 32), np.float32)
    weights[np.arange(32), base] = 1 - (at - base)
    weights[np.arange(32), base + 1] = at - base
    return np.concatenate(
        [
            np.rint(weights @ gray[s : s + 4096].astype(np.float32) @ weights.T).astype(np.uint8)
            for s in range(0, len(gray), 4096)
        ]
    )


def _rough(gray: np.ndarray, inner: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return each pair's best correlation of whole with whole or whole with inner thumbnail, float32 (m,)."""

    def unit(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1).astype(np.float32)
        flat -= flat.mean(axis=1, keepdims=True)
        return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))

    best = np.full(len(pairs), -1.0, np.float32)
    for start in range(0, len(pairs), _COARSE_AT_ONCE):
        part = slice(start, start + _COARSE_AT_ONCE)
        one, other = pairs[part].T
        a, b, a_in, b_in = unit(gray[one]), unit(gray[other]), unit(inner[one]), unit(inner[other])
        for x, y in ((a, b), (a, b_in), (a_in, b)):
            best[part] = np.maximum(best[part], np.einsum("ij,ij->i", x, y))
    return best


def _confirm(
    files: Sequence[Path], side: np.ndarray, pairs: np.ndarray, places: np.ndarray, progress: Progress
) -> tuple[list[tuple[int, int, float]], bool]:
    """Return pairs confirmed in pixels with their correlation, and whether a file could not be read for a temporary reason."""
    confirmed: list[tuple[int, int, float]] = []
    failed = False
    with activity.workers(min(16, os.cpu_count() or 1), "sightline-look") as pool:
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            some, at = (x[start : start + _PAIRS_AT_ONCE] for x in (pairs, places))
            wanted = np.unique(some)
            results = dict(zip(wanted.tolist(), pool.map(lambda i: _thumb(files[i]), wanted.tolist()), strict=True))
            failed |= any(isinstance(r, str) and r in pixels.PASSING_PROBLEMS for r in results.values())
            thumbs = {i: r for i, r in results.items() if isinstance(r, np.ndarray)}
            good = [a in thumbs and b in thumbs for a, b in some.tolist()]
            some, at = some[good], at[good]
            for begin in range(0, len(some), _FINE_AT_ONCE):
                part = slice(begin, begin + _FINE_AT_ONCE)
                confirmed += _confirmed(thumbs, side, some[part], at[part])
            progress("confirming duplicates", min(start + _PAIRS_AT_ONCE, len(pairs)), len(pairs))
    return confirmed, failed


def _confirmed(
    thumbs: Mapping[int, np.ndarray], side: np.ndarray, block: np.ndarray, place: np.ndarray
) -> list[tuple[int, int, float]]:
    """Return the pairs of a block that show the same pixels, with their correlation."""
    first, second = (np.stack([thumbs[i] for i in column]) for column in block.T.tolist())
    like = alignment.fine(first, second, place)
    good = (
        (like.correlation > _MIN_FINE)
        & (like.residual < _limit(side[block].min(axis=1), 2))
        & (like.colour < _COLOUR)
        & (np.abs(like.offset) < _OFFSET)
        & (like.gain < _GAIN)
        & (like.gain > 1 / _GAIN)
    )
    pairs = zip(block[good].tolist(), like.correlation[good].tolist(), strict=True)
    return [(a, b, round(correlation, 6)) for (a, b), correlation in pairs]


def _thumb(file: Path) -> np.ndarray | str:
    """Return the whole image as uint8 (64, 64, 3), or the kind of its problem."""
    from PIL import Image

    try:
        image = Image.fromarray(pixels.upright(file, 2 * _SIDE_PX))
        return np.asarray(image.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR))
    except ImageError as error:
        return error.kind
