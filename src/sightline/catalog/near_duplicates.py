"""Duplicate detection: find identical files, and re-encoded, resized or slightly cropped copies confirmed by their pixels."""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sightline import store
from sightline.catalog import confirmation, looks, phash, windows
from sightline.catalog.confirmation import Confirmed
from sightline.catalog.looks import Looks
from sightline.catalog.windows import Candidates
from sightline.records import Catalog, Progress, silent
from sightline.store import Cache, log

NOT_LOOKED_FOR = (
    "Not looked for: copies that are turned by other angles than a few degrees or a multiple of 90°, cropped to less than "
    "about half, collages, drawings of a photograph, and two photographs of one subject."
)
_VERSION = 3
_BLANK_SD = 2.0  # grey levels; images with a lower standard deviation are blank and never compared
_ALL_WINDOWS = 20_000  # images; of more, pairs are found by hashes, whose time grows almost linearly
_PAIRS_PER_IMAGE = 20  # bounds the time for sets of very similar images, such as video frames
_RADIUS, _HASHED_WINDOWS = 12, 4
_MIN_SIMILARITY, _MIN_COSINE = 0.5, 0.8
_MIN_SIMILARITY_TINY = 0.965  # of copies that are confirmed below `windows.TINY_PX`, the least similar had 0.967
_LARGEST_CLOSED = 64  # images of a chain in which all pairs are compared
_LARGEST_SCENE = 0.1  # share of the images


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
        same_scene: Sets of paths from a fixed camera: the same picture but for one compact region. A split keeps them together;
            they are neither duplicates nor conflicts.
        crowded_scenes: Such sets with more than 10 % of the images, which a split does not keep together.
        scene_links: int64 (k, 2), pairs of rows that link the images of each set of `same_scene`.
    """

    exact: list[list[str]]
    near: list[list[str]]
    conflicts: list[list[str]]
    cluster: np.ndarray
    links: np.ndarray
    same_scene: list[list[str]] = field(default_factory=list)
    crowded_scenes: list[list[str]] = field(default_factory=list)
    scene_links: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))


def find_duplicates(
    catalog: Catalog, cache: Cache, progress: Progress = silent, *, features: np.ndarray | None = None
) -> Duplicates:
    """Find exact and near duplicates, and images of one scene.

    Exact duplicates have equal SHA-256 hashes. Candidates for near duplicates are pairs in which one whole image, also mirrored
    or turned, resembles a window of the other. Each pair is aligned by an affine transform and a tone curve, and compared by
    cells.

    Args:
        catalog: Catalog of n rows from `scan`.
        cache: Cache for thumbnails and results, by content.
        progress: Progress callback.
        features: float32 (n, d), features of a network, whose nearest neighbours are candidates too; NaN in rows without any.
    """
    problems, contents, labels, paths = (catalog.column(c) for c in ("problem", "content", "label", "path"))
    members: dict[str, list[int]] = defaultdict(list)
    for row, (content, problem) in enumerate(zip(contents, problems, strict=True)):
        if problem is None and content:
            members[content].append(row)
    unique = sorted(members)
    pairs = _verdicts(catalog, unique, [members[c][0] for c in unique], cache, features, progress)
    alike, scene = settled(len(unique), pairs)
    cluster = np.arange(len(catalog), dtype=np.int64)
    exact = [rows for rows in members.values() if len(rows) > 1]
    near: list[list[int]] = []
    of = np.arange(len(unique))
    for group in cliques(len(unique), alike):
        of[group] = group[0]
        near.append(sorted(row for g in group for row in members[unique[g]]))
    for rows in [*exact, *near]:
        cluster[rows] = min(rows)
    separate = [(unique[a], unique[b]) for a, b, _ in alike if of[a] != of[b]]
    links = [(i, j) for a, b in separate for i in members[a] for j in members[b]]
    near_rows = {row for rows in near for row in rows}
    sets = [*near, *(rows for rows in exact if rows[0] not in near_rows)]
    conflicts = [rows for rows in sets if len({labels[r] for r in rows if labels[r] is not None}) > 1]
    scenes = _scenes(len(unique), scene, [members[c] for c in unique])
    most = largest_scene(sum(len(rows) for rows in members.values()))
    bound = [rows for rows in scenes if len(rows) <= most]

    def named(lists: Sequence[list[int]]) -> list[list[str]]:
        return sorted(([paths[r] for r in rows] for rows in lists), key=lambda names: (-len(names), names))

    return Duplicates(
        exact=named(exact),
        near=named(near),
        conflicts=named(conflicts),
        cluster=cluster,
        links=np.array(links, np.int64).reshape(-1, 2),
        same_scene=named(bound),
        crowded_scenes=named([rows for rows in scenes if len(rows) > most]),
        scene_links=np.array([(rows[0], row) for rows in bound for row in rows[1:]], np.int64).reshape(-1, 2),
    )


def largest_scene(images: int) -> int:
    """Return the largest number of images of one scene that a split keeps together, of so many images."""
    return max(2, int(_LARGEST_SCENE * images))


def _scenes(n: int, pairs: Sequence[tuple[int, int]], members: Sequence[list[int]]) -> list[list[int]]:
    """Return the rows of each chain of images that show one scene, with all copies of these images."""
    linked = {item for pair in pairs for item in pair}
    found: dict[int, list[int]] = defaultdict(list)
    for item, number in enumerate(components(n, pairs)):
        if item in linked:
            found[number] += members[item]
    return [sorted(rows) for rows in found.values()]


def components(n: int, pairs: Iterable[Sequence[int]]) -> list[int]:
    """Number the connected components of n items by their smallest item.

    Example:
        >>> components(4, [(1, 3)])
        [0, 1, 2, 1]
    """
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for pair in pairs:
        a, b = root(pair[0]), root(pair[1])
        parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(n)]


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


def _verdicts(
    catalog: Catalog,
    unique: Sequence[str],
    rows: Sequence[int],
    cache: Cache,
    features: np.ndarray | None,
    progress: Progress,
) -> list[tuple[int, int, float, int]]:
    """Return confirmed pairs (index, index, strength, verdict) of different content, from the cache if available."""
    neighbours = None if features is None else store.bytes_digest(np.ascontiguousarray(features[list(rows)]).tobytes())
    key = f"duplicates/{store.digest([_VERSION, looks.VERSION, list(unique), neighbours])}"
    known = cache.read_json(key)
    if known is not None:
        return [(int(a), int(b), float(c), int(v)) for a, b, c, v in known]
    paths = catalog.paths
    look = looks.looks([catalog.file(paths[r]) for r in rows], unique, cache, progress)
    sides = [min(w or 0, h or 0) for w, h in zip(catalog.column("width"), catalog.column("height"), strict=True)]
    side = np.array([sides[r] for r in rows], dtype=np.int64)
    found = _candidates(look.luma, side, None if features is None else features[list(rows)], progress)
    confirmed = _closed(look, side, confirmation.confirm(look, side, found, progress), found, progress)
    pairs = [
        (a, b, round(strength, 6), verdict)
        for (a, b), strength, verdict in zip(
            np.sort(confirmed.pairs, axis=1).tolist(), confirmed.strength.tolist(), confirmed.verdict.tolist(), strict=True
        )
    ]
    if look.complete:
        cache.write_json(key, pairs)
    return pairs


def _candidates(luma: np.ndarray, side: np.ndarray, features: np.ndarray | None, progress: Progress) -> Candidates:
    """Return pairs that may show the same picture: by all windows, of many images by hashes, and by neighbours in features."""
    spread = np.concatenate([luma[s : s + 4096].std(axis=(1, 2)) for s in range(0, len(luma), 4096)] or [np.zeros(0)])
    good = np.flatnonzero(spread > _BLANK_SD)
    parts = []
    if len(good) <= _ALL_WINDOWS:
        parts.append(windows.candidates(luma[good], side[good] < windows.TINY_PX, progress))
    else:
        parts.append(windows.locate(luma[good], _hash_pairs(luma[good], progress)))
    if features is not None:
        parts.append(windows.locate(luma[good], _neighbours(features[good])))
    both = windows.joined(parts)
    _, first = np.unique(np.sort(both.pairs, axis=1), axis=0, return_index=True)
    tiny = (side[good] < windows.TINY_PX)[both.pairs[first]].any(axis=1)
    first = first[both.similarity[first] > np.where(tiny, _MIN_SIMILARITY_TINY, _MIN_SIMILARITY)]
    return Candidates(good[both.pairs[first]], both.similarity[first], both.turn[first], both.place[first])


def _hash_pairs(luma: np.ndarray, progress: Progress) -> np.ndarray:
    """Return pairs, int64 (m, 2), in which the hash of a whole image, in any turn, is near that of a window of another."""
    whole = windows.resampled(luma, windows.WINDOWS[0], 32)
    most = max(100_000, _PAIRS_PER_IMAGE * len(luma))
    threads = min(4, os.cpu_count() or 1)
    parts = [np.zeros((0, 2), np.int64)]
    inner = [phash.phash(windows.resampled(luma, w, 32)) for w in windows.WINDOWS[:_HASHED_WINDOWS]]
    for turn in range(windows.TURNS):
        left = phash.phash(windows.turned(whole, turn))
        for right in inner if turn == 0 else inner[:1]:
            right = left if turn == 0 and right is inner[0] else right
            pairs, radius = phash.pairs(left, right, _RADIUS, most, threads=threads, progress=progress)
            if radius < _RADIUS:
                log.info("many images are similar: compared only pairs with at most %d differing bits, not %d", radius, _RADIUS)
            parts.append(pairs)
    return np.unique(np.concatenate(parts), axis=0)


def _neighbours(features: np.ndarray) -> np.ndarray:
    """Return each image's nearest neighbours by the cosine of features, int64 (m, 2); rows with NaN have none.

    Args:
        features: float32 (n, d).
    """
    valid = np.flatnonzero(np.isfinite(features).all(axis=1))
    if len(valid) < 2:
        return np.zeros((0, 2), np.int64)
    unit = features[valid] / np.maximum(np.linalg.norm(features[valid], axis=1, keepdims=True), 1e-6)
    count = min(windows.NEAREST, len(valid) - 1)
    pairs = []
    for start in range(0, len(valid), 512):
        cosine = unit[start : start + 512] @ unit.T
        cosine[np.arange(len(cosine)), np.arange(start, start + len(cosine))] = -1
        nearest = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        row = np.repeat(np.arange(start, start + len(cosine)), count)
        close = np.take_along_axis(cosine, nearest, 1).ravel() > _MIN_COSINE
        pairs.append(np.stack([row[close], nearest.ravel()[close]], axis=1))
    return np.asarray(valid[np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)])


def _closed(look: Looks, side: np.ndarray, confirmed: Confirmed, tested: Candidates, progress: Progress) -> Confirmed:
    """Also compare the pairs within chains of confirmed pairs that have not been compared yet, up to a limit."""
    members: dict[int, list[int]] = defaultdict(list)
    for item, number in enumerate(components(len(look.luma), confirmed.pairs.tolist())):
        members[number].append(item)
    known = {(min(a, b), max(a, b)) for a, b in tested.pairs.tolist()}
    missing: list[tuple[int, int]] = []
    for items in sorted((m for m in members.values() if 2 < len(m) <= _LARGEST_CLOSED), key=len):
        missing += [pair for pair in itertools.combinations(items, 2) if pair not in known]
        if len(missing) > max(2000, 2 * len(look.luma)):
            break
    if not missing:
        return confirmed
    more = confirmation.confirm(look, side, windows.locate(look.luma, np.array(missing, np.int64)), progress)
    return confirmation.joined([confirmed, more])


def settled(n: int, pairs: Sequence[tuple[int, int, float, int]]) -> tuple[list[tuple[int, int, float]], list[tuple[int, int]]]:
    """Return the pairs that show the same picture, (index, index, strength), and those that show the same scene.

    Text over a picture and a thin object in a scene look alike. Images that are linked to others of a scene are of that scene.
    """
    scene = [(a, b) for a, b, _, verdict in pairs if verdict == confirmation.SAME_SCENE]
    number = components(n, scene)
    size = Counter(number)
    same: list[tuple[int, int, float]] = []
    for a, b, strength, verdict in pairs:
        if verdict == confirmation.OVERLAY and (number[a] == number[b] or max(size[number[a]], size[number[b]]) > 2):
            scene.append((a, b))
        elif verdict != confirmation.SAME_SCENE:
            same.append((a, b, strength))
    return same, scene
