"""Grad-CAM against autograd through the whole network, written out, and against captum; masks against covering one cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sightline import engine, explanation, heads, networks, pixels
from sightline.records import Head
from sightline.store import Cache

NETWORKS = ["resnet10t", pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow)]


class Whole(nn.Module):
    """Images, normalised → the logits' contrast of class 1, with the map passing through a module of its own."""

    def __init__(self, network: Any, weights: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.network, self.last = network, nn.Identity()
        self.register_buffer("weights", torch.from_numpy(weights))
        self.register_buffer("bias", torch.from_numpy(bias))

    def forward(self, images: Tensor) -> Tensor:
        features = self.network.tail(self.last(self.network.map(images)))
        logits = features @ self.weights.T + self.bias
        return (logits[:, 1] - logits[:, [0, 2]].mean(dim=1))[:, None]


@pytest.fixture(params=NETWORKS, scope="module")
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[engine.Session, Head, np.ndarray, Whole, Tensor]:
    cache = Cache(tmp_path_factory.mktemp("parity"))
    backbone = networks.describe(request.param, weights="random", image_size=64, cache=cache)
    session = engine.open_session(backbone, cache=cache, expected=1)
    random = np.random.default_rng(0)
    weights = random.normal(size=(3, backbone.features)).astype(np.float32)
    bias = random.normal(size=3).astype(np.float32)
    images = random.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    p = backbone.preprocess
    normal = (images / 255 - np.array(p.mean)) / np.array(p.std)
    values = torch.from_numpy(normal.astype(np.float32).transpose(0, 3, 1, 2))
    head = Head("logistic", 3, {}, {"weights": weights, "bias": bias})
    return session, head, images, Whole(networks.build(backbone), weights, bias).eval(), values


def ours(session: engine.Session, head: Head, images: np.ndarray) -> np.ndarray:
    box = (0.0, 0.0, 64.0, 64.0)
    found = explanation.explain(
        session,
        head,
        images,
        paths=["a", "b"],
        targets=[1, 1],
        classes=("x", "y", "z"),
        boxes=[box, box],
        options=explanation.ExplainOptions(method="gradcam"),
    )
    return np.stack([e.heat for e in found])


def test_gradcam_is_what_a_backward_pass_gives(case: tuple[engine.Session, Head, np.ndarray, Whole, Tensor]) -> None:
    session, head, images, whole, values = case
    last = whole.network.map(values).detach().requires_grad_(True)
    logits = whole.network.tail(last) @ whole.weights.T + whole.bias  # type: ignore[operator]
    (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, [0, 2]].mean(dim=1)).sum(), last)
    channels, places = (3, (1, 2)) if session.backbone.layout == "nhwc" else (1, (2, 3))
    expected = (gradient.mean(dim=places, keepdim=True) * last).sum(dim=channels).detach().numpy()
    np.testing.assert_allclose(ours(session, head, images), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.realdata
@pytest.mark.slow
def test_on_photographs_masks_find_what_a_forest_needs(shared: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean probability left while the hottest cells are deleted: random masks < one cell at a time < random order."""
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(shared / "weights"))
    backbone = networks.describe("mobilenetv2_100", cache=cache)
    session = engine.open_session(backbone, cache=cache)
    files = [f for c in ("cats", "dogs") for f in sorted((shared / "data" / "cats_dogs" / c).iterdir())[:80]]
    y = np.repeat([0, 1], 80)
    features, maps = session.run(np.stack([pixels.decode(f, backbone.preprocess) for f in files]), maps=True)
    assert maps is not None
    train = np.arange(160) % 5 != 0
    rows = np.flatnonzero(train)
    folds = [(rows[::2], rows[1::2])]
    head = heads.fit("forest", features, y, 2, folds=folds, refit=True, settings={}, seed=0).head
    left: dict[str, list[float]] = {"masks": [], "one": [], "random": []}
    for row in np.flatnonzero(~train):
        target = int(heads.logits(head, features[row : row + 1]).argmax())
        grid = maps[row].reshape(len(maps[row]), -1)
        mean = features[train].mean(axis=0)

        def answer(shown: np.ndarray, grid: np.ndarray = grid, mean: np.ndarray = mean, target: int = target) -> np.ndarray:
            pooled = mean + shown @ (grid - mean[:, None]).T / grid.shape[1]
            return np.asarray(heads.probs(head, pooled.astype(np.float32))[:, target])

        box = (0.0, 0.0, 1.0, 1.0)
        shown: dict[str, Any] = {"paths": ["a"], "targets": [target], "classes": ("c", "d"), "boxes": [box]}
        found = explanation.explain(session, head, maps[:0], maps=maps[row : row + 1], **shown)
        orders = {"masks": found[0].heat.ravel(), "one": -answer(1 - np.eye(49)), "random": None}
        for name, heat in orders.items():
            order = np.random.default_rng(row).permutation(49) if heat is None else np.argsort(-heat, kind="stable")
            shown = np.ones((50, 49))
            for step, cell in enumerate(order):
                shown[step + 1 :, cell] = 0
            left[name].append(float(answer(shown).mean()))
    masks, one, random = (float(np.mean(left[n])) for n in ("masks", "one", "random"))
    assert masks < one - 0.005 < random - 0.02, (masks, one, random)
