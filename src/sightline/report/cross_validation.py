"""The section on a cross-validation: every fold and repeat on one ruler, and what was chosen in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sightline.report import svg
from sightline.report.format import at, clean, count, duration, images, percent, percent_range, short

Data = Mapping[str, Any]

MOST_PARTS = 30
"""Folds that are shown at once; the others fold away."""


def folds(data: Data) -> dict[str, Any] | None:
    """Every fold, and what its range means; None where there was no cross-validation."""
    told = data.get("crossvalidation")
    if not told:
        return None
    parts = told.get("parts") or []
    start = svg.floor_of([p.get("accuracy_low") for p in parts])
    rows = [
        {
            "name": f"Fold {p['fold']}",
            "repeat": f"repeat {p['repeat']}" if told["repeats"] > 1 else "",
            "strip": svg.whisker(p.get("accuracy"), p.get("accuracy_low"), p.get("accuracy_high"), start),
            "accuracy": percent(p.get("accuracy")),
            "n": f"{count(p.get('n'))} of {count((p.get('n') or 0) + (p.get('trained_on') or 0))}",
            "chosen": short(p.get("label") or p.get("head"), 60),
            "inner": percent(p.get("inner")),
            "seconds": duration(p.get("seconds")),
        }
        for p in parts
    ]
    return {"words": _words(data, told), "rows": rows[:MOST_PARTS], "rest": rows[MOST_PARTS:], "ruler": svg.ruler(start)}


def trust(data: Data) -> list[str]:
    """What makes a cross-validation's number honest, for the first lines of the page."""
    told = data["crossvalidation"]
    closed = told.get("closed") or 0
    lines = [
        "Every image was answered by a classifier that was made without it and without its duplicates. Whatever was to be "
        "chosen was chosen anew inside each fold, so no answer had a part in its own making.",
    ]
    if told["repeats"] > 1:
        lines.append(
            f"The number is the mean over {told['repeats']} repeats with other folds "
            f"({percent_range(min(told['by_repeat']), max(told['by_repeat']))}). "
            "The other scores and the curves below are of the first."
        )
    if closed:
        lines.append(f"The {images(closed, 'test')} {'stays' if closed == 1 else 'stay'} out of it.")
    return lines


def scores_note(data: Data) -> str | None:
    """What the table of scores mixes: the accuracy of a repeated cross-validation is over all repeats; None without repeats."""
    told = data.get("crossvalidation")
    if not told or told["repeats"] < 2:
        return None
    return (
        f"The accuracy is the mean over all {told['repeats']} repeats; every other score is of the first repeat, "
        f"whose accuracy is {percent(told['by_repeat'][0])}."
    )


def suggestion(data: Data) -> tuple[str, str] | None:
    """What to do about a test on few images: a title and a text."""
    command, n = data.get("crossvalidate"), at(data, "test.n")
    if not command or n is None:
        return None
    low, high = at(data, "test.accuracy_low"), at(data, "test.accuracy_high")
    width = f" The interval is {100 * (high - low):.0f} points wide." if low is not None and high is not None else ""
    text = (
        f"{width} Cross-validation has every image outside the test split answered by classifiers that have not seen it, and "
        f"so says more of the recipe: {clean(command)}{_chosen_before(data)}"
    )
    return f"Only {images(n, 'test')}", text.strip()


def _chosen_before(data: Data) -> str:
    """A sentence on what no fold chooses anew, because the run had chosen it on these very images."""
    tried = {(r.get("method"), r.get("backbone")) for r in data.get("ladder") or []}
    tried = {pair for pair in tried if pair[0] not in ("baseline", "shortcut")}
    if len(tried) < 2:
        return ""
    return (
        f" (The method and its network were chosen among {len(tried)} on these very images, which the folds do not do anew: "
        "that flatters a little.)"
    )


def _words(data: Data, told: Data) -> list[str]:
    """What the ranges are, and what they are not."""
    by_repeat = told["by_repeat"]
    lines = [f"{told['folds']} folds, stratified; duplicates and groups on one side ({count(told['clusters'])} of them)."]
    if len(by_repeat) > 1:
        lines.append(f"Means of the repeats: {', '.join(percent(v) for v in by_repeat)}.")
    if len(told.get("heads") or {}) > 1:
        chosen = ", ".join(f"{short(k, 30)} in {count(v)}" for k, v in told["heads"].items())
        lines.append(f"The head was chosen anew in each fold: {chosen}.")
    by, bars = at(data, "threshold.by"), at(data, "threshold.bars", [])
    if bars:
        lines.append(
            f"Answers are turned at each fold's own bar (criterion: {clean(by)}); probabilities are as they were given."
        )
    lines.append(
        "Folds share most of their training images, so their spread is not the uncertainty of the result; the interval above "
        "is over images, each counting once however often it was answered."
    )
    return lines
