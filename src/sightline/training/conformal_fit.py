"""What a chosen classifier knows of its own limits: the last thing that is fitted, after crops, mean and temperature."""

from __future__ import annotations

import dataclasses

import numpy as np

from sightline.classifier import Classifier
from sightline.evaluation import conformal, out_of_distribution
from sightline.records import Uncertainty
from sightline.store import stream
from sightline.training.context import UNBALANCED, Candidate, Context

MOST_ANSWERS = 20_000
"""Held-out answers that sets are calibrated on; of more, so many are drawn."""
MOST_IMAGES = 4_000
"""Images that a bar for distances is sought on; of more, so many are drawn."""


def with_uncertainty(context: Context, candidate: Candidate) -> Candidate:
    """The candidate with what its sets and distances are measured by, from images that it was held out from.

    Args:
        work: With the images that it was made from; nothing of the test split is looked at.
        candidate: Calibrated: its held-out answers are those that its classifier would give.
    """
    y, probs = candidate.val.y_true, candidate.val.probs
    known = np.flatnonzero(y >= 0)
    if len(known) > MOST_ANSWERS:
        known = np.sort(stream(0, "calibration").permutation(known)[:MOST_ANSWERS])
    scores, labels = conformal.nonconformity(probs[known], y[known]), y[known].astype(np.int32)
    facts = Uncertainty(len(known), candidate.estimate, _by_class(labels, len(candidate.val.classes)))
    y_pred = candidate.val.y_pred[known]
    arrays = {"scores": scores, "labels": labels, "answers": probs[known, y_pred], "right": (y_pred == labels).astype(np.uint8)}
    made = dataclasses.replace(
        candidate.classifier, card=dataclasses.replace(candidate.classifier.card, limits=facts), limits=arrays
    )
    return dataclasses.replace(candidate, classifier=_with_distances(context, made))


def _by_class(labels: np.ndarray, classes: int) -> bool:
    """Whether sets promise something for each class: where one has many times another's images, and all have enough."""
    counts = np.bincount(labels, minlength=classes)
    return bool(counts.max(initial=0) > UNBALANCED * counts.min() and counts.min() >= conformal.needed(conformal.COVERAGE))


def _with_distances(context: Context, made: Classifier) -> Classifier:
    """The classifier with directions of training images, and the bar beyond which an image is unlike them.

    The bar comes from images that the features were not fitted on: of a network that learnt here the validation images, of any
    other all images, each compared with those that are not of its cluster.
    """
    learnt = made.embedding_model.card.backbone.weights == "run"
    if (
        learnt and "refit" in made.embedding_model.card.data
    ):  # the network learnt from val too: no image is left to measure distances on
        return made
    trained = _in_turn(context, context.split("train") if learnt else context.split("train", "val"))
    asked = np.union1d(trained, context.split("val")[:MOST_IMAGES]) if learnt else trained
    chosen = context.catalog.rows(np.isin(np.arange(len(context.catalog)), asked).tolist())
    found = made.embed(chosen, cache=context.cache, device=context.device, progress=context.progress)
    if not found.values.shape[1]:
        return made
    ok = found.ok
    place = {int(row): i for i, row in enumerate(np.sort(asked))}
    kept = [row for row in trained if ok[place[int(row)]]][: out_of_distribution.MOST_KEPT]
    held = [int(r) for r in (context.split("val")[:MOST_IMAGES] if learnt else np.sort(trained)) if ok[place[int(r)]]]
    if not kept or not held:
        return made
    bank = out_of_distribution.directions(found.values[[place[int(r)] for r in kept]]).astype(np.float16)
    rows = out_of_distribution.directions(found.values[[place[r] for r in held]])
    away = out_of_distribution.distances(bank, rows, context.cluster[held][:, None] == context.cluster[kept][None, :])
    bar = out_of_distribution.ood_threshold(away)
    if bar is None:
        return made
    count = int(np.isfinite(away).sum())
    limits = dataclasses.replace(made.card.limits, unlike_bar=bar, unlike_rate=out_of_distribution.RATE, unlike_images=count)
    card = dataclasses.replace(made.card, limits=limits)
    return dataclasses.replace(made, card=card, limits={**made.limits, "bank": bank})


def _in_turn(context: Context, rows: np.ndarray) -> np.ndarray:
    """Rows in an order drawn by chance in which the classes take turns, so that the first of them stand for all; cut short."""
    drawn = stream(0, "bank").permutation(rows)
    turns: dict[int, int] = {}
    rank = []
    for label in context.labels[drawn].tolist():
        turns[label] = turns.get(label, -1) + 1
        rank.append(turns[label])
    return np.asarray(drawn[np.argsort(rank, kind="stable")][:MOST_IMAGES])
