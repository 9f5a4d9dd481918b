"""Sections of the run report as template variables; None or an empty list for what a run does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sightline import evaluation
from sightline.records import Run
from sightline.report import cross_validation, svg
from sightline.report.format import at, count, decimal, decimal_range, duration, images, percent, percent_range, short, sure
from sightline.report.headline import scored
from sightline.report.images import Album

Data = Mapping[str, Any]

MOST_RUNGS = 40
MOST_CLASSES = 30
MOST_LISTED = 200
MOST_MISTAKES = 36
MOST_CORRECT = 12
TABLE_CLASSES = 14
MATRIX_CLASSES = 120
OVERLAY_PX = 500
"""Longest side of an overlay; not reduced further, so that its caption stays readable."""


def ladder(data: Data) -> dict[str, Any] | None:
    """Return the table of candidate methods with their accuracies on one axis; None for fewer than two."""
    rungs = (data.get("ladder") or [])[-MOST_RUNGS:]
    if len(rungs) < 2:
        return None
    start = svg.floor_of([at(r, "val.accuracy_low") or at(r, "val.accuracy") for r in rungs])
    rows = []
    for r in rungs:
        value, low, high = (at(r, f"val.{k}") for k in ("accuracy", "accuracy_low", "accuracy_high"))
        rows.append(
            {
                "label": short(r.get("label") or r.get("method"), 70),
                "chosen": bool(r.get("chosen")),
                "strip": svg.whisker(value, low, high, start, "on" if r.get("chosen") else ""),
                "accuracy": percent(value),
                "interval": percent_range(low, high),
                "n": count(at(r, "val.n")),
                "estimate": at(r, "val.estimate", "val"),
                "shared": percent(at(r, "shared.accuracy")) if r.get("shared") else "–",
                "seconds": duration(r.get("seconds")),
                "note": r.get("note"),
                "at_bar": _at_bar(r.get("at_bar")),
            }
        )
    mixed = max((r["shared"]["n"] for r in rungs if r.get("shared")), default=0)
    skipped = [
        {"name": " on ".join(str(s[k]) for k in ("method", "backbone") if s.get(k)), "why": s.get("why")}
        for s in data.get("skipped") or []
    ]
    return {"rows": rows, "ruler": svg.ruler(start), "mixed": count(mixed) if mixed else None, "skipped": skipped}


def _at_bar(told: Data | None) -> str | None:
    """Return the accuracy of a candidate at the selected decision threshold as a sentence."""
    if not told:
        return None
    name, bar = short(told.get("positive"), 24), f"{told['threshold']:.3g}"
    span = percent_range(told.get("accuracy_low"), told.get("accuracy_high"))
    where = f"decision threshold {bar} for “{name}” (criterion: {short(told.get('by'), 24)})"
    return f"at the {where}: {percent(told['accuracy'])} (95 % CI {span})"


def dataset(run: Run, album: Album) -> dict[str, Any] | None:
    """Return the dataset section; None without a description of the data."""
    data = run.data.get("data")
    if not data:
        return None
    enlarged = [
        {"side": side, "share": percent(share, 0), "bar": svg.share_bar(share)}
        for side, share in sorted((data.get("enlarged") or {}).items(), key=lambda item: int(item[0]))
        if share is not None
    ]
    return {
        "text": _dataset_words(data),
        "classes": _class_rows(data.get("per_class") or {}),
        "histogram": _size_histogram(data),
        "enlarged": enlarged,
        "enlarged_text": _enlarged_words(run.data),
        "problems": sorted((data.get("problems") or {}).items(), key=lambda item: -item[1]),
        "problem_files": (data.get("problem_files") or [])[:MOST_LISTED],
        "notes": (data.get("notes") or [])[:20],
        "undecodable": [
            {"split": split, **item}
            for split, items in (run.data.get("undecodable") or {}).items()
            for item in (items or [])[:MOST_LISTED]
        ],
        "undecodable_n": sum(len(items or []) for items in (run.data.get("undecodable") or {}).values()),
        "samples": _samples(run, data.get("samples") or [], album),
    }


def _dataset_words(data: Data) -> list[str]:
    """Return sentences on the number, sizes, file formats and colour modes of the images."""
    n, usable = data.get("images"), data.get("usable")
    lines = []
    if n is not None:
        left = f"; {count(usable)} usable" if usable is not None and usable != n else ""
        lines.append(f"{images(n)} in {len(data.get('per_class') or {})} classes{left}.")
    lines += [_span(name, s) for name, s in (("Width", data.get("width")), ("Height", data.get("height"))) if s]
    for key, what in (("formats", "File formats"), ("modes", "Colour modes")):
        parts = sorted((data.get(key) or {}).items(), key=lambda item: -item[1])
        if parts:
            lines.append(f"{what}: {', '.join(f'{_MODES.get(k, short(k, 20))} ({count(v)})' for k, v in parts[:8])}.")
    return lines


_MODES = {
    "1": "black and white",
    "L": "greyscale",
    "LA": "greyscale with transparency",
    "P": "palette",
    "PA": "palette with transparency",
    "RGBA": "RGB with transparency",
    "I": "32-bit integer greyscale",
    "I;16": "16-bit greyscale",
    "F": "32-bit float greyscale",
}
"""Pillow's colour modes that need a name."""


