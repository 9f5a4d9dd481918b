"""Gradient norms by layer: find vanishing or exploding gradients in deep networks."""

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
"""Number of line styles in the style sheet."""
_Norms = Mapping[int, Sequence[tuple[str, float]]]


def read(folder: Path) -> _Norms:
    """Read epoch → (layer, norm) of convolutions and linear layers, in network order; empty without `gradients.csv`."""
    found: dict[int, list[tuple[str, float]]] = {}
    try:
        for row in csv.DictReader(io.StringIO(read_text(folder / "gradients.csv"), newline="")):
            if "Norm" not in row["type"]:  # normalisation layers: few parameters, norms of another magnitude
                found.setdefault(int(row["epoch"]), []).append((row["layer"], float(row["norm"])))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {epoch: norms for epoch, norms in found.items() if len(norms) > 1 and any(_drawn(n) for _, n in norms)}


def of_run(folder: Path) -> list[dict[str, Any]]:
    """Return a figure of the first and the last epoch of a run; [] without gradients."""
    norms = read(folder)
    if not norms:
        return []
    first, last = min(norms), max(norms)
    series = [svg.Series(f"epoch {first}", _points(norms[first]), 0)]
    series += [svg.Series(f"epoch {last}", _points(norms[last]), 1)] if last > first else []
    return [_figure(series, f"Gradient norms in epoch {first}: {_spread(norms[first])}.")]


def of_runs(runs: Sequence[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Return a figure of the first epoch of several runs, in which the effect of the architecture is largest.

    Args:
        runs: (name, folder) of each.
    """
    readable = [(name, norms) for name, norms in ((name, read(folder)) for name, folder in runs) if norms][:MOST_RUNS]
    if len(readable) < 2:
        return []
    series = [svg.Series(short(name, 40), _points(norms[min(norms)]), i) for i, (name, norms) in enumerate(readable)]
    spreads = "; ".join(f"{short(name, 40)}: {_spread(norms[min(norms)])}" for name, norms in readable)
    return [_figure(series, f"First epoch. {spreads}.")]


def _drawn(norm: float) -> bool:
    return math.isfinite(norm) and norm > 0


def _points(norms: Sequence[tuple[str, float]]) -> list[tuple[float, float]]:
    """Return (depth from 1, norm) of the layers with a positive, finite norm."""
    return [(float(depth), norm) for depth, (_, norm) in enumerate(norms, 1) if _drawn(norm)]


def _spread(norms: Sequence[tuple[str, float]]) -> str:
    """Return the smallest and the largest norm and their ratio as a sentence.

    Example:
        >>> _spread([("conv1", 0.01), ("conv2", 0.5), ("fc", 2.0)])
        'smallest of 3 layers 0.01 (conv1), largest 2 (fc), ratio 200'
    """
    drawn = [(layer, norm) for layer, norm in norms if _drawn(norm)]
    (low, small), (high, large) = min(drawn, key=lambda x: x[1]), max(drawn, key=lambda x: x[1])
    still = len(norms) - len(drawn)
    rest = f"; {count(still)} without a gradient" if still else ""
    return (
        f"smallest of {count(len(norms))} layers {small:.2g} ({short(low, 40)}), largest {large:.2g} "
        f"({short(high, 40)}), ratio {count(round(large / small))}{rest}"
    )


def _figure(series: Sequence[svg.Series], text: str) -> dict[str, Any]:
    """Return the figure of norms over depth, with a logarithmic y axis."""
    ys = [y for s in series for _, y in s.points]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    low, high = (low, high) if high > low else (low, low + 1)
    deepest = max(x for s in series for x, _ in s.points)
    axes = svg.Axes((1, deepest), (low, high), ("layer (from input to output)", "gradient norm"), (False, False))
    body = axes.frame([float(round(t)) for t in svg.ticks(1, deepest, 6) if 1 <= round(t) <= deepest], [])
    for power in range(low, high + 1):
        body += axes.rule(1, power, deepest, power, "grid") + axes.text(1, power, f"{10.0**power:g}", (-7, 5), "end")
    body += axes.rule(1, low, deepest, low, "axis")
    for s in series:
        body += axes.path([(x, math.log10(y)) for x, y in s.points], f"line s{s.style}")
    title = "Gradient norm by layer"
    drawn = svg.svg(svg.WIDTH, svg.HEIGHT, body, f"{title}. {text}")
    return {"title": title, "figure": drawn, "legend": svg.legend(series), "text": text}
