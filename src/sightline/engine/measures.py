"""Similarity of features, and the check for global average pooling."""

from __future__ import annotations

import numpy as np

from sightline.records import Backbone


def is_mean(last: np.ndarray, features: np.ndarray, backbone: Backbone) -> bool:
    """Return whether the features are the spatial mean of the last map, to the accuracy of float32."""
    if backbone.pool != "avg" or last.ndim != 4 or backbone.layout == "tokens":
        return False
    mean = last.mean(axis=(2, 3) if backbone.layout == "nchw" else (1, 2))
    if mean.shape != features.shape:
        return False
    scale = float(np.abs(features).max()) or 1.0
    return bool(np.abs(mean - features).max() <= 1e-4 * scale)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine similarity of rows of `a` and `b`, float64 (n,); 1 if both are zero, 0 if one is zero or not finite."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    both_zero = ~x.any(axis=1) & ~y.any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(lengths > 0, (x * y).sum(axis=1) / lengths, both_zero.astype(np.float64))
    return np.asarray(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))