def _span(name: str, side: Data) -> str:
    """Return the range and the median of the image widths or heights as a sentence."""
    low, high, median = side.get("min"), side.get("max"), side.get("median")
    if low == high:
        return f"{name}: {count(low)} px."
    middle = f" (median {count(round(median))} px)" if median is not None else ""
    return f"{name}: {count(low)} to {count(high)} px{middle}."


def _class_rows(per_class: Data) -> dict[str, Any]:
    """Return class sizes with bars, by split if there is one; of many classes the largest and the smallest."""
    parts = ("train", "val", "test")
    counts = {name: {s: at(sizes, s, 0) for s in (*parts, "unsplit")} for name, sizes in per_class.items()}
    rows: list[dict[str, Any]] = [{"name": name, **sizes, "total": sum(sizes.values())} for name, sizes in counts.items()]
    split, most = any(row[s] for row in rows for s in parts), max((row["total"] for row in rows), default=0)
    if not most:
        return {"shown": [], "rest": [], "left_out": 0, "split": False}
    if len(rows) > MOST_CLASSES:
        ordered = sorted(rows, key=lambda row: -row["total"])
        shown, rest = [*ordered[:15], *ordered[-10:]], ordered[15:-10]
    else:
        shown, rest = rows, []
    for row in shown:
        row["bar"] = svg.stacked([row[s] for s in parts] if split else [row["total"]], most)
    return {"shown": shown, "rest": rest[:1000], "left_out": len(rest), "split": split}


def _size_histogram(data: Data) -> Any:
    edges, counts = at(data, "size_histogram.edges_px"), at(data, "size_histogram.counts")
    if not edges or not counts or len(edges) != len(counts) + 1:
        return None
    filled = [i for i, n in enumerate(counts) if n]
    if len(filled) < 2:
        return None
    first, last = filled[0], filled[-1] + 1  # without the empty bins at both ends
    edges, counts = edges[first : last + 1], counts[first:last]
    most = max(range(len(counts)), key=lambda i: counts[i])
    title = (
        f"Histogram of shorter sides: the largest bin, {edges[most]:g} to {edges[most + 1]:g} px, has {counts[most]:,} images."
    )
    return svg.histogram(edges, counts, "shorter side (px)", title)


def _enlarged_words(data: Data) -> str | None:
    """Return a sentence on the fraction of images that are smaller than the input of this run's network."""
    size = at(data, "network.preprocess.size")
    enlarged = at(data, "data.enlarged", {})
    share = enlarged.get(str(max(size))) if size else None
    if share is None:
        return None
    if share == 0:
        return f"No image is smaller than the network input ({size[0]} × {size[1]} px)."
    more = "Enlarging adds no detail: a smaller input size may be as accurate, and faster."
    return (
        f"Network input {size[0]} × {size[1]} px: {percent(share, 0)} of the images are smaller and have to be enlarged. {more}"
    )


def _samples(run: Run, samples: Sequence[Data], album: Album) -> list[dict[str, Any]]:
    """Return training images, each as a thumbnail and as network input."""
    samples = samples[:12]
    whole = album.read(run.folder, [s.get("file") for s in samples], 280)
    seen = album.read(run.folder, [s.get("seen") for s in samples], 280)
    rows = zip(samples, whole, seen, strict=True)
    return [{"label": s.get("label"), "path": s.get("path"), "whole": w, "seen": v} for s, w, v in rows if w or v]


