"""Label errors are ranked first, by the images of other clusters alone, and few are named on clean sets."""

from __future__ import annotations

import numpy as np

from sightline.audit.label_errors import label_suspects


def blobs(n: int, classes: int = 3, spread: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Features of overlapping classes, and their labels."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    centres = rng.normal(size=(classes, 32))
    return (centres[y] + spread * rng.normal(size=(n, 32))).astype(np.float32), y


def test_changed_labels_come_first_with_their_true_class_suggested() -> None:
    x, y = blobs(240)
    changed = np.arange(0, 240, 24)
    wrong = y.copy()
    wrong[changed] = (y[changed] + 1) % 3
    found = label_suspects(x, wrong, 3)
    assert set(found.order[:10].tolist()) == set(changed.tolist())
    assert (found.suggested[changed] == y[changed]).all()
    assert found.likely[changed].mean() > 0.8 and found.likely.sum() <= 11
    assert not label_suspects(x, y, 3).likely.any()


def test_classes_that_features_do_not_separate_have_no_likely_errors() -> None:
    x = np.random.default_rng(1).normal(size=(300, 16)).astype(np.float32)
    assert not label_suspects(x, np.arange(300) % 2, 2).likely.any()


def test_duplicates_do_not_vouch_for_each_other() -> None:
    x, y = blobs(120)
    x, y = np.concatenate([x, np.repeat(x[:1], 8, axis=0)]), np.concatenate([(y), np.full(8, 1)])
    y[0] = 1  # nine copies of one image of class 0, all labelled 1
    cluster = np.arange(len(y))
    cluster[120:] = 0
    alone, together = label_suspects(x, y, 3), label_suspects(x, y, 3, cluster)
    assert together.score[0] > 0.3 > alone.score[0]


def test_images_without_features_or_label_and_tiny_classes_are_not_judged() -> None:
    x, y = blobs(60)
    x[3], y[4] = np.nan, -1
    y[5] = 3  # a class with one image
    found = label_suspects(x, y, 4)
    assert np.isnan(found.score[[3, 4]]).all() and len(found.order) == 58
    assert not found.likely[5]
