"""Sections of the run report as template variables; None or an empty list for what a run does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sightline import evaluation
from sightline.records import Run, RunRecord, Scores
from sightline.records.candidates import ThresholdScore
from sightline.records.catalog_audit import SET_TITLES
from sightline.records.data_summary import DatasetSummary, DuplicateSummary, SampleImage, SideLengths, SplitSummary
from sightline.report import cross_validation, svg
from sightline.report.format import count, decimal, decimal_range, duration, images, percent, percent_range, short
from sightline.report.images import Album

MOST_RUNGS = 40
MOST_CLASSES = 30
MOST_LISTED = 200
TABLE_CLASSES = 14
MATRIX_CLASSES = 120


def ladder(data: RunRecord) -> dict[str, Any] | None:
    """Return the table of candidate methods with their accuracies on one axis; None for fewer than two."""
    rungs = data.candidates[-MOST_RUNGS:]
    if len(rungs) < 2:
        return None
    start = svg.floor_of([r.val.accuracy_low or r.val.accuracy for r in rungs if r.val])
    rows = []
    for r in rungs:
        val = r.val
        value, low, high = (val.accuracy, val.accuracy_low, val.accuracy_high) if val else (None, None, None)
        rows.append(
            {
                "label": short(r.label or r.method, 70),
                "chosen": r.chosen,
                "strip": svg.whisker(value, low, high, start, "on" if r.chosen else ""),
                "accuracy": percent(value),
                "interval": percent_range(low, high),
                "n": count(val.n if val else None),
                "estimate": (val.estimate if val else None) or "val",
                "shared": percent(r.shared.accuracy) if r.shared else "–",
                "seconds": duration(r.seconds),
                "note": r.note,
                "at_bar": _at_bar(r.at_threshold),
            }
        )
    mixed = max((r.shared.n for r in rungs if r.shared), default=0)
    skipped = [{"name": " on ".join(k for k in (s.method, s.backbone) if k), "why": s.why} for s in data.skipped]
    return {"rows": rows, "ruler": svg.ruler(start), "mixed": count(mixed) if mixed else None, "skipped": skipped}


def _at_bar(told: ThresholdScore | None) -> str | None:
    """Return the accuracy of a candidate at the selected decision threshold as a sentence."""
    if not told:
        return None
    name, bar = short(told.positive, 24), f"{told.threshold:.3g}"
    span = percent_range(told.accuracy_low, told.accuracy_high)
    where = f"decision threshold {bar} for “{name}” (criterion: {short(told.criterion, 24)})"
    return f"at the {where}: {percent(told.accuracy)} (95 % CI {span})"


def dataset(run: Run, record: RunRecord, album: Album) -> dict[str, Any] | None:
    """Return the dataset section; None without a description of the data."""
    data = record.dataset
    if not data:
        return None
    enlarged = [
        {"side": side, "share": percent(share, 0), "bar": svg.share_bar(share)}
        for side, share in sorted(data.enlarged.items(), key=lambda item: int(item[0]))
        if share is not None
    ]
    return {
        "text": dataset_words(data),
        "classes": _class_rows(data.per_class),
        "histogram": _size_histogram(data),
        "enlarged": enlarged,
        "enlarged_text": _enlarged_words(record),
        "problems": sorted(data.problems.items(), key=lambda item: -item[1]),
        "problem_files": data.problem_files[:MOST_LISTED],
        "notes": data.notes[:20],
        "undecodable": [
            {"split": split, "path": item.path, "problem": item.problem}
            for split, items in record.undecodable.items()
            for item in items[:MOST_LISTED]
        ],
        "undecodable_n": sum(len(items) for items in record.undecodable.values()),
        "samples": _samples(run, data.samples, album),
    }


def dataset_words(data: DatasetSummary) -> list[str]:
    """Return sentences on the number, sizes, file formats and colour modes of the images."""
    n, usable = data.images, data.usable
    lines = []
    if n is not None:
        left = f"; {count(usable)} usable" if usable is not None and usable != n else ""
        lines.append(f"{images(n)} in {len(data.per_class)} classes{left}.")
    lines += [_span(name, s) for name, s in (("Width", data.width), ("Height", data.height)) if s]
    for counts, what in ((data.formats, "File formats"), (data.modes, "Colour modes")):
        parts = sorted(counts.items(), key=lambda item: -item[1])
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


def _span(name: str, side: SideLengths) -> str:
    """Return the range and the median of the image widths or heights as a sentence."""
    low, high, median = side.min, side.max, side.median
    if low == high:
        return f"{name}: {count(low)} px."
    middle = f" (median {count(round(median))} px)" if median is not None else ""
    return f"{name}: {count(low)} to {count(high)} px{middle}."


def _class_rows(per_class: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return class sizes with bars, by split if there is one; of many classes the largest and the smallest."""
    parts = ("train", "val", "test")
    counts = {name: {s: sizes.get(s, 0) for s in (*parts, "unsplit")} for name, sizes in per_class.items()}
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


