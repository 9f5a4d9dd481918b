"""Study report: sweeps and hyperparameter searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sightline import __version__
from sightline.records import SearchRecord, StudyRecord, SweepRecord
from sightline.records.study import SweepComparison, SweepSetting, Trial
from sightline.report import svg
from sightline.report.format import clean, count, date, decimal, duration, percent, percent_range, short
from sightline.report.page import inlined, templates
from sightline.store import write_text

MOST_BARS = 10
MOST_ROWS = 25
"""Trials shown at once; the others are collapsed."""


def write_study(data: StudyRecord, out: Path) -> Path:
    """Write one self-contained HTML file about a study.

    Args:
        data: The content of `study.json`.
        out: The HTML file; an existing file is replaced only when the new one is complete.

    Returns:
        `out`.
    """
    page = (
        templates()
        .get_template("study.html.j2")
        .render(
            **inlined(),
            version=__version__,
            kind=data.kind,
            title=short(data.name, 60),
            date=date(data.created),
            words=[clean(w) for w in data.words],
            images=data.images,
            estimate=data.estimate,
            seconds=duration(data.seconds),
            recipe=_recipe(data.recipe),
            **(_sweep(data) if isinstance(data, SweepRecord) else _tune(data)),
        )
    )
    write_text(Path(out), page)
    return Path(out)


def _recipe(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the keys and settings of a recipe that have a value."""
    whole = {**{k: v for k, v in recipe.items() if k != "settings"}, **(recipe.get("settings", {}))}
    return [(clean(k), short(_value(v), 120)) for k, v in whole.items() if v is not None]


def _value(value: Any) -> str:
    """Return a value of a recipe as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(f"[{_value(v)}]" if isinstance(v, list) else _value(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------------------------------------------------- sweeps


def _sweep(data: SweepRecord) -> dict[str, Any]:
    """Return the template variables of a sweep."""
    rows = data.settings
    start = svg.floor_of([r.accuracy_low for r in rows if r.failed is None])
    shown = [
        {
            "name": short(r.label, 60),
            "best": r.best,
            "mark": ("best" if r.best else "") if r.mark is None else r.mark,
            "default": r.default,
            "failed": r.failed,
            "strip": svg.whisker(r.accuracy, r.accuracy_low, r.accuracy_high, start, "on" if r.best else ""),
            "accuracy": percent(r.accuracy),
            "range": percent_range(r.accuracy_low, r.accuracy_high) if len(data.seeds) > 1 else "",
            "log_loss": decimal(r.log_loss),
            "seconds": duration(r.seconds),
            "parameters": count(r.parameters),
            "memory": "" if r.feature_bytes is None else f"{count(r.feature_width)} ({r.feature_bytes / 1e6:,.1f} MB)",
        }
        for r in rows
    ]
    return {
        "keys": [clean(k) for k in data.keys],
        "seeds": data.seeds,
        "rows": shown,
        "stored": any(r.feature_bytes for r in rows),
        "ruler": svg.ruler(start),
        "figure": _plot(data),
        "heat": _heat(data),
        "comparisons": {
            name: [_compared(c, rows) for c in data.comparisons if c.against == name] for name in ("best", "default")
        },
        "reference": {name: rows[i].label for name, i in (("best", data.best), ("default", data.default)) if i is not None},
    }


def _compared(c: SweepComparison, rows: Sequence[SweepSetting]) -> dict[str, Any]:
    """Return a row of the table of paired tests, in percentage points."""
    return {
        "name": short(rows[c.b].label, 60),
        "difference": _points(c.difference),
        "interval": f"[{_points(c.low)}, {_points(c.high)}]",
        "by_seed": f"{_points(min(c.by_seed))} to {_points(max(c.by_seed))}" if len(c.by_seed) > 1 else "",
        "p": _p(c.p),
        "corrected": _p(c.p_corrected),
        "told_apart": c.significant,
    }


def _points(share: float) -> str:
    """Return a difference of fractions in percentage points.

    Example:
        >>> _points(-0.0001), _points(0.0834)
        ('0.0', '+8.3')
    """
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def _p(p: float) -> str:
    """Return a p value with two significant digits."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.995 else "1"


def _numbers(data: SweepRecord, key: str) -> bool:
    """Return whether every value of a key is a number."""
    return all(isinstance(r.setting[key], int | float) and not isinstance(r.setting[key], bool) for r in data.settings)


