"""A network's own classifier: the linear layer on its features, and a clear word where there is none."""

from __future__ import annotations

import pytest

from sightline import networks
from sightline.errors import RequestError
from sightline.networks import own
from sightline.records import Backbone
from sightline.store import Cache


def drawn(name: str, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A network with random weights that passes for one with published ones."""
    import dataclasses

    backbone = networks.describe(name, weights="random", image_size=64, cache=cache)
    monkeypatch.setattr(own, "build", lambda *_, **__: networks.build(backbone, classifier=True, cache=cache))
    return dataclasses.replace(backbone, weights="published")


def test_the_last_layer_of_a_linear_classifier_is_taken(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    found = own.own_classifier(drawn("resnet10t", cache, monkeypatch), cache)
    assert found.weights.shape == (1000, 512) and len(found.classes) == 1000 and found.classes[386] == "African elephant"


def test_a_classifier_of_places_is_refused_with_what_it_is(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        RequestError, match=r"squeezenet1_1 \(Dropout, Conv2d, ReLU, AdaptiveAvgPool2d\) is no linear layer"
    ) as told:
        own.own_classifier(drawn("squeezenet1_1", cache, monkeypatch), cache)
    assert "--backbone squeezenet1_1" in str(told.value.hint)
