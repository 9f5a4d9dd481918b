"""The contract of every classic network: interface, smallest image, channels, classes, gradients."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.classics import CLASSICS, Classic
from sightline.networks.network import Network

# px that show two positions at least in the last map, and what keeps the network small
SMALL: dict[str, tuple[int, dict[str, Any]]] = {
    "lenet5": (32, {}),
    "googlenet": (48, {"classes": 10}),
    "plain18": (40, {"classes": 10}),
    "resnet9": (24, {"width": 4}),
    "nin": (99, {"classes": 10}),
    "xception": (64, {"classes": 10, "width": 0.25, "middle_blocks": 2, "dense": [(16, 0.1)]}),
    "basic_cnn": (70, {}),
    "happy_cnn": (32, {}),
    "simple_net": (70, {}),
    "cnn": (64, {}),
}
LARGE = ("alexnet", "vgg11", "resnet50")
"""One of each large family; that the deeper ones repeat its blocks as published is counted in `golden/test_classics.py`."""
ALL = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
SHALLOW = ("lenet5", "nin", "basic_cnn", "happy_cnn", "simple_net", "cnn")
"""Where bfloat16 stays near float32 with random weights too; in deep ones its rounding grows from layer to layer."""
OURS = [name for name in CLASSICS if CLASSICS[name].wraps is None]


def size_of(name: str) -> int:
    if name in SMALL:
        return SMALL[name][0]
    return {"alexnet": 70}.get(name, 64 if name.startswith("vgg") else 40)


def make(name: str, seed: int = 0, **arguments: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        given = {"image_size": size_of(name)} | (SMALL[name][1] if name in SMALL else {}) | arguments
        network = CLASSICS[name].build(**given)
        return settled(network, images(4, int(network.channels), size_of(name)))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=len(SMALL))
def _small(name: str) -> nn.Module:
    return make(name).eval()


def ready(name: str) -> nn.Module:
    """In evaluation mode, for tests that change nothing; the small ones are built once."""
    return _small(name) if name in SMALL else make(name).eval()


@torch.no_grad()
def settled(network: nn.Module, x: Tensor) -> nn.Module:
    """With the statistics of a batch in its BatchNorm: at their initial values GoogLeNet gives the same for any image."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        network.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    return network


def images(n: int, channels: int, side: int) -> Tensor:
    return torch.randn((n, channels, side, side), generator=torch.Generator().manual_seed(1))


def input_for(name: str, n: int = 2) -> Tensor:
    return images(n, CLASSICS[name].channels, size_of(name))


