"""Train a network of ours on arrays of pixels; its last linear layer becomes a head like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sightline import heads
from sightline.errors import unknown
from sightline.networks.classics import CLASSICS
from sightline.records import Head, Progress, silent
from sightline.training import loop
from sightline.training.loop import Data, Epoch
from sightline.training.settings import ScratchSettings


@dataclass(frozen=True, slots=True)
class ScratchFit:
    """What training from scratch gives.

    Attributes:
        network: The body in eval mode: normalised images → (last map, features).
        head: The last linear layer.
        arguments: With which `networks.classics` builds the body again.
        map_shape: (channels, height, width) of the last map.
        val_probs: float64 (n, k) on the validation images, calibrated.
        temperature: Fitted on validation.
        history: One row per epoch.
        steps: Optimiser steps.
        overfitting: Where it starts, in words, or None.
        notes: Sentences for the user.
    """

    network: nn.Module
    head: Head
    arguments: Mapping[str, Any]
    map_shape: tuple[int, int, int]
    val_probs: np.ndarray
    temperature: float
    history: tuple[Epoch, ...]
    steps: int
    overfitting: str | None
    notes: tuple[str, ...]


class Whole(nn.Module):
    """A body and its last linear layer."""

    def __init__(self, body: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.last = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images → logits."""
        return self.last(self.body(x)[1])  # type: ignore[no-any-return]


def fit(
    name: str,
    data: Data,
    classes: int,
    settings: ScratchSettings,
    *,
    seed: int,
    device: str = "cpu",
    budget_s: float = float("inf"),
    progress: Progress = silent,
) -> ScratchFit:
    """Train `name` of `networks.classics.CLASSICS` from random weights.

    Args:
        name: The network.
        data: Images uint8 of one square size, labels, normalisation.
        classes: k.
        settings: The method's.
        seed: Of the initial weights, the order, the augmentation.
        device, budget_s, progress: As in `loop.train`.

    Raises:
        RequestError: The network is not known, or its images are too small for it.
    """
    if name not in CLASSICS:
        raise unknown("network to train from scratch", name, CLASSICS)
    side = int(data.images.shape[1])
    arguments: dict[str, Any] = {"image_size": side, "filters": list(settings.filters), "kernel": settings.kernel}
    if settings.dropout is not None:
        arguments["flatten_dropout"] = settings.dropout
    if settings.dense:
        arguments["dense"] = [list(layer) for layer in settings.dense]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body: Any = CLASSICS[name](**arguments)
        network = Whole(body, int(body.features), classes)
        trained = loop.train(network, data, settings, seed=seed, device=device, budget_s=budget_s, progress=progress)
    network.to("cpu")
    found = loop.logits(network, data.val_images, data, "cpu").double().numpy()
    temperature = heads.temperature(found, data.val_labels)
    with torch.no_grad():
        shape = body.map(torch.zeros(1, 3, side, side)).shape
    weights = network.last.weight.detach().numpy().copy()
    head = Head("logistic", classes, {"fitted": "by gradient descent"}, {"weights": weights, "bias": _bias(network)})
    return ScratchFit(
        network=body.to(memory_format=torch.contiguous_format),
        head=head,
        arguments=arguments,
        map_shape=(int(shape[1]), int(shape[2]), int(shape[3])),
        val_probs=heads.softmax(found / temperature),
        temperature=temperature,
        history=trained.history,
        steps=trained.steps,
        overfitting=loop.overfitting(trained.history),
        notes=trained.notes,
    )


def _bias(network: Whole) -> np.ndarray:
    return np.asarray(network.last.bias.detach().numpy().copy())
