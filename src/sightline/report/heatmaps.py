"""Heatmap section: sanity checks, average heatmaps by class, and alarms for borders and corners."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from sightline.records import RunRecord
from sightline.records.heatmaps import ChannelShare, ClassMap, ClassMaps, RegionShare
from sightline.report import svg
from sightline.report.format import count, percent, short

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


def heat(data: RunRecord) -> dict[str, Any] | None:
    """Return the template variables of the heatmap section; None if no checks were made."""
    checks, overall = data.heatmap_checks, data.class_maps or ClassMaps()
    if not checks or not checks.verdict:
        return None
    rows = [{"check": _CHECKS.get(f.check, f.check), "verdict": f.verdict, "text": f.text} for f in checks.findings]
    views = overall.classes[:MOST_CLASSES]
    alarms = overall.alarms
    word, why = _section(str(checks.verdict), str(checks.why or ""), alarms)
    return {
        "verdict": word,
        "kind": _KINDS.get(word, "caution"),
        "why": why,
        "images": count(checks.images),
        "layer": checks.layer,
        "rows": rows,
        **_maps(views),
        "seen": count(overall.n),
        "two": len(data.classes) == 2,
        "alarms": [_alarm(a) for a in alarms],
        "quiet": "" if alarms else _quiet(overall.highest, overall.harmless),
    }


def _section(verdict: str, why: str, alarms: Sequence[RegionShare]) -> tuple[str, str]:
    """Return the verdict of the section, the worse of the checks and the alarms, and the reason."""
    if not alarms or verdict == "don't rely on this":
        return verdict, why
    places = ", ".join(f"{short(a.class_name, 40)}: {a.region}" for a in alarms)
    return "alarm", f"attribution is concentrated at a border or corner ({places}). Heatmap checks: {verdict}, {why}"


def _maps(views: Sequence[ClassMap]) -> dict[str, Any]:
    """Return the average heatmaps of the classes on one common scale."""
    peaks = [_peak(v.map) for v in views if v.map]
    if not peaks:
        return {"maps": [], "most": None, "channels": False}
    most = max(peaks)
    shown = []
    for v in views:
        outside = percent(v.outside, 0)
        shown.append(
            {
                "name": v.name,
                "n": count(v.n),
                "figure": average_map(v.map, most, f"Average heatmap of {short(v.name, 40)}"),
                "outside": outside,
                "channels": _channels(v.channels[:_MOST_CHANNELS]),
            }
        )
    return {"maps": shown, "most": f"{most:.1f}", "channels": any(m["channels"] for m in shown)}


def _channels(channels: Sequence[ChannelShare]) -> str:
    """Return the top feature channels of a class in words, grouped by presence and absence."""
    groups = []
    for way, words in (("presence", "presence of channel"), ("absence", "absence of channel"), (None, "channel")):
        names = [f"{c.channel} ({percent(c.share, 0)})" for c in channels if c.by == way]
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


def _quiet(highest: RegionShare | None, harmless: Sequence[RegionShare]) -> str:
    """Return a sentence on the border or corner with the highest attribution if there is no alarm."""
    if highest is None:
        return "Borders and corners were not tested: too few images per class."
    region = harmless[0] if harmless else highest
    where = (
        f"{region.region}, {percent(region.share, 0)} of the attribution on "
        f"{percent(region.area, 0)} of the area "
        f"(class {short(region.class_name, 40)}, {count(region.n)} images)"
    )
    if harmless:
        return (
            "No alarm: attribution is concentrated at one border or corner, but blurring this region does not clearly lower "
            f"the probability: {where}; mean probability {percent(region.before, 0)} before blurring, "
            f"{percent(region.after, 0)} after."
        )
    return f"No class concentrates its attribution on one border or corner. Highest: {where}."


def _alarm(alarm: RegionShare) -> dict[str, Any]:
    """Return an alarm in words, with the effect of blurring the region."""
    text = (
        f"In half of {count(alarm.n)} images (training images included if there are few others), at least "
        f"{percent(alarm.share, 0)} of the attribution lies in this region: {alarm.region}, "
        f"{percent(alarm.area, 0)} of the image area."
    )
    if alarm.before is not None:
        before, after = percent(alarm.before, 0), percent(alarm.after, 0)
        text += f" Blurring this region changes the mean probability from {before} to {after}."
    return {"class": alarm.class_name, "region": alarm.region, "text": text}
