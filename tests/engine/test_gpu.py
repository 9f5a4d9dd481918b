"""A CUDA device gives the results of the CPU, to the accuracy of its arithmetic."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline import engine, explanation, heads, networks
from sightline.records import Recipe
from sightline.store import Cache
from sightline.training import methods
from sightline.training.context import Context
from tests.conftest import write_few_digits

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("precision", "least"), [("f32", 0.9999), ("bf16", 0.99)])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_features_agree_with_those_of_the_cpu(
    name: str, precision: engine.Precision, least: float, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_PRECISION", "auto")
    backbone = networks.describe(name, weights="random", cache=cache)
    images = np.random.default_rng(0).integers(0, 256, (8, *backbone.preprocess.size, 3), dtype=np.uint8)
    here, _ = engine.open_session(backbone, cache=cache).run(images)
    session = engine.open_session(backbone, cache=cache, precision=precision, device="cuda")
    there, maps = session.run(images, maps=True)
    assert session.precision == precision and maps is not None and engine.cosines(here, there).min() > least


@pytest.mark.parametrize("method", ["features", "finetune", "scratch"])
def test_training_runs_and_predicts_on_both(method: str, cache: Cache, tmp_path: Path) -> None:
    found = catalogs.scan(write_few_digits(tmp_path / "digits", 20))
    divided = found.with_column("split", [("train", "train", "val", "test")[i % 4] for i in range(len(found))])
    context = Context(divided, np.arange(len(divided)), divided.classes, cache, "cuda")
    settings = {} if method == "features" else {"epochs": 1}
    name = "cnn" if method == "scratch" else "resnet10t"
    recipe = Recipe(method=method, backbone=name, weights="random", image_size=32, head="ridge", settings=settings)
    made = methods.fit(dataclasses.replace(context), recipe)[0].classifier
    there = made.predict(divided.where(split="val"), cache=cache, device="cuda").probs
    here = made.predict(divided.where(split="val"), cache=cache, device="cpu").probs
    assert np.abs(here - there).max() < 0.05


def test_grad_cam_agrees_with_that_of_the_cpu(cache: Cache) -> None:
    backbone = networks.describe("resnet10t", weights="random", cache=cache)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, *backbone.preprocess.size, 3), dtype=np.uint8)
    rows = np.arange(40)
    values = random.normal(size=(40, backbone.features)).astype(np.float32)
    head = heads.fit("ridge", values, rows % 3, 3, folds=[(rows[:20], rows[20:])]).head
    drawn = []
    for device in ("cpu", "cuda"):
        session = engine.open_session(backbone, cache=cache, device=device)
        options = explanation.ExplainOptions(method="gradcam", cache=cache, device=device)
        shown = {"paths": ["a", "b"], "targets": [0, 1], "classes": ("a", "b", "c"), "boxes": [(0.0, 0.0, 1.0, 1.0)] * 2}
        drawn.append([item.heat for item in explanation.explain(session, head, images, options=options, **shown)])
    for here, there in zip(*drawn, strict=True):
        assert np.corrcoef(here.ravel(), there.ravel())[0, 1] > 0.999
