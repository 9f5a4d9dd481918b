"""Heatmap section of the report: content, escaping, and no section without checks."""

from __future__ import annotations

import re
from typing import Any

from sightline.records import RunRecord
from sightline.report import heatmaps
from sightline.report.page import templates

NASTY = "<script>alert(1)</script>"


def data(**changes: Any) -> dict[str, Any]:
    findings = [
        {"check": "weights", "verdict": "passes", "text": NASTY},
        {"check": "noise", "verdict": "weak", "text": "shaky"},
    ]
    views = [{"class": NASTY, "n": 9, "map": [[0.0, 0.5], [0.25, 0.25]], "outside": 0.6, "channels": [], "regions": {}}]
    alarm = {
        "class": NASTY,
        "region": "lower border",
        "n": 9,
        "share": 0.7,
        "area": 1 / 7,
        "p": 1e-4,
        "before": 0.9,
        "after": 0.4,
    }
    kept = {"verdict": "weak", "why": NASTY, "images": 24, "layer": "last map", "findings": findings}
    return {"heat_checks": kept, "heat_global": {"n": 9, "classes": views, "alarms": [alarm]}} | changes


def rendered(of: dict[str, Any]) -> str:
    return templates().get_template("heatmaps.html.j2").render(run={"id": "", "heat": heatmaps.heat(RunRecord.from_json(of))})


def test_section_shows_verdict_numbers_and_alarm() -> None:
    page = rendered(data())
    assert "weak" in page and "shaky" in page and "lower border" in page
    assert re.search(r"from 90\s?% to 40\s?%", page) and "2.0 times the uniform value" in page and page.count('"hit') == 3
    assert NASTY not in page and "&lt;script&gt;" in page


def test_a_run_without_checks_has_no_section() -> None:
    assert heatmaps.heat(RunRecord()) is None and rendered({"heat_checks": None}).strip() == ""


def test_table_of_checks_does_not_need_average_heatmaps() -> None:
    page = rendered(data(heat_global=None))
    assert "Average heatmap" not in page and "shaky" in page


def test_verdict_is_the_worse_of_checks_and_alarm() -> None:
    passing = data()["heat_checks"] | {"verdict": "passes", "why": "all 5 checks pass"}
    alarmed = heatmaps.heat(RunRecord.from_json(data(heat_checks=passing)))
    assert alarmed is not None and (alarmed["verdict"], alarmed["kind"]) == ("alarm", "alarm")
    assert "lower border" in alarmed["why"] and "passes" in alarmed["why"]
    overall = data()["heat_global"]
    harmless = overall["alarms"][0] | {"before": 0.66, "after": 0.70}
    quiet = heatmaps.heat(
        RunRecord.from_json(
            data(heat_checks=passing, heat_global=overall | {"alarms": [], "harmless": [harmless], "highest": harmless})
        )
    )
    assert quiet is not None and quiet["verdict"] == "passes" and not quiet["alarms"]
    assert "does not clearly lower" in quiet["quiet"] and "lower border" in quiet["quiet"]


def test_without_an_alarm_the_highest_region_is_reported() -> None:
    overall = data()["heat_global"]
    highest = {"class": NASTY, "region": "upper right corner", "n": 16, "share": 0.339, "area": 0.0816, "p": 0.07}
    page = rendered(data(heat_global=overall | {"alarms": [], "highest": highest}))
    assert re.search(r"Highest: upper right corner, 34\s?% of the attribution on 8\s?% of the area", page)
    assert "No class concentrates" in page and NASTY not in page and "16 images" in page
    assert "not tested" in rendered(data(heat_global=overall | {"alarms": [], "highest": None}))
    assert "No class concentrates" not in rendered(data())


def test_channels_are_grouped_by_presence_and_absence() -> None:
    overall = data()["heat_global"]
    ways = ("presence", "absence", "presence", "absence")
    channels = [{"channel": 10 + i, "share": 0.4 - i / 10, "by": way} for i, way in enumerate(ways)]
    views = [overall["classes"][0] | {"channels": channels}]
    page = " ".join(rendered(data(classes=["a", "b"], heat_global=overall | {"classes": views})).split())
    text = r"Feature channels</summary>presence of channels 10 \(40\s?%\), 12 \(20\s?%\); absence of channel 11 \(30\s?%\)<"
    assert re.search(text, page), page
    assert "above average on images of this class" in page and "present in one is absent in the other" in page
    three = rendered(data(classes=["a", "b", "c"], heat_global=overall | {"classes": views}))
    assert "below average" in three and "present in one" not in three and "below average" not in rendered(data())
    older = [{"channel": 3, "share": 0.5}]
    assert "</summary>channel 3" in rendered(data(heat_global=overall | {"classes": [views[0] | {"channels": older}]}))
