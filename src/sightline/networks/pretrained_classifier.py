"""Pretrained classifiers: a network's own classification layer as weights and bias, and the names of its classes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sightline.errors import RequestError, WeightsError
from sightline.networks.description import build, build_with_scores
from sightline.records import Backbone
from sightline.store import Cache

_LINEAR_TOLERANCE = 1e-3
_SUBSETS = {1000: "imagenet-1k", 11221: "imagenet-21k-miil", 11821: "imagenet-12k", 21841: "imagenet-22k"}
"""Number of classes → timm's name of the set of classes."""


@dataclass(frozen=True, slots=True)
class OwnClassifier:
    """The pretrained classifier of a network: logits = weights · features + bias.

    Args:
        backbone: Description of the network that computes the features. If the network's logits are not a linear function of
            its features, its `pool` is "scores": the features are the logits, and the weights the identity.
        weights: float32 (k, d).
        bias: float32 (k,).
        classes: k distinct class names.
        aliases: Other name of a class, lower case → all class indices that it may mean.
    """

    backbone: Backbone
    weights: np.ndarray
    bias: np.ndarray
    classes: tuple[str, ...]
    aliases: dict[str, tuple[int, ...]]


def own_classifier(backbone: Backbone, cache: Cache) -> OwnClassifier:
    """Return the classifier that a network's pretrained weights contain.

    Args:
        backbone: Description returned by `describe`, with published weights or those of a file.
        cache: Cache of the locations of weight files.

    Raises:
        WeightsError: If the weights contain no classifier.
        RequestError: If the weights are random, or the network returns a single score.
    """
    if backbone.weights.startswith("random:"):
        raise RequestError(f"{backbone.name} has random weights: it predicts at random", "give trained weights")
    hint = f"train a head on it: sightline run PHOTOS --backbone {backbone.name}; then explain that run"
    try:
        network = build(backbone, classifier=True, cache=cache)
    except WeightsError as error:
        message = f"the weights of {backbone.name} contain no classifier ({error.message})"
        raise WeightsError(message, error.hint if "not on this machine" in error.message else hint) from error
    modules = list(network.net.get_submodule(network.classifier).modules()) if network.classifier else []
    linear = next((m for m in reversed(modules) if isinstance(m, nn.Linear)), None)
    if linear is not None and _agrees(network, linear, backbone):
        weights = linear.weight.detach().float().numpy().copy()
        bias = np.zeros(len(weights), np.float32) if linear.bias is None else linear.bias.detach().float().numpy().copy()
    else:
        backbone, network = build_with_scores(backbone, cache=cache)
        weights, bias = np.eye(backbone.features, dtype=np.float32), np.zeros(backbone.features, np.float32)
    if len(weights) < 2:
        raise RequestError(f"{backbone.name} returns a single score, so it cannot distinguish classes", hint)
    classes, aliases = class_names(len(weights))
    return OwnClassifier(backbone, weights, bias, classes, aliases)


def _agrees(network: Any, linear: nn.Linear, backbone: Backbone) -> bool:
    """Return whether a linear layer on the features reproduces the network's own logits on a noise image."""
    noise = torch.randn((1, 3, *backbone.preprocess.size), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = network(noise)[1]
        if features.shape[1] != linear.in_features:
            return False
        expected, logits = network.logits(noise), linear(features)
    return expected.shape == logits.shape and bool((expected - logits).abs().max() <= _LINEAR_TOLERANCE * expected.abs().max())


def class_names(k: int) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Return class names and aliases for k classes: ImageNet's if k is the size of one of its sets, else "class 0", ….

    WordNet gives several names per class, such as "African elephant, Loxodonta africana". The first one is used, followed by
    the synset id if two classes share it. The other names, the synset id and the index are aliases.

    Example:
        >>> names, aliases = class_names(1000)
        >>> names[386], names[134], aliases["loxodonta africana"], aliases["crane"]
        ('African elephant', 'crane (n02012849)', (386,), (134, 517))
    """
    if k not in _SUBSETS:
        return tuple(f"class {i}" for i in range(k)), {str(i): (i,) for i in range(k)}
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo(_SUBSETS[k])
    lemmas = [next(csv.reader([info.index_to_description(i)], skipinitialspace=True)) for i in range(k)]
    firsts: dict[str, list[int]] = {}
    aliases: dict[str, tuple[int, ...]] = {}
    for i, names in enumerate(lemmas):
        firsts.setdefault(names[0], []).append(i)
        for alias in (*names, info.index_to_label_name(i), str(i)):
            aliases[alias.lower()] = tuple(dict.fromkeys((*aliases.get(alias.lower(), ()), i)))
    classes = [n[0] if len(firsts[n[0]]) == 1 else f"{n[0]} ({info.index_to_label_name(i)})" for i, n in enumerate(lemmas)]
    return tuple(classes), aliases
