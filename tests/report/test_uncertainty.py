"""Nearest training images, slices and uncertainty in the report, with escaped names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from sightline.records import Run, RunRecord
from sightline.records.error_analysis import SliceScore
from sightline.report import uncertainty
from sightline.report.images import Album
from sightline.report.page import render

SLICE: dict[str, Any] = {
    "slice": "brightness 0.1 to 0.2",
    "column": "brightness",
    "value": None,
    "low": 0.1,
    "high": 0.2,
    "n": 40,
    "wrong": 15,
    "accuracy": 0.625,
    "accuracy_low": 0.47,
    "accuracy_high": 0.76,
    "rest_n": 160,
    "rest_accuracy": 0.95,
    "p": 1e-7,
    "p_corrected": 2e-6,
    "worse": True,
}
LIMITS: dict[str, Any] = {
    "coverage": 0.95,
    "calibrated_on": "val",
    "images": 200,
    "by_class": False,
    "sets": {"covered": 0.945, "covered_low": 0.91, "covered_high": 0.97, "mean_size": 1.2, "single": 0.8, "empty": 0.01},
    "unsure": {"n": 20, "accuracy": 0.6, "others": 180, "others_accuracy": 0.98, "others_low": 0.95, "others_high": 0.99},
    "unlike": {"bar": 0.33, "rate": 0.05, "images": 150, "n": 9, "of": 200},
}


def slices(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    return uncertainty.slices(RunRecord.from_json({"slices": rows}))


def limits(block: dict[str, Any]) -> list[dict[str, str]]:
    return uncertainty.limits(RunRecord.from_json({"limits": block}))


def run_of(folder: Path, **data: Any) -> Run:
    (folder / "mistakes").mkdir()
    for name in "abc":
        Image.new("RGB", (40, 30), (200, 40, 40)).save(folder / "mistakes" / f"{name}.jpg")
    whole = {"version": 1, "kind": "run", "name": "x", "created": "2026-01-01T00:00:00+00:00", "mistakes_in": "test", **data}
    (folder / "run.json").write_text(json.dumps(whole), encoding="utf-8")
    return Run.load(folder)


def mistake(label: str = "cat") -> dict[str, Any]:
    near = [
        {"path": "dog/1.jpg", "label": "dog", "distance": 0.1234, "thumbnail": "mistakes/b.jpg"},
        {"path": "cat/2.jpg", "label": label, "distance": 0.2, "thumbnail": "mistakes/gone.jpg"},
    ]
    own = {"path": "cat/7.jpg", "label": label, "predicted": "dog", "probability": 0.97, "thumbnail": "mistakes/a.jpg"}
    return {**own, "nearest": near}


def test_misclassified_image_is_shown_with_its_nearest_training_images(tmp_path: Path) -> None:
    page = render([run_of(tmp_path, mistakes=[mistake(), {"path": "cat/8.jpg", "label": "cat", "predicted": "dog"}])])
    assert page.count('<figure class="asked zoom">') == 1
    assert "<b><bdi>dog</bdi></b> <span" in page and "0.12" in page and "no picture" in page


def test_names_of_files_classes_and_columns_stay_text(tmp_path: Path) -> None:
    odd = "<script>alert(1)</script>"
    row = {**SLICE, "column": odd, "value": odd, "low": None, "high": None}
    page = render([run_of(tmp_path, mistakes=[mistake(odd)], slices=[row], limits={**LIMITS, "calibrated_on": odd})])
    assert odd not in page and "&lt;script&gt;" in page


def test_significantly_worse_slice_is_named_with_its_numbers(tmp_path: Path) -> None:
    found = slices([SLICE, {**SLICE, "worse": False, "p_corrected": 1.0}])
    assert found is not None
    assert found["words"][0].replace("\xa0", " ") == (
        "Significantly worse: brightness 0.1 to 0.2. Accuracy 62.5 % on 40 images, versus 95.0 % on the 160 others (p < 0.001)."
    )
    assert [row["worse"] for row in found["rows"]] == [True, False]
    calm = slices([{**SLICE, "worse": False, "p_corrected": 0.4}])
    assert calm is not None and "No slice has significantly more errors." in calm["words"][0]
    assert uncertainty.slices(RunRecord()) is None
    page = render([run_of(tmp_path, mistakes=[], slices=[SLICE])])
    assert '<span class="badge">worse</span>' in page


def test_slices_are_named_with_their_units() -> None:
    assert uncertainty.name(SliceScore("size", 9, value=None, low=240.0, high=1050.0)) == "shorter side 240 to 1,050 px"
    assert uncertainty.name(SliceScore("camera", 9, value="phone", low=None, high=None)) == "camera: phone"
    assert uncertainty.name(SliceScore("year", 9, value=None, low=3.0, high=3.0)) == "year 3"


def test_uncertainty_is_reported_with_its_measured_quality(tmp_path: Path) -> None:
    sets, unsure, odd = (row["text"].replace("\xa0", " ") for row in limits(LIMITS))
    assert "94.5 % (95 % CI [91.0, 97.0] %)" in sets and "1.20 classes" in sets and "200 images: val" in sets
    assert unsure.startswith("20 of 200 predictions are marked “unsure”: ")
    assert unsure.endswith("Accuracy on these: 60.0 %. Accuracy on the others: 98.0 % (95 % CI [95.0, 99.0] %).")
    assert "9 of 200 images" in odd and "5 % of 150 held-out images" in odd
    assert "unrelated images are rarely recognised" not in odd
    alone = {**LIMITS, "unlike": {**LIMITS["unlike"], "pretrained": False}}
    assert "unrelated images are rarely recognised" in limits(alone)[2]["text"]
    few = {**LIMITS, "sets": None, "unsure": None, "unlike": None, "why": "there were 12"}
    assert limits(few) == [{"name": "Prediction sets", "text": "Not available: there were 12."}]
    assert uncertainty.limits(RunRecord()) == []
    run = run_of(tmp_path)
    assert uncertainty.view(run, run.record, Album()) == {"likenesses": [], "slices": None, "limits": [], "where": "test"}
