"""Pretrained classifiers: the linear layer on the features or, without one, the network's scores."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from sightline import networks
from sightline.errors import RequestError
from sightline.networks import description, pretrained_classifier
from sightline.records import Backbone
from sightline.store import Cache

SIDE = 64


def drawn(name: str, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A network with random weights that passes for one with published ones."""
    backbone = networks.describe(name, weights="random", image_size=SIDE, cache=cache)
    build = networks.build

    def again(asked: Backbone, **given: Any) -> networks.Network:
        return build(dataclasses.replace(asked, weights="random:0"), **given)

    monkeypatch.setattr(pretrained_classifier, "build", again)
    monkeypatch.setattr(description, "build", again)
    return dataclasses.replace(backbone, weights="published")


@pytest.mark.slow
def test_the_last_layer_of_a_linear_classifier_is_taken(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pretrained_classifier.own_classifier(drawn("resnet10t", cache, monkeypatch), cache)
    assert found.weights.shape == (1000, 512) and len(found.classes) == 1000 and found.classes[386] == "African elephant"
    assert found.backbone.pool == "avg" and found.backbone.features == 512


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels", "layout"),
    [("squeezenet1_1", 1000, "nchw"), ("resnetv2_18", 512, "nchw"), ("deit_tiny_distilled_patch16_224", 192, "tokens")],
)
def test_without_a_linear_layer_the_scores_are_the_features(
    name: str, channels: int, layout: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier of places, a convolution as classifier, the mean of two classifiers."""
    backbone = drawn(name, cache, monkeypatch)
    found = pretrained_classifier.own_classifier(backbone, cache)
    assert np.array_equal(found.weights, np.eye(1000)) and not found.bias.any() and len(found.classes) == 1000
    assert found.backbone.pool == "scores" and found.backbone.features == 1000 and found.backbone.layout == layout
    assert found.backbone.map_shape is not None and found.backbone.map_shape[0] == channels
    assert found.backbone.weights_hash != backbone.weights_hash  # its classifier counts
    network = networks.build(dataclasses.replace(found.backbone, weights="random:0"), cache=cache)
    x = torch.randn((2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.allclose(network(x)[1], network.net(x), rtol=1e-4, atol=1e-5)


def test_random_weights_are_refused(cache: Cache) -> None:
    backbone = networks.describe("squeezenet1_1", weights="random", image_size=SIDE, cache=cache)
    with pytest.raises(RequestError, match="it predicts at random"):
        pretrained_classifier.own_classifier(backbone, cache)
