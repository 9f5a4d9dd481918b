"""Error analysis sections: nearest training images, error rate by slice, prediction sets and OOD detection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sightline.records import Run, RunRecord
from sightline.records.error_analysis import SliceScore, UncertaintySummary, UnsureScore
from sightline.report import svg
from sightline.report.format import count, decimal, images, percent, percent_range, sure
from sightline.report.images import Album

MOST_LIKENESSES = 24
MOST_SLICES = 10
_SIDE_PX = 160

_UNITS = {"size": ("shorter side", " px"), "aspect": ("aspect ratio (width / height)", "")}
"""Column → name and unit in the report."""


def likenesses(run: Run, record: RunRecord, album: Album) -> list[dict[str, Any]]:
    """Return the most confident errors, each with its nearest training images in feature space."""
    mistakes = [(i, m) for i, m in enumerate(record.mistakes) if m.nearest and m.thumbnail][:MOST_LIKENESSES]
    rows = []
    for number, mistake in mistakes:
        near = mistake.nearest
        picture, *others = album.read(run.folder, [mistake.thumbnail, *(n.thumbnail for n in near)], _SIDE_PX)
        if picture is None:
            continue
        shown = [
            {
                "path": n.path,
                "label": n.label,
                "picture": p,
                "away": decimal(n.distance, 2),
                "fooled": n.label == mistake.predicted,
            }
            for n, p in zip(near, others, strict=True)
        ]
        row = {
            "number": number,
            "path": mistake.path,
            "label": mistake.label,
            "predicted": mistake.predicted,
            "sure": sure(mistake.probability),
        }
        rows.append({**row, "picture": picture, "nearest": shown})
    return rows


def slices(data: RunRecord) -> dict[str, Any] | None:
    """Return the table of slices and sentences on those with significantly more errors; None without slices."""
    found = data.slices
    if not found:
        return None
    shown = found[:MOST_SLICES]
    start = svg.floor_of([row.accuracy_low for row in shown])
    rows = [
        {
            "name": name(row),
            "worse": bool(row.worse),
            "strip": svg.whisker(row.accuracy, row.accuracy_low, row.accuracy_high, start, "on" if row.worse else ""),
            "accuracy": percent(row.accuracy),
            "rest": percent(row.rest_accuracy),
            "wrong": f"{count(row.wrong)} of {count(row.n)}",
            "p": _corrected_p(row.p_corrected),
        }
        for row in shown
    ]
    return {
        "rows": rows,
        "worse": any(row.worse for row in found),
        "ruler": svg.ruler(start),
        "words": _slice_words(found),
        "left_out": len(found) - len(shown),
    }


def name(row: SliceScore) -> str:
    """Return the name of a slice, such as `brightness 0.1 to 0.2`."""
    column, unit = _UNITS.get(row.column, (row.column, ""))
    if row.value is not None:
        return f"{column}: {row.value}"
    low, high = ("" if v is None else f"{v:,.0f}" if v >= 1000 else f"{v:.3g}" for v in (row.low, row.high))
    return f"{column} {low}{unit}" if low == high else f"{column} {low} to {high}{unit}"


def _slice_words(found: Sequence[SliceScore]) -> list[str]:
    """Return sentences on the slices with significantly more errors."""
    worse = [row for row in found if row.worse]
    several = "s" if len(found) > 1 else ""
    tested = f"{count(len(found))} slice{several} tested against all other images; p values are Holm-corrected."
    if not worse:
        return [f"No slice has significantly more errors. {tested}"]
    lines = [
        f"Significantly worse: {name(row)}. Accuracy {percent(row.accuracy)} on {images(row.n)}, versus "
        f"{percent(row.rest_accuracy)} on the {count(row.rest_n)} others (p {_corrected_p(row.p_corrected, '= ')})."
        for row in worse[:5]
    ]
    return [*lines, f"{tested} Adding training photographs like these usually helps most."]


def _corrected_p(p: float | None, sign: str = "") -> str:
    """Return a corrected p value as text, after `sign` unless it begins with `<`."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{sign}{p:.3f}" if p < 0.1 else f"{sign}{p:.2f}"


def limits(data: RunRecord) -> list[dict[str, str]]:
    """Return the measured quality of prediction sets, `unsure` marks and OOD detection: a heading and a text each."""
    told = data.uncertainty
    if not told:
        return []
    promise = percent(told.coverage, 0)
    rows = []
    if told.sets is None:
        rows.append({"name": "Prediction sets", "text": f"Not available: {told.why}."})
    else:
        rows += _set_rows(told, promise)
    odd = told.out_of_distribution
    if odd:
        rate = percent(odd.rate, 0)
        text = (
            f"{count(odd.n)} of {images(odd.total)} are out-of-distribution: farther from all training images than the "
            f"threshold of {odd.threshold:.2f}, which {rate} of {count(odd.held_out)} held-out images exceed. sightline "
            "predict marks such images."
        )
        if odd.pretrained is False:
            text += (
                " Without pretrained features, unrelated images are rarely recognised: similar classifiers marked only 0 to "
                "20 % of the photographs of four unrelated datasets. An image without this mark may still be unrelated."
            )
        rows.append({"name": "Out-of-distribution (OOD) images", "text": text})
    return rows


def _set_rows(told: UncertaintySummary, promise: str) -> list[dict[str, str]]:
    """Return the texts on prediction sets and on predictions marked `unsure`."""
    found, unsure = told.sets, told.unsure or UnsureScore()
    assert found is not None
    each = "in each class" if told.by_class else "on average over all images"
    around = percent_range(found.covered_low, found.covered_high)
    single, none = percent(found.single, 0), percent(found.empty, 0)
    text = (
        f"A prediction set (sightline predict --sets) contains the true class with a probability of {promise} {each} "
        f"(conformal prediction, calibrated on {images(told.images)}: {told.calibrated_on}). "
        f"Measured coverage: {percent(found.covered)} (95 % CI {around}). "
        f"Mean size: {decimal(found.mean_size, 2)} classes; {single} of the sets contain one class, {none} are empty."
    )
    rows = [{"name": "Prediction sets", "text": text}]
    n = unsure.n
    if n is not None:
        asked = n + (unsure.others)
        text = f"{count(n)} of {count(asked)} predictions are marked “unsure”: another class is plausible, or the confidence "
        text += "is unusually low"
        text += f". Accuracy on these: {percent(unsure.accuracy)}" if n else ""
        if unsure.others:
            others = percent_range(unsure.others_low, unsure.others_high)
            text += f". Accuracy on the others: {percent(unsure.others_accuracy)} (95 % CI {others})"
        rows.append({"name": "Unsure predictions", "text": text + "."})
    return rows


def view(run: Run, record: RunRecord, album: Album) -> dict[str, Any]:
    """Return the template variables of the error analysis sections."""
    where = "held-out" if record.mistakes_in in ("val", "cross_validated") else "test"
    return {
        "likenesses": likenesses(run, record, album),
        "slices": slices(record),
        "limits": limits(record),
        "where": where,
    }
