"""The gradient's norm in every layer: where a deep network stops learning, beside its twin that does not."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline.files import read_text
from sightline.report import svg
from sightline.report.format import count, short

MOST_RUNS = 6
"""As many as there are styles of lines."""
_Norms = Mapping[int, Sequence[tuple[str, float]]]


def read(folder: Path) -> _Norms:
    """Epoch → (layer, norm) of convolutions and linear layers, in the network's order; empty where none are kept."""
    found: dict[int, list[tuple[str, float]]] = {}
    try:
        for row in csv.DictReader(io.StringIO(read_text(folder / "gradients.csv"), newline="")):
            if "Norm" not in row["type"]:  # few parameters, whose norms are of another size
                found.setdefault(int(row["epoch"]), []).append((row["layer"], float(row["norm"])))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {epoch: norms for epoch, norms in found.items() if len(norms) > 1 and any(_drawn(n) for _, n in norms)}


def of_run(folder: Path) -> list[dict[str, Any]]:
    """One figure of a run: its first and its last epoch, as `curves.folded` gives figures; none where it has no gradients."""
    norms = read(folder)
    if not norms:
        return []
    first, last = min(norms), max(norms)
    series = [svg.Series(f"epoch {first}", _points(norms[first]), 0)]
    series += [svg.Series(f"epoch {last}", _points(norms[last]), 1)] if last > first else []
    return [_figure(series, f"In epoch {first} {_spread(norms[first])}.")]


def of_runs(runs: Sequence[tuple[str, Path]]) -> list[dict[str, Any]]:
    """One figure of several runs, each in its first epoch, where a network's build shows most.

    Args:
        runs: (name, folder) of each.
    """
    kept = [(name, norms) for name, norms in ((name, read(folder)) for name, folder in runs) if norms][:MOST_RUNS]
    if len(kept) < 2:
        return []
    series = [svg.Series(short(name, 40), _points(norms[min(norms)]), i) for i, (name, norms) in enumerate(kept)]
    said = "; ".join(f"{short(name, 40)}: {_spread(norms[min(norms)])}" for name, norms in kept)
    return [_figure(series, f"First epoch. {said}.")]


def _drawn(norm: float) -> bool:
    return math.isfinite(norm) and norm > 0


def _points(norms: Sequence[tuple[str, float]]) -> list[tuple[float, float]]:
    """(depth from 1, norm) of the layers whose norm can be drawn on a logarithmic axis."""
    return [(float(depth), norm) for depth, (_, norm) in enumerate(norms, 1) if _drawn(norm)]


def _spread(norms: Sequence[tuple[str, float]]) -> str:
    """How far apart the layers are, in words.

    Example:
        >>> _spread([("conv1", 0.01), ("conv2", 0.5), ("fc", 2.0)])
        'the smallest of 3 layers is 0.01 (conv1), the largest 2 (fc), 200 times as much'
    """
    drawn = [(layer, norm) for layer, norm in norms if _drawn(norm)]
    (low, small), (high, large) = min(drawn, key=lambda x: x[1]), max(drawn, key=lambda x: x[1])
    still = len(norms) - len(drawn)
    rest = f"; {count(still)} with none" if still else ""
    return (
        f"the smallest of {count(len(norms))} layers is {small:.2g} ({short(low, 40)}), the largest {large:.2g} "
        f"({short(high, 40)}), {count(round(large / small))} times as much{rest}"
    )


def _figure(series: Sequence[svg.Series], text: str) -> dict[str, Any]:
    """The norms over depth, on a logarithmic axis."""
    ys = [y for s in series for _, y in s.points]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    low, high = (low, high) if high > low else (low, low + 1)
    deepest = max(x for s in series for x, _ in s.points)
    axes = svg.Axes((1, deepest), (low, high), ("layer, from the image to the scores", "norm of the gradient"), (False, False))
    body = axes.frame([float(round(t)) for t in svg.ticks(1, deepest, 6) if 1 <= round(t) <= deepest], [])
    for power in range(low, high + 1):
        body += axes.rule(1, power, deepest, power, "grid") + axes.text(1, power, f"{10.0**power:g}", (-7, 5), "end")
    body += axes.rule(1, low, deepest, low, "axis")
    for s in series:
        body += axes.path([(x, math.log10(y)) for x, y in s.points], f"line s{s.style}")
    title = "Gradient by layer"
    drawn = svg.svg(svg.WIDTH, svg.HEIGHT, body, f"{title}. {text}")
    return {"title": title, "figure": drawn, "legend": svg.legend(series), "text": text}
