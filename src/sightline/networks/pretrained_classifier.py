"""A network's own classifier as weights on its features, and the names of its classes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sightline.errors import RequestError, WeightsError
from sightline.networks.description import build, whole
from sightline.records import Backbone
from sightline.store import Cache

_LINEAR_WITHIN = 1e-3
_SUBSETS = {1000: "imagenet-1k", 11221: "imagenet-21k-miil", 11821: "imagenet-12k", 21841: "imagenet-22k"}
"""How many classes → timm's name for which."""


@dataclass(frozen=True, slots=True)
class OwnClassifier:
    """What a network answers with itself: logits = weights · features + bias.

    Args:
        backbone: What gives the features: the network as it was asked for, or with `pool` "scores" where its answer is no
            linear function of its features; then the features are its scores, and the weights the identity.
        weights: float32 (k, d).
        bias: float32 (k,).
        classes: k names, each once.
        aliases: Other names of theirs → all class indices that they may mean.
    """

    backbone: Backbone
    weights: np.ndarray
    bias: np.ndarray
    classes: tuple[str, ...]
    aliases: dict[str, tuple[int, ...]]


def own_classifier(backbone: Backbone, cache: Cache) -> OwnClassifier:
    """The classifier that a network's weights bring.

    Args:
        backbone: As `describe` gave it, with published weights or those of a file.
        cache: Where it was noted where files lie.

    Raises:
        WeightsError: The weights bring no classifier.
        RequestError: The weights are random, or it gives one score alone.
    """
    if backbone.weights.startswith("random:"):
        raise RequestError(f"{backbone.name} has random weights: it answers at random", "name weights that were trained")
    hint = f"train a head on it: sightline run PHOTOS --backbone {backbone.name}; then explain that run"
    try:
        network = build(backbone, classifier=True, cache=cache)
    except WeightsError as error:
        what = f"the weights of {backbone.name} bring no classifier of their own ({error.message})"
        raise WeightsError(what, error.hint if "not on this machine" in error.message else hint) from error
    module = network.net.get_submodule(network.classifier) if network.classifier else None
    linear = next((m for m in _behind(module) if isinstance(m, nn.Linear)), None)
    if linear is not None and _agrees(network, linear, backbone):
        weights = linear.weight.detach().float().numpy().copy()
        bias = np.zeros(len(weights), np.float32) if linear.bias is None else linear.bias.detach().float().numpy().copy()
    else:
        backbone, network = whole(backbone, cache=cache)
        weights, bias = np.eye(backbone.features, dtype=np.float32), np.zeros(backbone.features, np.float32)
    if len(weights) < 2:
        raise RequestError(f"{backbone.name} gives one score alone: it tells no classes apart", hint)
    classes, aliases = class_names(len(weights))
    return OwnClassifier(backbone, weights, bias, classes, aliases)


def _behind(module: nn.Module | None) -> Sequence[nn.Module]:
    """The modules of a classifier, the last first."""
    return [] if module is None else list(module.modules())[::-1]


def _agrees(network: Any, linear: nn.Linear, backbone: Backbone) -> bool:
    """Whether the layer on the features gives the network's own scores, measured on noise."""
    noise = torch.randn((1, 3, *backbone.preprocess.size), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = network(noise)[1]
        if features.shape[1] != linear.in_features:
            return False
        true, mine = network.logits(noise), linear(features)
    return true.shape == mine.shape and bool((true - mine).abs().max() <= _LINEAR_WITHIN * true.abs().max())


def class_names(k: int) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Names for so many classes: ImageNet's where the number is one of its sets', else numbers.

    WordNet gives several names a class, such as "African elephant, Loxodonta africana". The first is taken, with the synset's
    number behind it where two classes share it; the others, the synset's number and the index are aliases.

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
