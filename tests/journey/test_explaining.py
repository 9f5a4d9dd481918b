"""Regions that are hidden, classes by other names, and the files that hold raw heat."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sightline.classifier import Classifier
from sightline.errors import RequestError
from sightline.explanation import verdict
from sightline.heads import fit
from sightline.journey.explaining import write_heat
from sightline.journey.hiding import hide, mask_of, parse_region
from sightline.journey.subject import Subject
from sightline.networks import describe
from sightline.records import Card, Explanation, Recipe
from sightline.store import Cache


@pytest.fixture
def bright(cache: Cache) -> Classifier:
    """Looks at 16×16 pixels: the left half's brightness decides."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 16, 16, 3)).astype(np.float32) / 255
    labels = np.arange(60) % 2
    images[labels == 1, :, :8] = 1.0
    images[labels == 0, :, :8] = 0.0
    rows = np.arange(60)
    folds = [(rows[rows % 3 != i], rows[rows % 3 == i]) for i in range(3)]
    head = fit("ridge", images.reshape(60, -1), labels, 2, folds=folds, refit=True, settings={}, seed=0).head
    backbone = describe("pixels", cache=cache)
    return Classifier(
        Card(("dark", "bright"), backbone, "ridge", {}, "features", dataclasses.replace(Recipe(), backbone="pixels")), head
    )


def test_hiding_what_decides_changes_the_answer_and_hiding_the_rest_does_not(bright: Classifier, cache: Cache) -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:, :32] = 255
    decides = hide(bright, image, [(0, 0, 32, 64)], cache=cache)
    beside = hide(bright, image, [(40, 0, 24, 64)], cache=cache)
    assert decides.before[1] > 0.5 > decides.after[1] and decides.share == 0.5 and decides.cover == (0, 0, 0)
    assert abs(beside.before[1] - beside.after[1]) < abs(decides.before[1] - decides.after[1]) / 3
    mask = np.zeros((64, 64), dtype=bool)
    mask[:, :32] = True
    np.testing.assert_array_equal(hide(bright, image, mask=mask, cache=cache).after, decides.after)


def test_what_cannot_be_hidden_is_refused(bright: Classifier, cache: Cache) -> None:
    image = np.zeros((10, 20, 3), dtype=np.uint8)
    for text in ("1,2,3", "a,b,c,d", "0,0,0,5", "-1,0,5,5"):
        with pytest.raises(RequestError):
            parse_region(text)
    with pytest.raises(RequestError, match="beyond"):
        mask_of([(20, 0, 1, 1)], (10, 20), "it")
    with pytest.raises(RequestError, match="all of"):
        hide(bright, image, [(0, 0, 20, 10)], cache=cache)
    with pytest.raises(RequestError, match="nothing"):
        hide(bright, image, cache=cache)
    with pytest.raises(RequestError, match="mask is"):
        hide(bright, image, mask=np.ones((3, 3), dtype=bool), cache=cache)


def test_a_class_is_found_by_its_other_names(bright: Classifier) -> None:
    found = Subject(bright, verdict.unknown_classifier(), None, {"shiny": (1,), "both": (0, 1)})
    assert found.class_index("bright") == found.class_index("BRIGHT") == found.class_index("Shiny") == 1
    with pytest.raises(RequestError, match="may be 2 classes"):
        found.class_index("both")
    with pytest.raises(RequestError, match="brigth"):
        found.class_index("brigth")


def test_raw_heat_reads_back_without_pickle(tmp_path: Path) -> None:
    item = Explanation("a.jpg", "cat", "gradcam", "last map", np.eye(3, dtype=np.float32), (1.0, 2.0, 3.0, 4.0), 0.5)
    write_heat(tmp_path / "heat.npz", item, ("cat", "dög"))
    with np.load(tmp_path / "heat.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["heat"], item.heat)
        assert str(file["target"]) == "cat" and file["classes"].tolist() == ["cat", "dög"] and float(file["neutral"]) == 0.5
        assert file["box"].tolist() == [1.0, 2.0, 3.0, 4.0]