def _plot(data: SweepRecord) -> Markup | None:
    """Return the plot of accuracy over the values of the only key; None if they are not numbers."""
    rows = [r for r in data.settings if r.failed is None]
    if len(data.keys) != 1 or len(rows) < 2 or not _numbers(data, data.keys[0]):
        return None
    key = data.keys[0]
    rows.sort(key=lambda r: r.setting[key])
    points = [
        svg.Ranged(
            x=r.setting[key],
            name=r.label,
            mean=r.accuracy,
            low=r.accuracy_low,
            high=r.accuracy_high,
            each=r.by_seed,
            chosen=r.best,
        )
        for r in rows
        if r.accuracy is not None and r.accuracy_low is not None and r.accuracy_high is not None and r.by_seed is not None
    ]
    log = points[0].x > 0 and points[-1].x >= 20 * points[0].x
    return svg.ranges(points, (clean(key), "accuracy"), f"Accuracy over {clean(key)}", log=log)


def _heat(data: SweepRecord) -> dict[str, Any] | None:
    """Return accuracy over the values of two keys as a colour-coded table; None for another number of keys."""
    if len(data.keys) != 2:
        return None
    down, across = data.keys
    known = [r.accuracy for r in data.settings if r.accuracy is not None]
    low, width = min(known), (max(known) - min(known)) or 1.0
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for r in data.settings:
        place = _value(r.setting[down]), _value(r.setting[across])
        if r.accuracy is not None:
            level = 1 + round(9 * (r.accuracy - low) / width)
            cells[place] = {"kind": f"hit{level}", "text": percent(r.accuracy)}
        else:
            cells[place] = {"kind": "none", "text": "failed"}
    names = [list(dict.fromkeys(place[i] for place in cells)) for i in (0, 1)]
    body = [{"name": short(a, 30), "cells": [cells[a, b] for b in names[1]]} for a in names[0]]
    return {"down": clean(down), "across": clean(across), "columns": [short(b, 24) for b in names[1]], "rows": body}


# --------------------------------------------------------------------------------------------------------- searches


def _tune(data: SearchRecord) -> dict[str, Any]:
    """Return the template variables of a hyperparameter search."""
    complete = [t for t in data.trials if t.state == "complete"]
    ranked = sorted(complete, key=lambda t: (t.number != data.best, -(t.accuracy or 0.0), t.log_loss))
    others = [t for t in data.trials if t.state != "complete"]
    start = svg.floor_of([t.accuracy for t in ranked[: MOST_ROWS or None]])
    mark = "best" if data.comparison.significant or data.best == 0 else "best, not significant"
    rows = [{**_trial(t, start, data.best), "mark": mark} for t in [*ranked, *others]]
    points = [(p.number, p.accuracy, p.best) for p in data.path if p.best is not None]
    title = f"Accuracy of {len(points)} trials and the best so far"
    top = max(data.importance.values(), default=0.0)
    return {
        "changed": [(clean(k), short(_value(v), 120)) for k, v in data.changed.items()],
        "figure": svg.best_so_far(points, ("trial", "accuracy (line: best so far)"), title) if len(points) > 1 else None,
        "importance": [
            {"name": clean(name), "bar": svg.share_bar(value / top), "share": percent(value, 0)}
            for name, value in sorted(data.importance.items(), key=lambda item: -item[1])[:MOST_BARS]
            if value >= 0.005
        ],
        "ruler": svg.ruler(start),
        "rows": rows[:MOST_ROWS],
        "rest": rows[MOST_ROWS:],
        "counts": ", ".join(f"{count(n)} {state}" for state, n in data.counts.items() if n),
        "comparison_facts": _against_default(data),
    }


def _trial(t: Trial, start: float, best: int) -> dict[str, Any]:
    """Return a row of the table of trials."""
    params = ", ".join(f"{clean(k)} {_value(v)}" for k, v in t.params.items())
    complete = t.state == "complete"
    return {
        "number": t.number,
        "params": short(params or "the starting recipe", 160),
        "best": t.number == best,
        "default": t.number == 0,
        "strip": svg.whisker(t.accuracy, None, None, start, "on" if t.number == best else "") if complete else "",
        "accuracy": percent(t.accuracy) if complete else t.state,
        "why": short(t.why, 120) if t.why else "",
        "log_loss": decimal(t.log_loss) if complete else "",
        "seconds": duration(t.seconds),
        "parameters": count(t.parameters),
    }


def _against_default(data: SearchRecord) -> list[tuple[str, str]]:
    """Return the comparison of the best trial with the starting recipe, and its optimism, as facts."""
    c, worth = data.comparison, data.optimism
    facts = [
        ("Difference", f"{_points(c.difference)} percentage points (95 % CI [{_points(c.low)}, {_points(c.high)}])"),
        ("p (McNemar's exact test)", _p(c.p)),
    ]
    if worth is not None and data.best != 0:
        facts += [
            (
                "Expected on new images",
                f"about {100 * worth.optimism:.1f} points lower (best of {worth.chosen_among} trials)",
            ),
            ("Split-half gain", f"{_points(worth.gain)} points: selected on one half of the images, evaluated on the other"),
        ]
    return facts
