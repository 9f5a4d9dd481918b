"""Error analysis of a run: nearest training images of mistakes, slices with more errors, and uncertainty."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline import evaluation
from sightline.catalog.statistics import STATISTICS, statistics
from sightline.classifier import Classifier
from sightline.evaluation import conformal
from sightline.evaluation.slices import slices
from sightline.explanation import similar_images
from sightline.records import CATALOG_COLUMNS, Catalog, Predictions, Progress, silent
from sightline.records.error_analysis import (
    Mistake,
    OutOfDistributionScore,
    PredictionSetScore,
    SliceScore,
    UncertaintySummary,
    UnsureScore,
)
from sightline.runs.record import ErrorAnalysis
from sightline.schema import from_json
from sightline.store import Cache, plain

MOST_MEMBERSHIPS = 20
"""Slices, the worst first, whose misclassified images are recorded."""
_OWN_COLUMNS = ("group", "format", "mode")


def describe(
    folder: Path,
    model: Classifier | None,
    answers: Predictions,
    rows: Catalog,
    training: Catalog | None,
    groups: np.ndarray,
    *,
    held_out: bool,
    cache: Cache,
    device: str = "auto",
    progress: Progress = silent,
) -> ErrorAnalysis:
    """Return mistakes, slices and uncertainty, and write thumbnails.

    Args:
        folder: The run folder.
        model: The classifier; None for a table of predictions.
        answers: Labelled predictions of n images.
        rows: Catalog with these images.
        training: The images used to fit the classifier; None if unknown.
        groups: int (n,), one number per cluster of images.
        held_out: Whether the images were not used for calibration either, so that the uncertainty can be measured on them.
        cache: Cache.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Progress callback.
    """
    found = without_images(model, answers, held_out=held_out)
    mistakes = found.mistakes
    if model is not None and training is not None and mistakes:
        mistakes = similar_images.with_nearest(
            folder, model, mistakes, rows, training, cache=cache, device=device, progress=progress
        )
    scores, members = by_slice(answers, rows, groups, cache, progress)
    mistakes = [dataclasses.replace(m, slices=members.get(m.path, [])) for m in mistakes]
    return dataclasses.replace(found, mistakes=mistakes, slices=scores)


def without_images(model: Classifier | None, answers: Predictions, *, held_out: bool) -> ErrorAnalysis:
    """Return mistakes and uncertainty, for which no image is read; arguments as in `describe`."""
    return ErrorAnalysis(mistakes_of(answers), uncertainty(model, answers) if model is not None and held_out else None)


def mistakes_of(answers: Predictions) -> list[Mistake]:
    """Return the misclassified images, the most confident first."""
    return [Mistake(**row) for row in evaluation.mistakes(answers)]


def columns_of(rows: Catalog, cache: Cache, progress: Progress = silent) -> dict[str, Sequence[Any]]:
    """Return the columns for slices: size, aspect ratio, image statistics, and all other columns of the table."""
    known = zip(rows.column("width"), rows.column("height"), strict=True)
    sides = [(w, h) if w and h else None for w, h in known]
    found: dict[str, Sequence[Any]] = {
        "size": [None if s is None else min(s) for s in sides],
        "aspect": [None if s is None else s[0] / s[1] for s in sides],
    }
    measured = statistics(rows.files(), [c or "" for c in rows.column("content")], cache, progress)
    found |= {name: measured[name].tolist() for name in STATISTICS}
    brought = [n for n in rows.table.column_names if n not in CATALOG_COLUMNS]
    return found | {name: rows.column(name) for name in (*_OWN_COLUMNS, *brought) if name in rows.table.column_names}


def by_slice(
    answers: Predictions, rows: Catalog, groups: np.ndarray, cache: Cache, progress: Progress = silent
) -> tuple[list[SliceScore], dict[str, list[int]]]:
    """Return `evaluation.slices` of labelled predictions, and path → slices that a misclassified image is in.

    Images of the same number in `groups` form a cluster. Slices are given by their indices, of the first `MOST_MEMBERSHIPS`.
    """
    labelled = answers.y_true >= 0
    answers, groups = answers.select(labelled), groups[labelled]
    place = {p: i for i, p in enumerate(rows.paths)}
    index = [place[p] for p in answers.paths]
    asked = dataclasses.replace(rows, table=rows.table.take(index))
    right, columns = answers.y_pred == answers.y_true, columns_of(asked, cache, progress)
    scores = [from_json(SliceScore, plain(row), "slices") for row in slices(right, columns, groups)]
    members = {
        answers.paths[i]: [k for k, score in enumerate(scores[:MOST_MEMBERSHIPS]) if _contains(score, columns[score.column][i])]
        for i in np.flatnonzero(~right).tolist()
    }
    return scores, members


def _contains(score: SliceScore, value: Any) -> bool:
    """Return whether an image with this value of the slice's column is in the slice."""
    if value is None or value == "":
        return False
    if score.value is not None:
        return str(value) == score.value
    try:
        number = float(value)
    except (TypeError, ValueError):  # a word for a missing value in a column of numbers
        return False
    return score.low is not None and score.high is not None and score.low <= number <= score.high


def uncertainty(model: Classifier, answers: Predictions) -> UncertaintySummary:
    """Measure prediction sets, uncertain predictions and OOD scores on labelled images not used for calibration."""
    card, fitted = model.card.uncertainty, model.uncertainty(answers)
    sets, unsure, why = None, None, None
    if fitted is None:
        needed = conformal.needed(conformal.COVERAGE)
        why = f"a promise of {conformal.COVERAGE:.0%} needs {needed} held-out images, and there were {card.images}"
    else:
        measured = conformal.measured(fitted.sets, answers.y_true)
        per_class = dict(zip(answers.classes, measured["per_class"], strict=True))
        sets = from_json(PredictionSetScore, {**plain(measured), "per_class": plain(per_class)}, "prediction sets")
        right = answers.y_pred == answers.y_true
        others = right[~fitted.unsure]
        low, high = evaluation.wilson(int(others.sum()), len(others))
        unsure = UnsureScore(
            n=int(fitted.unsure.sum()),
            accuracy=_share(right[fitted.unsure]),
            others=len(others),
            others_accuracy=_share(others),
            others_low=low,
            others_high=high,
        )
    return UncertaintySummary(
        coverage=conformal.COVERAGE,
        calibrated_on=card.fitted_on,
        images=card.images,
        by_class=card.by_class,
        sets=sets,
        unsure=unsure,
        out_of_distribution=_out_of_distribution(model, answers),
        why=why,
    )


def _out_of_distribution(model: Classifier, answers: Predictions) -> OutOfDistributionScore | None:
    """Return how many images are out of distribution; None if the classifier has no OOD detection."""
    if answers.ood_score is None or answers.ood_threshold is None:
        return None
    beyond = answers.ood_score > answers.ood_threshold
    return OutOfDistributionScore(
        n=int(beyond.sum()),
        total=len(beyond),
        threshold=answers.ood_threshold,
        held_out=model.card.uncertainty.ood_images,
        rate=model.card.uncertainty.ood_rate,
        pretrained=model.embedding_model.card.backbone.pretrained_on != "nothing",
    )


def _share(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
