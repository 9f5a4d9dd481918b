"""The interface that every network must fulfil, tested on a small network of each family."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sightline import networks
from sightline.networks import building, find_feature_map, names
from sightline.networks.network import Network
from sightline.store import Cache

# name, image size in px, how it is cut, layout, whether its features are the mean of the map
FAMILIES = [
    ("resnet10t", 64, "Headed", "nchw", True),
    ("mobilenetv2_050", 64, "Headed", "nchw", True),
    ("mobilenetv3_small_050", 64, "Headed", "nchw", False),
    ("convnext_atto", 64, "Headed", "nchw", False),
    ("swin_tiny_patch4_window7_224", 64, "Headed", "nhwc", True),
    ("vit_tiny_patch16_224", 64, "LastBlock", "tokens", False),
    ("squeezenet1_1", 64, "Graph", "nchw", True),
    ("shufflenet_v2_x0_5", 64, "Graph", "nchw", True),
    *(
        pytest.param(*row, marks=pytest.mark.slow)
        for row in (
            ("densenet121", 64, "Headed", "nchw", True),
            ("vgg11", 64, "Headed", "nchw", False),
            ("vit_small_patch14_reg4_dinov2", 56, "LastBlock", "tokens", False),
            ("eva02_tiny_patch14_224", 56, "LastBlock", "tokens", False),
            ("cait_xxs24_224", 64, "Replay", "tokens", False),
            ("crossvit_9_240", 240, "Replay", "nchw", False),
            ("googlenet", 64, "Graph", "nchw", True),
            ("mobilenet_v3_small", 64, "Graph", "nchw", False),
            ("vit_b_32", 64, "EncoderBlock", "tokens", False),
        )
    ),
]


@functools.lru_cache(maxsize=8)
def make(name: str, size: int, pool: str = "avg") -> Network:
    source, entry = names.source_of(name, {}, Cache())
    spec = building.NetworkSpec(name, source, entry, (size, size), pool)  # type: ignore[arg-type]
    network = building.random(spec, 3)
    _disturb(network)
    return network


def _disturb(network: nn.Module) -> None:
    """Away from initial values that hide mistakes: layer scales near zero, BatchNorm that does nothing."""
    generator = torch.Generator().manual_seed(5)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            low = 0.5 if name.endswith(("running_var", "weight", "gamma")) else -0.2
            value.copy_(torch.rand(value.shape, generator=generator) * 0.4 + low)


def own_features(network: Network, x: Tensor) -> Tensor:
    """What goes into the network's own classifier."""
    net = network.net
    if hasattr(net, "forward_head"):
        return net.forward_head(net.forward_features(x), pre_logits=True).flatten(1)  # type: ignore[operator, no-any-return]
    seen: list[Tensor] = []
    handle = net.get_submodule(network.classifier).register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    net(x)
    handle.remove()
    return seen[0].mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in module.modules())


