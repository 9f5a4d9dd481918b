"""Verdict box: what could make the headline number wrong, each check with its result and the section that explains it."""

from __future__ import annotations

from collections.abc import Callable

from sightline.records import RunRecord
from sightline.report.format import count, images, percent, short
from sightline.report.headline import Alarm, alarms, kind_of, scored

_SMALL_WIDTH = 0.1
"""Width of the 95 % interval of the accuracy from which the scored images are called few."""
_LEVELS = ("alarm", "caution", "note", "passed", "unchecked")


def verdict(data: RunRecord) -> list[Alarm]:
    """Return every check of the headline number: problems first, then checks that passed, then checks that were not made.

    A check whose problem is already among the alarms is not repeated.
    """
    found = alarms(data)
    problems = [(alarm.topic, alarm) for alarm in found]
    topics = {topic for topic, _ in problems if topic}
    for check in _CHECKS:
        item = check(data)
        if item is not None and item.topic not in topics:
            problems.append((item.topic, item))
    return sorted((item for _, item in problems), key=lambda item: _LEVELS.index(item.level))


def _leaks(data: RunRecord) -> Alarm | None:
    if data.kind == "evaluate":
        if data.in_training is None:
            return None
        return _passed("leaks", "Training images", "none of the scored images was used to make the classifier", "scores")
    if data.split is None:
        return None
    if data.split.straddling:
        text = f"{count(data.split.straddling)} sets of duplicates are in more than one split"
        return Alarm(
            "caution", "Duplicates across splits", f"{text}, but none of them in both train and test.", "split", "leaks"
        )
    if not data.dataset or not data.dataset.duplicates:
        return Alarm("unchecked", "Leaks", "duplicates were not searched for", "split", "leaks")
    return _passed("leaks", "Leaks", "no duplicate is in more than one split", "split")


def _shortcut(data: RunRecord) -> Alarm | None:
    found = data.shortcut
    if found is None:
        if data.kind != "run":
            return None
        return Alarm("unchecked", "Shortcut", "file properties were not tested as a shortcut", "methods", "shortcut")
    of = f" (chance {percent(found.chance, 0)})" if found.chance is not None else ""
    return _passed("shortcut", "Shortcut", f"file properties alone reach {percent(found.score, 0)}{of}", "methods")


def _out_of_distribution(data: RunRecord) -> Alarm | None:
    found = data.uncertainty.out_of_distribution if data.uncertainty else None
    if found is None or not found.total:
        return None
    share, expected = found.n / found.total, found.rate or 0.05
    text = f"{count(found.n)} of {images(found.total, kind_of(data))} are unlike the training images"
    if found.n >= 3 and share > max(3 * expected, 0.15):
        more = f"{text} ({percent(share, 0)}; {percent(expected, 0)} would be expected). The score may not hold for them."
        return Alarm("caution", "Many images are unlike the training images", more, "uncertainty", "ood")
    return _passed("ood", "Unlike training", text, "uncertainty")


def _size(data: RunRecord) -> Alarm | None:
    _, score = scored(data)
    if not score or not score.n or score.accuracy.low is None or score.accuracy.high is None:
        return None
    width = score.accuracy.high - score.accuracy.low
    kind = kind_of(data)
    text = f"{images(score.n, kind)}; the 95 % CI is {100 * width:.1f} percentage points wide"
    if width > _SMALL_WIDTH:
        return Alarm(
            "note",
            f"Only {images(score.n, kind)}",
            f"The 95 % CI is {100 * width:.0f} percentage points wide.",
            "scores",
            "size",
        )
    return _passed("size", "Size of the test", text, "scores")


def _robustness(data: RunRecord) -> Alarm | None:
    found = data.stress
    if found is None:
        return None
    if any(score.below for score in found.scores):
        return Alarm("note", "Accuracy falls on altered images", found.sentence, "robustness", "robustness")
    return _passed("robustness", "Altered images", found.sentence, "robustness")


def _heatmaps(data: RunRecord) -> Alarm | None:
    checks, maps = data.heatmap_checks, data.class_maps
    if checks is None or not checks.verdict:
        asked = data.heatmaps.requested if data.heatmaps else None
        if asked is None or (data.heatmaps and data.heatmaps.pending):
            return None
        return Alarm("unchecked", "Heatmap checks", "heatmaps were not checked", "", "heatmaps")
    found = maps.alarms if maps else ()
    if found:
        places = ", ".join(f"{a.region} of “{short(a.class_name, 30)}”" for a in found[:3])
        text = f"Attribution is concentrated at a border or corner: {places}. The classifier may rely on a caption or a frame."
        return Alarm("alarm", "The classifier looks at a border", text, "heatmaps", "heatmaps")
    if checks.verdict == "passes":
        return _passed("heatmaps", "Heatmap checks", f"passed on {images(checks.images)}", "heatmaps")
    why = short(checks.why, 200).rstrip(".")
    text = f"Verdict: {checks.verdict}{f' ({why})' if why else ''}."
    return Alarm("note", "Heatmap checks", f"{text} The score is not affected.", "heatmaps", "heatmaps")


def _test_uses(data: RunRecord) -> Alarm | None:
    if not data.test or data.kind == "evaluate":
        return None
    return _passed("uses", "Uses of the test set", "once, after the classifier was selected", "reproduce")


def _conflicts(data: RunRecord) -> Alarm | None:
    if not data.dataset or not data.dataset.duplicates:
        return None
    return _passed("conflicts", "Labels", "no image appears under two labels", "split")


def _passed(topic: str, title: str, text: str, section: str) -> Alarm:
    return Alarm("passed", title, text, section, topic)


_CHECKS: tuple[Callable[[RunRecord], Alarm | None], ...] = (
    _leaks,
    _shortcut,
    _out_of_distribution,
    _size,
    _robustness,
    _heatmaps,
    _test_uses,
    _conflicts,
)
