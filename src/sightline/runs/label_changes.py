"""Changed labels: the score of a classifier under the labels that its run knew and under the present ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sightline import catalog as catalogs
from sightline import evaluation
from sightline.errors import SightlineError
from sightline.records import Catalog, Predictions
from sightline.records.error_analysis import LabelChanges, RelabelledImage
from sightline.runs.folder import MOST_LISTED


def known_labels(subject: Path) -> dict[str, str]:
    """Return content → label of the images of a run; {} if its catalog is missing or unreadable.

    Args:
        subject: Run folder, or a file in it.
    """
    file = (subject if subject.is_dir() else subject.parent) / "catalog.csv"
    if not file.is_file() or not (file.parent / "run.json").is_file():
        return {}
    try:
        known = catalogs.load(file)
    except SightlineError:
        return {}
    pairs = zip(known.column("content"), known.column("label"), strict=True)
    return {content: label for content, label in pairs if content and label is not None}


def label_changes(
    answers: Predictions, images: Catalog, old: Mapping[str, str], groups: np.ndarray, positive: str | None
) -> LabelChanges | None:
    """Return the score under old and new labels; None if no label differs.

    Args:
        answers: Predictions of n images, with their present labels.
        images: Holds these images.
        old: Content → label at the time of the run.
        groups: int64 (n,), clusters of images that belong together.
        positive: Positive class of two.
    """
    contents = dict(zip(images.paths, images.column("content"), strict=True))
    before = [old.get(contents[path] or "") for path in answers.paths]
    index = {name: i for i, name in enumerate(answers.classes)}
    rows = np.array([i for i, label in enumerate(before) if label in index], dtype=np.int64)
    new = answers.select(rows)
    labels = np.array([index[str(before[i])] for i in rows], dtype=np.int64)
    changed = np.flatnonzero(labels != new.y_true)
    if not len(changed):
        return None
    was = dataclasses.replace(new, y_true=labels)
    scores = [
        (float((each.y_pred == each.y_true).mean()), *evaluation.accuracy_interval(each, groups[rows], positive=positive))
        for each in (was, new)
    ]
    listed = [
        RelabelledImage(new.paths[i], answers.classes[labels[i]], answers.classes[new.y_true[i]]) for i in changed[:MOST_LISTED]
    ]
    return LabelChanges(len(changed), len(rows), *scores[0], *scores[1], images=listed)
