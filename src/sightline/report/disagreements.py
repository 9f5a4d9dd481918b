"""Disagreements of several classifiers: the images for which their predictions differ, as cards and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sightline.errors import DataError
from sightline.evaluation import alignment
from sightline.evaluation.alignment import NamedPredictions
from sightline.records import Predictions, Run
from sightline.records.comparison import Disagreement
from sightline.report import curves, headline
from sightline.report.format import short, sure
from sightline.report.images import Album, Picture

MOST_CARDS = 60
MOST_LINES = 200
SIDE_PX = 240


def view(
    rows: Sequence[Disagreement], pictures: Sequence[Picture | None], labels: Mapping[str, str], table: str = ""
) -> dict[str, Any]:
    """Return the template variables of a list of disagreements.

    Args:
        rows: All of them, the most important first.
        pictures: Pictures of the first ones, at most `MOST_CARDS`; images without a picture are listed in the table.
        labels: Name of each classifier → label in the list.
        table: File that lists all disagreements; "" if there is none.
    """
    shown = [picture is not None for picture in pictures] + [False] * (len(rows) - len(pictures))
    cards = [{**_line(row, labels), "picture": p} for row, p in zip(rows, pictures, strict=False) if p is not None]
    others = [row for row, there in zip(rows, shown, strict=True) if not there]
    return {
        "total": len(rows),
        "cards": cards,
        "lines": [_line(row, labels) for row in others[:MOST_LINES]],
        "left_out": max(0, len(others) - MOST_LINES),
        "table": table,
    }


def of_runs(runs: Sequence[Run], names: Sequence[str], album: Album) -> dict[str, Any] | None:
    """Return the disagreements of several runs on the images that all of them were scored on; None if there are no such images.

    Args:
        runs: At least two runs.
        names: A unique name of each.
        album: Reads the thumbnails that the runs stored.
    """
    if len({run.record.root for run in runs}) > 1:
        return None
    tables = [_scored(run) for run in runs]
    shared = set.intersection(*(set(t.paths) if t is not None else set() for t in tables))
    if not shared:
        return None
    kept = [t.select(np.array([p in shared for p in t.paths], dtype=bool)) for t in tables if t is not None]
    try:
        aligned = alignment.align([NamedPredictions(n, t, t.paths) for n, t in zip(names, kept, strict=True)])
    except DataError:  # other labels, or an image with two rows
        return None
    rows = alignment.disagreements(aligned)
    return {**view(rows, _pictures(runs, rows[:MOST_CARDS], album), {n: n for n in names}), "images": len(shared)}


def _scored(run: Run) -> Predictions | None:
    """Return the predictions that a run was scored on; None if they cannot be read."""
    where, score = headline.scored(run.record)
    name = where if where == "test" else run.record.predictions_in or where
    return curves.read_answers(run.folder / "predictions" / f"{name}.csv") if score else None


def _pictures(runs: Sequence[Run], rows: Sequence[Disagreement], album: Album) -> list[Picture | None]:
    """Return the thumbnail of each image from the first run that stored one."""
    found: dict[str, Picture] = {}
    for run in runs:
        record = run.record
        files = {e.path: e.photo for e in record.explanations} | {h.path: h.thumbnail for h in record.held_out_images}
        files |= {m.path: m.thumbnail for m in record.mistakes if m.thumbnail}
        paths = [row.path for row in rows if row.path not in found and files.get(row.path)]
        pictures = zip(paths, album.read(run.folder, [files[path] for path in paths], SIDE_PX), strict=True)
        found |= {path: picture for path, picture in pictures if picture is not None}
    return [found.get(row.path) for row in rows]


def _line(row: Disagreement, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return path, label and all predictions of an image."""
    answers = [
        {
            "run": short(labels[a.name], 24),
            "predicted": short(a.predicted, 30),
            "sure": sure(a.probability),
            "right": a.right,
        }
        for a in row.predictions
    ]
    return {"path": short(row.path, 90), "label": short(row.label, 40), "answers": answers}
