"""`card`: describe a classifier or an exported file, and name what is damaged; write a card for the hub."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import sightline as sl
from sightline.commands.card import card
from sightline.commands.export import export
from sightline.errors import ModelFileError
from sightline.export.huggingface_format import readme
from sightline.records.export import ExportRecord
from sightline.records.model_card import MeasuredAccuracy, ModelCard


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A classifier file of two classes, one of them with a hostile name."""
    images = np.zeros((8, 10, 10), dtype=np.uint8)
    images[4:] = 200
    model = sl.ImageClassifier("pixels", "centroid", image_size=4).fit(images, ["dark|<b>"] * 4 + ["light"] * 4)
    return model.save(tmp_path / "classifier.safetensors")


def test_card_of_a_classifier(saved: Path) -> None:
    found = card(saved)
    assert isinstance(found, ModelCard)
    assert found.classes == ("dark|<b>", "light") and found.images_per_class["light"] == {"train": 4}
    assert "there is no score on a test split" in found.cautions
    saved.write_bytes(saved.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelFileError, match="damaged"):
        card(saved)


def test_card_of_an_exported_file_checks_its_digest(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = export(saved, "onnx", tmp_path / "out", allow_difference=True)
    for path in (done.file, done.file.parent, done.file.with_name("card.json")):
        found = card(path)
        assert isinstance(found, ExportRecord) and found.format == "onnx"
    done.file.write_bytes(b"")
    with pytest.raises(ModelFileError, match="digest does not match"):
        card(done.file)


def test_model_repository_has_a_card_for_the_hub(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    export(saved, "huggingface", tmp_path / "hub", allow_difference=True)
    files = {path.name for path in (tmp_path / "hub").iterdir() if path.name[0] != "."}
    assert files == {"README.md", "classifier.safetensors", "model.onnx", "predict.py", "card.json"}
    text = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    start, header, body = text.split("---\n", 2)
    assert start == "" and "pipeline_tag: image-classification\n" in header and "license: other\n" in header
    assert r"| dark\|&lt;b> | 4 | 0 | 0 |" in body
    assert np.array_equal(sl.load(tmp_path / "hub").head.arrays["bias"], sl.load(saved).head.arrays["bias"])


def test_licence_and_score_of_the_hub_card(saved: Path) -> None:
    found = card(saved)
    assert isinstance(found, ModelCard)
    scores = (MeasuredAccuracy("test", 200, 0.91, 0.86, 0.94),)
    text = readme(dataclasses.replace(found, licences={"net": "apache-2.0"}, pretrained_on={"net": "ImageNet"}, scores=scores))
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: sightline\n")
    assert "      value: 0.9100\n" in text and "accuracy 0.910, 95 % CI [0.860, 0.940] on 200 images (test)" in text
