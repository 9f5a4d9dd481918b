"""Options of an explanation: the method, the layer, the contrast class, and the resources that it uses."""

from __future__ import annotations

from dataclasses import dataclass, field

from sightline.classifier import Sessions
from sightline.store import Cache


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """How heatmaps are computed: the same options serve `run`, the command line and Python.

    Args:
        method: A name in `METHODS`, or `auto`.
        layer: The module whose output is the feature map; None for the network's last feature map.
        contrast: The class index that the target is compared with; None for all other classes together.
        seed: Seed of random masks and noise.
        coarse: Whether the heatmap only serves a comparison, so that a slow method may stop sooner.
        cache: Where converted networks and features are stored.
        device: `auto`, `cpu`, `cuda` or `mps`.
        sessions: Open networks, which heatmaps and their checks share.
    """

    method: str = "auto"
    layer: str | None = None
    contrast: int | None = None
    seed: int = 0
    coarse: bool = False
    cache: Cache = field(default_factory=Cache)
    device: str = "auto"
    sessions: Sessions = field(default_factory=dict, compare=False, repr=False)
