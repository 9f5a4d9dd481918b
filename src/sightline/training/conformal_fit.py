"""Uncertainty: calibrate conformal prediction sets and the out-of-distribution threshold of the chosen classifier."""

from __future__ import annotations

import dataclasses

import numpy as np

from sightline import features
from sightline.classifier import Classifier
from sightline.engine import Session
from sightline.evaluation import conformal, out_of_distribution
from sightline.records import Backbone, Preprocess, Uncertainty
from sightline.store import stream
from sightline.training.context import UNBALANCED, Candidate, Context

MOST_ANSWERS = 20_000
"""Largest number of held-out predictions for calibrating prediction sets; of more, a random sample is used."""
MOST_MEASURED = 500
"""Number of images whose brightness, size and quality are kept, to notice drift later."""
MOST_IMAGES = 4_000
"""Largest number of images for the out-of-distribution threshold; of more, a random sample is used."""


def with_uncertainty(context: Context, candidate: Candidate) -> Candidate:
    """Return the candidate with calibrated prediction sets and an out-of-distribution threshold, from held-out images.

    Args:
        context: Holds the images of train and val; the test split is not used.
        candidate: Candidate after temperature scaling, so that its held-out predictions are those of its classifier.
    """
    y, probs = candidate.val.y_true, candidate.val.probs
    known = np.flatnonzero(y >= 0)
    if len(known) > MOST_ANSWERS:
        known = np.sort(stream(0, "calibration").permutation(known)[:MOST_ANSWERS])
    scores, labels = conformal.nonconformity(probs[known], y[known]), y[known].astype(np.int32)
    facts = Uncertainty(len(known), candidate.estimate, _by_class(labels, len(candidate.val.classes)))
    y_pred = candidate.val.y_pred[known]
    arrays = {"scores": scores, "labels": labels, "answers": probs[known, y_pred], "right": (y_pred == labels).astype(np.uint8)}
    arrays |= {"predicted": y_pred.astype(np.int32), **_statistics(context)}
    made = dataclasses.replace(
        candidate.classifier, card=dataclasses.replace(candidate.classifier.card, uncertainty=facts), limits=arrays
    )
    return dataclasses.replace(candidate, classifier=_with_distances(context, made))


def _statistics(context: Context) -> dict[str, np.ndarray]:
    """Return `statistics`, float32 (m, 5): `FILE_FEATURES` of a random sample of the images of train and val."""
    rows = stream(0, "image statistics").permutation(context.split("train", "val"))[:MOST_MEASURED]
    sample = context.catalog.rows(np.isin(np.arange(len(context.catalog)), rows).tolist())
    backbone = Backbone("file", "file", Preprocess(), len(features.FILE_FEATURES))
    measured = features.extract(
        sample.files(), sample.column("content"), backbone, session=_no_network, precision="f32", cache=context.cache
    )
    return {"statistics": measured.values[measured.ok]}


def _no_network(count: int) -> Session:
    raise AssertionError("file features need no network")


def _by_class(labels: np.ndarray, classes: int) -> bool:
    """Return whether sets are calibrated per class: for imbalanced classes that all have enough images."""
    counts = np.bincount(labels, minlength=classes)
    return bool(counts.max(initial=0) > UNBALANCED * counts.min() and counts.min() >= conformal.needed(conformal.COVERAGE))


def _with_distances(context: Context, made: Classifier) -> Classifier:
    """Return the classifier with directions of training features and the out-of-distribution threshold.

    The threshold comes from images that the network was not trained on: the validation images of a network trained here, else
    all images, each compared with those outside its cluster.
    """
    trained_here = made.embedding_model.card.backbone.weights == "run"
    if (
        trained_here and "refit" in made.embedding_model.card.data
    ):  # the network was trained on val too: no image is left to measure distances on
        return made
    trained = _in_turn(context, context.split("train") if trained_here else context.split("train", "val"))
    embedded = np.union1d(trained, context.split("val")[:MOST_IMAGES]) if trained_here else trained
    chosen = context.catalog.rows(np.isin(np.arange(len(context.catalog)), embedded).tolist())
    embedded_features = made.embed(chosen, cache=context.cache, device=context.device, progress=context.progress)
    if not embedded_features.values.shape[1]:
        return made
    ok = embedded_features.ok
    place = {int(row): i for i, row in enumerate(np.sort(embedded))}
    bank_rows = [row for row in trained if ok[place[int(row)]]][: out_of_distribution.MOST_KEPT]
    held_rows = [
        int(r) for r in (context.split("val")[:MOST_IMAGES] if trained_here else np.sort(trained)) if ok[place[int(r)]]
    ]
    if not bank_rows or not held_rows:
        return made
    bank = out_of_distribution.directions(embedded_features.values[[place[int(r)] for r in bank_rows]]).astype(np.float16)
    rows = out_of_distribution.directions(embedded_features.values[[place[r] for r in held_rows]])
    away = out_of_distribution.distances(bank, rows, context.cluster[held_rows][:, None] == context.cluster[bank_rows][None, :])
    threshold = out_of_distribution.ood_threshold(away)
    if threshold is None:
        return made
    count = int(np.isfinite(away).sum())
    facts = dataclasses.replace(
        made.card.uncertainty, ood_threshold=threshold, ood_rate=out_of_distribution.RATE, ood_images=count
    )
    card = dataclasses.replace(made.card, uncertainty=facts)
    return dataclasses.replace(made, card=card, limits={**made.limits, "bank": bank})


def _in_turn(context: Context, rows: np.ndarray) -> np.ndarray:
    """Return at most `MOST_IMAGES` rows in random order with alternating classes, so that the first rows cover all classes."""
    drawn = stream(0, "bank").permutation(rows)
    turns: dict[int, int] = {}
    rank = []
    for label in context.labels[drawn].tolist():
        turns[label] = turns.get(label, -1) + 1
        rank.append(turns[label])
    return np.asarray(drawn[np.argsort(rank, kind="stable")][:MOST_IMAGES])
