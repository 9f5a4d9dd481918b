"""Threshold section: what each decision threshold would give on held-out predictions, never on test predictions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sightline.records import Predictions, Run, RunRecord
from sightline.records.error_analysis import HeldOutImage
from sightline.report import svg, threshold_figures
from sightline.report.curves import labelled
from sightline.report.format import count, percent, short, sure
from sightline.report.images import Album

MOST_CLASSES = 200
_FINE, _COARSE = 200, 100
"""Steps of the threshold from 0 to 1: for few classes, and for more than 20."""
_THUMBNAIL_PX = 160
_MOST_PROBS = 5
"""Probabilities per held-out image in the page, the largest first; the others are taken as 0."""


def explorer(run: Run, record: RunRecord, answers: Predictions | None, album: Album) -> dict[str, Any] | None:
    """Return the template variables of the threshold section; None without labelled held-out predictions.

    Args:
        run: The run, whose folder holds thumbnails of held-out images.
        record: Its record.
        answers: The cross-validated or validation predictions.
        album: Reader of the thumbnails.
    """
    answers_of = labelled(answers)
    if answers is None or answers_of is None or record.kind == "evaluate":
        return None
    k = len(answers_of.classes)
    steps = _FINE if k <= 20 else _COARSE
    order = np.argsort(-np.bincount(answers_of.y_true, minlength=k), kind="stable")[:MOST_CLASSES]
    shown = sorted(int(i) for i in order)
    tables = {i: _counts(answers_of, i, steps) for i in shown}
    positive, saved = _start(answers_of, record, tables)
    totals = {i: [int((answers_of.y_true == i).sum()), int((answers_of.y_true != i).sum())] for i in shown}
    data: dict[str, Any] = {
        "steps": steps,
        "saved": saved,
        "positive": positive,
        "two": k == 2,
        "classes": [short(c, 60) for c in answers_of.classes],
        "counts": {str(i): t for i, t in tables.items()},
        "totals": {str(i): n for i, n in totals.items()},
        "frame": {"left": svg.LEFT, "right": svg.WIDTH - svg.RIGHT, "top": svg.TOP, "bottom": svg.HEIGHT - svg.BOTTOM},
        "rates": [threshold_figures.RATES[0], threshold_figures.RATES[-1]],
    }
    images = _images(run, record, answers, album)
    data["images"] = [image.pop("data") for image in images]
    return {
        "data": data,
        "classes": [(i, answers_of.classes[i]) for i in shown],
        "left_out": k - len(shown),
        "positive": positive,
        "name": answers_of.classes[positive],
        "rest": answers_of.classes[1 - positive] if k == 2 else "any other class",
        "saved": saved,
        "given": record.threshold is not None and record.threshold.value is not None,
        "step": 1 / steps,
        "n": count(len(answers_of)),
        "estimate": record.val_estimate or "validation",
        "start": _row(saved, steps, tables[positive], totals[positive]),
        "rows": [_row(t, steps, tables[positive], totals[positive]) for t in np.linspace(0.1, 0.9, 9)],
        "figures": _figures(tables[positive], totals[positive], round(saved * steps)),
        "images": images,
    }


def _start(answers: Predictions, record: RunRecord, tables: dict[int, Any]) -> tuple[int, float]:
    """Return index of the class that is positive at first, and the threshold that the classifier was saved with."""
    threshold = record.threshold
    name = (threshold.positive if threshold else None) or record.positive
    if name is None and record.val is not None:
        name = record.val.positive
    index = answers.classes.index(name) if name in answers.classes else min(tables)
    value = threshold.value if threshold and threshold.value is not None and len(answers.classes) == 2 else 0.5
    return (index if index in tables else min(tables)), float(min(max(value, 0.0), 1.0))


def _counts(answers: Predictions, index: int, steps: int) -> list[list[int]]:
    """Return the numbers of true and of false positives of a class at each threshold, which counts as positive itself."""
    grid = np.arange(steps + 1) / steps
    p, y = answers.probs[:, index], answers.y_true == index
    return [(part.size - np.searchsorted(np.sort(part), grid - 1e-12)).tolist() for part in (p[y], p[~y])]


def _row(threshold: float, steps: int, table: Sequence[Sequence[int]], totals: Sequence[int]) -> dict[str, str]:
    """Return counts and rates at one threshold, as text."""
    i = round(threshold * steps)
    tp, fp, (positives, negatives) = table[0][i], table[1][i], totals
    fn, tn = positives - tp, negatives - fp
    return {
        "threshold": f"{i / steps:.3f}".rstrip("0").rstrip(".") or "0",
        "tp": count(tp),
        "fn": count(fn),
        "fp": count(fp),
        "tn": count(tn),
        "accuracy": percent((tp + tn) / max(positives + negatives, 1)),
        "precision": percent(tp / (tp + fp)) if tp + fp else "n/a",
        "recall": percent(tp / positives) if positives else "n/a",
        "fpr": percent(fp / negatives) if negatives else "n/a",
    }


@dataclasses.dataclass(frozen=True)
class _Curve:
    """One curve over the grid of thresholds: points of x and y, and the limits of both axes."""

    key: str
    title: str
    x: str
    y: str
    points: list[tuple[float, float]]
    limits: tuple[float, float] = (0.0, 1.0)


def _figures(table: Sequence[Sequence[int]], totals: Sequence[int], at: int) -> list[dict[str, Any]]:
    """Return ROC, precision–recall and DET curves over the grid of thresholds, each with a dot at one threshold."""
    tpr = [n / max(totals[0], 1) for n in table[0]]
    fpr = [n / max(totals[1], 1) for n in table[1]]
    precision = [tp / (tp + fp) if tp + fp else math.nan for tp, fp in zip(*table, strict=True)]
    probit = threshold_figures.probit
    kinds = (
        _Curve(
            "roc", "ROC curve", "false positive rate", "true positive rate (recall)", points=list(zip(fpr, tpr, strict=True))
        ),
        _Curve("pr", "Precision–recall curve", "recall", "precision", points=list(zip(tpr, precision, strict=True))),
        _Curve(
            "det",
            "DET curve",
            "false positive rate",
            "false negative rate (misses)",
            points=[(probit(x), probit(1 - y)) for x, y in zip(fpr, tpr, strict=True)],
            limits=(probit(threshold_figures.RATES[0]), probit(threshold_figures.RATES[-1])),
        ),
    )
    found = []
    for curve in kinds:
        axes = svg.Axes(curve.limits, curve.limits, (curve.x, curve.y), (True, True))
        body = threshold_figures.probit_grid(axes) if curve.key == "det" else axes.frame()
        if curve.key == "roc":
            body += axes.path([(0, 0), (1, 1)], "chance")
        body += axes.path([p for p in curve.points if math.isfinite(p[1])], f"line s0 moving-{curve.key}")
        x, y = curve.points[at]
        body += axes.dot(x, y if math.isfinite(y) else 1.0, 6, f"ring dot-{curve.key}")
        found.append(
            {"title": curve.title, "figure": svg.svg(svg.WIDTH, svg.HEIGHT, body, f"{curve.title} of held-out predictions")}
        )
    return found


def _images(run: Run, record: RunRecord, answers: Predictions, album: Album) -> list[dict[str, Any]]:
    """Return thumbnails of held-out images with their label and, for the script, their largest probabilities."""
    items = [item for item in record.held_out_images if 0 <= item.row < len(answers) and answers.y_true[item.row] >= 0]
    pictures = album.read(run.folder, [item.thumbnail for item in items], _THUMBNAIL_PX)
    return [
        {
            "path": item.path,
            "picture": picture,
            "label": answers.classes[answers.y_true[item.row]],
            "data": _data(item, answers),
            "sure": sure(float(answers.probs[item.row].max())),
            "predicted": answers.classes[int(answers.probs[item.row].argmax())],
        }
        for item, picture in zip(items, pictures, strict=True)
        if picture is not None
    ]


def _data(item: HeldOutImage, answers: Predictions) -> list[Any]:
    """Return index of the label and (class index, probability) of the most probable classes."""
    probs = answers.probs[item.row]
    top = np.argsort(-probs, kind="stable")[:_MOST_PROBS]
    return [int(answers.y_true[item.row]), [[int(c), round(float(probs[c]), 4)] for c in top]]
