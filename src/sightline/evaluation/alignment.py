"""Predictions of several classifiers for the same images: one order, disagreements and agreement counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.errors import DataError
from sightline.records import Predictions
from sightline.records.comparison import AgreementCounts, ComparedPrediction, Disagreement


@dataclass(frozen=True, slots=True)
class NamedPredictions:
    """Predictions of one classifier with a key for each image.

    Args:
        name: Name for people, unique in the comparison.
        answers: Predictions of n images.
        keys: n unique keys; a key means the same image for every classifier.
    """

    name: str
    answers: Predictions
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Predictions of several classifiers for the same n images in the same order.

    Args:
        names: Names of the m classifiers.
        keys, paths, labels: Of the n images; paths as in the first classifier's predictions.
        answers: m predictions, each in the order of `paths`.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    answers: tuple[Predictions, ...]

    @property
    def right(self) -> np.ndarray:
        """Whether each classifier predicts each image correctly, bool (m, n)."""
        return np.array([[a == b for a, b in zip(each.labels, self.labels, strict=True)] for each in self.answers], dtype=bool)


def align(models: Sequence[NamedPredictions]) -> Aligned:
    """Bring the predictions of several classifiers for the same images into one order.

    Raises:
        DataError: If the images differ, an image occurs twice, has no label or one that is not a class of every classifier, or
            the labels disagree.
    """
    rows = [{key: i for i, key in enumerate(model.keys)} for model in models]
    for model, index in zip(models, rows, strict=True):
        if len(index) < len(model.keys):
            twice = next(k for i, k in enumerate(model.keys) if index[k] != i)
            raise DataError(f"{model.name} has more than one prediction for {twice}", "keep one row per image")
    _check_same_images(models, rows)
    keys = models[0].keys
    orders = [np.array([index[k] for k in keys], dtype=np.int64) for index in rows]
    ordered = tuple(model.answers.select(order) for model, order in zip(models, orders, strict=True))
    labels = _labels(models, ordered)
    return Aligned(tuple(model.name for model in models), keys, ordered[0].paths, labels, ordered)


def _check_same_images(models: Sequence[NamedPredictions], rows: Sequence[dict[str, int]]) -> None:
    """Check that all classifiers predicted the same images.

    Raises:
        DataError: If they did not; the message counts the images in both and in one alone.
    """
    first = models[0]
    for model, index in zip(models[1:], rows[1:], strict=True):
        only_first = [first.answers.paths[i] for k, i in rows[0].items() if k not in index]
        only_other = [model.answers.paths[i] for k, i in index.items() if k not in rows[0]]
        if not only_first and not only_other:
            continue
        shared = len(first.keys) - len(only_first)
        parts = [
            f"{len(missing):,} only in {name} (such as {missing[0]})"
            for name, missing in ((first.name, only_first), (model.name, only_other))
            if missing
        ]
        raise DataError(
            f"{first.name} ({len(first.keys):,} images) and {model.name} ({len(model.keys):,}) predicted different images: "
            f"{shared:,} in both, {' and '.join(parts)}",
            "score them on the same images: sightline compare A B --catalog CATALOG",
        )


def _labels(models: Sequence[NamedPredictions], ordered: Sequence[Predictions]) -> tuple[str, ...]:
    """Return the label of every image, from any of the predictions that has it.

    Raises:
        DataError: If labels disagree, an image has none, or one that is not a class of every classifier.
    """
    labels: list[str | None] = [None] * len(ordered[0])
    source = [""] * len(labels)
    for model, answers in zip(models, ordered, strict=True):
        for i, y in enumerate(answers.y_true.tolist()):
            if y < 0:
                continue
            label = answers.classes[y]
            if labels[i] is not None and labels[i] != label:
                message = f"the labels of {answers.paths[i]} differ: {labels[i]!r} in {source[i]}, {label!r} in {model.name}"
                raise DataError(message, "score both with the same labels")
            if labels[i] is None:
                labels[i], source[i] = label, model.name
    missing = [ordered[0].paths[i] for i, label in enumerate(labels) if label is None]
    if missing:
        message = f"{len(missing):,} images have no label, or one that is not a class of any table, such as {missing[0]}"
        raise DataError(message, "name a labelled set with --catalog, or add the column label")
    for model in models:
        unknown = [label for label in labels if label not in model.answers.classes]
        if unknown:
            classes = ", ".join(repr(c) for c in model.answers.classes[:8])
            raise DataError(
                f"{len(unknown):,} images have labels such as {unknown[0]!r}, which is not a class of {model.name}: {classes}",
                "name its columns p:CLASS with the spelling of the labels, or compare on images of its classes",
            )
    return tuple(str(label) for label in labels)


def disagreements(aligned: Aligned) -> list[Disagreement]:
    """Return the images for which the predictions differ, the most confident errors first.

    Images that some classifiers predict correctly and others do not come before those that all predict wrongly.
    """
    predicted = [each.labels for each in aligned.answers]
    confidence = [each.probs.max(axis=1) if each.threshold is None else _predicted_probs(each) for each in aligned.answers]
    right = aligned.right
    rows = [i for i in range(len(aligned.paths)) if len({labels[i] for labels in predicted}) > 1]
    mixed: np.ndarray = np.asarray(right.any(axis=0) & ~right.all(axis=0))
    worst = {i: max((float(p[i]) for p, r in zip(confidence, right[:, i], strict=True) if not r), default=0.0) for i in rows}
    rows.sort(key=lambda i: (not mixed[i], -worst[i], aligned.paths[i]))
    return [
        Disagreement(
            aligned.paths[i],
            aligned.labels[i],
            [
                ComparedPrediction(name, labels[i], float(p[i]), bool(r))
                for name, labels, p, r in zip(aligned.names, predicted, confidence, right[:, i], strict=True)
            ],
        )
        for i in rows
    ]


def _predicted_probs(predictions: Predictions) -> np.ndarray:
    """Return the probability of each predicted class, float64 (n,)."""
    return np.asarray(predictions.probs[np.arange(len(predictions)), predictions.y_pred])


def patterns(aligned: Aligned) -> AgreementCounts:
    """Return the number of images that all, some, and none of the classifiers predict correctly.

    Example:
        >>> one = Predictions(("1", "2"), ("x", "y"), np.array([0, 0]), np.array([[1.0, 0], [0, 1.0]]))
        >>> patterns(Aligned(("a", "b"), ("1", "2"), ("1", "2"), ("x", "x"), (one, one)))
        AgreementCounts(all=1, some=0, none=1)
    """
    count = aligned.right.sum(axis=0)
    k = len(aligned.names)
    return AgreementCounts(int((count == k).sum()), int(((count > 0) & (count < k)).sum()), int((count == 0).sum()))
