"""Channels of a layer for single images: selection, raw maps, and refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sightline import classifier, networks
from sightline.classifier import Classifier
from sightline.cli.app import app
from sightline.commands import explain
from sightline.errors import RequestError
from sightline.explanation.draw import channels, overlay
from sightline.explanation.draw.channels import Choice
from sightline.explanation.options import ExplainOptions
from sightline.records import Card, Head, Recipe
from sightline.store import Cache


def photographs(folder: Path, n: int) -> list[str]:
    """Noise in two sizes, as PNG files."""
    from PIL import Image

    random = np.random.default_rng(0)
    names = []
    for i in range(n):
        Image.fromarray(random.integers(0, 256, (64, 64 + 40 * i, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        names.append(str(folder / f"{i}.png"))
    return names


@pytest.fixture
def model(cache: Cache) -> Classifier:
    """A network whose weights are drawn at random, with a linear head."""
    backbone = networks.describe("resnet10t", weights="random", image_size=64, cache=cache)
    random = np.random.default_rng(0)
    arrays = {"weights": random.normal(size=(2, backbone.features)).astype(np.float32), "bias": np.zeros(2, np.float32)}
    plain = dataclasses.replace(Recipe(), backbone="resnet10t")
    card = Card(("cat", "dog"), backbone, "logistic", {}, "features", plain)
    return Classifier(card, Head("logistic", 2, {}, arrays), classifier.backbone_tensors(backbone, cache))


def test_channels_are_chosen_by_number_or_strength() -> None:
    assert channels.parse_channels("first:16") == Choice("first", 16)
    assert channels.parse_channels("strongest:1") == Choice("strongest", 1) == channels.parse_channels("1")
    for text in ("", "0", "first", "first:", "last:4", "first:-1", "9999", "first:1:2", "²"):
        with pytest.raises(RequestError, match="not a choice of channels"):
            channels.parse_channels(text)


@pytest.mark.slow
def test_the_command_writes_a_sheet_and_the_raw_maps_of_each_image(
    model: Classifier, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setattr(explain, "gather", lambda *a, **b: None)  # the checks are tested elsewhere
    model.save(tmp_path / "model.safetensors")
    names, out = photographs(tmp_path, 2), tmp_path / "out"
    told: dict[str, list[dict[str, object]]] = {}
    for choice in ("first:5", "strongest:5"):
        arguments = ["explain", str(tmp_path / "model.safetensors"), *names, "-o", str(out), "--json", "--channels", choice]
        ended = CliRunner().invoke(app, [*arguments, "--layer", "layer3"])
        assert ended.exit_code == 0, ended.output
        told[choice] = [row["channels"] for row in json.loads(ended.stdout)]
        for row, name in zip(told[choice], names, strict=True):
            assert row["layer"] == "layer3" and row["which"] == choice.partition(":")[0]
            with np.load(str(row["maps"]), allow_pickle=False) as file:
                assert file["maps"].shape == (5, 4, 4) and file["numbers"].tolist() == row["numbers"]
                assert str(file["path"]) == name and str(file["layer"]) == "layer3" and len(file["box"]) == 4
                energy = (file["maps"].astype(np.float64) ** 2).mean(axis=(1, 2))
            assert choice != "strongest:5" or (np.diff(energy) <= 0).all()
            sheet = np.asarray(Image.open(str(row["sheet"])).convert("RGB")).astype(int)
            assert (sheet.max(axis=2) - sheet.min(axis=2) > 40).mean() > 0.02, "colour over the grey photograph"
    assert [row["numbers"] for row in told["first:5"]] == [list(range(5))] * 2
    assert [row["numbers"] for row in told["strongest:5"]] != [list(range(5))] * 2


def test_of_a_strip_the_part_that_was_seen_is_shown(model: Classifier, cache: Cache, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 1200, 3), dtype=np.uint8)).save(tmp_path / "strip.png")
    stem = tmp_path / "a"
    options = ExplainOptions(cache=cache, device="cpu")
    channels.write(stem, model, tmp_path / "strip.png", "strip.png", Choice("first", 4), options)
    sheet = np.asarray(Image.open(tmp_path / "a-channels.png").convert("RGB")).astype(int)
    coloured = (sheet.max(axis=2) - sheet.min(axis=2) > 40)[:, : sheet.shape[1] - overlay.BAR_PX - 20]  # without the bar
    assert coloured.sum() > 10_000, "maps, and not lines"


def test_classifiers_without_feature_map_are_refused(model: Classifier, cache: Cache, tmp_path: Path) -> None:
    (name,) = photographs(tmp_path, 1)
    card = dataclasses.replace(model.card, members=(model.card,), weights=(1.0,))
    both = Classifier(card, None, {}, members=(model,))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="ensemble"):
        channels.check(both)
    channels.check(model)
    with pytest.raises(RequestError, match="layr3"):
        channels.write(tmp_path / "a", model, Path(name), name, Choice("first", 4), ExplainOptions(layer="layr3", cache=cache))


def test_layers_are_drawn_side_by_side(
    model: Classifier, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    model.save(tmp_path / "model.safetensors")
    (name,) = photographs(tmp_path, 1)
    arguments = ["explain", str(tmp_path / "model.safetensors"), name, "-o", str(tmp_path / "out"), "--no-checks", "--json"]
    ended = CliRunner().invoke(app, [*arguments, "--layers", "layer2, layer3,layer4"])
    assert ended.exit_code == 0, ended.output
    (row,) = json.loads(ended.stdout)
    assert row["layers"]["names"] == ["layer2", "layer3", "layer4"]
    sheet = Image.open(row["layers"]["sheet"])
    assert sheet.width > 3 * 240 and sheet.height < sheet.width
    wrong = CliRunner().invoke(app, [*arguments, "--layers", "layer2,layer9"])
    assert wrong.exit_code == 2 and "layer9" in wrong.output
