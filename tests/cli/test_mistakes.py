"""Uncertainty in `predict`, and `mistakes` by pair, slice and column of a run, a classifier and a table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import sightline as sl
from sightline import catalog as catalogs
from sightline import classifier
from sightline.cli.app import app
from sightline.commands import train as train_command
from sightline.records import Recipe, Run
from sightline.store import Cache

from ..conftest import write_few_digits

RECIPE = Recipe(backbone="pixels", head="logistic")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, a run on them, and other digits of which those by the camera `phone` are dark and hard to read."""
    folder = tmp_path_factory.mktemp("mistakes")
    digits = write_few_digits(folder / "digits", 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_LEDGER", str(folder / "ledger"))
        patch.setenv("SIGHTLINE_CACHE", str(folder / "cache"))
        train_command.train(catalogs.scan(digits), RECIPE, folder / "run", cache=Cache())
    random, rows = np.random.default_rng(0), []
    for number, file in enumerate(sorted(write_few_digits(folder / "more", 60).glob("*/*.png"))):
        dark = number % 5 == 0
        if dark:
            pixels = np.asarray(Image.open(file).convert("L")).astype(float) * 0.2
            pixels += random.normal(0, 12, pixels.shape)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file)
        camera = "phone" if dark else ("canon", "nikon")[number % 2]
        rows.append((f"more/{file.parent.name}/{file.name}", file.parent.name, camera, str(number)))
    with open(folder / "more.csv", "w", newline="", encoding="utf-8") as text:
        csv.writer(text, lineterminator="\n").writerows([("path", "label", "camera", "shot"), *rows])
    return folder


