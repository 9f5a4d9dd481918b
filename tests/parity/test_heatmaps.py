"""The Grad-CAM family against the package `grad-cam` and captum on four architectures; captum's own completeness."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sightline import engine, explanation, heads, networks, pixels
from sightline.explanation.methods.integrated_gradients import integrated_gradients
from sightline.explanation.score import Score
from sightline.records import Head
from sightline.store import Cache

NETWORKS = ["resnet10t", "mobilenetv3_small_050", "convnext_atto", pytest.param("densenet121", marks=pytest.mark.slow)]
WILD = ("mobilenetv3_small_050",)
"""With random weights their score swings ten times as far on the way as its ends lie apart: no question for a quadrature."""
SIZE = 64
CLASSES = ("x", "y", "z")
BOX = (0.0, 0.0, 1.0, 1.0)
COEFFICIENTS = (-0.5, 1.0, -0.5)


class Whole(nn.Module):
    """Normalised images → logits of three classes, the map passing through a module of its own, which hooks can find."""

    def __init__(self, network: Any, layers: list[tuple[np.ndarray, np.ndarray]]) -> None:
        super().__init__()
        self.network, self.last = network, nn.Identity()
        self.layers = [(torch.from_numpy(w.copy()), torch.from_numpy(b.copy())) for w, b in layers]

    def forward(self, images: Tensor) -> Tensor:
        value = self.network.tail(self.last(self.network.map(images)))
        for number, (weights, bias) in enumerate(self.layers):
            value = nn.functional.linear(torch.relu(value) if number else value, weights, bias)
        return value


@dataclass(frozen=True)
class Case:
    session: engine.Session
    head: Head
    images: np.ndarray
    whole: Whole
    values: Tensor


def score(logits: Tensor) -> Tensor:
    """The score of class 1: its logit minus the mean of the others; of one row, as grad-cam asks, or of several."""
    return logits @ torch.tensor(COEFFICIENTS)


def mlp(features: int, random: np.random.Generator) -> Head:
    shapes = {"0": (16, features), "1": (3, 16)}
    arrays = {f"weights.{i}": random.normal(size=s).astype(np.float32) for i, s in shapes.items()}
    return Head("mlp", 3, {}, {**arrays, "bias.0": np.ones(16, np.float32), "bias.1": np.zeros(3, np.float32)})


@pytest.fixture(params=NETWORKS, scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    cache = Cache(tmp_path_factory.mktemp("parity"))
    backbone = networks.describe(request.param, weights="random", image_size=SIZE, cache=cache)
    session = engine.open_session(backbone, cache=cache, expected=1)
    random = np.random.default_rng(0)
    weights = random.normal(size=(3, backbone.features)).astype(np.float32) * 100
    head = Head("logistic", 3, {}, {"weights": weights, "bias": random.normal(size=3).astype(np.float32)})
    images = random.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    p = backbone.preprocess
    normal = (images / 255 - np.array(p.mean)) / np.array(p.std)
    values = torch.from_numpy(normal.astype(np.float32).transpose(0, 3, 1, 2))
    network = networks.build(backbone)
    return Case(session, head, images, Whole(network, [(weights, head.arrays["bias"])]).eval(), values)


def ours(case: Case, method: str, head: Head | None = None) -> np.ndarray:
    found = explanation.explain(
        case.session,
        head or case.head,
        case.images,
        paths=["a", "b"],
        targets=[1, 1],
        classes=CLASSES,
        boxes=[BOX, BOX],
        options=explanation.ExplainOptions(method=method),
    )
    return np.stack([e.heat for e in found])


def close(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(one, other, atol=3e-4 * np.abs(other).max())


@pytest.mark.parametrize(
    ("method", "name"), [("gradcam", "GradCAM"), ("gradcam++", "GradCAMPlusPlus"), ("hirescam", "HiResCAM")]
)
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_family_is_that_of_the_package_grad_cam(case: Case, method: str, name: str, kind: str) -> None:
    package = pytest.importorskip("pytorch_grad_cam")
    head = case.head if kind == "linear" else mlp(case.session.backbone.features, np.random.default_rng(1))
    whole = Whole(case.whole.network, heads.layers(head) or []).eval()

    class Raw(getattr(package, name)):  # type: ignore[misc]
        """Before it cuts at zero, scales and enlarges."""

        def get_cam_image(self, *arguments: Any, **named: Any) -> np.ndarray:
            self.raw = super().get_cam_image(*arguments, **named)
            return np.asarray(self.raw)

    with Raw(model=whole, target_layers=[whole.last]) as cam:
        cam(input_tensor=case.values, targets=[score, score])
        close(ours(case, method, head), cam.raw)


def test_gradcam_is_captum_s(case: Case) -> None:
    attr = pytest.importorskip("captum.attr")
    layer = attr.LayerGradCam(lambda x: score(case.whole(x)), case.whole.last)
    close(ours(case, "gradcam"), layer.attribute(case.values)[:, 0].detach().numpy())


def test_saliency_is_the_gradient_s_size(case: Case) -> None:
    x = case.values.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(score(case.whole(x)).sum(), x)
    close(ours(case, "saliency"), gradient.abs().amax(dim=1).numpy())
    close(ours(case, "gradient-input"), (gradient * case.values).sum(dim=1).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_integrated_gradients_are_complete(case: Case, kind: str) -> None:
    if case.session.backbone.name in WILD:
        pytest.skip("random weights make its score swing; asked with real weights below")
    head = case.head if kind == "linear" else mlp(case.session.backbone.features, np.random.default_rng(1))
    whole = Whole(case.whole.network, heads.layers(head) or []).eval()
    with torch.no_grad():
        change = float(score(whole(case.values[:1]) - whole(torch.zeros_like(case.values[:1])))[0])
    heat, missed = integrated_gradients(Score(case.session, head, 1, image=case.images[0]))
    assert missed <= 0.01 and heat.sum(dtype=np.float64) == pytest.approx(change, rel=0.01)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv2_100", "squeezenet1_1"])
def test_integrated_gradients_of_photographs_are_complete(
    name: str, shared: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(shared / "weights"))
    backbone = networks.describe(name, cache=cache)
    session = engine.open_session(backbone, cache=cache, expected=1)
    files = [min((shared / "data" / "cats_dogs" / folder).iterdir()) for folder in ("cats", "dogs")]
    images = np.stack([pixels.decode(file, backbone.preprocess) for file in files])
    cat, dog = session.run(images)[0]
    weights = np.stack([cat - dog, dog - cat])  # a direction that tells them apart, as a head learns it
    head = Head("logistic", 2, {}, {"weights": weights, "bias": np.zeros(2, np.float32)})
    for target, image in enumerate(images):
        assert integrated_gradients(Score(session, head, target, image=image))[1] <= 0.01
