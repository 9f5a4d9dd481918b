"""Files on disk in the format of version 0.1.0: every later version reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sightline as sl
from sightline import catalog
from sightline.inputs import read_predictions, read_recipe
from sightline.records import ComparisonRecord, RunRecord, SweepRecord, read_study
from sightline.store import Cache

FORMATS = Path(__file__).with_name("formats")
PROBABILITY = 0.041211
"""Of the first class for a white square on black."""


def content(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((FORMATS / name).read_text(encoding="utf-8"))
    return value


def lost(before: Any, after: Any, where: str = "") -> list[str]:
    """Return the keys whose values are missing or different in `after`."""
    if isinstance(before, dict):
        return [
            k
            for key, v in before.items()
            for k in lost(v, after.get(key) if isinstance(after, dict) else None, f"{where}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [k for i, (a, b) in enumerate(zip(before, after, strict=True)) for k in lost(a, b, f"{where}[{i}]")]
    return [] if before == after else [where]


@pytest.mark.parametrize(
    ("name", "read"),
    [("run.json", RunRecord.from_json), ("study.json", read_study), ("comparison.json", ComparisonRecord.from_json)],
)
def test_records_are_read_and_written_without_loss(name: str, read: Any) -> None:
    assert lost(content(name), read(content(name)).to_json()) == []


def test_attributes_of_records_hold_the_values() -> None:
    run, study = RunRecord.from_json(content("run.json")), read_study(content("study.json"))
    assert (run.kind, run.method, run.head, run.classes) == ("run", "features", "ridge", ["0", "1"])
    assert run.test is not None and run.test.n == 3 and [c.method for c in run.candidates] == ["baseline", "features"]
    assert isinstance(study, SweepRecord) and [s.setting for s in study.settings] == [{"head": "ridge"}, {"head": "knn"}]


def test_classifier_predicts_the_stored_probabilities(tmp_path: Path) -> None:
    model = sl.load(FORMATS / "classifier.safetensors")
    assert (model.classes, model.card.head, model.card.backbone.preprocess.size) == (("0", "1"), "ridge", (8, 8))
    image = np.zeros((8, 8, 3), np.uint8)
    image[2:6, 2:6] = 255
    probs = model.predict([image], cache=Cache(tmp_path)).probs
    assert probs == pytest.approx(np.array([[PROBABILITY, 1 - PROBABILITY]]), abs=1e-5)


def test_tables_and_recipe_are_read() -> None:
    predictions = read_predictions(FORMATS / "predictions.csv")
    assert (len(predictions), predictions.classes) == (3, ("0", "1"))
    csv, parquet = (catalog.load(FORMATS / f"catalog.{suffix}") for suffix in ("csv", "parquet"))
    assert len(csv) == len(parquet) == 16 and csv.fingerprint() == parquet.fingerprint()
    recipe = read_recipe(FORMATS / "recipe.toml")
    assert (recipe.method, recipe.backbone, recipe.head, recipe.image_size) == ("features", "pixels", "ridge", 8)
