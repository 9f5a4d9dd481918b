"""SVG figures of trade-offs: DET, precision–recall, accuracy–coverage and decision threshold."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

from markupsafe import Markup

from sightline.report.format import percent
from sightline.report.svg import HEIGHT, LEFT, RIGHT, WIDTH, Axes, Series, floor_of, svg

RATES = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995, 0.999)
"""Ticks of the probit axes; the first and the last are their ends."""
_UNLABELLED = (0.005, 0.995)  # no room for these labels on the x axis


def probit(rate: float) -> float:
    """Return the probit (standard normal quantile) of a rate, clipped to the ends of the axes.

    Example:
        >>> probit(0.5), round(probit(0.0), 3)
        (0.0, -3.09)
    """
    return NormalDist().inv_cdf(min(max(rate, RATES[0]), RATES[-1]))


def det(series: Sequence[Series], title: str, names: tuple[str, str], equal_error: float | None = None) -> Markup:
    """Draw detection error tradeoff (DET) curves on probit axes, where normally distributed scores give straight lines.

    Args:
        series: (false positive rate, false negative rate) of each point; rates beyond the axes are drawn at their ends.
        title: Text alternative of the figure.
        names: Labels of the x and the y axis.
        equal_error: Equal error rate (0–1), marked by a circle.

    Source: Martin et al. 1997, "The DET curve in assessment of detection task performance".
    """
    low, high = probit(RATES[0]), probit(RATES[-1])
    axes = Axes((low, high), (low, high), names, (True, True))
    body = probit_grid(axes)
    for s in series:
        body += axes.path([(probit(x), probit(y)) for x, y in s.points], f"line s{s.style}")
    if equal_error is not None:
        at = probit(equal_error)
        body += axes.dot(at, at, 4.5, "ring")
        body += axes.text(at, at, f"EER {percent(equal_error)}", (10, -8), "start")
    return svg(WIDTH, HEIGHT, body, title)


def probit_grid(axes: Axes) -> Markup:
    """Draw grid, ticks, axis labels and diagonal of two probit axes."""
    low, high = axes.x_range
    body = axes.frame([], [])
    for rate in RATES:
        at, name = probit(rate), f"{100 * rate:g}" + ("\u00a0%" if rate in (RATES[0], RATES[-1]) else "")
        body += axes.rule(low, at, high, at, "grid") + axes.rule(at, low, at, high, "grid")
        body += axes.text(low, at, name, (-7, 5), "end")
        if rate not in _UNLABELLED:
            body += axes.text(at, low, name, (0, 19))
    return body + axes.rule(low, low, high, low, "axis") + axes.rule(low, low, high, high, "chance")


def precision_recall(series: Sequence[Series], title: str, prevalence: float | None = None) -> Markup:
    """Draw precision over recall; the prevalence, the precision of random guessing, is a dashed line."""
    axes = Axes((0, 1), (0, 1), ("recall (true positive rate)", "precision"), (True, True))
    body = axes.frame()
    if prevalence is not None:
        body += axes.rule(0, prevalence, 1, prevalence, "chance")
    for s in series:
        body += axes.path(s.points, f"line s{s.style}")
    return svg(WIDTH, HEIGHT, body, title)


def coverage(points: Sequence[tuple[float, float]], accuracy: float, title: str) -> Markup:
    """Draw accuracy over coverage, the fraction of images (most confident first) that get a prediction.

    Args:
        points: (coverage, accuracy), each 0–1.
        accuracy: Accuracy at full coverage, drawn as a dashed line.
        title: Text alternative of the figure.
    """
    start = floor_of([accuracy, *(y for x, y in points if x >= 0.1)])  # the accuracy of the first few images is noisy
    axes = Axes((0, 1), (start, 1), ("coverage: fraction of the images, most confident first", "accuracy"), (True, True))
    body = axes.frame() + axes.rule(0, accuracy, 1, accuracy, "chance")
    body += axes.path([(x, max(y, start)) for x, y in points], "line s0")
    return svg(WIDTH, HEIGHT, body, title)


def thresholds(series: Sequence[Series], selected: Sequence[float], by: str, name: str, title: str) -> Markup:
    """Draw fractions over the decision threshold; the selected threshold, or the range of several, is marked.

    Args:
        series: Lines of (threshold, fraction).
        selected: The selected threshold, or several in rising order.
        by: How they were selected, in words.
        name: Label of the x axis.
        title: Text alternative of the figure.
    """
    axes = Axes((0, 1), (0, 1), (name, ""), (True, True))
    body = axes.frame()
    for s in series:
        body += axes.path(s.points, f"line s{s.style}")
    for threshold in sorted({selected[0], selected[-1]}):
        body += axes.rule(min(threshold, 1.0), 0, min(threshold, 1.0), 1, "mark")
    shown = min(selected[-1], 1.0)
    left = axes.x(shown) > (LEFT + WIDTH - RIGHT) / 2
    words = (
        f"threshold {selected[0]:.3g} ({by})"
        if len(selected) == 1
        else f"thresholds {selected[0]:.3g} to {selected[-1]:.3g} ({by})"
    )
    body += axes.text(shown, 1, words, (-6 if left else 6, -8), "end" if left else "start")
    return svg(WIDTH, HEIGHT, body, title)
