"""Cuts of networks without methods that declare them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks import find_feature_map
from sightline.networks.network import Network


class Nested(nn.Module):
    """A body inside a module, its last step and its pooling in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"stem": nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))})
        self.left, self.right = nn.Conv2d(8, 6, 3), nn.Conv2d(8, 6, 3)
        self.head = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body["stem"](x)
        x = torch.cat([self.left(x), self.right(x)], 1).relu()
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Dynamic(Nested):
    """Its Python depends on values, so its graph cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.body["stem"](x)
        x = self.left(x) if float(x.sum()) > -1e9 else self.right(x)
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))  # type: ignore[no-any-return]


class Branches(Nested):
    """Untraceable, and no module's output alone decides the features behind the stem."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.body["stem"](x)
        assert float(x.abs().sum()) >= 0
        return self.head(torch.cat([self.left(x), self.right(x)], 1).mean((2, 3)))  # type: ignore[no-any-return]


def look(net: nn.Module, size: int = 20) -> tuple[Network, Tensor, Tensor, Tensor]:
    network = Network(net, (size, size)).eval()
    x = torch.randn((3, 3, size, size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last, features = network(x)
    return network, x, last, features


def test_concatenation_in_python_is_the_map() -> None:
    torch.manual_seed(0)
    net = Nested()
    network, x, last, features = look(net)
    assert type(network.cut).__name__ == "Graph"
    assert last.shape == (3, 12, 7, 7) and network.map_shape == (12, 7, 7)
    assert network.classifier == "head.2" and features.shape == (3, 10)
    with torch.no_grad():
        expected = net.head[:2](last.mean((2, 3)))
        assert torch.allclose(features, expected, atol=1e-6)
        assert torch.equal(net.eval()(x), net.head[2](features))
    assert not any(n.startswith("head.2") for n in network.own_tensors())
    assert network.own_parameters() == sum(p.numel() for p in net.parameters()) - 44


def test_untraceable_is_cut_under_hooks() -> None:
    torch.manual_seed(0)
    net = Dynamic()
    network, x, last, features = look(net)
    assert type(network.cut).__name__ == "Replay"
    assert last.shape == (3, 6, 7, 7) and features.shape == (3, 10)
    with torch.no_grad():
        assert torch.allclose(net.eval()(x), net.head[2](features), atol=1e-6)
        other = network.tail(last * 2)
    assert not torch.allclose(other, features), "the tail ignores the map"
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()) == 0


def test_a_map_that_does_not_decide_the_features_is_not_used() -> None:
    torch.manual_seed(0)
    network, _, last, features = look(Branches())
    assert last.shape == (3, 8, 9, 9), "behind the stem the network has two branches; neither is the map"
    with torch.no_grad():
        assert torch.allclose(network.tail(last), features)


def test_body_without_classifier() -> None:
    network, _, last, features = look(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True)))
    assert network.classifier == "" and torch.allclose(features, last.mean((2, 3)))


def test_without_map_the_cut_is_at_the_image() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 7), nn.ReLU(), nn.Linear(7, 2))
    network, x, last, features = look(net, 8)
    assert torch.equal(last, x) and network.map_shape is None  # an image is no map of features
    assert features.shape == (3, 7)


def test_the_callers_map_is_not_changed() -> None:
    """What follows the map may work in place."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(4 * 6 * 6, 2))
    network, _, last, _ = look(net, 8)
    before = last.clone()
    with torch.no_grad():
        network.tail(last)
    assert torch.equal(last, before) and bool((last < 0).any())


def test_declared_cuts_are_used() -> None:
    class Own(nn.Module):
        layout = "nhwc"

        def map(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1)

        def tail(self, last: Tensor) -> Tensor:
            return last.amax((1, 2))

    network, _, _, features = look(Own(), 6)
    assert (network.layout, network.map_shape, features.shape) == ("nhwc", (3, 6, 6), (3, 3))


@pytest.mark.parametrize(
    ("net", "size", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 9), nn.Flatten()), 4, "does not accept images of 4×4 px"),
        (nn.LSTM(5, 5), 8, "does not accept images"),
        (nn.Flatten(0), 4, "returns (48,) for one image"),
    ],
)
def test_refused(net: nn.Module, size: int, words: str) -> None:
    with pytest.raises(RequestError) as error:
        find_feature_map.find(net, (size, size))
    assert words in str(error.value) and error.value.hint
    assert sum(len(m._forward_hooks) for m in net.modules()) == 0


def test_logits_need_a_classifier() -> None:
    network, x, _, _ = look(Nested())
    with pytest.raises(RequestError, match="without its own classifier"):
        network.logits(x)
