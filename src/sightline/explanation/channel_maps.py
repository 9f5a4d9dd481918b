"""Activation maps of single channels of a layer, with no class behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sightline.errors import RequestError, unknown
from sightline.explanation.feature_map import MapSession, to_grid
from sightline.explanation.layers import find_layer, open_layer


@dataclass(frozen=True, slots=True)
class ChannelMaps:
    """Channels of one layer for n images, as a contact sheet shows them.

    Args:
        layer: Name of the layer.
        numbers: int64 (n, c), the channels, counted from 0.
        maps: float32 (n, c, h, w), their raw activations.
    """

    layer: str
    numbers: np.ndarray
    maps: np.ndarray


def channel_maps(
    session: MapSession,
    images: np.ndarray,
    *,
    layer: str | None = None,
    channels: int = 16,
    which: Literal["strongest", "first"] = "strongest",
) -> ChannelMaps:
    """Return activation maps of a layer.

    Args:
        session: The network.
        images: uint8 (n, h, w, 3).
        layer: Name of a module; None for the last map.
        channels: Number of channels, at least 1; all where the layer has fewer.
        which: `strongest`: for each image the channels with the highest mean square, the strongest first; `first`: the first
            channels in order, so that images can be compared.

    Raises:
        RequestError: If there is no such layer or choice, or the network has no map.
    """
    if which not in ("strongest", "first"):
        raise unknown("choice of channels", which, ["strongest", "first"])
    if channels < 1:
        raise RequestError(f"{channels} channels cannot be shown", "request at least 1")
    if not len(images):
        raise RequestError("there is no image to show channels of")
    if layer is None:
        _, maps = session.run(images, maps=True)
        assert maps is not None
        grids, where = to_grid(maps, session.backbone), "last map"
    else:
        place = find_layer(session, layer, images[0])
        grids = np.concatenate([to_grid(open_layer(session, place, image).last, place.backbone) for image in images])
        where = layer
    energy = (grids.astype(np.float64) ** 2).mean(axis=(2, 3))
    ranked = (
        np.argsort(-energy, axis=1, kind="stable") if which == "strongest" else np.argsort(np.zeros_like(energy), kind="stable")
    )
    numbers = ranked[:, :channels]
    return ChannelMaps(where, numbers, np.take_along_axis(grids, numbers[:, :, None, None], axis=1))