def assert_close(given: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = float(expected.abs().max())
    assert scale > 0
    assert float((given - expected).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("name", CLASSICS)
def test_record_and_builder_agree(name: str) -> None:
    classic: Classic = CLASSICS[name]
    takes = inspect.signature(classic.build).parameters
    defaults = {"image_size": classic.image_size, "channels": classic.channels, "classes": classic.classes}
    assert {key: takes[key].default for key in defaults} == defaults
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is not inspect.Parameter.empty for p in takes.values())
    assert classic.build.__name__ == name
    assert (classic.year is None) == (classic.paper == "")
    assert classic.year is None or str(classic.year) in classic.paper
    with torch.device("meta"):
        network = classic.build()
    module = type(network).__module__
    assert module.startswith("sightline." if classic.wraps is None else "torchvision.models.")
    assert classic.wraps is None or classic.wraps == f"torchvision.models.{name}"


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_the_smallest_image(name: str) -> None:
    """At the smallest size a batch of one passes in evaluation mode, one pixel below it is an error that names it."""
    classic = CLASSICS[name]
    network = classic.build(image_size=classic.smallest).eval()
    given = network(images(1, classic.channels, classic.smallest))
    assert given.shape == (1, classic.classes) and given.isfinite().all()
    with pytest.raises(RequestError, match=f"{classic.smallest - 1}×{classic.smallest - 1}") as error:
        classic.build(image_size=classic.smallest - 1)
    assert error.value.hint is not None and re.search(rf"smallest is {classic.smallest}\b", error.value.hint)
    if classic.wraps and classic.smallest > 1:  # torch itself refuses smaller ones: the number is not larger than it must be
        with pytest.raises(RuntimeError):
            network(images(1, classic.channels, classic.smallest - 1))


def test_zero_channels_or_classes_are_refused() -> None:
    for name, classic in CLASSICS.items():
        for wrong in ({"classes": 0}, {"channels": 0}):
            with pytest.raises(RequestError) as error:
                classic.build(**wrong)
            assert error.value.hint, f"{name} {wrong}"


@pytest.mark.parametrize("name", [p for p in ALL if (p if isinstance(p, str) else p.values[0]) in OURS])
@torch.no_grad()
def test_map_tail_and_classifier_give_the_logits(name: str) -> None:
    network, x = ready(name), input_for(name)
    last = network.map(x)  # type: ignore[operator]
    features = network.tail(last)  # type: ignore[operator]
    assert last.ndim == 4 and last.shape[2] * last.shape[3] > 1
    assert features.shape == (2, network.features)
    assert isinstance(network.classifier, nn.Linear | nn.Identity)
    assert torch.equal(network.classifier(features), network(x))
    assert (network.layout, network.prefix) == ("nchw", 0)
    assert (network.image_size, network.channels) == (size_of(name), CLASSICS[name].channels)


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_one_surface(name: str) -> None:
    network, x = ready(name), input_for(name)
    side = size_of(name)
    surface = Network(network, (side, side), classifier=True).eval()
    last, features = surface(x)
    assert features.shape == (2, surface.features)
    assert surface.map_shape is not None and last.shape == (2, *surface.map_shape)
    assert last.shape != x.shape, "the map is the image itself"
    behind = network.get_submodule(surface.classifier)
    columns = behind(features)
    logits = network(x)
    assert_close(columns, logits, 1e-5)
    assert_close(surface.logits(x)[:, -logits.shape[1] :], logits, 1e-5)


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_state_dict_and_memory_format(name: str) -> None:
    x = input_for(name)
    first = ready(name)
    logits = first(x)
    assert logits.shape[0] == 2
    other = make(name, seed=1).eval()
    assert not torch.allclose(other(x), logits)
    other.load_state_dict(first.state_dict())
    assert torch.equal(other(x), logits)
    if name not in SMALL:  # rounding grows from layer to layer where weights are random
        x, logits = x.double(), first.double()(x.double())
    other.to(x.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert_close(other(x.contiguous(memory_format=torch.channels_last)), logits, 1e-4)


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_other_channels_and_one_unit(name: str) -> None:
    side = size_of(name)
    grey = make(name, channels=1, classes=1).eval()
    given = grey(images(2, 1, side))
    assert given.shape == (2, 1) and given.isfinite().all() and given.std() > 0
    assert grey.channels == 1
    bands = make(name, channels=5).eval()
    assert bands(images(2, 5, side)).isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_learns(name: str) -> None:
    network = make(name).train()
    given = network(input_for(name, 4))
    given.square().sum().backward()
    for key, parameter in network.named_parameters():
        gradient = parameter.grad
        assert gradient is not None and gradient.isfinite().all(), key
        assert gradient.abs().max() > 0, key


def test_auxiliary_classifiers_of_googlenet() -> None:
    network = make("googlenet", auxiliary=True).train()
    main, second, first = network(input_for("googlenet", 4))
    assert main.shape == second.shape == first.shape == (4, 10)
    (main.sum() + 0.3 * (first.sum() + second.sum())).backward()
    assert all(p.grad is not None for p in network.parameters())
    network.eval()
    assert network(input_for("googlenet")).shape == (2, 10)


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_in_bfloat16(name: str) -> None:
    network, x = ready(name), input_for(name)
    expected = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = network(x)
    assert given.dtype == torch.bfloat16 and given.shape == expected.shape
    assert given.isfinite().all()
    if name in SHALLOW:
        assert_close(given.float(), expected, 0.03)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["lenet5", pytest.param("plain18", marks=pytest.mark.slow)])
@torch.no_grad()
def test_converts_to_openvino(name: str) -> None:
    openvino = pytest.importorskip("openvino")
    network, x = ready(name), input_for(name)
    model = openvino.convert_model(network, example_input=x)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert_close(torch.from_numpy(compiled(x.numpy())[0]), network(x), 1e-4)
