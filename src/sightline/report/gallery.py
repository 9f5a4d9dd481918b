"""Galleries of the report: misclassified images and correct predictions, with their heatmaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sightline.records import Predictions, Run, RunRecord
from sightline.records.error_analysis import Mistake
from sightline.records.heatmaps import ExplainedImage, HeatmapProgress
from sightline.report import uncertainty
from sightline.report.format import count, percent, short, sure
from sightline.report.headline import kind_of, scored
from sightline.report.images import Album

MOST_MISTAKES = 36
MOST_CORRECT = 12
MOST_LISTED = 200
OVERLAY_PX = 500
"""Longest side of a photograph or heatmap in the galleries."""
FAINT = 0.15
"""Maximum of a heatmap, as a share of the common scale, below which it is called faint."""
_EXPLAINERS = {"gradcam": "Grad-CAM", "contribution": "exact contributions", "masks": "random masks"}
_SIGNS = {"passes": ("✓", "passes"), "weak": ("≈", "weak")}


def gallery(run: Run, record: RunRecord, album: Album, held_out: Predictions | None = None) -> dict[str, Any]:
    """Return misclassified images and a sample of correct predictions with their heatmaps.

    Args:
        run: The run.
        record: Its record.
        album: Reads the pictures.
        held_out: Held-out predictions, whose errors are added in a fold if the gallery shows those of the test split.
    """
    explained = record.explanations
    wrong = [e for e in explained if not e.correct][:MOST_MISTAKES]
    right = [e for e in explained if e.correct][:MOST_CORRECT]
    methods = sorted({f"{_EXPLAINERS.get(e.method, e.method)}, {e.layer}" for e in wrong + right if e.method})
    _, score = scored(record)
    classes = (score.classes if score else None) or record.classes
    facts = _Facts(record, classes)
    shown = {e.path for e in wrong}
    rest = [m for m in record.mistakes if m.path not in shown]
    cards, rows = _cards(run, wrong, album, facts), [facts.row(m) for m in rest[:MOST_LISTED]]
    others = _held_out(run, record, album, facts, held_out)
    every = [*cards, *rows, *others["cards"], *others["rows"]]
    return {
        "total": len(record.mistakes),
        "n": score.n if score else None,
        "wrong": cards,
        "right": _cards(run, right, album, facts),
        "rest": rows,
        "left_out": max(0, len(rest) - MOST_LISTED),
        "methods": "; ".join(methods),
        "partial": _partial(record.heatmaps or HeatmapProgress()),
        "held_out": others,
        "splits": sorted({row["split"] for row in every}) if others["total"] else [],
        "pairs": _pairs(every),
        "groups": _groups(every),
        "faint": percent(FAINT, 0),
    }


class _Facts:
    """Details of each image of a run: class indices, position among the mistakes, slices and problems."""

    def __init__(self, record: RunRecord, classes: Sequence[str]) -> None:
        self.index = {name: i for i, name in enumerate(classes)}
        self.split = kind_of(record)
        self.mistakes = {m.path: (i, m) for i, m in enumerate(record.mistakes)}
        self.slices = [uncertainty.name(row) for row in record.slices]
        self.leaked = {pair[0] for pair in record.split.leaks} if record.split else set()
        duplicates = record.dataset.duplicates if record.dataset else None
        self.conflicts = {path for paths in duplicates.conflicts for path in paths} if duplicates else set()

    def row(self, item: Mistake | ExplainedImage) -> dict[str, Any]:
        """Return path, label, prediction and confidence of an image, and what it can be filtered by."""
        number, mistake = self.mistakes.get(item.path, (None, None))
        true, predicted = self.index.get(item.label or "", -1), self.index.get(item.predicted or "", -1)
        return {
            "path": item.path,
            "label": item.label,
            "predicted": item.predicted,
            "sure": sure(item.probability),
            "confidence": round(item.probability or 0.0, 4),
            "pair": f"{true}-{predicted}",
            "number": number,
            "similar": bool(mistake and mistake.nearest and mistake.thumbnail),
            "groups": self._groups(item, mistake),
            "split": self.split,
        }

    def _groups(self, item: Mistake | ExplainedImage, mistake: Mistake | None) -> list[str]:
        """Return the slices and problems of an image."""
        found = [self.slices[i] for i in (mistake.slices if mistake else ()) if i < len(self.slices)]
        if item.path in self.leaked:
            found.append("also in train")
        if item.path in self.conflicts:
            found.append("duplicate with another label")
        if isinstance(item, ExplainedImage) and item.verdict and item.verdict != "passes":
            found.append(f"heatmap: {item.verdict}")
        return found


def _held_out(run: Run, record: RunRecord, album: Album, facts: _Facts, predictions: Predictions | None) -> dict[str, Any]:
    """Return the errors among held-out images outside the test split: cards of those with a thumbnail, rows of the others."""
    found: list[dict[str, Any]] = []
    if predictions is not None and record.test is not None and record.kind != "evaluate":
        split = "cross-validated" if record.predictions_in == "cross_validated" else "validation"
        probs = predictions.probs[np.arange(len(predictions)), predictions.y_pred]
        wrong = np.flatnonzero((predictions.y_true >= 0) & (predictions.y_pred != predictions.y_true))
        thumbnails = {image.row: image.thumbnail for image in record.held_out_images}
        for i in wrong[np.argsort(-probs[wrong], kind="stable")].tolist():
            item = Mistake(
                predictions.paths[i], predictions.classes[predictions.y_true[i]], predictions.labels[i], float(probs[i])
            )
            found.append({**facts.row(item), "split": split, "number": None, "similar": False, "thumbnail": thumbnails.get(i)})
    pictured = [row for row in found if row["thumbnail"]][:MOST_MISTAKES]
    pictures = album.read(run.folder, [row["thumbnail"] for row in pictured], OVERLAY_PX)
    cards = [
        {**row, "correct": False, "picture": p, "heat": None, "remarks": []} for row, p in zip(pictured, pictures, strict=True)
    ]
    shown = {row["path"] for row in pictured}
    rest = [row for row in found if row["path"] not in shown]
    return {
        "total": len(found),
        "split": found[0]["split"] if found else "",
        "table": f"predictions/{record.predictions_in or 'val'}.csv",
        "cards": cards,
        "rows": rest[:MOST_LISTED],
        "left_out": len(found) - len(cards) - len(rest[:MOST_LISTED]),
    }


def _pairs(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return key and name of each pair of true and predicted class, the most frequent first."""
    counts = Counter(row["pair"] for row in rows)
    names = {row["pair"]: f"{short(row['label'], 28)} → {short(row['predicted'], 28)}" for row in rows}
    return [(pair, f"{names[pair]} ({count(n)})") for pair, n in counts.most_common(200)]


