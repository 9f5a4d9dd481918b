"""Error analysis: misclassified images by confidence, by pair of classes, or by slice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import evaluation
from sightline.classifier import Classifier
from sightline.commands.evaluate import Answered, answers_of, in_training, match, subject_name, training_caution
from sightline.errors import RequestError, unknown
from sightline.inputs import read_predictions
from sightline.records import Catalog, Predictions, Progress, Run, silent
from sightline.runs import folder as folders
from sightline.runs import test_set_log
from sightline.runs.error_analysis import by_slice, columns_of
from sightline.schema import to_json
from sightline.store import Cache

_Own = tuple[Predictions, Catalog | None, Mapping[str, Any]]
"""Labelled predictions, all labelled images, and the stored results of the run."""

WAYS = ("confidence", "pair", "slice")


def mistakes(
    subject: str | Path | Classifier,
    catalog: str | Path | Catalog | None = None,
    *,
    by: str = "confidence",
    split: str | None = None,
    label_from: str | None = None,
    label_level: int | None = None,
    label_column: str | None = None,
    follow_links: bool | None = None,
    crops: int | None = None,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> list[dict[str, Any]]:
    """Return misclassified images, or where errors cluster.

    Args:
        subject: Classifier, run folder, classifier file, or a CSV with the columns `path` and `p:CLASS`.
        catalog: Labelled images; None uses the images scored by the run, or the labels in the table.
        by: `confidence`: every mistake, most confident first. `pair`: counts of label and prediction. `slice`: every slice of
            every column, worst first. A column name: the slices of that column.
        split, label_from, label_level, label_column, follow_links, crops, code, device, progress, cache: As in `evaluate`.

    Returns:
        As `evaluation.mistakes` (those of a run with `nearest`), {"label", "predicted", "n", "share", "paths"} for each pair,
        or as `evaluation.slices.slices`. A warning is logged if images were used to fit the classifier.

    Raises:
        RequestError: If the subject, the catalog or the column does not exist, or there are no labelled images.
    """
    cache = Cache() if cache is None else cache
    if catalog is not None:
        which = {"split": split, "label_from": label_from, "label_column": label_column, "crops": crops, "code": code}
        which |= {"label_level": label_level, "follow_links": follow_links}
        found = answers_of(subject, catalog, **which, device=device, progress=progress, cache=cache)  # type: ignore[arg-type]
        if found.scored not in ("train", "val"):
            _count(found, subject_name(subject), crops)
        caution = training_caution(found.predictions)
        catalogs.warn([] if caution is None else [f"CAUTION: {caution}"])
        own: _Own = (found.predictions, found.labelled, {})
    elif isinstance(subject, Classifier):
        raise RequestError("a classifier in memory has no labelled images of its own", "pass the labelled catalog as well")
    else:
        own = _own(Path(subject), by)
    answers, rows, kept = own
    if by == "confidence":
        return kept.get("mistakes") or evaluation.mistakes(answers)
    if by == "pair":
        return by_pair(answers)
    if rows is None:
        raise RequestError(f"a table of predictions has no images for slices by {by}", "name the labelled CATALOG as well")
    usable = rows.usable()
    names = list(columns_of(usable.rows([False] * len(usable)), cache))
    if by not in ("slice", *names):
        raise unknown("way to list mistakes by", by, [*WAYS, *names])
    found_slices: list[dict[str, Any]] = kept.get("slices") or []
    if not found_slices:
        duplicates = catalogs.find_duplicates(rows, cache=cache, progress=progress)
        groups = folders.clusters_of(rows, catalogs.together(rows, duplicates), answers)
        found_slices = [to_json(row) for row in by_slice(answers, usable, groups, cache, progress)[0]]
    return [row for row in found_slices if by in ("slice", row["column"])]


def _own(subject: Path, by: str) -> _Own:
    """Return the stored labelled predictions of a subject, their images, and the results of the run.

    Raises:
        RequestError: If there are none.
    """
    if subject.suffix.lower() == ".csv":
        answers = read_predictions(subject)
        if not (answers.y_true >= 0).any():
            raise RequestError(f"{subject} has no labels", "name the labelled CATALOG as well")
        return answers, None, {}
    if subject.is_file():
        raise RequestError(f"{subject} is a classifier without labelled images", "name the labelled CATALOG, or the run folder")
    run = Run.load(subject)
    if by == "confidence":
        return Predictions((), (), np.zeros(0, np.int64), np.zeros((0, 0))), None, run.data
    file = subject / "predictions" / f"{run.data.get('mistakes_in') or 'test'}.csv"
    if not file.is_file():
        raise RequestError(f"{file} does not exist", "name the labelled CATALOG as well")
    answers = read_predictions(file)
    if by == "pair":
        return answers, None, {}
    rows = catalogs.load(subject / "catalog.csv")
    return match(answers, rows), rows, {"slices": run.data.get("slices")}


def _count(found: Answered, subject: str, crops: int | None) -> None:
    """Record the use of images not used for training in the test-set log."""
    unseen = ~in_training(found.predictions)
    test_set_log.look(found.predictions, found.contents, unseen, found.model, verb="mistakes", by=subject, crops=crops)


def by_pair(answers: Predictions) -> list[dict[str, Any]]:
    """Return the confused pairs of classes, most frequent first, with image paths, most confident first."""
    answers = answers.select(answers.y_true >= 0)
    classes = answers.classes
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (answers.y_true, answers.y_pred), 1)
    paths: dict[tuple[str, str], list[str]] = {}
    for mistake in evaluation.mistakes(answers):
        paths.setdefault((mistake["label"], mistake["predicted"]), []).append(mistake["path"])
    pairs = evaluation.confused_pairs(confusion.tolist(), classes, len(classes) ** 2)
    return [{**pair, "paths": paths[pair["label"], pair["predicted"]]} for pair in pairs]
