"""Stages, freezing and parameter groups of different kinds of networks."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from sightline import networks
from sightline.errors import RequestError
from sightline.networks.network import Network

# name, image size in px, positions of each stage's output
KNOWN = [
    ("resnet10t", 64, [1024, 256, 64, 16, 4]),
    ("mobilenetv2_050", 64, [1024, 256, 64, 16, 4]),
    ("squeezenet1_1", 64, [961, 225, 49, 9]),
    ("swin_tiny_patch4_window7_224", 64, [256, 64, 16, 4]),
    ("vit_tiny_patch16_224", 64, [16] + [17] * 12),
]


@functools.lru_cache
def make(name: str, size: int) -> Network:
    made = networks.random_network(name, image_size=size)
    return Network(made.net, made.size, classifier=True)


class Nested(nn.Module):
    """A user's network: a body, a part that only training uses, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.unused = nn.Linear(4, 4)
        self.second = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.out = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x) + self.token)
        return self.out(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "cells"), KNOWN)
def test_stages_by_resolution(name: str, size: int, cells: list[int]) -> None:
    network = make(name, size)
    assert [s.cells for s in network.stages] == cells
    placed = [p for s in network.stages for p in s.parameters]
    assert len(placed) == len(set(placed))
    classifier = {n for n, _ in network.net.named_parameters() if n.startswith(f"{network.classifier}.")}
    assert classifier and set(placed) | classifier == {n for n, _ in network.net.named_parameters()}
    assert len({s.name for s in network.stages}) == len(network.stages)


def test_resnet_stages_are_its_layers() -> None:
    assert [s.name for s in make("resnet10t", 64).stages][1:] == ["layer1", "layer2", "layer3", "layer4"]


def test_users_network() -> None:
    network = Network(Nested(), (16, 16), classifier=True)
    assert [s.cells for s in network.stages] == [256, 64]
    assert "token" in network.stages[0].parameters
    assert "unused.weight" in network.stages[-1].parameters
    assert not any("out." in p for s in network.stages for p in s.parameters)


@pytest.mark.parametrize(("name", "size", "cells"), KNOWN)
def test_frozen_stages_learn_nothing(name: str, size: int, cells: list[int]) -> None:
    network = make(name, size)
    names = [s.name for s in network.stages]
    network.freeze(names[1]).train()
    x, frozen = torch.randn(4, 3, size, size), {p for s in network.stages[:2] for p in s.parameters}
    before = {n: v.clone() for n, v in network.net.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameter_groups(0.1, weight_decay=0.1))
    network.logits(x).square().sum().backward()
    optimizer.step()
    moved = {n for n, v in network.net.state_dict().items() if not torch.equal(v, before[n])}
    statistics = {f"{m}.{b}" for s in network.stages[:2] for m in s.modules for b in ("running_mean", "running_var")}
    assert not moved & (frozen | statistics)
    assert any(p in moved for p in network.stages[-1].parameters)
    assert any(n.startswith(f"{network.classifier}.") for n in moved)
    network.unfreeze().eval()
    assert all(p.requires_grad for p in network.parameters())


def test_unfreezing_counts_from_the_features() -> None:
    network = make("resnet10t", 64)
    for stages in (2, "layer3"):
        network.freeze().unfreeze(stages)
        learning = {n.split(".")[0] for n, p in network.net.named_parameters() if p.requires_grad}
        assert learning == {"layer3", "layer4", "fc"}
    network.freeze()
    assert {n for n, p in network.net.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}
    network.train()
    assert not any(m.training for m in network.net.modules() if isinstance(m, nn.BatchNorm2d))
    network.unfreeze().train()
    assert all(m.training for m in network.net.modules() if isinstance(m, nn.BatchNorm2d))
    network.eval()


@pytest.mark.parametrize("stages", [-1, 6, "layer5"])
def test_unknown_stages_are_refused(stages: int | str) -> None:
    with pytest.raises(RequestError):
        make("resnet10t", 64).freeze(stages)
    with pytest.raises(RequestError):
        make("resnet10t", 64).unfreeze(stages)


@pytest.mark.parametrize(("name", "size", "cells"), KNOWN)
def test_parameter_groups_by_depth(name: str, size: int, cells: list[int]) -> None:
    network = make(name, size).unfreeze()
    groups = network.parameter_groups(1e-2, decay=0.5, weight_decay=0.05)
    held = [id(p) for g in groups for p in g["params"]]
    assert len(held) == len(set(held)) and set(held) == {id(p) for p in network.parameters()}
    rates = {g["name"]: g["lr"] for g in groups}
    names = [s.name for s in network.stages]
    assert rates["classifier"] == rates[names[-1]] == 1e-2
    assert rates[names[0]] == pytest.approx(1e-2 * 0.5 ** (len(names) - 1))
    assert all((p.ndim >= 2) == (g["weight_decay"] > 0) for g in groups for p in g["params"])
    network.freeze(1)
    assert names[0] not in {g["name"] for g in network.parameter_groups(1e-2)}
    network.unfreeze()


def test_a_grey_network_sees_the_grey_image() -> None:
    made = networks.random_network("resnet10t", image_size=32, channels=1)
    network = Network(made.net, made.size)
    x = torch.rand(2, 3, 32, 32)
    grey = (x * torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    with torch.no_grad():
        assert torch.allclose(network(x)[1], network(grey)[1], atol=1e-6)


def test_one_unit_is_shown_as_two_columns() -> None:
    made = networks.random_network("resnet10t", image_size=32, classes=1)
    network = Network(made.net, made.size, classifier=True)
    with torch.no_grad():
        x = torch.rand(2, 3, 32, 32)
        logits, unit = network.logits(x), made.net(x)
    assert logits.shape == (2, 2)
    assert torch.allclose(logits.softmax(dim=1)[:, 1:], unit.sigmoid(), atol=1e-6)
