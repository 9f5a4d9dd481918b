"""Heatmap section: sanity checks, average heatmaps by class, and alarms for borders and corners."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sightline.report import svg
from sightline.report.format import count, percent, short

Data = Mapping[str, Any]

MOST_CLASSES = 20
_MOST_CHANNELS = 3
_SIDE_PX = 132
_CHECKS = {
    "classifier": "Classifier better than chance",
    "against random": "High-attribution cells vs. random cells",
    "against edges": "High-attribution cells vs. edge detector",
    "weights": "Model randomisation: does the heatmap depend on the weights?",
    "noise": "Stability under faint noise",
    "class": "Class sensitivity: do other classes give other heatmaps?",
    "completeness": "Completeness: do the attributions sum to the score?",
    "pointing": "Pointing game: peak inside the object",
}
_KINDS = {"passes": "", "weak": "caution", "don't rely on this": "alarm", "alarm": "alarm"}


def heat(data: Data) -> dict[str, Any] | None:
    """Return the template variables of the heatmap section; None if no checks were made."""
    checks, overall = data.get("heat_checks"), data.get("heat_global") or {}
    if not checks or not checks.get("verdict"):
        return None
    rows = [
        {"check": _CHECKS.get(f.get("check"), f.get("check")), "verdict": f.get("verdict"), "text": f.get("text")}
        for f in checks.get("findings") or []
    ]
    views = (overall.get("classes") or [])[:MOST_CLASSES]
    alarms = overall.get("alarms") or []
    word, why = _section(str(checks["verdict"]), str(checks.get("why") or ""), alarms)
    return {
        "verdict": word,
        "kind": _KINDS.get(word, "caution"),
        "why": why,
        "images": count(checks.get("images")),
        "layer": checks.get("layer"),
        "rows": rows,
        **_maps(views),
        "seen": count(overall.get("n")),
        "two": len(data.get("classes") or []) == 2,
        "alarms": [_alarm(a) for a in alarms],
        "quiet": "" if alarms else _quiet(overall.get("highest"), overall.get("harmless") or []),
    }


def _section(verdict: str, why: str, alarms: Sequence[Data]) -> tuple[str, str]:
    """Return the verdict of the section, the worse of the checks and the alarms, and the reason."""
    if not alarms or verdict == "don't rely on this":
        return verdict, why
    places = ", ".join(f"{short(a.get('class'), 40)}: {a.get('region')}" for a in alarms)
    return "alarm", f"attribution is concentrated at a border or corner ({places}). Heatmap checks: {verdict}, {why}"


def _maps(views: Sequence[Data]) -> dict[str, Any]:
    """Return the average heatmaps of the classes on one common scale."""
    peaks = [_peak(v["map"]) for v in views if v.get("map")]
    if not peaks:
        return {"maps": [], "most": None, "channels": False}
    most = max(peaks)
    shown = []
    for v in views:
        outside = percent(v.get("outside"), 0)
        shown.append(
            {
                "name": v.get("class"),
                "n": count(v.get("n")),
                "figure": average_map(v.get("map") or [], most, f"Average heatmap of {short(v.get('class'), 40)}"),
                "outside": outside,
                "channels": _channels((v.get("channels") or [])[:_MOST_CHANNELS]),
            }
        )
    return {"maps": shown, "most": f"{most:.1f}", "channels": any(m["channels"] for m in shown)}


def _channels(channels: Sequence[Data]) -> str:
    """Return the top feature channels of a class in words, grouped by presence and absence."""
    groups = []
    for way, words in (("presence", "presence of channel"), ("absence", "absence of channel"), (None, "channel")):
        names = [f"{c.get('channel')} ({percent(c.get('share'), 0)})" for c in channels if c.get("by") == way]
        if names:
            groups.append(f"{words}{'s' if len(names) > 1 else ''} {', '.join(names)}")
    return "; ".join(groups)


def _peak(table: Sequence[Sequence[float]]) -> float:
    """Return the largest cell in multiples of the uniform value."""
    cells = [value for row in table for value in row]
    return max(cells, default=0.0) * len(cells)


def average_map(table: Sequence[Sequence[float]], most: float, title: str) -> Markup:
    """Draw a heatmap as squares in ten shades of blue; a frame marks the central 60 % of each side."""
    rows, columns = len(table), len(table[0]) if table else 0
    if not rows or not columns:
        return Markup("")
    cell = _SIDE_PX / max(rows, columns)
    parts = [_rect(0, 0, columns * cell, rows * cell, "track")]
    for r, row in enumerate(table):
        for c, value in enumerate(row):
            level = math.ceil(10 * value * rows * columns / most - 1e-9) if most > 0 else 0
            if level > 0:
                parts.append(_rect(c * cell, r * cell, cell - 0.4, cell - 0.4, f"hit{min(level, 10)}"))
    width, height = columns * cell, rows * cell
    edges = [(0.2, 0.2, 0.8, 0.2), (0.8, 0.2, 0.8, 0.8), (0.8, 0.8, 0.2, 0.8), (0.2, 0.8, 0.2, 0.2)]
    parts += [_edge(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in edges]
    return svg.svg(width, height, Markup("").join(parts), title, "heatmap")


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    text = '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"/>'
    return Markup(text).format(x, y, width, height, kind)


def _edge(x1: float, y1: float, x2: float, y2: float) -> Markup:
    text = '<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="axis"/>'
    return Markup(text).format(x1, y1, x2, y2)


def _quiet(highest: Data | None, harmless: Sequence[Data]) -> str:
    """Return a sentence on the border or corner with the highest attribution if there is no alarm."""
    if highest is None:
        return "Borders and corners were not tested: too few images per class."
    region = harmless[0] if harmless else highest
    where = (
        f"{region.get('region')}, {percent(region.get('share'), 0)} of the attribution on "
        f"{percent(region.get('area'), 0)} of the area "
        f"(class {short(region.get('class'), 40)}, {count(region.get('n'))} images)"
    )
    if harmless:
        return (
            "No alarm: attribution is concentrated at one border or corner, but blurring this region does not clearly lower "
            f"the probability: {where}; mean probability {percent(region.get('before'), 0)} before blurring, "
            f"{percent(region.get('after'), 0)} after."
        )
    return f"No class concentrates its attribution on one border or corner. Highest: {where}."


def _alarm(alarm: Data) -> dict[str, Any]:
    """Return an alarm in words, with the effect of blurring the region."""
    text = (
        f"In half of {count(alarm.get('n'))} images (training images included if there are few others), at least "
        f"{percent(alarm.get('share'), 0)} of the attribution lies in this region: {alarm.get('region')}, "
        f"{percent(alarm.get('area'), 0)} of the image area."
    )
    if alarm.get("before") is not None:
        before, after = percent(alarm["before"], 0), percent(alarm["after"], 0)
        text += f" Blurring this region changes the mean probability from {before} to {after}."
    return {"class": alarm.get("class"), "region": alarm.get("region"), "text": text}
