"""Of one run's page: what its mistakes look like, where there are more of them, and how far its doubts can be trusted."""

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

_UNITS = {"size": ("shorter side", " px"), "aspect": ("width : height", "")}
"""What a column of ours is called, and what its numbers are."""


def likenesses(run: Run, album: Album) -> list[dict[str, Any]]:
    """The most confident mistakes, each beside the training images that are most like it to the classifier."""
    told = [m for m in run.data.get("mistakes") or [] if m.get("nearest") and m.get("thumbnail")][:MOST_LIKENESSES]
    rows = []
    for mistake in told:
        near = mistake["nearest"]
        own, *others = album.read(run.folder, [mistake["thumbnail"], *(n.get("thumbnail") for n in near)], _SIDE_PX)
        if own is None:
            continue
        shown = [
            {**n, "picture": p, "away": decimal(n.get("distance"), 2), "fooled": n.get("label") == mistake.get("predicted")}
            for n, p in zip(near, others, strict=True)
        ]
        rows.append({**mistake, "picture": own, "sure": sure(mistake.get("probability")), "nearest": shown})
    return rows


def slices(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where there are more mistakes than elsewhere: a table, and in words what chance does not explain."""
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
            "p": _chance(row.get("p_corrected")),
        }
        for row in shown
    ]
    return {"rows": rows, "ruler": svg.ruler(start), "words": _slice_words(found), "left_out": len(found) - len(shown)}


def name(row: Mapping[str, Any]) -> str:
    """A slice in words."""
    column, unit = _UNITS.get(row.get("column") or "", (row.get("column") or "", ""))
    if row.get("value") is not None:
        return f"{column}: {row['value']}"
    low, high = (f"{row[k]:,.0f}" if row[k] >= 1000 else f"{row[k]:.3g}" for k in ("low", "high"))
    return f"{column} {low}{unit}" if low == high else f"{column} {low} to {high}{unit}"


def _slice_words(found: list[Mapping[str, Any]]) -> list[str]:
    """What the table says."""
    worse = [row for row in found if row.get("worse")]
    slices_were = "slice was" if len(found) == 1 else "slices were"
    tested = f"{count(len(found))} {slices_were} compared with all other images, and the chances corrected for that (Holm)."
    if not worse:
        return [f"In none are there more mistakes than chance explains. {tested}"]
    lines = [
        f"Worse where {name(row)}: {percent(row['accuracy'])} of {images(row['n'])} right, against "
        f"{percent(row['rest_accuracy'])} of the {count(row['rest_n'])} others (chance {_chance(row['p_corrected'])})."
        for row in worse[:5]
    ]
    return [*lines, f"{tested} More photographs of this kind in training are what helps most."]


def _chance(p: float | None) -> str:
    """A corrected p value."""
    return "–" if p is None else "under 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def limits(data: Mapping[str, Any]) -> list[dict[str, str]]:
    """How the sets, the unsure answers and the distances did: a heading and a sentence each."""
    told = data.get("limits")
    if not told:
        return []
    promise = percent(told.get("coverage"), 0)
    rows = []
    if told.get("sets") is None:
        rows.append({"name": "Sets of classes", "text": f"Nothing can be promised: {told.get('why')}."})
    else:
        rows += _set_rows(told, promise)
    odd = told.get("unlike")
    if odd:
        rate = percent(odd.get("rate"), 0)
        text = (
            f"{count(odd['n'])} of {images(odd['of'])} lie farther from every training image than the bar of {odd['bar']:.2f}, "
            f"which {rate} of {count(odd['images'])} held-out images do. predict marks such images."
        )
        if odd.get("pretrained") is False:
            text += (
                " This network has learnt from these photographs alone and hardly knows what is foreign to them: networks like "
                "it marked 0 to 20 % of the photographs of four other sets. No mark does not mean that an image is familiar."
            )
        rows.append({"name": "Unlike anything in training", "text": text})
    return rows


def _set_rows(told: Mapping[str, Any], promise: str) -> list[dict[str, str]]:
    """Sets, and what is unsure by them."""
    found, unsure = told["sets"], told.get("unsure") or {}
    each = "every class" if told.get("by_class") else "all images together"
    around = percent_range(found.get("covered_low"), found.get("covered_high"))
    single, none = percent(found.get("single"), 0), percent(found.get("empty"), 0)
    text = (
        f"predict --sets names the classes among which the right one is {promise} of the time, promised for {each} from "
        f"{images(told.get('images'))} ({told.get('calibrated_on')}). Here it was {percent(found.get('covered'))} ({around}) "
        f"of the time, with {decimal(found.get('mean_size'), 2)} classes on average: {single} of the sets name one class, "
        f"{none} none."
    )
    rows = [{"name": "Sets of classes", "text": text}]
    n = unsure.get("n")
    if n is not None:
        asked = n + (unsure.get("others") or 0)
        text = f"{count(n)} of {count(asked)} answers are marked unsure"
        text += f"; {percent(unsure.get('accuracy'))} of these are right" if n else ""
        if unsure.get("others"):
            others = percent_range(unsure.get("others_low"), unsure.get("others_high"))
            text += f". Of the others {percent(unsure.get('others_accuracy'))} are right ({others})"
        rows.append({"name": "Unsure", "text": text + "."})
    return rows


def view(run: Run, album: Album) -> dict[str, Any]:
    """All of it for the template."""
    where = {"val": "held-out", "cross_validated": "held-out"}.get(at(run.data, "mistakes_in", "test"), "test")
    return {
        "likenesses": likenesses(run, album),
        "slices": slices(run.data),
        "limits": limits(run.data),
        "where": where,
    }
