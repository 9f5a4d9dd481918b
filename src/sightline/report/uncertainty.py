"""Error analysis sections: nearest training images, error rate by slice, prediction sets and OOD detection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sightline.records import Run
from sightline.report import svg
from sightline.report.format import at, count, decimal, images, percent, percent_range, sure
from sightline.report.images import Album

MOST_LIKENESSES = 24
MOST_SLICES = 10
_SIDE_PX = 160

_UNITS = {"size": ("shorter side", " px"), "aspect": ("aspect ratio (width / height)", "")}
"""Column → name and unit in the report."""


def likenesses(run: Run, album: Album) -> list[dict[str, Any]]:
    """Return the most confident errors, each with its nearest training images in feature space."""
    mistakes = [m for m in run.data.get("mistakes") or [] if m.get("nearest") and m.get("thumbnail")][:MOST_LIKENESSES]
    rows = []
    for mistake in mistakes:
        near = mistake["nearest"]
        picture, *others = album.read(run.folder, [mistake["thumbnail"], *(n.get("thumbnail") for n in near)], _SIDE_PX)
        if picture is None:
            continue
        shown = [
            {**n, "picture": p, "away": decimal(n.get("distance"), 2), "fooled": n.get("label") == mistake.get("predicted")}
            for n, p in zip(near, others, strict=True)
        ]
        rows.append({**mistake, "picture": picture, "sure": sure(mistake.get("probability")), "nearest": shown})
    return rows


def slices(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the table of slices and sentences on those with significantly more errors; None without slices."""
    found = data.get("slices") or []
    if not found:
        return None
    shown = found[:MOST_SLICES]
    start = svg.floor_of([row.get("accuracy_low") for row in shown])
    rows = [
        {
            "name": name(row),
            "worse": bool(row.get("worse")),
            "strip": svg.whisker(
                row.get("accuracy"), row.get("accuracy_low"), row.get("accuracy_high"), start, "on" if row.get("worse") else ""
            ),
            "accuracy": percent(row.get("accuracy")),
            "rest": percent(row.get("rest_accuracy")),
            "wrong": f"{count(row.get('wrong'))} of {count(row.get('n'))}",
            "p": _corrected_p(row.get("p_corrected")),
        }
        for row in shown
    ]
    return {"rows": rows, "ruler": svg.ruler(start), "words": _slice_words(found), "left_out": len(found) - len(shown)}


def name(row: Mapping[str, Any]) -> str:
    """Return the name of a slice, such as `brightness 0.1 to 0.2`."""
    column, unit = _UNITS.get(row.get("column") or "", (row.get("column") or "", ""))
    if row.get("value") is not None:
        return f"{column}: {row['value']}"
    low, high = (f"{row[k]:,.0f}" if row[k] >= 1000 else f"{row[k]:.3g}" for k in ("low", "high"))
    return f"{column} {low}{unit}" if low == high else f"{column} {low} to {high}{unit}"


def _slice_words(found: list[Mapping[str, Any]]) -> list[str]:
    """Return sentences on the slices with significantly more errors."""
    worse = [row for row in found if row.get("worse")]
    several = "s" if len(found) > 1 else ""
    tested = f"{count(len(found))} slice{several} tested against all other images; p values are Holm-corrected."
    if not worse:
        return [f"No slice has significantly more errors. {tested}"]
    lines = [
        f"Significantly worse: {name(row)}. Accuracy {percent(row['accuracy'])} on {images(row['n'])}, versus "
        f"{percent(row['rest_accuracy'])} on the {count(row['rest_n'])} others (p {_corrected_p(row['p_corrected'], '= ')})."
        for row in worse[:5]
    ]
    return [*lines, f"{tested} Adding training photographs like these usually helps most."]


def _corrected_p(p: float | None, sign: str = "") -> str:
    """Return a corrected p value as text, after `sign` unless it begins with `<`."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{sign}{p:.3f}" if p < 0.1 else f"{sign}{p:.2f}"


def limits(data: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the measured quality of prediction sets, `unsure` marks and OOD detection: a heading and a text each."""
    told = data.get("limits")
    if not told:
        return []
    promise = percent(told.get("coverage"), 0)
    rows = []
    if told.get("sets") is None:
        rows.append({"name": "Prediction sets", "text": f"Not available: {told.get('why')}."})
    else:
        rows += _set_rows(told, promise)
    odd = told.get("unlike")
    if odd:
        rate = percent(odd.get("rate"), 0)
        text = (
            f"{count(odd['n'])} of {images(odd['of'])} are out-of-distribution: farther from all training images than the "
            f"threshold of {odd['bar']:.2f}, which {rate} of {count(odd['images'])} held-out images exceed. sightline predict "
            "marks such images."
        )
        if odd.get("pretrained") is False:
            text += (
                " Without pretrained features, unrelated images are rarely recognised: similar classifiers marked only 0 to "
                "20 % of the photographs of four unrelated datasets. An image without this mark may still be unrelated."
            )
        rows.append({"name": "Out-of-distribution (OOD) images", "text": text})
    return rows


def _set_rows(told: Mapping[str, Any], promise: str) -> list[dict[str, str]]:
    """Return the texts on prediction sets and on predictions marked `unsure`."""
    found, unsure = told["sets"], told.get("unsure") or {}
    each = "in each class" if told.get("by_class") else "on average over all images"
    around = percent_range(found.get("covered_low"), found.get("covered_high"))
    single, none = percent(found.get("single"), 0), percent(found.get("empty"), 0)
    text = (
        f"A prediction set (sightline predict --sets) contains the true class with a probability of {promise} {each} "
        f"(conformal prediction, calibrated on {images(told.get('images'))}: {told.get('calibrated_on')}). "
        f"Measured coverage: {percent(found.get('covered'))} (95 % CI {around}). "
        f"Mean size: {decimal(found.get('mean_size'), 2)} classes; {single} of the sets contain one class, {none} are empty."
    )
    rows = [{"name": "Prediction sets", "text": text}]
    n = unsure.get("n")
    if n is not None:
        asked = n + (unsure.get("others") or 0)
        text = f"{count(n)} of {count(asked)} predictions are marked “unsure”: another class is plausible, or the confidence "
        text += "is unusually low"
        text += f". Accuracy on these: {percent(unsure.get('accuracy'))}" if n else ""
        if unsure.get("others"):
            others = percent_range(unsure.get("others_low"), unsure.get("others_high"))
            text += f". Accuracy on the others: {percent(unsure.get('others_accuracy'))} (95 % CI {others})"
        rows.append({"name": "Unsure predictions", "text": text + "."})
    return rows


def view(run: Run, album: Album) -> dict[str, Any]:
    """Return the template variables of the error analysis sections."""
    where = {"val": "held-out", "cross_validated": "held-out"}.get(at(run.data, "mistakes_in", "test"), "test")
    return {
        "likenesses": likenesses(run, album),
        "slices": slices(run.data),
        "limits": limits(run.data),
        "where": where,
    }
