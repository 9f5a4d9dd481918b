"""Robustness section: accuracy on altered versions of the scored images, as one figure and a table with examples."""

from __future__ import annotations

from typing import Any

from sightline.records import Run
from sightline.records.stress import STRENGTHS, StressScore, StressTest
from sightline.report import svg
from sightline.report.format import count, images, percent, percent_range
from sightline.report.images import Album

_SIDE_PX = 132


def robustness(run: Run, album: Album) -> dict[str, Any] | None:
    """Return the template variables of the section; None without a stress test."""
    found = run.record.stress
    if found is None or not found.scores:
        return None
    kinds: dict[str, list[StressScore]] = {}
    for score in sorted(found.scores, key=lambda s: s.strength):
        kinds.setdefault(score.kind, []).append(score)
    pictures = dict(zip(found.scores, album.read(run.folder, [s.thumbnail for s in found.scores], _SIDE_PX), strict=True))
    lines = [
        svg.Series(scores[0].title, [(0, found.accuracy), *((s.strength, s.accuracy) for s in scores)], style % 6)
        for style, scores in enumerate(kinds.values())
    ]
    rows = [
        {
            "title": scores[0].title.capitalize(),
            "cells": [
                {
                    "accuracy": percent(s.accuracy),
                    "interval": percent_range(s.accuracy_low, s.accuracy_high),
                    "setting": s.setting,
                    "below": s.below,
                    "picture": pictures[s],
                }
                for s in scores
            ],
        }
        for scores in kinds.values()
    ]
    return {
        "sentence": found.sentence,
        "unaltered": f"{percent(found.accuracy)} (95 % CI {percent_range(found.accuracy_low, found.accuracy_high)})",
        "bound": percent(found.bound),
        "bound_given": found.bound_given,
        "images": images(found.n),
        "sampled": count(found.total) if found.total > found.n else None,
        "example": found.example,
        "strengths": STRENGTHS,
        "rows": rows,
        "figure": _figure(lines, found),
        "legend": svg.legend(lines),
    }


def _figure(lines: list[svg.Series], found: StressTest) -> Any:
    """Draw the accuracy over the strength, a line for each alteration, and the bound."""
    low = svg.floor_of([found.bound, *(y for line in lines for _, y in line.points)])
    axes = svg.Axes((0, len(STRENGTHS)), (low, 1.0), ("strength of the alteration", "accuracy"), (False, True))
    body = axes.frame([]) + axes.rule(0, found.bound, len(STRENGTHS), found.bound, "chance")
    for at, name in enumerate(("unaltered", *STRENGTHS)):
        anchor = "start" if at == 0 else "end" if at == len(STRENGTHS) else "middle"
        body += axes.text(at, low, name, (0, 19), anchor)
    for line in lines:
        body += axes.path(line.points, f"line s{line.style}")
        for x, y in line.points[1:]:
            body += axes.dot(x, y, 3.5, f"dot s{line.style}")
    title = f"Accuracy on altered images. {found.sentence}"
    return svg.svg(svg.WIDTH, svg.HEIGHT, body, title)
