"""Cross-validation section of the report: accuracy and selected classifier of each fold and repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sightline.report import svg
from sightline.report.format import at, clean, count, duration, images, percent, percent_range, short

Data = Mapping[str, Any]

MOST_PARTS = 30
"""Folds shown at once; the others are collapsed."""


def folds(data: Data) -> dict[str, Any] | None:
    """Return the table of folds and its explanation; None without a cross-validation."""
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
    """Return sentences for the summary on how a cross-validated score was obtained."""
    told = data["crossvalidation"]
    closed = told.get("closed") or 0
    lines = [
        "Each image was predicted by a classifier that was trained without it and without its duplicates. Model selection was "
        "repeated inside each fold (nested cross-validation), so no image influenced its own prediction.",
    ]
    if told["repeats"] > 1:
        lines.append(
            f"The accuracy is the mean over {told['repeats']} repeats with different folds "
            f"({percent_range(min(told['by_repeat']), max(told['by_repeat']))}). "
            "The other scores and the curves below are from the first repeat."
        )
    if closed:
        lines.append(f"The {images(closed, 'test')} {'was' if closed == 1 else 'were'} not used.")
    return lines


def scores_note(data: Data) -> str | None:
    """Explain that accuracy is averaged over all repeats and the other scores are not; None without repeats."""
    told = data.get("crossvalidation")
    if not told or told["repeats"] < 2:
        return None
    return (
        f"The accuracy is the mean over all {told['repeats']} repeats; every other score is from the first repeat, "
        f"whose accuracy is {percent(told['by_repeat'][0])}."
    )


def suggestion(data: Data) -> tuple[str, str] | None:
    """Return title and text of the advice to cross-validate if there are few test images; None otherwise."""
    command, n = data.get("crossvalidate"), at(data, "test.n")
    if not command or n is None:
        return None
    low, high = at(data, "test.accuracy_low"), at(data, "test.accuracy_high")
    width = f" The 95 % CI is {100 * (high - low):.0f} percentage points wide." if low is not None and high is not None else ""
    text = (
        f"{width} Cross-validation uses all images outside the test split and gives a tighter estimate of this recipe: "
        f"{clean(command)}{_chosen_before(data)}"
    )
    return f"Only {images(n, 'test')}", text.strip()


def _chosen_before(data: Data) -> str:
    """Return a sentence on the bias from selecting method and backbone on the same images; empty without a selection."""
    tried = {(r.get("method"), r.get("backbone")) for r in data.get("ladder") or []}
    tried = {pair for pair in tried if pair[0] not in ("baseline", "shortcut")}
    if len(tried) < 2:
        return ""
    return (
        f" (Slightly optimistic: method and backbone were selected among {len(tried)} on these same images, before the folds.)"
    )


def _words(data: Data, told: Data) -> list[str]:
    """Return sentences that explain the table of folds."""
    by_repeat = told["by_repeat"]
    lines = [f"{told['folds']} stratified folds; duplicates and groups stay in one fold ({count(told['clusters'])} clusters)."]
    if len(by_repeat) > 1:
        lines.append(f"Mean accuracy of each repeat: {', '.join(percent(v) for v in by_repeat)}.")
    if len(told.get("heads") or {}) > 1:
        chosen = ", ".join(f"{short(k, 30)} in {count(v)}" for k, v in told["heads"].items())
        lines.append(f"Head selected in each fold: {chosen}.")
    by, bars = at(data, "threshold.by"), at(data, "threshold.bars", [])
    if bars:
        lines.append(f"Each fold has its own decision threshold (criterion: {clean(by)}); probabilities are unchanged.")
    lines.append(
        "Folds share most of their training images, so the spread over folds is not the uncertainty of the result. The 95 % CI "
        "above is over images; each image counts once, whatever the number of repeats."
    )
    return lines
