"""Learning curve section: measured accuracies, the fitted curve and its confidence band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from sightline.records import LearningCurveRecord, RunRecord
from sightline.report import svg
from sightline.report.format import NBSP, clean, count, percent, short


def learning(data: RunRecord) -> dict[str, Any] | None:
    """Return the figure and its explanation; None without a learning curve."""
    told = data.learning_curve
    if not told or len(told.points) < 3 or len(told.ahead) < 2:
        return None
    orders = told.orders
    several = f" (mean over {orders} random orders)" if orders > 1 else ""
    of = (
        ""
        if told.of_chosen
        else " This is not the selected classifier but the best classifier on features, which is fitted in seconds."
    )
    return {
        "words": [clean(w).replace(" %", f"{NBSP}%") for w in told.words],
        "how": f"Classifier: {short(told.label, 60)}. Its head is fitted on increasing numbers of training images"
        f"{several} and evaluated on held-out images.{of} Band: 95 % bootstrap interval; to the right of the vertical line it "
        f"is an extrapolation.",
        "figure": figure(told),
    }


def figure(told: LearningCurveRecord) -> Markup:
    """Draw accuracy over the number of training images, with a logarithmic x axis."""
    points, ahead = told.points, told.ahead
    measured = [(p.images, p.measured) for p in points if p.measured is not None]
    x = [math.log10(r.images) for r in ahead]
    low, high = svg.spread([*(r.low for r in ahead), *(r.high for r in ahead), *(y for _, y in measured)])
    axes = svg.Axes((x[0], x[-1]), (low, high), ("training images", "accuracy"), (False, True))
    body = axes.frame([])
    upper = [(a, r.high) for a, r in zip(x, ahead, strict=True)]
    lower = [(a, r.low) for a, r in zip(x, ahead, strict=True)]
    body += Markup('<polygon class="interval" points="{}"/>').format(_corners(axes, [*upper, *reversed(lower)]))
    body += axes.path([(a, r.accuracy) for a, r in zip(x, ahead, strict=True)], "line s0")
    now = math.log10(told.images)
    body += axes.rule(now, low, now, high, "mark") + axes.text(now, low, f"now {count(told.images)}", (-4, -6), "end")
    if low <= told.goal <= high:
        body += axes.rule(x[0], told.goal, x[-1], told.goal, "chance")
        body += axes.text(x[0], told.goal, f"target {percent(told.goal)}", (4, -5), "start")
    for n, accuracy in measured:
        body += axes.dot(math.log10(n), accuracy, 4, "point on")
    body += _numbers(axes, [*(p.images for p in points[::2]), told.images, ahead[-1].images])
    title = (
        f"Accuracy {percent(points[0].measured)} with {count(points[0].images)} training images, "
        f"{percent(points[-1].measured)} with {count(points[-1].images)}"
    )
    return svg.svg(svg.WIDTH, svg.HEIGHT, body, title)


def _corners(axes: svg.Axes, points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)


def _numbers(axes: svg.Axes, images: Sequence[int]) -> Markup:
    """Draw the tick labels of the x axis that fit; the last is always drawn."""
    parts = Markup("")
    taken: list[tuple[float, float]] = []
    for n in sorted(set(images), key=lambda n: (n != images[-1], n != images[-2], n)):
        at, half = axes.x(math.log10(n)), 4 * len(f"{n:,}") + 5
        at = min(at, svg.WIDTH - half)
        if all(abs(at - other) > half + room for other, room in taken):
            parts += svg.label(at, svg.HEIGHT - svg.BOTTOM + 19, f"{n:,}")
            taken.append((at, half))
    return parts
