"""Label errors: images whose label disagrees with those of similar images, ranked by how strongly it does.

Two out-of-sample estimates of the label are averaged: kernel ridge regression with a Gaussian kernel on unit feature vectors,
whose leave-one-out predictions have a closed form, and a vote of the nearest neighbours. With `mobilenetv2_100` and 2 % or
5 % of the labels changed, the average ranks the changed ones higher than the vote of ten neighbours or the margin of
cross-validated logistic regression (`benchmarks/label_errors.py`).

Sources: Rifkin & Lippert 2007, "Notes on regularized least squares", for the leave-one-out predictions; Northcutt et al. 2021,
"Confident learning", for ranking by out-of-sample probabilities; Zhu et al. 2022, "Detecting corrupted labels without training
a model to predict", for the vote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from sightline.store import stream

LIKELY = 0.34
"""Margin above which a label is named as a likely error. On images without changed labels it names at most 1 %."""
SEPARATED = 0.45
"""Mean difference of a class's estimate between its own images and all others below which the margin must be higher, by
`_CAUTION` times what is missing. Classes that the features hardly tell apart are so left unjudged (real and manipulated faces:
0.1; CIFAR-10: 0.3 to 0.55; flowers: 0.55 to 0.65)."""
_CAUTION = 5.0
FEWEST = 5
"""Smallest number of clusters of a class whose labels are judged as likely errors: fewer say too little about a class."""
NEIGHBOURS = 20
_VOTE_SCALE = 0.11
"""Difference of cosine distances over which the weight of a neighbour falls to 1/e, as a share of the median distance."""
_VOTE_SHARE = 0.2
_KERNEL = 3.5
"""Factor in the Gaussian kernel exp(-3.5 · distance / median distance); the median makes it independent of the network."""
_PENALTY = 0.1
"""Ridge penalty as a multiple of the mean eigenvalue of the kernel."""
_MOST_WEIGHT = 4.0
"""Largest weight of an image of a rare class, as a multiple of that of the most frequent class."""
_MOST_LANDMARKS = 2_000
"""Images that span the regression (Nyström approximation); with fewer images it is exact."""
_MOST_VOTERS = 10_000
_MEDIAN_OF = 1_000
_BLOCK = 2_048


@dataclass(frozen=True, slots=True)
class LabelSuspects:
    """Agreement of every label with the labels of similar images.

    Args:
        score: float64 (n,), estimate of the suggested class minus that of the given one, about -1 to 1; the higher, the more
            suspect the label. NaN for images without a label or features.
        suggested: int64 (n,), the class other than the given one with the highest estimate; -1 if there is none.
        likely: bool (n,), whether the label is named to the user as a likely error.
    """

    score: np.ndarray
    suggested: np.ndarray
    likely: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """Rows with a score, the most suspect first, int64."""
        rows = np.flatnonzero(np.isfinite(self.score))
        return rows[np.argsort(-self.score[rows], kind="stable")]


def label_suspects(features: np.ndarray, labels: np.ndarray, classes: int, cluster: np.ndarray | None = None) -> LabelSuspects:
    """Rank images by how strongly their label disagrees with those of similar images.

    Args:
        features: float32 (n, d); rows that are not finite are left out.
        labels: int64 (n,), class indices; -1 for none.
        classes: Number of classes, k.
        cluster: int64 (n,), duplicates and groups, of which none judges the others; None if every image is its own.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = np.concatenate([rng.normal(0, 0.3, (30, 8)) + 1, rng.normal(0, 0.3, (30, 8)) - 1]).astype(np.float32)
        >>> y = np.repeat([0, 1], 30); y[7] = 1
        >>> found = label_suspects(x, y, 2)
        >>> int(found.order[0]), int(found.suggested[7]), int(found.likely.sum())
        (7, 0, 1)
    """
    n = len(labels)
    score, suggested, likely = np.full(n, np.nan), np.full(n, -1, np.int64), np.zeros(n, bool)
    rows = np.flatnonzero((labels >= 0) & np.isfinite(features).all(axis=1))
    y = labels[rows]
    if len(np.unique(y)) < 2 or len(rows) < 4:
        return LabelSuspects(score, suggested, likely)
    groups = rows if cluster is None else cluster[rows]
    groups = np.unique(groups, return_inverse=True)[1]
    directions = unit(features[rows])
    weights = _class_weights(y, classes)
    estimate = (1 - _VOTE_SHARE) * _regression(directions, y, classes, weights, groups)
    estimate += _VOTE_SHARE * _vote(directions, y, classes, weights, groups)
    index = np.arange(len(rows))
    least = _least_margins(estimate, y, groups, classes)
    given = estimate[index, y]
    estimate[index, y] = -np.inf
    estimate[:, np.bincount(y, minlength=classes) == 0] = -np.inf
    suggested[rows] = estimate.argmax(axis=1)
    score[rows] = estimate.max(axis=1) - given
    likely[rows] = score[rows] > np.maximum(least[y], least[suggested[rows]])
    return LabelSuspects(score, suggested, likely)


def unit(features: np.ndarray) -> np.ndarray:
    """Return features as unit vectors, float32 (n, d); a row of zeros stays zero."""
    values = np.asarray(features, np.float32)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, np.float32(1e-12)))


def _least_margins(estimate: np.ndarray, y: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """Return the margin above which a label of each class is a likely error, float64 (k,); infinite with too few clusters."""
    difference = np.full(classes, np.nan)
    for k in np.unique(y):
        own = y == k
        if len(np.unique(groups[own])) >= FEWEST:
            difference[k] = estimate[own, k].mean() - estimate[~own, k].mean()
    if np.isnan(difference).all():
        return np.full(classes, np.inf)
    separation = np.minimum(difference, np.nanmean(difference))
    return np.asarray(np.where(np.isnan(separation), np.inf, LIKELY + _CAUTION * np.maximum(0, SEPARATED - separation)))


def _class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return a weight per image that makes up for different class sizes, float64 (n,), with a mean of 1."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.minimum(counts.max() / np.maximum(counts, 1), _MOST_WEIGHT)[labels]
    return np.asarray(weights / weights.mean())


# ------------------------------------------------------------------------------------------------------------ regression


def _regression(directions: np.ndarray, y: np.ndarray, classes: int, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the leave-one-cluster-out predictions of weighted kernel ridge regression on one-hot labels, float64 (n, k)."""
    mapped = _mapped(directions)
    root = np.sqrt(weights)[:, None]
    target = np.eye(classes)[y]
    centre, mean = weights @ mapped / weights.sum(), weights @ target / weights.sum()
    mapped = (mapped - centre.astype(np.float32)) * root.astype(np.float32)
    residual = (target - mean) * root
    gram = _gram(mapped)
    gram[np.diag_indices_from(gram)] += _PENALTY * np.trace(gram) / len(mapped)
    lower = cholesky(gram, lower=True, check_finite=False)
    solution = cho_solve((lower, True), mapped.T @ residual, check_finite=False)
    fitted, leverage, single = np.empty_like(residual), np.empty(len(y)), lower.astype(np.float32)
    for part in _blocks(len(y)):
        whitened = solve_triangular(single, mapped[part].T, lower=True, check_finite=False)
        fitted[part], leverage[part] = mapped[part] @ solution, (whitened**2).sum(axis=0) + weights[part] / weights.sum()
    out = residual - (residual - fitted) / np.maximum(1 - leverage, 1e-6)[:, None]
    for members in _shared(groups):
        whitened = solve_triangular(lower, mapped[members].T.astype(np.float64), lower=True, check_finite=False)
        hat = whitened.T @ whitened + root[members] @ root[members].T / weights.sum()
        left = np.eye(len(members)) - hat + 1e-6 * np.eye(len(members))
        out[members] = residual[members] - np.linalg.solve(left, residual[members] - fitted[members])
    return np.asarray(out / root + mean)


