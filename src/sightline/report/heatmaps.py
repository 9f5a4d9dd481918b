"""The section on heatmaps: whether they can be believed, what each class relies on, and an alarm for borders and corners."""

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
    "classifier": "Is there anything to explain?",
    "against random": "Hot cells against random cells",
    "against edges": "Hot cells against an edge filter",
    "weights": "Other weights, another map?",
    "noise": "The same map under faint noise?",
    "class": "Another class, another map?",
    "completeness": "Does it add up?",
    "pointing": "Peaks on the object",
}
_KINDS = {"passes": "", "weak": "caution", "don't rely on this": "alarm", "alarm": "alarm"}


def heat(data: Data) -> dict[str, Any] | None:
    """What the run says of its heatmaps; None where nothing was checked."""
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
    return "alarm", f"a border or corner decides ({places}); the checks of the heatmaps: {verdict}, {why}"


def _maps(views: Sequence[Data]) -> dict[str, Any]:
    """The average maps on one scale, which is told in words."""
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
                "figure": average_map(v.get("map") or [], most, f"Average map of {short(v.get('class'), 40)}"),
                "outside": outside,
                "channels": _channels((v.get("channels") or [])[:_MOST_CHANNELS]),
            }
        )
    return {"maps": shown, "most": f"{most:.1f}", "channels": any(m["channels"] for m in shown)}


def _channels(channels: Sequence[Data]) -> str:
    """The channels of a class, those that it shows itself by when they answer apart from those when they do not."""
    groups = []
    for way, words in (("presence", "presence of channel"), ("absence", "absence of channel"), (None, "channel")):
        own = [f"{c.get('channel')} ({percent(c.get('share'), 0)})" for c in channels if c.get("by") == way]
        if own:
            groups.append(f"{words}{'s' if len(own) > 1 else ''} {', '.join(own)}")
    return "; ".join(groups)


def _peak(table: Sequence[Sequence[float]]) -> float:
    """The hottest cell, in units of even heat."""
    cells = [value for row in table for value in row]
    return max(cells, default=0.0) * len(cells)


def average_map(table: Sequence[Sequence[float]], most: float, title: str) -> Markup:
    """A map as squares in ten steps of blue, none for no heat; a frame marks the central 60 % of either side."""
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
    """Return what is known of borders and corners without an alarm: the nearest region, and what blurring it does."""
    if highest is None:
        return "Borders and corners were not tested: there are too few images of each class."
    region = harmless[0] if harmless else highest
    where = (
        f"{region.get('region')}, {percent(region.get('share'), 0)} of the heat on "
        f"{percent(region.get('area'), 0)} of the area "
        f"(class {short(region.get('class'), 40)}, {count(region.get('n'))} images)"
    )
    if harmless:
        return (
            "Heat is concentrated at one border or corner, but blurring it does not clearly lower the probability, so there "
            f"is no alarm: {where}; mean probability {percent(region.get('before'), 0)} before, "
            f"{percent(region.get('after'), 0)} after."
        )
    return f"That a class keeps its heat to one border or corner is not shown; highest: {where}."


def _alarm(alarm: Data) -> dict[str, Any]:
    """An alarm in words, with what covering the place does to the answer."""
    text = (
        f"Half of {count(alarm.get('n'))} images, training's among them where others are few, put "
        f"{percent(alarm.get('share'), 0)} of their heat or more on the {alarm.get('region')}, which is "
        f"{percent(alarm.get('area'), 0)} of the picture."
    )
    if alarm.get("before") is not None:
        text += (
            f" Blurring it there takes the mean probability from {percent(alarm['before'], 0)} to {percent(alarm['after'], 0)}."
        )
    return {"class": alarm.get("class"), "region": alarm.get("region"), "text": text}
