"""From a finished study (a sweep or a search) to its page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sightline import __version__
from sightline.errors import RequestError
from sightline.report import svg
from sightline.report.format import clean, count, date, decimal, duration, percent, percent_range, short
from sightline.report.page import TEMPLATES, templates
from sightline.store import write_text

MOST_BARS = 10
MOST_ROWS = 25
"""Trials that are shown at once; the others fold away."""


def write_study(data: Mapping[str, Any], out: Path) -> Path:
    """Write one self-contained HTML file about a study.

    Args:
        data: The content of `study.json`.
        out: The file; a complete older one stays until the new one is whole.

    Returns:
        `out`.

    Raises:
        RequestError: It is no study.
    """
    if data.get("kind") not in _VIEWS:
        raise RequestError(f"{data.get('kind')!r} is no kind of study", f"known: {', '.join(_VIEWS)}")
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    page = (
        templates()
        .get_template("study.html.j2")
        .render(
            style=Markup(style),
            style_hash=base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii"),
            version=__version__,
            kind=data["kind"],
            title=short(data.get("name"), 60),
            date=date(data.get("created")),
            words=[clean(w) for w in data["words"]],
            images=data["images"],
            estimate=data["estimate"],
            seconds=duration(data.get("seconds")),
            recipe=_recipe(data["recipe"]),
            **_VIEWS[data["kind"]](data),
        )
    )
    write_text(Path(out), page)
    return Path(out)


def _recipe(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The keys of a recipe that say something, settings among them."""
    whole = {**{k: v for k, v in recipe.items() if k != "settings"}, **recipe.get("settings", {})}
    return [(clean(k), short(_value(v), 120)) for k, v in whole.items() if v is not None]


def _value(value: Any) -> str:
    """A value of a recipe as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(f"[{_value(v)}]" if isinstance(v, list) else _value(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------------------------------------------------- sweeps


def _sweep(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a sweep."""
    rows = data["settings"]
    start = svg.floor_of([r["accuracy_low"] for r in rows if r["failed"] is None])
    shown = [
        {
            "name": short(r["label"], 60),
            "best": r["best"],
            "mark": r.get("mark", "best" if r["best"] else ""),
            "default": r["default"],
            "failed": r["failed"],
            "strip": svg.whisker(r["accuracy"], r["accuracy_low"], r["accuracy_high"], start, "on" if r["best"] else ""),
            "accuracy": percent(r["accuracy"]),
            "range": percent_range(r["accuracy_low"], r["accuracy_high"]) if len(data["seeds"]) > 1 else "",
            "log_loss": decimal(r["log_loss"]),
            "seconds": duration(r["seconds"]),
            "parameters": count(r["parameters"]),
        }
        for r in rows
    ]
    return {
        "keys": [clean(k) for k in data["keys"]],
        "seeds": data["seeds"],
        "rows": shown,
        "ruler": svg.ruler(start),
        "figure": _plot(data),
        "heat": _heat(data),
        "comparisons": {
            name: [_compared(c, rows) for c in data["comparisons"] if c["against"] == name] for name in ("best", "default")
        },
        "reference": {name: rows[data[name]]["label"] for name in ("best", "default") if data[name] is not None},
    }