def _size_histogram(data: DatasetSummary) -> Any:
    if data.size_histogram is None:
        return None
    edges, counts = data.size_histogram.edges_px, data.size_histogram.counts
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


def _enlarged_words(data: RunRecord) -> str | None:
    """Return a sentence on the fraction of images that are smaller than the input of this run's network."""
    size = data.network.preprocess.size if data.network and data.network.preprocess else ()
    enlarged = data.dataset.enlarged if data.dataset else {}
    share = enlarged[str(max(size))] if size and str(max(size)) in enlarged else None
    if share is None:
        return None
    if share == 0:
        return f"No image is smaller than the network input ({size[0]} × {size[1]} px)."
    more = "Enlarging adds no detail: a smaller input size may be as accurate, and faster."
    return (
        f"Network input {size[0]} × {size[1]} px: {percent(share, 0)} of the images are smaller and have to be enlarged. {more}"
    )


def _samples(run: Run, samples: Sequence[SampleImage], album: Album) -> list[dict[str, Any]]:
    """Return training images, each as a thumbnail and as network input."""
    samples = samples[:12]
    whole = album.read(run.folder, [s.file for s in samples], 280)
    seen = album.read(run.folder, [s.seen for s in samples], 280)
    rows = zip(samples, whole, seen, strict=True)
    return [{"label": s.label, "path": s.path, "whole": w, "seen": v} for s, w, v in rows if w or v]


def splitting(data: RunRecord) -> dict[str, Any] | None:
    """Return the section on the train, validation and test split, with leaks and duplicates."""
    split = data.split
    twins = data.dataset.duplicates if data.dataset else None
    if not split and not twins:
        return None
    split, found = split or SplitSummary(), twins or DuplicateSummary()
    parts = (("train", split.train), ("validation", split.val), ("test", split.test))
    sizes = ", ".join(f"{count(n)} {name}" for name, n in parts if n is not None)
    lines = []
    if split.given:
        lines += _given_words(split, sizes)
    elif sizes:
        by = f", and so do images with the same {split.group_by}" if split.group_by else ""
        lines.append(
            f"Stratified random split: {sizes} (seed {split.seed}). "
            f"Duplicates stay in the same split{by}. Repeated runs use the same split."
        )
    exact, near = found.exact, found.near
    if exact or near:
        parts_found = [_sets(exact, "identical files")] if exact else []
        parts_found += [_sets(near, "near-duplicate images")] if near else []
        lines.append(f"Duplicates: {' and '.join(parts_found)}. {found.not_looked_for}".rstrip())
    elif twins:
        lines.append(f"No duplicates were found. {found.not_looked_for}".rstrip())
    if found.same_scene:
        lines.append(f"One scene with different objects: {_sets(found.same_scene, 'images')}, each in one split.")
    if split.proof:
        lines.append(f"Check of the split: {split.proof}.")
    if split.straddling:
        lines.append(f"In more than one split: {_sets(split.straddling, 'duplicates')}.")
    return {
        "lines": lines,
        "leaks": split.leaks[:MOST_LISTED],
        "leaked": split.leaked or 0,
        "sets": [(SET_TITLES[s.kind], s.paths) for s in found.sets if len(s.paths) > 1],
        "conflicts": found.conflicts[:MOST_LISTED],
    }


_PARTS = {"train": "train", "val": "validation", "test": "test"}


def _given_words(split: SplitSummary, sizes: str) -> list[str]:
    """Return sentences on which images kept their given split and which Sightline assigned.

    Args:
        split: The block of `run.json`.
        sizes: Final size of each split, in words.
    """
    moves = split.moves or {}
    if not moves:
        return [f"The split was given, completely or in part. Final sizes: {sizes}."]

    def counted(before: str, kept: bool) -> str:
        after = moves.get(before, {})
        return ", ".join(
            f"{count(after[s])} {name}" for s, name in _PARTS.items() if s in after and after[s] and (s == before) == kept
        )

    kept = ", ".join(text for s in _PARTS if (text := counted(s, True)))
    lines = [f"Kept as given: {kept}."] if kept else []
    taken = [f"{text} images from {_PARTS[s]}" for s in _PARTS if (text := counted(s, False))]
    if taken:
        lines.append(f"Set aside by Sightline, because this split was not given: {'; '.join(taken)} (seed {split.seed}).")
    if counted("none", False):
        lines.append(f"Assigned at random to images without a split: {counted('none', False)} (seed {split.seed}).")
    return [*lines, f"Total: {sizes}."]


