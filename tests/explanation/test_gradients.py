"""Integrated gradients: number of steps and completeness."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from sightline import engine, networks
from sightline.explanation.methods import integrated_gradients as method
from sightline.explanation.methods import pixel_gradient
from sightline.explanation.score import Score
from sightline.records import Head
from sightline.store import Cache


@pytest.fixture
def subject(cache: Cache) -> Score:
    """An MLP on 8×8 pixels, with kinks everywhere on the way."""
    random = np.random.default_rng(0)
    backbone = networks.describe("pixels", image_size=8, cache=cache)
    arrays = {
        "weights.0": random.normal(size=(64, 192)).astype(np.float32),
        "bias.0": random.normal(size=64).astype(np.float32) * 4,
        "weights.1": random.normal(size=(2, 64)).astype(np.float32),
        "bias.1": np.zeros(2, np.float32),
    }
    image = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    session = engine.open_session(backbone, cache=cache, expected=1)
    return Score(session, Head("mlp", 2, {}, arrays), 1, image=image)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each forward pass is asked about."""
    asked: list[int] = []
    build = pixel_gradient.score_module

    def counting(*arguments: object) -> nn.Module:
        module = build(*arguments)  # type: ignore[arg-type]
        module.register_forward_pre_hook(lambda _, x: asked.append(len(x[0])))
        return module

    monkeypatch.setattr(pixel_gradient, "score_module", counting)
    return asked


def test_no_gradient_is_taken_twice_and_coarse_ones_are_few(
    subject: Score, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method, "COMPLETE", 0.0)
    method.integrated_gradients(subject)
    assert sum(rows) == 1 + method.POINTS * method.SEGMENTS  # every segment shares its ends with its neighbours
    rows.clear()
    method.integrated_gradients(dataclasses.replace(subject, coarse=True))
    assert sum(rows) == 1 + method.POINTS * method.COARSE


def test_they_are_the_integral_of_the_gradients(subject: Score) -> None:
    heat, missed = method.integrated_gradients(subject)
    network = pixel_gradient.torch_network(subject)
    score = pixel_gradient.score_module(subject, network)
    x = torch.from_numpy(np.array(subject.pixels)).permute(2, 0, 1)[None].float() / 255
    total = torch.zeros_like(x)
    for share in (np.arange(2000) + 0.5) / 2000:
        here = (float(share) * x).requires_grad_(True)
        total += torch.autograd.grad(score(here).sum(), here)[0] / 2000
    true = (total * x).sum(dim=1)[0].numpy()
    assert missed <= 0.01
    np.testing.assert_allclose(heat, true, atol=0.02 * np.abs(true).max())
