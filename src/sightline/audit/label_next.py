"""Which unlabelled images to label next: first such that cover the whole set, then uncertain ones in dense regions.

Sources: Hacohen et al. 2022, "Active learning on a budget: opposite strategies suit high and low budgets", for typical images
of clusters; Settles & Craven 2008, "An analysis of active learning strategies", for uncertainty times density.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline.audit.label_errors import unit
from sightline.store import stream

COVERAGE_LABELS = 6
"""Labelled images per class below which images are chosen for coverage."""
NEAR_DUPLICATE = 0.97
"""Cosine similarity of features above which only one of two images is proposed."""
_NEIGHBOURS = 20
_SIMILAR = 0.45
"""Cosine distance to a proposed image from which an image keeps its whole score."""
_MOST_CLUSTERED = 20_000
_MOST_BANK = 10_000
_DIMENSIONS = 32


@dataclass(frozen=True, slots=True)
class Proposal:
    """An image to label.

    Args:
        row: Its row.
        reason: Why it is proposed, in words.
    """

    row: int
    reason: str


def label_next(
    features: np.ndarray,
    count: int,
    *,
    labelled: np.ndarray | None = None,
    probs: np.ndarray | None = None,
    group: np.ndarray | None = None,
    seed: int = 0,
) -> list[Proposal]:
    """Propose images to label, the most useful first.

    Args:
        features: float32 (n, d), of the unlabelled images; rows that are not finite are left out.
        count: Number of images to propose.
        labelled: float32 (m, d), features of the labelled images; None if there are none.
        probs: float64 (n, k), predictions of a classifier that was trained on them; None chooses by coverage.
        group: int64 (n,), duplicates, of which one is proposed.
        seed: Random seed of the clustering.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = np.concatenate([rng.normal(c, 0.1, (20, 3)) for c in (-1.0, 1.0)]).astype(np.float32)
        >>> sorted(p.row // 20 for p in label_next(x, 2))
        [0, 1]
    """
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))
    if group is not None:
        rows = rows[np.unique(group[rows], return_index=True)[1]]
    if not len(rows) or count < 1:
        return []
    pool = unit(features[rows])
    known = np.zeros((0, pool.shape[1]), np.float32) if labelled is None else unit(labelled)
    few = probs is None or len(known) < COVERAGE_LABELS * probs.shape[1]
    found = _coverage(pool, known, count, seed) if few or probs is None else _uncertain(pool, probs[rows], count)
    return [Proposal(int(rows[i]), reason) for i, reason in found]


def density(pool: np.ndarray, neighbours: int = _NEIGHBOURS) -> np.ndarray:
    """Return the mean cosine similarity of each image to its nearest ones, float32 (n,).

    Args:
        pool: float32 (n, d), unit vectors.
        neighbours: Number of nearest images, itself left out.
    """
    bank = pool[np.sort(stream(0, "density").permutation(len(pool))[:_MOST_BANK])]
    count = min(neighbours + 1, len(bank))
    out = np.empty(len(pool), np.float32)
    for start in range(0, len(pool), 2_048):
        similar = pool[start : start + 2_048] @ bank.T
        near = np.partition(similar, len(bank) - count, axis=1)[:, len(bank) - count :]
        out[start : start + 2_048] = (near.sum(axis=1) - near.max(axis=1)) / max(count - 1, 1)
    return out


def _coverage(pool: np.ndarray, known: np.ndarray, count: int, seed: int) -> list[tuple[int, str]]:
    """Return the most typical image of each cluster, the largest clusters without a labelled image first."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    together = np.concatenate([known, pool])
    clusters = min(len(known) + count, len(together))
    values = _reduced(together)
    kind = KMeans if len(together) <= _MOST_CLUSTERED else MiniBatchKMeans
    labels = kind(clusters, n_init=1, random_state=seed).fit_predict(values)
    of_known, of_pool = labels[: len(known)], labels[len(known) :]
    taken, sizes = np.bincount(of_known, minlength=clusters), np.bincount(of_pool, minlength=clusters)
    typical = density(pool)
    order = sorted(range(clusters), key=lambda c: (taken[c], -sizes[c], c))
    members = {c: np.flatnonzero(of_pool == c) for c in order if sizes[c]}
    free, picked = np.ones(len(pool), bool), list[tuple[int, str]]()
    for strict in (True, False):  # near duplicates only where nothing else is left
        for c in [c for c in order if sizes[c]] * (1 if strict else count):
            candidates = members[c][free[members[c]]]
            if len(picked) >= count or not free.any():
                break
            if len(candidates):
                i = int(candidates[typical[candidates].argmax()])
                picked.append((i, f"coverage: typical of {sizes[c]:,} similar photographs"))
                free &= pool @ pool[i] < NEAR_DUPLICATE
                free[i] = False
        if len(picked) >= count or not free.any():
            break
    return picked


def _reduced(values: np.ndarray) -> np.ndarray:
    """Return the principal components of unit vectors, float32 (n, 32), in which clustering is fast."""
    centred = values - values.mean(axis=0)
    dimensions = min(_DIMENSIONS, *centred.shape)
    some = centred[np.sort(stream(0, "components").permutation(len(centred))[:_MOST_BANK])]
    _, vectors = np.linalg.eigh((some.T @ some).astype(np.float64))
    return np.ascontiguousarray(centred @ vectors[:, -dimensions:].astype(np.float32))


def _uncertain(pool: np.ndarray, probs: np.ndarray, count: int) -> list[tuple[int, str]]:
    """Return the images with the highest uncertainty times density, each one unlike those before it."""
    ordered = np.sort(probs, axis=1)
    uncertainty = 1 - (ordered[:, -1] - ordered[:, -2])
    near = density(pool).astype(np.float64)
    score = uncertainty * (0.2 + (near - near.min()) / max(float(np.ptp(near)), 1e-9))
    picked: list[tuple[int, str]] = []
    free = np.ones(len(pool))
    for _ in range(min(count, len(pool))):
        i = int((score * free).argmax())
        if free[i] <= 0:
            break
        picked.append((i, f"uncertain (margin {1 - uncertainty[i]:.2f}) among similar photographs ({near[i]:.2f})"))
        similar = pool @ pool[i]
        free *= np.where(similar >= NEAR_DUPLICATE, 0.0, np.clip((1 - similar) / _SIMILAR, 0, 1))
        free[i] = 0
    return picked
