"""Pretraining overlap: which of the user's classes a network's own classifier already knows, and under which name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline import evaluation
from sightline.records.audit import KnownClass, PretrainingOverlap

KNOWN_AUC = 0.9
"""ROC AUC from which a class counts as known."""
_MOST_NAMES = 3


def pretraining_overlap(
    logits: np.ndarray,
    names: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    fitted: np.ndarray,
    measured: np.ndarray,
    network: str,
) -> PretrainingOverlap:
    """Map the network's own classes to the user's, and measure the mapping on images that it was not fitted on.

    Each of the network's classes stands for the user's class in whose images it is most probable.

    Args:
        logits: float (n, m), of the network's own classifier.
        names: Its m class names.
        labels: int64 (n,), the user's class indices; -1 for none.
        classes: The user's k class names.
        fitted, measured: int64 rows on which the mapping is fitted and measured, such as train and val.
        network: Name of the network.
    """
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = shifted / shifted.sum(axis=1, keepdims=True)
    k = len(classes)
    mean = np.stack([_mean(probs[fitted[labels[fitted] == c]], len(names)) for c in range(k)])
    owner = mean.argmax(axis=0)
    scores = np.stack([probs[:, owner == c].sum(axis=1) for c in range(k)], axis=1)
    held = measured[labels[measured] >= 0]
    known = []
    for c, name in enumerate(classes):
        own = np.where((owner == c) & (mean[c] > 0.01), mean[c], 0)
        best = [int(j) for j in np.argsort(-own, kind="stable")[:_MOST_NAMES] if own[j]]
        target = labels[held] == c
        area = evaluation.auc(target, scores[held, c]) if 0 < target.sum() < len(held) else None
        known.append(KnownClass(name, ", ".join(names[j] for j in best) or None, area))
    accuracy = float((scores[held].argmax(axis=1) == labels[held]).mean()) if len(held) else None
    return PretrainingOverlap(known, accuracy, network, len(held), _sentence(known, accuracy, network, len(held)))


def _mean(probs: np.ndarray, width: int) -> np.ndarray:
    return np.asarray(probs.mean(axis=0)) if len(probs) else np.zeros(width)


def _sentence(known: Sequence[KnownClass], accuracy: float | None, network: str, images: int) -> str:
    """Return the overlap in plain words."""
    sure = [c for c in known if c.auc is not None and c.auc >= KNOWN_AUC]
    listed = "; ".join(f"{c.label} as {c.known_as} (ROC AUC {c.auc:.2f})" for c in sure[:5])
    more = f" and {len(sure) - 5:,} more" if len(sure) > 5 else ""
    number = f"{len(sure):,}" if sure else "none"
    first = f"{network} already knows {number} of the {len(known):,} classes from its pretraining"
    first += f": {listed}{more}." if sure else "."
    if accuracy is None:
        return first
    return (
        f"{first} Choosing by its own classes, without any training, is right for {accuracy:.0%} of {images:,} held-out "
        "images. This tells about the classes, not whether these images were in the pretraining."
    )
