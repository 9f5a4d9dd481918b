"""Cross-validation section of the report: accuracy and selected classifier of each fold and repeat."""

from __future__ import annotations

from typing import Any

from sightline.records import RunRecord
from sightline.records.cross_validation import CrossValidationSummary
from sightline.report import svg
from sightline.report.format import clean, count, duration, images, percent, percent_range, short

MOST_PARTS = 30
"""Folds shown at once; the others are collapsed."""


def folds(data: RunRecord) -> dict[str, Any] | None:
    """Return the table of folds and its explanation; None without a cross-validation."""
    told = data.cross_validation
    if not told:
        return None
    parts = told.parts
    start = svg.floor_of([p.accuracy_low for p in parts])
    rows = [
        {
            "name": f"Fold {p.fold}",
            "repeat": f"repeat {p.repeat}" if told.repeats > 1 else "",
            "strip": svg.whisker(p.accuracy, p.accuracy_low, p.accuracy_high, start),
            "accuracy": percent(p.accuracy),
            "n": f"{count(p.n)} of {count((p.n or 0) + (p.trained_on or 0))}",
            "chosen": short(p.label or p.head, 60),
            "inner": percent(p.inner),
            "seconds": duration(p.seconds),
        }
        for p in parts
    ]
    return {"words": _words(data, told), "rows": rows[:MOST_PARTS], "rest": rows[MOST_PARTS:], "ruler": svg.ruler(start)}


def trust(data: RunRecord) -> list[str]:
    """Return sentences for the summary on how a cross-validated score was obtained."""
    told = data.cross_validation
    assert told is not None
    closed = told.test_images
    lines = [
        "Each image was predicted by a classifier that was trained without it and without its duplicates. Model selection was "
        "repeated inside each fold (nested cross-validation), so no image influenced its own prediction.",
    ]
    if told.repeats > 1:
        lines.append(
            f"The accuracy is the mean over {told.repeats} repeats with different folds "
            f"({percent_range(min(told.by_repeat), max(told.by_repeat))}). "
            "The other scores and the curves below are from the first repeat."
        )
    if closed:
        lines.append(f"The {images(closed, 'test')} {'was' if closed == 1 else 'were'} not used.")
    return lines


def scores_note(data: RunRecord) -> str | None:
    """Explain that accuracy is averaged over all repeats and the other scores are not; None without repeats."""
    told = data.cross_validation
    if not told or told.repeats < 2:
        return None
    return (
        f"The accuracy is the mean over all {told.repeats} repeats; every other score is from the first repeat, "
        f"whose accuracy is {percent(told.by_repeat[0])}."
    )


def suggestion(data: RunRecord) -> tuple[str, str] | None:
    """Return title and text of the advice to cross-validate if there are few test images; None otherwise."""
    command, n = data.crossvalidate_command, data.test.n if data.test else None
    if not command or data.test is None or n is None:
        return None
    low, high = data.test.accuracy.low, data.test.accuracy.high
    width = f" The 95 % CI is {100 * (high - low):.0f} percentage points wide." if low is not None and high is not None else ""
    text = (
        f"{width} Cross-validation uses all images outside the test split and gives a tighter estimate of this recipe: "
        f"{clean(command)}{_chosen_before(data)}"
    )
    return f"Only {images(n, 'test')}", text.strip()


def _chosen_before(data: RunRecord) -> str:
    """Return a sentence on the bias from selecting method and backbone on the same images; empty without a selection."""
    tried = {(r.method, r.backbone) for r in data.candidates}
    tried = {pair for pair in tried if pair[0] not in ("baseline", "shortcut")}
    if len(tried) < 2:
        return ""
    return (
        f" (Slightly optimistic: method and backbone were selected among {len(tried)} on these same images, before the folds.)"
    )


def _words(data: RunRecord, told: CrossValidationSummary) -> list[str]:
    """Return sentences that explain the table of folds."""
    by_repeat = told.by_repeat
    lines = [f"{told.folds} stratified folds; duplicates and groups stay in one fold ({count(told.clusters)} clusters)."]
    if len(by_repeat) > 1:
        lines.append(f"Mean accuracy of each repeat: {', '.join(percent(v) for v in by_repeat)}.")
    if len(told.heads) > 1:
        chosen = ", ".join(f"{short(k, 30)} in {count(v)}" for k, v in told.heads.items())
        lines.append(f"Head selected in each fold: {chosen}.")
    threshold = data.threshold
    if threshold is not None and threshold.by_fold:
        lines.append(
            f"Each fold has its own decision threshold (criterion: {clean(threshold.criterion)}); probabilities are unchanged."
        )
    lines.append(
        "Folds share most of their training images, so the spread over folds is not the uncertainty of the result. The 95 % CI "
        "above is over images; each image counts once, whatever the number of repeats."
    )
    return lines
