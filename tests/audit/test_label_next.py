"""Images to label: every cluster first, then uncertain ones, and near duplicates once."""

from __future__ import annotations

import numpy as np

from sightline.audit.label_next import label_next


def clusters(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Features of well separated clusters, and their numbers."""
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(len(sizes)), sizes)
    centres = rng.normal(size=(len(sizes), 16))
    return (centres[number] + 0.15 * rng.normal(size=(len(number), 16))).astype(np.float32), number


def test_the_first_images_cover_every_cluster() -> None:
    x, number = clusters((80, 40, 10, 10))
    assert sorted(number[p.row] for p in label_next(x, 4)) == [0, 1, 2, 3]


def test_clusters_with_a_labelled_image_come_last() -> None:
    x, number = clusters((40, 40, 40))
    probs = np.full((len(x), 3), 1 / 3)
    first = label_next(x, 2, labelled=x[:1], probs=probs)
    assert {number[p.row] for p in first} == {1, 2}


def test_with_many_labels_uncertain_images_are_proposed() -> None:
    x, number = clusters((60, 60))
    probs = np.tile([0.99, 0.01], (120, 1))
    probs[number == 1] = [0.55, 0.45]
    proposals = label_next(x, 5, labelled=np.repeat(x[:1], 12, axis=0), probs=probs)
    assert number[proposals[0].row] == 1 and "uncertain" in proposals[0].reason


def test_near_duplicates_are_proposed_once() -> None:
    x, _ = clusters((6, 6))
    doubled = np.concatenate([x, x * 1.0001])
    group = np.concatenate([np.arange(12), np.arange(12)])
    assert len(label_next(doubled, 20, group=group)) <= 12
    same = label_next(np.repeat(x[:1], 9, axis=0), 5)
    assert len(same) == 1