def splitting(data: Data) -> dict[str, Any] | None:
    """Return the section on the train, validation and test split, with leaks and duplicates."""
    split = data.get("split")
    twins = at(data, "data.duplicates", {})
    if not split and not twins:
        return None
    split = split or {}
    parts = [(name, split.get(key)) for name, key in (("train", "train"), ("validation", "val_n"), ("test", "test_n"))]
    sizes = ", ".join(f"{count(n)} {name}" for name, n in parts if n is not None)
    lines = []
    if split.get("given"):
        lines += _given_words(split, sizes)
    elif sizes:
        by = f", and so do images with the same {split['group_by']}" if split.get("group_by") else ""
        lines.append(
            f"Stratified random split: {sizes} (seed {split.get('seed', 0)}). "
            f"Duplicates stay in the same split{by}. Repeated runs use the same split."
        )
    exact, near = _number(twins.get("exact")), _number(twins.get("near"))
    if exact or near:
        parts_found = [_sets(exact, "identical files")] if exact else []
        parts_found += [_sets(near, "near-duplicate images")] if near else []
        lines.append(f"Duplicates: {' and '.join(parts_found)}.")
    elif twins:
        lines.append("No duplicates were found.")
    if split.get("straddling"):
        lines.append(f"In more than one split: {_sets(split['straddling'], 'duplicates')}.")
    return {
        "lines": lines,
        "leaks": at(data, "split.leaks", [])[:MOST_LISTED],
        "leaked": at(data, "split.leaked", 0),
        "largest": (twins.get("largest") or [])[:20],
        "conflicts": (twins.get("conflicts") or [])[:MOST_LISTED],
    }


_PARTS = {"train": "train", "val": "validation", "test": "test"}


def _given_words(split: Data, sizes: str) -> list[str]:
    """Return sentences on which images kept their given split and which Sightline assigned.

    Args:
        split: The block of `run.json`.
        sizes: Final size of each split, in words.
    """
    moves: Data = split.get("moves") or {}
    if not moves:
        return [f"The split was given, completely or in part. Final sizes: {sizes}."]

    def counted(before: str, kept: bool) -> str:
        after = moves.get(before) or {}
        return ", ".join(f"{count(after[s])} {name}" for s, name in _PARTS.items() if after.get(s) and (s == before) == kept)

    kept = ", ".join(text for s in _PARTS if (text := counted(s, True)))
    lines = [f"Kept as given: {kept}."] if kept else []
    taken = [f"{text} images from {_PARTS[s]}" for s in _PARTS if (text := counted(s, False))]
    if taken:
        lines.append(
            f"Set aside by Sightline, because this split was not given: {'; '.join(taken)} (seed {split.get('seed', 0)})."
        )
    if counted("none", False):
        lines.append(f"Assigned at random to images without a split: {counted('none', False)} (seed {split.get('seed', 0)}).")
    return [*lines, f"Total: {sizes}."]


def _sets(n: int, what: str) -> str:
    """Return a number of sets with its noun."""
    return f"{count(n)} set{'' if n == 1 else 's'} of {what}"


def _number(value: Any) -> int:
    """Return a count, or the length of a list of clusters."""
    return len(value) if isinstance(value, list) else int(value or 0)


def scores(data: Data) -> dict[str, Any] | None:
    """Return the table of scores: a column per scored split, `rows` shown at once, `more` collapsed, a `note` below."""
    names = (
        ("val", data.get("val_estimate") or "Validation"),
        ("test", "Test"),
        ("test_without_leaks", "Test without leaked images"),
    )
    columns = [(name, data[key]) for key, name in names if data.get(key)]
    if not columns:
        return None
    rows = []
    k, positive = len(columns[0][1].get("per_class") or {}), columns[0][1].get("positive")
    for metric in evaluation.METRICS.values():
        if k and not metric.defined_for(k):
            continue
        of_positive = metric.from_ranking and k == 2 and positive is not None
        meaning = metric.description + (f"; positive class: “{short(positive, 40)}”" if of_positive else "")
        cells = [_cell(score, metric) for _, score in columns]
        if any(c["value"] != "n/a" or c["why"] for c in cells):
            rows.append({"name": metric.title, "meaning": meaning, "cells": cells, "first": metric.headline})
    head = [f"{name}, {images(s.get('n'))}" for name, s in columns]
    first, more = [r for r in rows if r["first"]], [r for r in rows if not r["first"]]
    return {"columns": head, "rows": first, "more": more, "note": cross_validation.scores_note(data)}


def _cell(score: Data, metric: evaluation.Metric) -> dict[str, str | None]:
    """Return a metric's value with its interval, or the reason why there is none."""
    value, low, high = (score.get(f"{metric.name}{end}") for end in ("", "_low", "_high"))
    why = (score.get("reasons") or {}).get(metric.name)
    spread = percent_range if metric.percent else decimal_range
    interval = spread(low, high) if low is not None and value is not None else None
    return {"value": _printed(metric, value), "interval": interval, "why": why}


def _printed(metric: evaluation.Metric, value: float | None) -> str:
    """Return a metric's value in percent or as a decimal number."""
    return percent(value) if metric.percent else decimal(value)