def _groups(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return key and name of each slice or problem of the images, the most frequent first."""
    counts = Counter(name for row in rows for name in row["groups"])
    return [(name, f"{short(name, 50)} ({count(n)})") for name, n in counts.most_common(40)]


def _partial(heatmaps: HeatmapProgress) -> str:
    """Return why some heatmaps are missing, or an empty text."""
    drawn, of = heatmaps.drawn, heatmaps.total
    if not of or drawn is None:
        return ""
    if heatmaps.requested == "none":
        return "Heatmaps were turned off (--heatmaps none)."
    if drawn < of:
        return f"{count(drawn)} of {count(of)} heatmaps were computed in the available time, the most important first."
    return "Only a few heatmaps were requested (--heatmaps few)." if heatmaps.requested == "few" else ""


def _cards(run: Run, items: Sequence[ExplainedImage], album: Album, facts: _Facts) -> list[dict[str, Any]]:
    """Return images with their heatmaps and captions; of an older run, whose layers are missing, the drawn overlay."""
    photos = album.read(run.folder, [e.photo for e in items], OVERLAY_PX)
    heats = album.read(run.folder, [e.heat for e in items], OVERLAY_PX, transparent=True)
    layered = [p is not None and h is not None for p, h in zip(photos, heats, strict=True)]
    overlays = album.read(run.folder, [None if two else e.overlay for e, two in zip(items, layered, strict=True)], OVERLAY_PX)
    return [
        {**facts.row(e), "correct": e.correct, "picture": p if two else o, "heat": h if two else None, **_remarks(e)}
        for e, p, h, o, two in zip(items, photos, heats, overlays, layered, strict=True)
    ]


def _remarks(item: ExplainedImage) -> dict[str, Any]:
    """Return the verdict of the checks, its sign and reason, and a remark on the drawing."""
    sign, word = _SIGNS.get(item.verdict or "", ("✗", item.verdict))
    faint = item.strength is not None and item.strength < FAINT
    remarks = [*(["faint"] if faint else []), *([item.note] if item.note else [])]
    return {"verdict": word, "sign": sign, "reason": item.reason, "remarks": remarks}