def _mapped(directions: np.ndarray) -> np.ndarray:
    """Return coordinates, float32 (n, m), whose inner products are the kernel, exactly if m = n (Nyström)."""
    n = len(directions)
    picked = np.arange(n)
    if n > _MOST_LANDMARKS:
        picked = np.sort(stream(0, "landmarks of label errors").permutation(n)[:_MOST_LANDMARKS])
    landmarks = directions[picked]
    scale = _median_distance(directions)
    inner = _kernel(landmarks, landmarks, scale).astype(np.float64)
    inner[np.diag_indices_from(inner)] += 1e-5
    lower = cholesky(inner, lower=True, check_finite=False)
    out = np.empty((n, len(picked)), np.float32)
    for part in _blocks(n):
        kernel = _kernel(landmarks, directions[part], scale).astype(np.float64)
        out[part] = solve_triangular(lower, kernel, lower=True, check_finite=False).T
    return out


def _kernel(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    return np.asarray(np.exp(_KERNEL / scale * (a @ b.T - 1)))


def _median_distance(directions: np.ndarray) -> float:
    """Return the median cosine distance of two images, estimated on some of them."""
    some = directions[np.sort(stream(0, "median distance").permutation(len(directions))[:_MEDIAN_OF])]
    away = 1 - some @ some.T
    return max(float(np.median(away[np.triu_indices(len(some), 1)])), 1e-6)


def _gram(values: np.ndarray) -> np.ndarray:
    """Return valuesᵀ · values in float64 (m, m), in bounded memory."""
    out = np.zeros((values.shape[1], values.shape[1]))
    for part in _blocks(len(values)):
        out += values[part].T @ values[part]
    return out


def _shared(groups: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of every cluster with more than one image; of a very large one in parts."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    for members in np.split(order, starts[1:]):
        for start in range(0, len(members) if len(members) > 1 else 0, _BLOCK):
            yield members[start : start + _BLOCK]


def _blocks(n: int) -> Iterator[slice]:
    for start in range(0, n, _BLOCK):
        yield slice(start, min(start + _BLOCK, n))


# ------------------------------------------------------------------------------------------------------------------ vote


def _vote(directions: np.ndarray, y: np.ndarray, classes: int, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the votes of the nearest images of other clusters, float64 (n, k), rows sum to 1."""
    n = len(y)
    voters = np.arange(n)
    if n > _MOST_VOTERS:
        voters = np.sort(stream(0, "voters of label errors").permutation(n)[:_MOST_VOTERS])
    count, scale = min(NEIGHBOURS, len(voters)), _VOTE_SCALE * _median_distance(directions)
    out = np.zeros((n, classes))
    for part in _blocks(n):
        similar = directions[part] @ directions[voters].T
        similar[groups[part][:, None] == groups[voters][None]] = -np.inf
        near = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        nearness = np.take_along_axis(similar, near, axis=1).astype(np.float64)
        best = np.maximum(nearness.max(axis=1, keepdims=True), -1.0)  # finite where no other image is left
        votes = np.exp((nearness - best) / scale) * weights[voters[near]]
        flat = np.arange(len(near))[:, None] * classes + y[voters[near]]
        total = np.bincount(flat.ravel(), weights=votes.ravel(), minlength=len(near) * classes).reshape(-1, classes)
        out[part] = total / np.maximum(total.sum(axis=1, keepdims=True), 1e-12)
    return out