def _sets(n: int, what: str) -> str:
    """Return a number of sets with its noun."""
    return f"{count(n)} set{'' if n == 1 else 's'} of {what}"


def scores(data: RunRecord) -> dict[str, Any] | None:
    """Return the table of scores: a column per scored split, `rows` shown at once, `more` collapsed, a `note` below."""
    names = (
        (data.val, data.val_estimate or "Validation"),
        (data.test, "Test"),
        (data.test_without_leaks, "Test without leaked images"),
    )
    columns = [(name, score) for score, name in names if score]
    if not columns:
        return None
    rows = []
    k, positive = len(columns[0][1].per_class), columns[0][1].positive
    for metric in evaluation.METRICS.values():
        if k and not metric.defined_for(k):
            continue
        of_positive = metric.from_ranking and k == 2 and positive is not None
        meaning = metric.description + (f"; positive class: “{short(positive, 40)}”" if of_positive else "")
        cells = [_cell(score, metric) for _, score in columns]
        if any(c["value"] != "n/a" or c["why"] for c in cells):
            rows.append({"name": metric.title, "meaning": meaning, "cells": cells, "first": metric.headline})
    head = [f"{name}, {images(s.n)}" for name, s in columns]
    first, more = [r for r in rows if r["first"]], [r for r in rows if not r["first"]]
    return {"columns": head, "rows": first, "more": more, "note": cross_validation.scores_note(data)}


def _cell(score: Scores, metric: evaluation.Metric) -> dict[str, str | None]:
    """Return a metric's value with its interval, or the reason why there is none."""
    measured = score.metric(metric.name)
    value, low, high = measured.value, measured.low, measured.high
    why = score.reasons.get(metric.name)
    spread = percent_range if metric.percent else decimal_range
    interval = spread(low, high) if low is not None and value is not None else None
    return {"value": _printed(metric, value), "interval": interval, "why": why}


def _printed(metric: evaluation.Metric, value: float | None) -> str:
    """Return a metric's value in percent or as a decimal number."""
    return percent(value) if metric.percent else decimal(value)


def per_class(score: Scores | None) -> dict[str, Any] | None:
    """Return the headline metrics of each class, in order of recall where there are many classes."""
    if not score or not score.per_class:
        return None
    items = list(score.per_class.items())
    if len(items) > TABLE_CLASSES:
        items.sort(key=lambda item: 2.0 if item[1].recall.value is None else item[1].recall.value)
    start = svg.floor_of([row.recall.low or row.recall.value for _, row in items])
    columns = [metric for metric in evaluation.CLASS_METRICS.values() if metric.headline]
    rows = [
        {
            "name": name,
            "n": count(row.n),
            "strip": svg.whisker(row.recall.value, row.recall.low, row.recall.high, start),
            "cells": [_printed(metric, row.metric(metric.name).value) for metric in columns],
        }
        for name, row in items[:500]
    ]
    many = len(rows) > MOST_CLASSES
    shown, rest = (rows[:20], rows[20:]) if many else (rows, [])
    return {"ruler": svg.ruler(start), "columns": [metric.title for metric in columns], "shown": shown, "rest": rest}


def confusion(score: Scores | None, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the confusion matrix (a table for few classes, a figure for many) and the most confused pairs of classes."""
    counts = score.confusion if score else ()
    if not counts or len(counts) != len(classes) or len(classes) < 2:
        return None
    most = 20 if len(classes) > TABLE_CLASSES else 8
    index = {name: i for i, name in enumerate(classes)}
    pairs = [
        {**p, "share": percent(p["share"]), "pair": f"{index[p['label']]}-{index[p['predicted']]}"}
        for p in evaluation.confused_pairs(counts, classes, most)
    ]
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
        {"n": count(n), "column": c, "kind": f"{'hit' if c == index else 'miss'}{-(-10 * n // total)}" if n else "none"}
        for c, n in enumerate(row)
    ]
    return {"name": name, "index": index, "cells": cells}
