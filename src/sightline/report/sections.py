"""The sections of one run's page, as data for its template. Whatever a run lacks gives None or an empty list."""

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
"""Overlays are not reduced: their captions have to be read."""


def ladder(data: Data) -> dict[str, Any] | None:
    """Every method that was tried, on one ruler."""
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
    """What the chosen bar made of the accuracy that a classifier was chosen by."""
    if not told:
        return None
    name, bar = short(told.get("positive"), 24), f"{told['threshold']:.3g}"
    span = percent_range(told.get("accuracy_low"), told.get("accuracy_high"))
    return f"{percent(told['accuracy'])} ({span}) at its bar: “{name}” from {bar} on (criterion: {short(told.get('by'), 24)})"


def dataset(run: Run, album: Album) -> dict[str, Any] | None:
    """What the images are."""
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
    """How many images, how large, in which formats."""
    n, usable = data.get("images"), data.get("usable")
    lines = []
    if n is not None:
        left = f", of which {count(usable)} can be used" if usable is not None and usable != n else ""
        lines.append(f"{images(n)} in {len(data.get('per_class') or {})} classes{left}.")
    sides = [_span(name, s) for name, s in (("widths", data.get("width")), ("heights", data.get("height"))) if s]
    if sides:
        lines.append(f"{' and '.join(sides)}.".capitalize())
    for key, what in (("formats", "Formats"), ("modes", "Colour modes")):
        parts = sorted((data.get(key) or {}).items(), key=lambda item: -item[1])
        if parts:
            lines.append(f"{what}: {', '.join(f'{short(k, 20)} {count(v)}' for k, v in parts[:8])}.")
    return lines


def _span(name: str, side: Data) -> str:
    """From the least to the most, in words."""
    low, high, median = side.get("min"), side.get("max"), side.get("median")
    if low == high:
        return f"all {name} {count(low)} px"
    middle = f" (median {count(round(median))})" if median is not None else ""
    return f"{name} from {count(low)} to {count(high)} px{middle}"


def _class_rows(per_class: Data) -> dict[str, Any]:
    """Classes with a bar for each, by splits where there are any (`split`), the largest and smallest where there are many."""
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
    first, last = filled[0], filled[-1] + 1  # empty ends say nothing
    edges, counts = edges[first : last + 1], counts[first:last]
    most = max(range(len(counts)), key=lambda i: counts[i])
    title = f"Shorter sides: most images, {counts[most]:,}, lie between {edges[most]:g} and {edges[most + 1]:g} px."
    return svg.histogram(edges, counts, "shorter side in px", title)


def _enlarged_words(data: Data) -> str | None:
    """What share is enlarged for this run's network, in words."""
    size = at(data, "network.preprocess.size")
    enlarged = at(data, "data.enlarged", {})
    share = enlarged.get(str(max(size))) if size else None
    if share is None:
        return None
    if share == 0:
        return f"No image has to be enlarged for this network, which sees {size[0]} × {size[1]} px."
    more = "An enlarged image holds no detail that it did not hold before; a smaller input may do as well and be quicker."
    return f"This network sees {size[0]} × {size[1]} px: {percent(share, 0)} of the images are enlarged for it. {more}"


def _samples(run: Run, samples: Sequence[Data], album: Album) -> list[dict[str, Any]]:
    """Images as they are and as the network sees them."""
    samples = samples[:12]
    whole = album.read(run.folder, [s.get("file") for s in samples], 280)
    seen = album.read(run.folder, [s.get("seen") for s in samples], 280)
    rows = zip(samples, whole, seen, strict=True)
    return [{"label": s.get("label"), "path": s.get("path"), "whole": w, "seen": v} for s, w, v in rows if w or v]


def splitting(data: Data) -> dict[str, Any] | None:
    """How the images were divided, and what lies on both sides."""
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
        by = f"; images of one {split['group_by']} stay together" if split.get("group_by") else ""
        lines.append(
            f"Drawn by Sightline, every class in the same proportion: {sizes} (seed {split.get('seed', 0)}). "
            f"Duplicates stay on one side{by}. Another run moves no image."
        )
    exact, near = _number(twins.get("exact")), _number(twins.get("near"))
    if exact or near:
        parts_found = [_sets(exact, "identical files")] if exact else []
        parts_found += [_sets(near, "nearly identical images")] if near else []
        lines.append(f"Found: {' and '.join(parts_found)}.")
    elif twins:
        lines.append("No duplicates were found.")
    if split.get("straddling"):
        lines.append(f"On more than one side of the split: {_sets(split['straddling'], 'duplicates')}.")
    return {
        "lines": lines,
        "leaks": at(data, "split.leaks", [])[:MOST_LISTED],
        "leaked": at(data, "split.leaked", 0),
        "largest": (twins.get("largest") or [])[:20],
        "conflicts": (twins.get("conflicts") or [])[:MOST_LISTED],
    }


