"""The explained score as a torch module over pixels, for gradient methods in float32, most by captum."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.errors import RequestError
from sightline.explanation.layers import as_seen, borrowed
from sightline.explanation.score import Score

if TYPE_CHECKING:
    from torch import Tensor, nn


def captum() -> Any:
    """Return `captum.attr`, imported without its warnings.

    Raises:
        RequestError: If captum is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import captum.attr
    except ImportError as error:
        hint = "pip install captum, or use --method gradcam or --method masks"
        raise RequestError("this method needs the package captum, which is not installed", hint) from error
    return captum.attr


def score_module(score: Score, network: Any) -> nn.Module:
    """Return a torch module from normalised images (n, 3, h, w) to the explained score (n,).

    Raises:
        RequestError: If the head has no gradient.
    """
    import torch
    from torch import nn

    layers = [(torch.from_numpy(np.array(w)).float(), torch.from_numpy(np.array(b)).float()) for w, b in score.layers()]
    coefficients = torch.from_numpy(score.coefficients()).float()

    class ScoreModule(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.contiguous(memory_format=torch.channels_last)  # about twice as fast on a CPU
            value = network.tail(network.map(x)).float()
            for number, (weights, bias) in enumerate(layers):
                value = torch.relu(value) if number else value
                value = torch.nn.functional.linear(value, weights.to(value.device), bias.to(value.device))
            return torch.mv(value, coefficients.to(value.device))

    return ScoreModule().eval()


@contextmanager
def open_score(score: Score) -> Iterator[tuple[Any, nn.Module, Tensor]]:
    """Yield captum, the score as a module, and the normalised image (1, 3, h, w); leave the network unchanged."""
    attr, image = captum(), score.pixels
    network = torch_network(score)
    with borrowed(network), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = score_module(score, network)
        yield attr, module, as_seen(image[None], score.session.backbone, network).requires_grad_(True)


def torch_network(score: Score) -> Any:
    """Return the network of a score in torch; for the backbone `pixels`, which has none, the identity."""
    if score.session.backbone.source == "pixels":
        from sightline.networks.network import Pixels

        return Pixels().eval()
    return score.session.network()


def first_of(values: Tensor) -> np.ndarray:
    """Return the values of the only image of a batch, float32 (c, h, w)."""
    return np.asarray(values.detach()[0].float().cpu().numpy())
