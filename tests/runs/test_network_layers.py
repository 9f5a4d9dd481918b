"""The layers of the network of a run: computed once, then read from the cache; folded in the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from sightline import report
from sightline.classifier import Classifier
from sightline.networks import describe
from sightline.records import Backbone, Card, Head, Recipe, Run
from sightline.runs import network_layers
from sightline.store import Cache, plain


def classifier(backbone: Backbone) -> Classifier:
    card = Card(("a", "b"), backbone, "logistic", {}, "features", Recipe())
    return Classifier(card, Head("logistic", 2))


def test_layers_are_drawn_once_and_shown_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    model = classifier(describe("cnn(filters=[4, 8])", weights="random", image_size=32, cache=cache))
    first = network_layers.describe(tmp_path, model, cache)
    assert first is not None and first.parameters == sum(row.parameters for row in first.layers) > 0
    assert first.layers[0].type == "Conv2d" and first.drawing == "network.svg"
    drawing = (tmp_path / "network.svg").read_bytes()
    assert drawing.startswith(b"<?xml")
    monkeypatch.setattr(network_layers, "_drawn", None)  # a second call would fail
    (tmp_path / "again").mkdir()
    again = network_layers.describe(tmp_path / "again", model, cache)
    assert again is not None and plain(again) == plain(first)
    assert (tmp_path / "again" / "network.svg").read_bytes() == drawing
    page = report.write_report([Run(tmp_path, {"kind": "run", "network_layers": plain(first)})], tmp_path / "r.html")
    text = page.read_text(encoding="utf-8")
    assert f"Network: drawing and {len(first.layers)} layers" in text and "data:image/svg+xml" in text
    assert network_layers.describe(tmp_path, classifier(describe("pixels", cache=cache)), cache) is None
