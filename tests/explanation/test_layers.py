"""Layers for heatmaps: the default of every network family, by name, with skip connections and in-place operations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sightline import engine, explanation, networks
from sightline.errors import RequestError
from sightline.explanation.layers import find_layer, open_layer
from sightline.records import Explanation, Head
from sightline.store import Cache

SLOW = pytest.mark.slow
FAMILIES = [  # name, side, whether the closed form holds, grid
    ("resnet10t", 64, True, (2, 2)),
    ("mobilenetv2_035", 64, True, (2, 2)),
    ("mobilenetv3_small_050", 64, False, (2, 2)),
    ("convnext_atto", 64, False, (2, 2)),
    ("vit_tiny_patch16_224", 32, False, (2, 2)),
    pytest.param("vgg11", 224, False, (7, 7), marks=SLOW),
    pytest.param("inception_v3", 96, True, (1, 1), marks=SLOW),
    pytest.param("inception_v3", 160, True, (3, 3), marks=SLOW),
    pytest.param("swin_tiny_patch4_window7_224", 224, True, (7, 7), marks=SLOW),
    pytest.param("vit_small_patch14_dinov2", 56, False, (4, 4), marks=SLOW),
    ("own:nested", 32, False, (8, 8)),
    ("own:plain", 32, True, (8, 8)),
]
OWN = """
import torch
from torch import nn

class Body(nn.Module):
    def __init__(self):
        super().__init__()
        first, second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.features = nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))

    def forward(self, x):
        return self.features(x)