@pytest.mark.parametrize(("name", "size", "cut", "layout", "mean"), FAMILIES)
def test_map_tail_and_features_agree(name: str, size: int, cut: str, layout: str, mean: bool) -> None:
    network = make(name, size)
    assert (type(network.cut).__name__, network.layout) == (cut, layout)
    x = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        last, features = network(x)
        expected = own_features(network, x)
        alone = network.tail(network.map(x[1:]))
    assert features.shape == (2, network.features)
    scale = float(expected.abs().max())
    assert float((features - expected).abs().max()) <= 1e-5 * scale, "the tail of the map is not the network's own features"
    assert float((alone - features[1:]).abs().max()) <= 1e-4 * scale, "an image alone and in a batch"
    assert scale > 0
    if network.map_shape is None:  # two branches up to the end: the image itself, which counts as no map
        assert torch.equal(last, x)
        return
    channels, height, width = network.map_shape
    shapes = {
        "nchw": (2, channels, height, width),
        "nhwc": (2, height, width, channels),
        "tokens": (2, network.prefix + height * width, channels),
    }
    assert tuple(last.shape) == shapes[network.layout]
    if last.ndim == 4:
        means = last.mean(dim=(2, 3) if layout == "nchw" else (1, 2))
        same = means.shape == features.shape and bool((means - features).abs().max() <= 1e-4 * scale)
        assert same == mean


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "squeezenet1_1"])
def test_finding_the_cut_changes_nothing(name: str) -> None:
    network = make(name, 64)
    network.train()
    next(iter(network.net.children())).eval()  # a mixture of modes, as a half-frozen network has
    modes = [m.training for m in network.modules()]
    names = list(network.state_dict())
    find_feature_map.find(network.net, (64, 64))
    assert hooks(network) == 0
    assert [m.training for m in network.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert list(network.state_dict()) == names
    with pytest.raises((RuntimeError, ValueError, AssertionError)):
        network.map(torch.zeros((1, 5, 64, 64)))
    assert hooks(network) == 0
    network.eval()


def test_finding_the_cut_changes_nothing_after_an_error() -> None:
    network = make("vit_tiny_patch16_224", 64)
    network.train()
    with pytest.raises((RuntimeError, ValueError, AssertionError)):
        find_feature_map.find(network.net, (30, 30))
    assert hooks(network) == 0
    assert all(m.training for m in network.modules())
    network.eval()


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "squeezenet1_1", "swin_tiny_patch4_window7_224"])
def test_gradients_reach_the_map(name: str) -> None:
    network = make(name, 64)
    with torch.no_grad():
        last = network.map(torch.randn((1, 3, 64, 64)))
    last.requires_grad_(True)
    (gradient,) = torch.autograd.grad(network.tail(last)[0].sum(), last)
    cells = gradient.abs().sum(dim=1 if network.layout == "nchw" else -1).flatten()[network.prefix :]
    assert bool((cells > 0).any()) and bool(cells.isfinite().all())
    if network.layout == "tokens":
        assert bool((cells > 0).all()), "patches behind the class token got no gradient"


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "squeezenet1_1"])
def test_round_trip_through_arrays(name: str) -> None:
    backbone = networks.describe(name, weights="random", image_size=64, seed=4)
    network = networks.build(backbone)
    arrays = networks.tensors(network)
    assert all(a.dtype == np.float32 for a in arrays.values() if a.dtype.kind == "f")
    assert networks.weights_hash(arrays) == backbone.weights_hash
    again = networks.build(backbone, tensors=arrays)
    x = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(network(x)[1], again(x)[1])
    assert not again.training
    assert backbone.parameters == network.own_parameters() == sum(a.size for n, a in arrays.items() if "running_" not in n)


@pytest.mark.parametrize(("name", "layout"), [("resnet10t", "nchw"), ("vit_tiny_patch16_224", "tokens")])
def test_flatten(name: str, layout: str) -> None:
    network = make(name, 64, pool="flatten")
    with torch.no_grad():
        last, features = network(torch.randn((2, 3, 64, 64)))
    assert torch.equal(features, last.reshape(2, -1))
    assert network.features == features.shape[1]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "squeezenet1_1"])
def test_traceable(name: str) -> None:
    """The engine converts networks by tracing them."""
    network = make(name, 64)
    x = torch.randn((1, 3, 64, 64))
    traced = torch.jit.trace(network, x, check_trace=False)
    y = torch.randn((3, 3, 64, 64))
    with torch.no_grad():
        assert torch.allclose(traced(y)[1], network(y)[1], atol=1e-5)


def test_copies_compute_with_their_own_weights() -> None:
    """A copy of a network computes with the copy's weights."""
    import copy

    for name in ("squeezenet1_1", "vit_tiny_patch16_224"):
        network = make(name, 64)
        other = copy.deepcopy(network)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(0.5)
            x = torch.randn((1, 3, 64, 64))
            assert not torch.allclose(network(x)[1], other(x)[1])