_PARTS = {"train": "train", "val": "validation", "test": "test"}


def _given_words(split: Data, sizes: str) -> list[str]:
    """Say which images kept the split that they were given, and which Sightline drew from where.

    Args:
        split: The block of `run.json`.
        sizes: How many images each split has now, in words.
    """
    moves: Data = split.get("moves") or {}
    if not moves:
        return [f"The split was given in part or whole; now: {sizes}."]

    def counted(before: str, kept: bool) -> str:
        after = moves.get(before) or {}
        return ", ".join(f"{count(after[s])} {name}" for s, name in _PARTS.items() if after.get(s) and (s == before) == kept)

    kept = ", ".join(text for s in _PARTS if (text := counted(s, True)))
    lines = [f"Kept as it was given: {kept}."] if kept else []
    taken = [f"{text} images from {_PARTS[s]}" for s in _PARTS if (text := counted(s, False))]
    if taken:
        lines.append(f"Taken by Sightline, since no such split was given: {'; '.join(taken)} (seed {split.get('seed', 0)}).")
    if counted("none", False):
        lines.append(
            f"Drawn by Sightline among images without a split: {counted('none', False)} (seed {split.get('seed', 0)})."
        )
    return [*lines, f"In all: {sizes}."]


def _sets(n: int, what: str) -> str:
    """So many sets of something."""
    return f"{count(n)} set{'' if n == 1 else 's'} of {what}"


def _number(value: Any) -> int:
    """A count, or the length of a list of clusters."""
    return len(value) if isinstance(value, list) else int(value or 0)


def scores(data: Data) -> dict[str, Any] | None:
    """All numbers of all scored splits side by side: `rows` that are shown, `more` that are folded, a `note` below."""
    names = (("val", data.get("val_estimate") or "val"), ("test", "test"), ("test_without_leaks", "test without leaked images"))
    columns = [(name, data[key]) for key, name in names if data.get(key)]
    if not columns:
        return None
    rows = []
    k, positive = len(columns[0][1].get("per_class") or {}), columns[0][1].get("positive")
    for metric in evaluation.METRICS.values():
        if k and not metric.defined_for(k):
            continue
        of_positive = metric.from_ranking and k == 2 and positive is not None
        meaning = metric.description + (f"; “{short(positive, 40)}” counts as positive" if of_positive else "")
        cells = [_cell(score, metric) for _, score in columns]
        if any(c["value"] != "n/a" or c["why"] for c in cells):
            rows.append({"name": metric.title, "meaning": meaning, "cells": cells, "first": metric.headline})
    head = [f"{name} ({count(s.get('n'))})" for name, s in columns]
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
    """The confusion matrix: a table of numbers for few classes, a picture for many, and what is taken for what."""
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
        title = f"Confusion matrix of {len(classes)} classes, rows the label, columns the answer; {right:,} on the diagonal."
        found["figure"] = svg.matrix(counts, classes, title)
    return found


def _confusion_row(name: str, index: int, row: Sequence[int]) -> dict[str, Any]:
    """One label's answers, each with how strongly its cell is coloured."""
    total = sum(row) or 1
    cells = [
        {"n": count(n), "kind": f"{'hit' if c == index else 'miss'}{-(-10 * n // total)}" if n else "none"}
        for c, n in enumerate(row)
    ]
    return {"name": name, "cells": cells}


_EXPLAINERS = {"gradcam": "Grad-CAM", "contribution": "exact shares", "masks": "random cell masks"}


def gallery(run: Run, album: Album) -> dict[str, Any]:
    """Mistakes and right answers with where the classifier looked."""
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
    """Return why not all heatmaps are here, or nothing."""
    drawn, of = heatmaps.get("drawn"), heatmaps.get("of")
    if not of or drawn is None:
        return ""
    if heatmaps.get("asked") == "none":
        return "No heatmaps were asked for (--heatmaps none)."
    if drawn < of:
        return f"{count(drawn)} of {count(of)} heatmaps were drawn in the time for them; the most important came first."
    return "Only a few heatmaps were asked for (--heatmaps few)." if heatmaps.get("asked") == "few" else ""


def _cards(run: Run, items: Sequence[Data], album: Album) -> list[dict[str, Any]]:
    """Overlays with their captions."""
    pictures = album.read(run.folder, [e.get("overlay") for e in items], OVERLAY_PX)
    return [{**e, "sure": sure(e.get("probability")), "picture": p} for e, p in zip(items, pictures, strict=True)]
