"""Entries of predictions, one per image, for `predict --json` and the HTTP service. Fields are only ever added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sightline.evaluation import conformal
    from sightline.records import Predictions


def of_predictions(
    predictions: Predictions,
    uncertainty: conformal.UncertaintyFit | None = None,
    *,
    with_sets: bool = False,
    top: int | None = None,
) -> list[dict[str, Any]]:
    """Return one entry per image in the order of `paths`, then the files without a prediction.

    Args:
        predictions: The predictions.
        uncertainty: Their uncertainty, which adds `unsure`, and `set` and `coverage` if `with_sets`.
        with_sets: Whether to include prediction sets.
        top: Number of most probable classes in `top`; None leaves it out.
    """
    names, rows = predictions.classes, []
    for i, (path, label, index) in enumerate(zip(predictions.paths, predictions.labels, predictions.y_pred, strict=True)):
        probs = predictions.probs[i]
        row: dict[str, Any] = {"path": path, "label": label, "probability": float(probs[index])}
        row["probabilities"] = dict(zip(names, probs.tolist(), strict=True))
        if top is not None:
            order = sorted(range(len(names)), key=lambda k: -probs[k])[:top]
            row["top"] = [{"class": names[k], "probability": float(probs[k])} for k in order]
        if uncertainty is not None:
            row["unsure"] = bool(uncertainty.unsure[i])
        if uncertainty is not None and with_sets:
            order = sorted(range(len(names)), key=lambda k: -probs[k])
            row |= {"set": [names[k] for k in order if uncertainty.sets[i, k]], "coverage": uncertainty.coverage}
        if predictions.ood_score is not None:
            score, threshold = float(predictions.ood_score[i]), predictions.ood_threshold
            row |= {"ood_score": score, "ood_threshold": threshold, "unlike": score, "unlike_bar": threshold}
        rows.append(row)
    return rows + [{"path": path, "error": error} for path, error in predictions.errors.items()]


def remark_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the fields of `of_predictions` beyond probabilities as columns of a table.

    Args:
        rows: Entries of images with a prediction, all with the same fields.
    """
    columns: dict[str, list[str]] = {}
    for name in ("unsure", "set", "coverage", "unlike", "unlike_bar"):
        if rows and rows[0].get(name) is not None:
            columns[name] = [_cell(row[name]) for row in rows]
    return columns


def _cell(value: object) -> str:
    """Return a value as text: yes or no, class names separated by semicolons, or a number in full precision."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "; ".join(value) if isinstance(value, list) else repr(value)