def _compared(c: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One paired test, in percentage points."""
    return {
        "name": short(rows[c["b"]]["label"], 60),
        "difference": _points(c["difference"]),
        "interval": f"{_points(c['low'])} to {_points(c['high'])}",
        "by_seed": f"{_points(min(c['by_seed']))} to {_points(max(c['by_seed']))}" if len(c["by_seed"]) > 1 else "",
        "p": _p(c["p"]),
        "corrected": _p(c["p_corrected"]),
        "told_apart": c["told_apart"],
    }


def _points(share: float) -> str:
    """A difference of shares in percentage points.

    Example:
        >>> _points(-0.0001), _points(0.0834)
        ('0.0', '+8.3')
    """
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def _p(p: float) -> str:
    """A p value with as many places as it has."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.995 else "1"


def _numbers(data: Mapping[str, Any], key: str) -> bool:
    """Whether every value of a key is a number."""
    return all(isinstance(r["setting"][key], int | float) and not isinstance(r["setting"][key], bool) for r in data["settings"])


def _plot(data: Mapping[str, Any]) -> Markup | None:
    """Accuracy over the values of one key, where they are numbers."""
    rows = [r for r in data["settings"] if r["failed"] is None]
    if len(data["keys"]) != 1 or len(rows) < 2 or not _numbers(data, data["keys"][0]):
        return None
    key = data["keys"][0]
    rows.sort(key=lambda r: r["setting"][key])
    points = [
        svg.Ranged(r["setting"][key], r["label"], r["accuracy"], r["accuracy_low"], r["accuracy_high"], r["by_seed"], r["best"])
        for r in rows
    ]
    log = points[0].x > 0 and points[-1].x >= 20 * points[0].x
    return svg.ranges(points, (clean(key), "accuracy"), f"Accuracy over {clean(key)}", log=log)


def _heat(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Accuracy over the values of two keys as a table whose cells are the deeper the better."""
    if len(data["keys"]) != 2:
        return None
    down, across = data["keys"]
    known = [r["accuracy"] for r in data["settings"] if r["failed"] is None]
    low, width = min(known), (max(known) - min(known)) or 1.0
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for r in data["settings"]:
        place = _value(r["setting"][down]), _value(r["setting"][across])
        if r["failed"] is None:
            level = 1 + round(9 * (r["accuracy"] - low) / width)
            cells[place] = {"kind": f"hit{level}", "text": percent(r["accuracy"])}
        else:
            cells[place] = {"kind": "none", "text": "failed"}
    names = [list(dict.fromkeys(place[i] for place in cells)) for i in (0, 1)]
    body = [{"name": short(a, 30), "cells": [cells[a, b] for b in names[1]]} for a in names[0]]
    return {"down": clean(down), "across": clean(across), "columns": [short(b, 24) for b in names[1]], "rows": body}


# --------------------------------------------------------------------------------------------------------- searches


def _tune(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a search."""
    complete = [t for t in data["trials"] if t["state"] == "complete"]
    ranked = sorted(complete, key=lambda t: (t["number"] != data["best"], -t["accuracy"], t["log_loss"]))
    others = [t for t in data["trials"] if t["state"] != "complete"]
    start = svg.floor_of([t["accuracy"] for t in ranked[: MOST_ROWS or None]])
    mark = "best" if data["comparison"]["told_apart"] or data["best"] == 0 else "first, may be chance"
    rows = [{**_trial(t, start, data["best"]), "mark": mark} for t in [*ranked, *others]]
    points = [(p["number"], p["accuracy"], p["best"]) for p in data["path"] if p["best"] is not None]
    title = f"Accuracy of {len(points)} trials and the best so far"
    top = max(data["importance"].values(), default=0.0)
    return {
        "changed": [(clean(k), short(_value(v), 120)) for k, v in data["changed"].items()],
        "figure": svg.climb(points, ("trial", "accuracy, and the best so far"), title) if len(points) > 1 else None,
        "importance": [
            {"name": clean(name), "bar": svg.share_bar(value / top), "share": percent(value, 0)}
            for name, value in sorted(data["importance"].items(), key=lambda item: -item[1])[:MOST_BARS]
            if value >= 0.005
        ],
        "ruler": svg.ruler(start),
        "rows": rows[:MOST_ROWS],
        "rest": rows[MOST_ROWS:],
        "counts": ", ".join(f"{count(n)} {state}" for state, n in data["counts"].items() if n),
        "comparison_facts": _against_default(data),
    }


def _trial(t: Mapping[str, Any], start: float, best: int) -> dict[str, Any]:
    """One line of the table of trials."""
    params = ", ".join(f"{clean(k)} {_value(v)}" for k, v in t["params"].items())
    complete = t["state"] == "complete"
    return {
        "number": t["number"],
        "params": short(params or "the starting recipe", 160),
        "best": t["number"] == best,
        "default": t["number"] == 0,
        "strip": svg.whisker(t["accuracy"], None, None, start, "on" if t["number"] == best else "") if complete else "",
        "accuracy": percent(t["accuracy"]) if complete else t["state"],
        "why": short(t["why"], 120) if t["why"] else "",
        "log_loss": decimal(t["log_loss"]) if complete else "",
        "seconds": duration(t["seconds"]),
        "parameters": count(t["parameters"]),
    }


def _against_default(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the comparison of the best trial with the starting recipe, and its optimism, as facts."""
    c, worth = data["comparison"], data["optimism"]
    facts = [
        ("Difference", f"{_points(c['difference'])} percentage points ({_points(c['low'])} to {_points(c['high'])})"),
        ("McNemar's exact p", _p(c["p"])),
    ]
    if worth is not None and data["best"] != 0:
        facts += [
            (
                "On other images",
                f"about {100 * worth['optimism']:.1f} points less: chosen among {worth['chosen_among']}",
            ),
            ("Gain on halves", f"{_points(worth['gain'])} points, chosen on one half of the images, scored on the other"),
        ]
    return facts


_VIEWS = {"sweep": _sweep, "tune": _tune}
