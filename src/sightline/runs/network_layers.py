"""Layers and drawing of the network of a run, which are computed once per network and then read from the cache."""

from __future__ import annotations

import json
from pathlib import Path

from sightline import __version__
from sightline.classifier import Classifier
from sightline.errors import SightlineError
from sightline.files import read_bytes
from sightline.records.network_layers import LayerRow, NetworkLayers
from sightline.runs.layer_table import SummarySpec, layer_table, spelled
from sightline.schema import from_json
from sightline.store import Cache, digest, log, plain, write_bytes

DRAWING = "network.svg"


def describe(folder: Path, model: Classifier, cache: Cache) -> NetworkLayers | None:
    """Return the block `network_layers` of run.json, and write the drawing; None for an ensemble or without a network.

    Args:
        folder: The run folder.
        model: The classifier of the run.
        cache: Holds the layers and drawings of earlier runs.
    """
    backbone = model.card.backbone
    if model.members or not backbone.is_network or backbone.source == "user":
        return None
    name, size = spelled(backbone), backbone.preprocess.size
    entry = f"networks/layers/{digest([__version__, name, size, len(model.classes)])}"
    payload = cache.read(entry)
    if payload is not None:
        facts, _, drawing = payload.partition(b"\0")
        write_bytes(folder / DRAWING, drawing)
        return from_json(NetworkLayers, json.loads(facts), "network layers", "key")
    try:
        found = _drawn(folder / DRAWING, name, size, len(model.classes), cache)
    except SightlineError as error:
        log.info("the layers of %s are not in the report: %s", name, error)
        return None
    cache.write(entry, json.dumps(plain(found)).encode("utf-8") + b"\0" + read_bytes(folder / DRAWING))
    return found


def _drawn(file: Path, name: str, size: tuple[int, int], classes: int, cache: Cache) -> NetworkLayers:
    """Return the layers of a network, and draw it."""
    from sightline.networks.picture import draw

    found = layer_table(name, SummarySpec(size[0] if size[0] == size[1] else None, classes, None, None, None, cache))
    assert found.net is not None
    draw(found.net, found.size, file, channels=found.channels, title=f"{found.name}, {found.size[0]}×{found.size[1]} px")
    rows = [LayerRow(r.name, r.type, r.output, r.parameters, r.macs) for r in found.anatomy.layers]
    return NetworkLayers(found.name, found.size, found.anatomy.parameters, found.anatomy.macs, rows, file.name)