class Nested(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.body = Body()
        layers = [nn.Linear(8, 6), nn.Tanh()] if hidden else []
        last = nn.Sequential(nn.Dropout(0.5), nn.Linear(6 if hidden else 8, 2))
        self.head = nn.ModuleDict({"inner": nn.Sequential(*layers, last)})

    def forward(self, x):
        x = self.body(x).mean(dim=(2, 3))
        return self.head["inner"](x)

def nested():
    return Nested(True)

def plain():
    return Nested(False)
"""


@dataclass(frozen=True)
class Case:
    session: engine.Session
    head: Head
    images: np.ndarray

    def ask(self, method: str = "gradcam", layer: str | None = None) -> Explanation:
        return explanation.explain(
            self.session,
            self.head,
            self.images[:1],
            paths=["a"],
            targets=[1],
            classes=("x", "y"),
            boxes=[(0.0, 0.0, 1.0, 1.0)],
            options=explanation.ExplainOptions(method=method, layer=layer),
        )[0]


def opened(name: str, size: int, tmp_path: Path) -> Case:
    cache = Cache(tmp_path / "cache")
    if name.startswith("own:"):
        (tmp_path / "net.py").write_text(OWN, encoding="utf-8")
        name = f"{tmp_path / 'net.py'}:{name[4:]}"
    backbone = networks.describe(name, weights="random", image_size=size, cache=cache)
    random = np.random.default_rng(0)
    weights = random.normal(size=(2, backbone.features)).astype(np.float32)
    head = Head("logistic", 2, {}, {"weights": weights, "bias": np.zeros(2, np.float32)})
    images = random.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    return Case(engine.open_session(backbone, cache=cache, expected=1), head, images)


def awake(case: Case) -> Case:
    """Its residual branches count: timm starts them with the last BatchNorm at zero."""
    for module in case.session.network().modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return case


def normalised(case: Case) -> torch.Tensor:
    p = case.session.backbone.preprocess
    values = (case.images[:1] / 255 - np.array(p.mean)) / np.array(p.std)
    return torch.from_numpy(values.astype(np.float32).transpose(0, 3, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "closed", "grid"), FAMILIES)
def test_each_family_s_layer_is_found_and_its_closed_form_measured(
    name: str, size: int, closed: bool, grid: tuple[int, int], tmp_path: Path
) -> None:
    case = opened(name, size, tmp_path)
    found = case.ask()
    assert case.session.tail_is_mean == closed
    assert found.heat.shape == grid and case.ask(layer="auto").heat.tolist() == found.heat.tolist()
    network, backbone = case.session.network(), case.session.backbone
    last = network.map(normalised(case)).detach().requires_grad_(True)
    weights = torch.from_numpy(case.head.arrays["weights"])
    (gradient,) = torch.autograd.grad((network.tail(last) @ (weights[1] - weights[0])).sum(), last)
    value, slope = (explanation.to_grid(t.detach().numpy(), backbone)[0] for t in (last, gradient))
    expected = (slope.mean(axis=(1, 2), keepdims=True) * value).sum(axis=0)
    np.testing.assert_allclose(found.heat, expected, atol=1e-5 * max(np.abs(expected).max(), 1e-12))
    assert np.abs(slope).max() > 0, "the map decides the answer"


@pytest.mark.parametrize("layer", ["layer2", "layer3.0.conv1", "layer4.0.act2", "conv1.0"])
def test_any_layer_is_as_captum_has_it(layer: str, tmp_path: Path) -> None:
    attr = pytest.importorskip("captum.attr")
    case = awake(opened("resnet10t", 64, tmp_path))
    network, weights = case.session.network(), torch.from_numpy(case.head.arrays["weights"])
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # captum reads what a layer gave after the next one has written over it
    expected = (
        attr.LayerGradCam(lambda x: network.tail(network.map(x)) @ (weights[1] - weights[0]), network.net.get_submodule(layer))
        .attribute(normalised(case))[0, 0]
        .detach()
    )
    assert float(expected.abs().max()) > 0
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    found = case.ask(layer=layer)
    assert found.layer.startswith(f"{layer}, ") and found.heat.shape == tuple(expected.shape)
    np.testing.assert_allclose(found.heat, expected.numpy(), atol=1e-4 * float(expected.abs().max()))


def test_containers_of_a_traced_network_can_be_named(tmp_path: Path) -> None:
    case = opened("own:nested", 32, tmp_path)
    whole, part = case.ask(layer="body"), case.ask(layer="body.features.3")
    np.testing.assert_allclose(whole.heat, part.heat, atol=1e-6)
    np.testing.assert_allclose(whole.heat, case.ask().heat, atol=1e-6)
    assert case.ask("masks", "body.features.0").heat.shape == (10, 10)
    for layer, told in (("body.feature", "no layer"), ("head.inner", "does not run"), ("", "no layer")):
        with pytest.raises(RequestError, match=told):
            case.ask(layer=layer)
    with pytest.raises(RequestError, match="explains pixels and takes no layer"):
        case.ask("saliency", "body")


def test_an_unknown_layer_says_where_they_are_listed(tmp_path: Path) -> None:
    case = opened("resnet10t", 64, tmp_path)
    for layer in ("nope", "layer3.0.conv7"):
        with pytest.raises(RequestError, match=f"no layer '{layer}'") as told:
            case.ask(layer=layer)
        hint = told.value.hint or ""
        assert hint.endswith(" `sightline summary resnet10t` lists its layers") and (layer == "nope" or "did you mean" in hint)


@pytest.mark.slow
def test_skip_connections_around_a_layer_are_kept(tmp_path: Path) -> None:
    """Putting a layer's own output back changes nothing, though a skip connection goes around it."""
    case = awake(opened("resnet10t", 64, tmp_path))
    at = open_layer(case.session, find_layer(case.session, "layer3.0.conv1", case.images[0]), case.images[0])
    np.testing.assert_allclose(at.tail(at.last), case.session.run(case.images[:1])[0], atol=1e-4)
    assert np.abs(at.tail(0 * at.last) - at.tail(at.last)).max() > 1e-3
    features, maps = at.run(case.images, maps=True)
    assert maps is not None and len(features) == len(maps) == 2


def test_channels_strongest_and_first(tmp_path: Path) -> None:
    case = opened("resnet10t", 64, tmp_path)
    _, last = case.session.run(case.images, maps=True)
    assert last is not None
    strongest = explanation.channel_maps(case.session, case.images, channels=5)
    assert strongest.maps.shape == (2, 5, 2, 2) and strongest.numbers.shape == (2, 5)
    energy = (last[0].astype(np.float64) ** 2).mean(axis=(1, 2))
    assert strongest.numbers[0].tolist() == np.argsort(-energy, kind="stable")[:5].tolist()
    np.testing.assert_array_equal(strongest.maps[0], last[0][strongest.numbers[0]])
    first = explanation.channel_maps(case.session, case.images, layer="conv1.0", channels=3, which="first")
    assert first.numbers.tolist() == [[0, 1, 2]] * 2 and first.maps.shape == (2, 3, 32, 32) and first.layer == "conv1.0"
    assert explanation.channel_maps(case.session, case.images, channels=10**6).maps.shape[1] == last.shape[1]
    with pytest.raises(RequestError, match="choice of channels"):
        explanation.channel_maps(case.session, case.images, which="frist")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="0 channels"):
        explanation.channel_maps(case.session, case.images, channels=0)
