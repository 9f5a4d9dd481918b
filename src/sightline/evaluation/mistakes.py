"""Misclassified images and confused pairs of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sightline.records import Predictions


def mistakes(predictions: Predictions) -> list[dict[str, Any]]:
    """Return the misclassified images, the most confident mistake first; images without a label are left out.

    Returns:
        One {"path", "label", "predicted", "probability"} for each; equal probabilities keep the order of the images.
    """
    if not len(predictions):
        return []
    y_pred = predictions.y_pred
    top = predictions.probs[np.arange(len(predictions)), y_pred]
    wrong = np.flatnonzero((predictions.y_true >= 0) & (predictions.y_true != y_pred))
    return [
        {
            "path": predictions.paths[i],
            "label": predictions.classes[predictions.y_true[i]],
            "predicted": predictions.classes[y_pred[i]],
            "probability": float(top[i]),
        }
        for i in wrong[np.argsort(-top[wrong], kind="stable")]
    ]


def confused_pairs(confusion: Sequence[Sequence[int]], classes: Sequence[str], limit: int = 20) -> list[dict[str, Any]]:
    """Return the most frequently confused pairs of classes with their counts and their share of the true class.

    Args:
        confusion: k × k counts, rows: true class, columns: predicted class.
        classes: k class names.
        limit: Maximum number of pairs.

    Returns:
        One {"label", "predicted", "n", "share"} for each pair, the most frequent first.
    """
    counts = np.array(confusion, dtype=np.int64).reshape(len(classes), len(classes))
    totals = counts.sum(axis=1)
    off = counts.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:limit]
    pairs = [divmod(int(flat), len(classes)) for flat in order]
    return [
        {"label": classes[r], "predicted": classes[c], "n": int(off[r, c]), "share": float(off[r, c] / totals[r])}
        for r, c in pairs
        if off[r, c]
    ]
