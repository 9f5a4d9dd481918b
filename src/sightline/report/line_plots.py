"""Stand-alone plots as SVG or PNG: learning-rate range test, and gradient norms by depth."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.errors import DataError, RequestError
from sightline.files import read_text
from sightline.store import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sightline.training.lr_finder import LrCurve

_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 10,
    "text.usetex": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "sightline",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}
"""Matplotlib settings, independent of the user's configuration; text stays text in SVG."""
_COLOURS = ("#1f5fa8", "#d1541f", "#2f8f5b", "#8653a6", "#7a6a22", "#3c3c3c")
_SIZE = (7.0, 4.2)  # inches
_DPI = 144


def rate_plot(found: LrCurve, file: Path, title: str = "") -> None:
    """Draw the loss at each learning rate, with the suggested learning rate.

    Args:
        found: Result of the learning-rate range test.
        file: Path that ends in .svg or .png.
        title: Title of the plot.
    """

    def fill(axes: Axes) -> None:
        axes.plot(found.rates, found.losses, color="#b9c7d8", linewidth=1, label="each batch")
        axes.plot(found.rates, found.smoothed, color=_COLOURS[0], linewidth=2, label="smoothed")
        axes.axvline(
            found.suggestion, color=_COLOURS[1], linewidth=1.2, linestyle="--", label=f"suggestion {found.suggestion:g}"
        )
        axes.set_xscale("log")
        high = float(np.quantile(found.smoothed, 0.98))
        low = float(min(found.smoothed.min(), np.quantile(found.losses, 0.05)))
        axes.set_ylim(low - 0.08 * (high - low), high + 0.25 * (high - low))
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        axes.legend(frameon=False)

    _save(file, title or "Learning-rate range test", fill)


def gradient_plot(runs: Mapping[str, Sequence[Mapping[str, Any]]], file: Path, *, epoch: int | None = None) -> None:
    """Draw the gradient norm of every convolution and linear layer against its depth, for several networks side by side.

    Normalisation layers are left out: the norms of their few parameters have another magnitude.

    Args:
        runs: Name → rows of epoch, layer, norm and type, as returned by `read_gradients`.
        file: Path that ends in .svg or .png.
        epoch: Epoch to draw; None draws the mean over all epochs.

    Raises:
        DataError: If a run has no such epoch.
    """
    curves = {name: _by_depth(name, rows, epoch) for name, rows in runs.items()}

    def fill(axes: Axes) -> None:
        for i, (name, norms) in enumerate(curves.items()):
            depth = np.arange(1, len(norms) + 1)
            axes.plot(depth, norms, color=_COLOURS[i % len(_COLOURS)], linewidth=1.6, marker="o", markersize=3, label=name)
        axes.set_yscale("log")
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("layer (from input to output)")
        axes.set_ylabel("gradient norm")
        axes.legend(frameon=False)

    _save(file, f"Gradient norm by depth, {f'epoch {epoch}' if epoch is not None else 'mean over all epochs'}", fill)


def read_gradients(run: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's `gradients.csv`.

    Raises:
        DataError: If the run has no such file.
    """
    file = run / "gradients.csv"
    if not file.is_file():
        raise DataError(f"{run} has no gradients.csv", "only methods that train by epochs store gradients")
    rows = csv.DictReader(io.StringIO(read_text(file), newline=""))
    return [{**row, "epoch": int(row["epoch"]), "norm": float(row["norm"])} for row in rows]


def check(file: Path) -> str:
    """Return the file format of a plot, `svg` or `png`, from the name of the file.

    Raises:
        RequestError: If the name ends in neither.
    """
    kind = file.suffix.lower().lstrip(".")
    if kind not in {"svg", "png"}:
        raise RequestError(f"{file.name!r} is not a name for a plot", "use a name that ends in .svg or .png")
    return kind


def _by_depth(name: str, rows: Sequence[Mapping[str, Any]], epoch: int | None) -> np.ndarray:
    """Return the norm of each layer, float64 (layers,), in network order."""
    some = [row for row in rows if epoch in (None, row["epoch"]) and "Norm" not in row["type"]]
    if not some:
        raise DataError(f"{name} has no gradients of epoch {epoch}", "choose an epoch of its training history")
    layers = list(dict.fromkeys(row["layer"] for row in some))
    return np.array([np.mean([row["norm"] for row in some if row["layer"] == layer]) for layer in layers])


def _save(file: Path, title: str, fill: Any) -> None:
    """Create a figure with one pair of axes and save it."""
    kind = check(file)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target = io.BytesIO()
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=_SIZE, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        fill(axes)
        axes.set_title(title, loc="left", fontsize=11)
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(target, format=kind, dpi=_DPI if kind == "png" else 72, metadata=metadata)
    write_bytes(file, target.getvalue())