def per_class(score: Data | None) -> dict[str, Any] | None:
    """Return the headline metrics of each class, in order of recall where there are many classes."""
    table = (score or {}).get("per_class")
    if not table:
        return None
    items = list(table.items())
    if len(items) > TABLE_CLASSES:
        items.sort(key=lambda item: 2.0 if item[1].get("recall") is None else item[1]["recall"])
    start = svg.floor_of([row.get("recall_low") or row.get("recall") for _, row in items])
    columns = [metric for metric in evaluation.CLASS_METRICS.values() if metric.headline]
    rows = [
        {
            "name": name,
            "n": count(row.get("n")),
            "strip": svg.whisker(row.get("recall"), row.get("recall_low"), row.get("recall_high"), start),
            "cells": [_printed(metric, row.get(metric.name)) for metric in columns],
        }
        for name, row in items[:500]
    ]
    many = len(rows) > MOST_CLASSES
    shown, rest = (rows[:20], rows[20:]) if many else (rows, [])
    return {"ruler": svg.ruler(start), "columns": [metric.title for metric in columns], "shown": shown, "rest": rest}


def confusion(score: Data | None, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the confusion matrix (a table for few classes, a figure for many) and the most confused pairs of classes."""
    counts = (score or {}).get("confusion")
    if not counts or len(counts) != len(classes) or len(classes) < 2:
        return None
    most = 20 if len(classes) > TABLE_CLASSES else 8
    pairs = [{**p, "share": percent(p["share"])} for p in evaluation.confused_pairs(counts, classes, most)]
    found: dict[str, Any] = {"pairs": pairs, "table": None, "figure": None, "classes": classes}
    if len(classes) <= TABLE_CLASSES:
        found["table"] = [_confusion_row(name, i, row) for i, (name, row) in enumerate(zip(classes, counts, strict=True))]
    elif len(classes) <= MATRIX_CLASSES:
        right = sum(counts[i][i] for i in range(len(classes)))
        title = f"Confusion matrix of {len(classes)} classes: rows true, columns predicted; {right:,} images on the diagonal."
        found["figure"] = svg.matrix(counts, classes, title)
    return found


def _confusion_row(name: str, index: int, row: Sequence[int]) -> dict[str, Any]:
    """Return a row of the confusion matrix with the colour level of each cell."""
    total = sum(row) or 1
    cells = [
        {"n": count(n), "kind": f"{'hit' if c == index else 'miss'}{-(-10 * n // total)}" if n else "none"}
        for c, n in enumerate(row)
    ]
    return {"name": name, "cells": cells}


_EXPLAINERS = {"gradcam": "Grad-CAM", "contribution": "exact contributions", "masks": "random cell masks"}


def gallery(run: Run, album: Album) -> dict[str, Any]:
    """Return misclassified images and a sample of correct predictions with their heatmaps."""
    explained = run.data.get("explanations") or []
    wrong = [e for e in explained if not e.get("correct")][:MOST_MISTAKES]
    right = [e for e in explained if e.get("correct")][:MOST_CORRECT]
    mistakes = run.data.get("mistakes") or []
    methods = sorted(
        {f"{_EXPLAINERS.get(e['method'], e['method'])}, {e.get('layer')}" for e in wrong + right if e.get("method")}
    )
    _, score = scored(run.data)
    shown = {e.get("path") for e in wrong}
    rest = [m for m in mistakes if m.get("path") not in shown]
    return {
        "total": len(mistakes),
        "n": (score or {}).get("n"),
        "wrong": _cards(run, wrong, album),
        "right": _cards(run, right, album),
        "rest": [{**m, "sure": sure(m.get("probability"))} for m in rest[:MOST_LISTED]],
        "left_out": max(0, len(rest) - MOST_LISTED),
        "methods": "; ".join(methods),
        "partial": _partial(run.data.get("heatmaps") or {}),
    }


def _partial(heatmaps: Data) -> str:
    """Return why some heatmaps are missing, or an empty text."""
    drawn, of = heatmaps.get("drawn"), heatmaps.get("of")
    if not of or drawn is None:
        return ""
    if heatmaps.get("asked") == "none":
        return "Heatmaps were turned off (--heatmaps none)."
    if drawn < of:
        return f"{count(drawn)} of {count(of)} heatmaps were computed in the available time, the most important first."
    return "Only a few heatmaps were requested (--heatmaps few)." if heatmaps.get("asked") == "few" else ""


def _cards(run: Run, items: Sequence[Data], album: Album) -> list[dict[str, Any]]:
    """Return heatmap overlays with their captions."""
    pictures = album.read(run.folder, [e.get("overlay") for e in items], OVERLAY_PX)
    return [{**e, "sure": sure(e.get("probability")), "picture": p} for e, p in zip(items, pictures, strict=True)]
