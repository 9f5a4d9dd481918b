"""Training any network from scratch gives a backbone and a linear head that reproduce the trained network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sightline import heads, networks
from sightline.networks.network import grey, two_columns
from sightline.networks.random_init import RandomNetwork
from sightline.records import Recipe
from sightline.training import fit_network
from sightline.training.fit_network import MEAN, STD, ScratchFit
from sightline.training.methods import scratch
from sightline.training.plan import Plan
from sightline.training.scratch_settings import ScratchSettings

# network, image size in px, classes, how features are pooled
NETWORKS = [
    ("cnn(filters=[4, 8])", 16, 3, "avg"),
    ("cnn(filters=[4, 8], classes=1)", 16, 2, "avg"),
    ("lenet5", 32, 3, "avg"),
    ("lenet5(channels=1)", 32, 3, "avg"),
    ("happy_cnn", 16, 2, "avg"),
    ("happy_cnn", 16, 3, "avg"),
    ("basic_cnn", 64, 2, "avg"),
    ("plain18", 32, 2, "avg"),
    ("googlenet", 64, 2, "avg"),
    ("squeezenet1_1", 32, 3, "scores"),
    ("resnet10t", 32, 2, "avg"),
    pytest.param("nin", 32, 3, "avg", marks=pytest.mark.slow),
    pytest.param("xception(width=0.25, middle_blocks=1)", 64, 2, "avg", marks=pytest.mark.slow),
    pytest.param("vit_tiny_patch16_224", 32, 2, "avg", marks=pytest.mark.slow),
]


def pictures(n: int, side: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose brightness tells the class."""
    random, y = np.random.default_rng(0), np.arange(n) % classes
    images = random.integers(0, 120, (n, side, side, 3)) + (y * 130 // classes)[:, None, None, None]
    return images.astype(np.uint8), y.astype(np.int64)


def direct(made: RandomNetwork, images: np.ndarray) -> np.ndarray:
    """The logits of the whole network."""
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - MEAN[0]) / STD[0]
    with torch.no_grad():
        scores = made.net(grey(x) if made.channels == 1 else x)
    return np.asarray((two_columns(scores) if scores.shape[1] == 1 else scores).numpy())


def by_parts(fit: ScratchFit, images: np.ndarray) -> np.ndarray:
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - MEAN[0]) / STD[0]
    with torch.no_grad():
        features = fit.network(x)[1].numpy()
    return heads.logits(fit.head, features)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side", "classes", "pool"), NETWORKS)
def test_body_and_head_are_the_network_and_are_kept_in_a_file(name: str, side: int, classes: int, pool: str) -> None:
    """The record and the tensors build the same body again, without the auxiliary heads."""
    images, y = pictures(12, side, classes)
    settings = ScratchSettings(name, augment="none", plan=Plan(epochs=1, batch_size=6))
    fit = fit_network.fit(images, y, images[:4], y[:4], classes, settings=settings)
    assert fit.network.pool == pool
    assert fit.steps == 2 and np.isfinite(fit.history[0].train_loss)
    expected, found = direct(fit.made, images), by_parts(fit, images)
    assert found.shape == (12, classes)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)

    record = scratch.record(Recipe(method="scratch", backbone=name), fit, fit_network.preprocess(side))
    arrays = networks.tensors(fit.network)
    assert not any(n.startswith(("aux1", "aux2")) for n in arrays)
    again = networks.build(record, tensors=arrays)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.allclose(again(x)[1], fit.network(x)[1], atol=1e-5)
    assert again.features == record.features == fit.network.features
