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
from sightline.store import Cache

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
) -> dict[str, Any]:
    """Return the keys `mistakes`, `slices` and `limits` of run.json, and write thumbnails.

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
    told = facts(model, answers, held_out=held_out)
    if model is not None and training is not None and told["mistakes"]:
        similar_images.add(folder, model, told["mistakes"], rows, training, cache=cache, device=device, progress=progress)
    return {**told, "slices": by_slice(answers, rows, groups, cache, progress)}


def facts(model: Classifier | None, answers: Predictions, *, held_out: bool) -> dict[str, Any]:
    """Return the keys `mistakes` and `limits` of run.json, for which no image is read; arguments as in `describe`."""
    told: dict[str, Any] = {"mistakes": evaluation.mistakes(answers)}
    if model is not None and held_out:
        told["limits"] = limits(model, answers)
    return told


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
) -> list[dict[str, Any]]:
    """Return `evaluation.slices` of labelled predictions; images of the same number in `groups` form a cluster."""
    labelled = answers.y_true >= 0
    answers, groups = answers.select(labelled), groups[labelled]
    place = {p: i for i, p in enumerate(rows.paths)}
    index = [place[p] for p in answers.paths]
    asked = dataclasses.replace(rows, table=rows.table.take(index))
    return slices(answers.y_pred == answers.y_true, columns_of(asked, cache, progress), groups)


def limits(model: Classifier, answers: Predictions) -> dict[str, Any]:
    """Measure prediction sets, uncertain predictions and OOD scores on labelled images not used for calibration.

    Returns:
        `coverage`, `calibrated_on`, `images`, `by_class`; `sets` (as `conformal.measured`) and `unsure`, or None and `why`; and
        `unlike` (OOD), None if unknown.
    """
    card, doubts = model.card.limits, model.uncertainty(answers)
    facts = {"calibrated_on": card.fitted_on, "images": card.images, "by_class": card.by_class}
    told: dict[str, Any] = {"coverage": conformal.COVERAGE, **facts, "sets": None, "unsure": None, "unlike": None}
    if doubts is None:
        needed = conformal.needed(conformal.COVERAGE)
        told["why"] = f"a promise of {conformal.COVERAGE:.0%} needs {needed} held-out images, and there were {card.images}"
    else:
        right = answers.y_pred == answers.y_true
        told["sets"] = conformal.measured(doubts.sets, answers.y_true)
        told["sets"]["per_class"] = dict(zip(answers.classes, told["sets"]["per_class"], strict=True))
        told["unsure"] = {"n": int(doubts.unsure.sum()), "accuracy": _share(right[doubts.unsure])}
        others = right[~doubts.unsure]
        low, high = evaluation.wilson(int(others.sum()), len(others))
        told["unsure"] |= {"others": len(others), "others_accuracy": _share(others), "others_low": low, "others_high": high}
    if answers.ood_score is not None and answers.ood_threshold is not None:
        beyond = answers.ood_score > answers.ood_threshold
        told["unlike"] = {"bar": answers.ood_threshold, "rate": card.unlike_rate, "images": card.unlike_images}
        told["unlike"] |= {"n": int(beyond.sum()), "of": len(beyond), "pretrained": _pretrained(model.embedding_model)}
    return told


def _pretrained(model: Classifier) -> bool:
    """Return whether the backbone was pretrained on other photographs."""
    return model.card.backbone.pretrained_on != "nothing"


def _share(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
