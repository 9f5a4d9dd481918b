"""Predictions of events: images of one event, such as a burst of a camera trap, give one prediction together."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from sightline.classifier import Classifier
from sightline.commands.prediction_rows import of_predictions
from sightline.errors import RequestError
from sightline.records import Predictions

BURST = "burst"
BURST_GAP_S = 10
"""Maximum time between two consecutive images of a burst, in seconds."""

MOST_NAMED = 200
"""Unreadable images that are named; the predictions of images name all."""

Entries = Callable[[], Iterator[dict[str, Any]]]


@dataclass(slots=True)
class _Event:
    """Images of one event so far.

    Args:
        path: Path of its first image.
        total: Sum of the probabilities, float64 (k,).
        images, failed: Number of images with and without a prediction.
        times: Earliest and latest capture time.
        columns: Cells that are equal in all rows.
    """

    path: str
    total: np.ndarray
    images: int = 0
    failed: int = 0
    times: tuple[str, str] | None = None
    columns: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Groups:
    """Predictions of events.

    Args:
        entries: Function that yields one entry per event, in the order of their first images.
        number, failed: Number of events, and of those without a prediction.
        notes: Remarks for the user.
    """

    entries: Entries
    number: int
    failed: int = 0
    notes: list[str] = field(default_factory=list)


def group(entries: Entries, by: str, model: Classifier, sets: float | None, top: int | None) -> Groups:
    """Return one prediction per event: the mean of its images' probabilities.

    Args:
        entries: Yields the entries of images.
        by: Column of a table, or `burst`: images of one folder, each taken at most `BURST_GAP_S` after the one before.
        model: The classifier.
        sets: Coverage of prediction sets, or None.
        top: Number of most probable classes to list, or None.

    Raises:
        RequestError: If no entry has the column, or no image has a capture time.
    """
    events: dict[str, _Event] = {}
    names = _bursts(entries) if by == BURST else None
    unread: list[str] = []
    for number, entry in enumerate(entries()):
        own = entry.get("columns")
        if "error" in entry and len(unread) < MOST_NAMED:
            unread.append(entry["error"] if entry["path"] in entry["error"] else f"{entry['path']}: {entry['error']}")
        if names is None and (own is None or by not in own):
            known = ", ".join(own) if own else "only images of a table have columns"
            raise RequestError(f"{entry['path']} has no column {by!r} ({known})", f"use --group-by {BURST}, or name a column")
        name = names[number] if names is not None else (own or {})[by] or entry["path"]
        event = events.setdefault(name, _Event(entry["path"], np.zeros(len(model.classes))))
        _add(event, entry, model.classes, by)
    notes = [f"{len(events):,} events", *unread]
    lost = sum(event.images == 0 for event in events.values())
    if lost:
        notes.append(f"{lost:,} events have no image that can be read, and no prediction")
    if sets is not None:
        notes.append(f"the coverage {sets:g} of prediction sets is calibrated on single images; it does not hold for events")
    return Groups(lambda: _entries(events, model, sets, top), len(events), lost, notes)


def _add(event: _Event, entry: dict[str, Any], classes: tuple[str, ...], by: str) -> None:
    """Add one image to its event, in place."""
    if "error" in entry:
        event.failed += 1
    else:
        event.images += 1
        event.total += [entry["probabilities"][c] for c in classes]
    time, own = entry.get("time"), entry.get("columns")
    if time is not None:
        event.times = (time, time) if event.times is None else (min(event.times[0], time), max(event.times[1], time))
    if own is not None:
        before = own if event.columns is None else event.columns
        event.columns = {key: value for key, value in before.items() if own.get(key) == value and key != by}


def _entries(events: dict[str, _Event], model: Classifier, sets: float | None, top: int | None) -> Iterator[dict[str, Any]]:
    """Yield one entry per event."""
    limits = model.uncertainty_limits(sets)
    for name, event in events.items():
        more: dict[str, Any] = {"event": name, "images": event.images, "unreadable": event.failed}
        if event.times is not None:
            more |= {"time": event.times[0], "last_time": event.times[1]}
        if event.columns:
            more["columns"] = event.columns
        if not event.images:
            yield {"path": event.path, "error": "no image of the event can be read", **more}
            continue
        probs = (event.total / event.images)[None]
        mean = Predictions((event.path,), model.classes, np.array([-1]), probs, threshold=model.card.decision)
        fit = None if limits is None else limits.of(mean)
        yield {**of_predictions(mean, fit, with_sets=sets is not None, top=top)[0], **more}


def _bursts(entries: Entries) -> list[str]:
    """Return the event of each image: images of one folder, each taken at most `BURST_GAP_S` after the one before.

    An image without a capture time is an event of its own.

    Raises:
        RequestError: If no image has a capture time.
    """
    folders: dict[str, int] = {}
    numbers, seconds, paths = [], [], []
    for entry in entries():
        folder = PurePath(entry["path"]).parent.as_posix()
        numbers.append(folders.setdefault(folder, len(folders)))
        seconds.append(_seconds(entry.get("time")))
        paths.append(entry["path"])
    time, folder_of = np.array(seconds), np.array(numbers)
    if not np.isfinite(time).any():
        raise RequestError("no image has a capture time in its EXIF data, so there are no bursts", "group by a table's column")
    names = list(paths)
    order = np.lexsort((np.arange(len(time)), time, folder_of))
    before: int | None = None
    for i in order.tolist():
        if not np.isfinite(time[i]):
            before = None
            continue
        if before is not None and folder_of[before] == folder_of[i] and time[i] - time[before] <= BURST_GAP_S:
            names[i] = names[before]
        before = i
    return names


def _seconds(time: str | None) -> float:
    """Return a capture time as seconds; NaN if it is unknown or invalid."""
    try:
        return float("nan") if time is None else datetime.datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError, OSError):
        return float("nan")
