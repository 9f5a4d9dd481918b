"""Figures of what is gained and what is paid for it: DET, precision–recall, accuracy–coverage, thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

from markupsafe import Markup

from sightline.report.format import percent
from sightline.report.svg import HEIGHT, LEFT, RIGHT, WIDTH, Axes, Series, floor_of, svg

RATES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995, 0.999)
"""Where the axes of normal deviates have their ticks; they begin and end with the first and the last."""
_SPARE = (0.005, 0.995)  # no room for their names from left to right


def deviate(rate: float) -> float:
    """How many standard deviations of a normal distribution a rate lies at, cut to the ends of the axes.

    Example:
        >>> deviate(0.5), round(deviate(0.0), 3)
        (0.0, -3.09)
    """
    return NormalDist().inv_cdf(min(max(rate, RATES[0]), RATES[-1]))


def det(series: Sequence[Series], title: str, names: tuple[str, str], equal_error: float | None = None) -> Markup:
    """Detection error tradeoffs: both error rates on axes of normal deviates, where normal scores make straight lines.

    Args:
        series: (false positive rate, false negative rate) of each point; rates beyond the axes are drawn at their ends.
        title: The same in words.
        names: Of the axes.
        equal_error: Where both are equal, marked by a ring.

    Source: Martin et al. 1997, "The DET curve in assessment of detection task performance".
    """
    low, high = deviate(RATES[0]), deviate(RATES[-1])
    axes = Axes((low, high), (low, high), names, (True, True))
    body = axes.frame([], [])
    for rate in RATES:
        at, name = deviate(rate), f"{100 * rate:g}" + ("\u00a0%" if rate in (RATES[0], RATES[-1]) else "")
        body += axes.rule(low, at, high, at, "grid") + axes.rule(at, low, at, high, "grid")
        body += axes.text(low, at, name, (-7, 5), "end")
        if rate not in _SPARE:
            body += axes.text(at, low, name, (0, 19))
    body += axes.rule(low, low, high, low, "axis") + axes.rule(low, low, high, high, "chance")
    for s in series:
        body += axes.path([(deviate(x), deviate(y)) for x, y in s.points], f"line s{s.style}")
    if equal_error is not None:
        at = deviate(equal_error)
        body += axes.dot(at, at, 4.5, "ring")
        body += axes.text(at, at, f"equal error {percent(equal_error)}", (10, -8), "start")
    return svg(WIDTH, HEIGHT, body, title)


def precision_recall(series: Sequence[Series], title: str, prevalence: float | None = None) -> Markup:
    """Precision over recall; answers by chance have the class's share of the images as precision, drawn broken."""
    axes = Axes((0, 1), (0, 1), ("recall: found of its images", "precision: right of its answers"), (True, True))
    body = axes.frame()
    if prevalence is not None:
        body += axes.rule(0, prevalence, 1, prevalence, "chance")
    for s in series:
        body += axes.path(s.points, f"line s{s.style}")
    return svg(WIDTH, HEIGHT, body, title)


def coverage(points: Sequence[tuple[float, float]], accuracy: float, title: str) -> Markup:
    """Accuracy of the answers that are given over the share of images that get one, the surest first.

    Args:
        points: (share answered, share right).
        accuracy: With all answered; drawn broken.
        title: The same in words.
    """
    start = floor_of([accuracy, *(y for x, y in points if x >= 0.1)])  # the first few answers may be anything
    axes = Axes((0, 1), (start, 1), ("share of the images that get an answer, the surest first", "right"), (True, True))
    body = axes.frame() + axes.rule(0, accuracy, 1, accuracy, "chance")
    body += axes.path([(x, max(y, start)) for x, y in points], "line s0")
    return svg(WIDTH, HEIGHT, body, title)


def thresholds(series: Sequence[Series], bars: Sequence[float], by: str, name: str, title: str) -> Markup:
    """Shares over the bar from which on the positive class is answered; the chosen bar is marked, or the range of several.

    Args:
        series: (bar, share) of each point.
        bars: The one that was chosen, or several, rising, and
        by: their criterion.
        name: Of the x axis.
        title: The same in words.
    """
    axes = Axes((0, 1), (0, 1), (name, ""), (True, True))
    body = axes.frame()
    for s in series:
        body += axes.path(s.points, f"line s{s.style}")
    for bar in sorted({bars[0], bars[-1]}):
        body += axes.rule(min(bar, 1.0), 0, min(bar, 1.0), 1, "mark")
    shown = min(bars[-1], 1.0)
    left = axes.x(shown) > (LEFT + WIDTH - RIGHT) / 2
    words = f"bar {bars[0]:.3g} ({by})" if len(bars) == 1 else f"bars {bars[0]:.3g} to {bars[-1]:.3g} ({by})"
    body += axes.text(shown, 1, words, (-6 if left else 6, -8), "end" if left else "start")
    return svg(WIDTH, HEIGHT, body, title)