@pytest.fixture(autouse=True)
def _ledger(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LEDGER", str(place / "ledger"))
    monkeypatch.setenv("SIGHTLINE_CACHE", str(place / "cache"))


def asked(*arguments: object) -> list[dict[str, object]]:
    ended = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert ended.exit_code == 0, ended.output
    found: list[dict[str, object]] = json.loads(ended.stdout)
    return found


def refused(*arguments: object) -> str:
    ended = CliRunner().invoke(app, [str(a) for a in arguments])
    assert ended.exit_code == 2 and "Traceback" not in ended.output
    return " ".join(ended.output.split())


def test_predict_marks_unsure_predictions(place: Path) -> None:
    plain = asked("predict", place / "run", place / "digits" / "3")
    keys = {"path", "label", "probability", "probabilities", "unsure", "unlike", "unlike_bar", "ood_score", "ood_threshold"}
    assert all(set(row) == keys for row in plain)
    wide = asked("predict", place / "run", place / "digits" / "3", "--sets", 0.99)
    narrow = asked("predict", place / "run", place / "digits" / "3", "--sets", 0.5)
    assert all(set(n["set"]) <= set(w["set"]) for n, w in zip(narrow, wide, strict=True))  # type: ignore[call-overload]
    assert sum(len(w["set"]) for w in wide) > sum(len(n["set"]) for n in narrow)  # type: ignore[arg-type]
    assert wide[0]["coverage"] == 0.99
    for row in wide:
        if row["unsure"] is False:
            assert row["set"] == [row["label"]] or row["probability"] >= 0.99
        probabilities: dict[str, float] = row["probabilities"]  # type: ignore[assignment]
        assert row["set"] == sorted(row["set"], key=lambda c: -probabilities[c])  # type: ignore[call-overload]


def test_no_mistakes_prints_a_sentence(place: Path, tmp_path: Path) -> None:
    right = [("a.png", "3", "1", "0"), ("b.png", "4", "0", "1")]
    with open(tmp_path / "right.csv", "w", newline="", encoding="utf-8") as text:
        csv.writer(text, lineterminator="\n").writerows([("path", "label", "p:3", "p:4"), *right])
    shown = CliRunner().invoke(app, ["mistakes", str(tmp_path / "right.csv")])
    assert shown.exit_code == 0 and shown.stdout == "no misclassified images\n"


def test_too_few_images_for_slices_prints_a_sentence(place: Path, tmp_path: Path) -> None:
    files = sorted((place / "more").glob("*/*.png"))[:15]
    wrong = [(f"more/{f.parent.name}/{f.name}", f.parent.name, "0", "1") for f in files]  # all are of class 0
    with open(tmp_path / "wrong.csv", "w", newline="", encoding="utf-8") as text:
        csv.writer(text, lineterminator="\n").writerows([("path", "label", "p:0", "p:7"), *wrong])
    shown = CliRunner().invoke(app, ["mistakes", str(tmp_path / "wrong.csv"), str(place / "more.csv"), "--by", "slice"])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("no slices: a slice needs at least 10 images")


def test_files_without_any_prediction_exit_with_code_1(place: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no image", encoding="utf-8")
    for more in ([], ["--json"]):
        shown = CliRunner().invoke(app, ["predict", str(place / "run"), str(tmp_path / "notes.jpg"), *more])
        assert shown.exit_code == 1 and "notes.jpg" in shown.output and "Traceback" not in shown.output
    (tmp_path / "bare").mkdir()
    assert "there is no image in" in refused("predict", place / "run", tmp_path / "bare")


@pytest.mark.slow
def test_evaluate_names_the_split_that_it_scores(place: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(
        app, ["evaluate", str(place / "run"), str(place / "run" / "catalog.csv"), "-o", str(tmp_path / "e")]
    )
    assert shown.exit_code == 0 and shown.stdout.startswith("split               using the test split of ")


def test_an_image_that_is_not_a_digit_is_marked_out_of_distribution(place: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    (row,) = asked("predict", place / "run", tmp_path / "noise.png")
    assert row["unlike"] > row["unlike_bar"]  # type: ignore[operator]
    shown = CliRunner().invoke(app, ["predict", str(place / "run"), str(tmp_path / "noise.png"), "--sets", "0.9"]).output
    assert "unlike the training images" in shown and "do not rely on these predictions" in shown and "set" in shown


def test_prediction_sets_with_too_few_calibration_images_are_refused(place: Path) -> None:
    some = place / "digits" / "3"
    images = classifier.load(place / "run").card.uncertainty.images
    said = refused("predict", place / "run", some, "--sets", "0.9999")
    assert f"this classifier has {images}" in said and "--sets 0.99" in said
    assert "coverage of prediction sets cannot be 95" in refused("predict", place / "run", some, "--sets", "95")


def test_mistakes_of_a_run_are_listed_by_confidence_pair_and_slice(place: Path) -> None:
    run = Run.load(place / "run")
    by_confidence = asked("mistakes", place / "run")
    assert by_confidence == run.data["mistakes"] and by_confidence
    assert {"path", "label", "predicted", "probability", "nearest"} <= set(by_confidence[0])
    probability = [row["probability"] for row in by_confidence]
    assert probability == sorted(probability, reverse=True)  # type: ignore[type-var]
    pairs = asked("mistakes", place / "run", "--by", "pair")
    assert sum(p["n"] for p in pairs) == len(by_confidence)  # type: ignore[misc]
    assert sorted(path for p in pairs for path in p["paths"]) == sorted(m["path"] for m in by_confidence)  # type: ignore
    slices = asked("mistakes", place / "run", "--by", "slice")
    assert slices == run.data["slices"]
    assert {"brightness", "contrast", "sharpness"} <= {s["column"] for s in slices}
    assert all(s["column"] == "sharpness" for s in asked("mistakes", place / "run", "--by", "sharpness"))
    assert CliRunner().invoke(app, ["mistakes", str(place / "run"), "--by", "slice"]).output.startswith("slice")


def test_the_nearest_images_of_a_mistake_exclude_itself(place: Path) -> None:
    run = Run.load(place / "run")
    learnt = set(catalogs.load(place / "run" / "catalog.csv").paths)
    for row in run.data["mistakes"]:
        near = row["nearest"]
        assert len(near) == 3 and row["path"] not in {n["path"] for n in near}
        assert {n["path"] for n in near} <= learnt
        assert [n["distance"] for n in near] == sorted(n["distance"] for n in near)
        assert (run.folder / row["thumbnail"]).is_file()


def test_a_planted_slice_is_found_by_its_column_and_its_brightness(place: Path) -> None:
    for subject in (place / "run", place / "run" / "classifier.safetensors"):
        rows = asked("mistakes", subject, place / "more.csv", "--by", "slice")
        worse = [row for row in rows if row["worse"]]
        assert worse[0]["value"] == "phone" or worse[0]["column"] == "brightness"
        assert {"camera", "brightness"} <= {row["column"] for row in worse}
        assert "shot" not in {row["column"] for row in worse}
    column = asked("mistakes", place / "run", place / "more.csv", "--by", "camera")
    assert [row["value"] for row in column if row["worse"]] == ["phone"] and len(column) == 3


@pytest.mark.slow
def test_slices_count_groups_and_not_their_images(place: Path, tmp_path: Path) -> None:
    with open(place / "more.csv", newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    with open(place / "grouped.csv", "w", newline="", encoding="utf-8") as text:
        out = csv.writer(text, lineterminator="\n")
        out.writerows(
            [("path", "label", "camera", "group"), *((r["path"], r["label"], r["camera"], r["camera"]) for r in rows)]
        )
    for name, found in (("more", True), ("grouped", False)):  # three groups of images tell nothing of a camera
        table = place / f"{name}.csv"
        of_camera = asked("mistakes", place / "run", table, "--by", "camera")
        assert any(row["worse"] for row in of_camera) == found
    folder = tmp_path / "evaluated"
    assert CliRunner().invoke(app, ["evaluate", str(place / "run"), str(table), "-o", str(folder)]).exit_code == 0
    assert [row for row in Run.load(folder).data["slices"] if row["column"] == "camera"] == of_camera


@pytest.mark.slow
@pytest.mark.parametrize("leaked", [True, False])
def test_evaluate_measures_coverage_on_images_not_used_for_training(place: Path, tmp_path: Path, leaked: bool) -> None:
    found = catalogs.scan(place / "more")
    seen = classifier.load(place / "run").was_trained_on(found.column("content"))
    kept = np.flatnonzero(seen if leaked else ~seen)[::6]
    catalogs.save(found.rows(np.isin(np.arange(len(found)), kept).tolist()), tmp_path / "some.csv")
    out = tmp_path / "e"
    told = CliRunner().invoke(app, ["evaluate", str(place / "run"), str(tmp_path / "some.csv"), "-o", str(out), "--json"])
    value, data = json.loads(told.stdout), Run.load(out).data
    if leaked:  # what it was made with cannot judge it
        assert data["in_training"] == len(kept) and value["limits"] is None and "limits" not in data
        return
    assert value["limits"] == data["limits"] and value["limits"]["sets"]["n"] == value["n"] == len(kept)
    assert 0.3 < value["limits"]["sets"]["covered"] <= 1 and len(value["limits"]["sets"]["per_class"]) == 10
    assert data["mistakes"][0]["nearest"] and data["slices"]


def test_mistakes_of_training_images_carry_a_caution(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = catalogs.scan(place / "more")
    seen = classifier.load(place / "run").was_trained_on(found.column("content"))
    for name, rows in (("training", seen), ("other", ~seen)):
        catalogs.save(found.rows(rows.tolist()), tmp_path / f"{name}.csv")
        ended = CliRunner().invoke(app, ["mistakes", str(place / "run"), str(tmp_path / f"{name}.csv")])
        assert ("CAUTION: all" in ended.output) is (name == "training")
    caplog.clear()
    sl.mistakes(place / "run", tmp_path / "training.csv")
    assert [text for text in caplog.messages if "images were used to fit this classifier" in text]


def test_mistakes_accepts_a_table_of_predictions(place: Path) -> None:
    table = Run.load(place / "run").held_out_file
    alone = asked("mistakes", table)
    assert [row["path"] for row in alone] == [row["path"] for row in Run.load(place / "run").data["mistakes"]]
    assert asked("mistakes", table, "--by", "pair")
    assert "name the labelled CATALOG" in refused("mistakes", table, "--by", "slice")
    assert asked("mistakes", table, place / "digits", "--by", "slice")


def test_subjects_without_labelled_images_are_refused(place: Path, tmp_path: Path) -> None:
    assert "did you mean 'brightness'" in refused("mistakes", place / "run", "--by", "brightnes")
    assert "is a classifier without labelled images" in refused("mistakes", place / "run" / "classifier.safetensors")
    assert "nowhere" in refused("mistakes", tmp_path / "nowhere")
    (tmp_path / "bare.csv").write_text("path,p:a,p:b\nx.png,0.4,0.6\n", encoding="utf-8")
    assert "has no labels" in refused("mistakes", tmp_path / "bare.csv")
