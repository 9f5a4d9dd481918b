"""How unlike anything in training an image is: its mean cosine distance to the five most similar training images.

Measured with MobileNetV2 and SqueezeNet as classifiers of cats and dogs, flowers, food, hand signs or faces that are asked
about the others: mean AUROC 0.999 and 0.995. With MobileNetV2 the Mahalanobis distance to class means had 0.975, distances
after whitening 0.78, the Euclidean distance to five neighbours 0.948. A hundred training images do nearly as well as all.

Source: Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors"; here the mean of the neighbours instead of
the farthest, and a bar at a stated rate of false alarms, as of a conformal test.
"""

from __future__ import annotations

import numpy as np

from sightline.evaluation import conformal
from sightline.store import stream

NEIGHBOURS = 5
MOST_KEPT = 1_000
"""Training images whose features a classifier carries."""
WIDTH = 1_024
"""Wider features are folded to this; dot products stay what they are, on average. So a classifier grows by 2 MB at most."""
RATE = 0.05
"""The share of images like the training's that lie beyond the bar."""
_BLOCK = 4_096


def directions(features: np.ndarray) -> np.ndarray:
    """Features as float32 (n, min(d, WIDTH)) rows of length 1, in which distances are measured.

    Wide ones are folded by feature hashing: each goes to a place and gets a sign, both drawn once and for all.

    Args:
        features: float (n, d).

    Source: Weinberger et al. 2009, "Feature hashing for large scale multitask learning", section 2.
    """
    values = np.asarray(features, dtype=np.float32)
    width = values.shape[1]
    if width > WIDTH:
        draw = stream(0, "folded features")
        order, signs = draw.permutation(width), draw.choice(np.array([-1, 1], np.float32), width)
        folded = np.zeros((len(values), WIDTH), np.float32)
        for start in range(0, width, WIDTH):
            some = order[start : start + WIDTH]
            folded[:, : len(some)] += values[:, some] * signs[some]
        values = folded
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-12))


def distances(bank: np.ndarray, rows: np.ndarray, together: np.ndarray | None = None) -> np.ndarray:
    """The mean cosine distance, 0 to 2, of each image to its nearest ones of the bank: float64 (n,).

    Args:
        bank: float (m, w), `directions` of training images, m at least 1.
        rows: float32 (n, w), `directions` of the images.
        together: bool (n, m), whom not to compare: an image with itself, its duplicates and its group. Where that leaves
            fewer than five, those are taken; where it leaves none, the distance is infinite.

    Example:
        >>> bank = np.eye(3, dtype=np.float32)
        >>> distances(bank[:1], bank[:2]).tolist()
        [0.0, 1.0]
    """
    known = np.asarray(bank, dtype=np.float32)
    count = min(NEIGHBOURS, len(known))
    out = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        away = np.maximum(1 - rows[part].astype(np.float32) @ known.T, 0).astype(np.float64)
        if together is not None:
            away[together[part]] = np.inf
        near = np.partition(away, count - 1, axis=1)[:, :count]
        usable = np.isfinite(near)
        total = np.where(usable, near, 0).sum(axis=1)
        out[part] = np.where(usable.any(axis=1), total / np.maximum(usable.sum(axis=1), 1), np.inf)
    return out


def ood_threshold(held_out: np.ndarray, rate: float = RATE) -> float | None:
    """The distance that another image like these exceeds with a chance of at most `rate`; None where these are too few.

    Args:
        held_out: float (n,), distances of images that are not in the bank, and that nothing behind it was fitted on.
        rate: Of false alarms, in 0–1.
    """
    found = conformal.quantile(held_out[np.isfinite(held_out)], 1 - rate)
    return found if np.isfinite(found) else None


def nearest(bank: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The most similar images of a bank: int64 (n, count) their places in it, and float64 (n, count) cosine distances.

    Args:
        bank: float32 (m, w), `directions`; `count` is cut to m.
        rows: float32 (n, w), `directions`.
        count: How many for each.
    """
    count = min(count, len(bank))
    places, found = np.empty((len(rows), count), np.int64), np.empty((len(rows), count))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        away = np.maximum(1 - rows[part] @ bank.T, 0)
        places[part] = np.argsort(away, axis=1, kind="stable")[:, :count]
        found[part] = np.take_along_axis(away, places[part], axis=1)
    return places, found
