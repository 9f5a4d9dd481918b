"""Block of run.json about the layers of the chosen network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A layer: name, class, shape of its output for one image, parameters, and multiply–accumulates for one image."""

    name: str
    type: str
    output: Sequence[int] | None = None
    parameters: int = 0
    macs: int = 0


@dataclass(frozen=True, slots=True)
class NetworkLayers:
    """The network of the chosen classifier, layer by layer.

    Args:
        name: Name of the network, with its arguments.
        size: (height, width) of the input in pixels.
        parameters, macs: Totals.
        layers: In order of execution.
        drawing: SVG file in the run's folder; None if the network could not be drawn.
    """

    name: str
    size: Sequence[int]
    parameters: int
    macs: int
    layers: Sequence[LayerRow] = ()
    drawing: str | None = None
