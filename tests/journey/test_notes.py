"""Notes about the photographs on the console, in Python and in the report."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import sightline as sl
from sightline.catalog import image_files
from sightline.cli.app import app
from sightline.commands import explain as explain_command
from sightline.commands import run as run_command
from sightline.errors import DataError
from sightline.records.run import RunRecord
from sightline.report import headline, sections
from sightline.runs import plan
from sightline.runs.dataset import load_dataset
from sightline.store import Cache
from sightline.training.methods import shortcut
from tests.conftest import write_few_digits

PIXELS = sl.Recipe(method="features", backbone="pixels", head="knn")


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Two classes of ten digits each."""
    every = write_few_digits(tmp_path / "all", 10)
    for digit in ("0", "1"):
        shutil.copytree(every / digit, tmp_path / "photos" / digit)
    return tmp_path / "photos"


def same_under_two_labels(root: Path) -> tuple[str, str]:
    """Copy a picture of class 0 to class 1; both names."""
    first = min((root / "0").iterdir())
    shutil.copyfile(first, root / "1" / "wrong.png")
    return f"0/{first.name}", "1/wrong.png"


def test_python_warns_of_a_picture_with_two_labels(digits: Path, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    one, other = same_under_two_labels(digits)
    caution = f"CAUTION: {one} and {other} are the same image with different labels"
    with caplog.at_level(logging.WARNING, "sightline"):
        divided = sl.split(sl.scan(digits), cache=cache)
    assert caution in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "sightline"):
        sl.fit(divided, PIXELS, out=digits.parent / "run", cache=cache)
    assert caution in caplog.text


def test_scan_and_split_report_two_labels_and_overwritten_files(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Cache
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(cache.root))
    one, other = same_under_two_labels(digits)
    (digits / "1" / "empty.png").write_bytes(b"")
    table = str(tmp_path / "c.csv")
    said = CliRunner().invoke(app, ["scan", str(digits), "-o", table]).stdout
    assert f"CAUTION: {one} and {other} are the same image with different labels" in said
    assert "1/empty.png is empty (0 bytes)" in said and "(overwritten)" not in said
    said = CliRunner().invoke(app, ["split", table]).stdout
    assert "CAUTION: " in said and "c.csv (overwritten)" in said
    value = json.loads(CliRunner().invoke(app, ["scan", str(digits), "-o", table, "--json"]).stdout)
    assert value["overwritten"] is True and value["problem_files"][0]["path"] == "1/empty.png"


def test_one_class_alone_is_refused_once_with_the_files_that_are_left_out(digits: Path, cache: Cache) -> None:
    shutil.rmtree(digits / "1")
    (digits / "0" / "empty.png").write_bytes(b"")
    said: list[str] = []
    with pytest.raises(DataError, match=r"belong to one class.*0/empty\.png is empty"):
        run_command.run(
            plan.Request(photos=str(digits), out=str(digits.parent / "runs"), heatmaps="none"), say=said.append, cache=cache
        )
    assert not any("one class" in line for line in said)


@pytest.mark.slow
def test_a_run_says_what_the_crop_cuts_off_and_its_report_too(tmp_path: Path, cache: Cache) -> None:
    random = np.random.default_rng(0)
    for label in ("left", "right"):
        (tmp_path / "wide" / label).mkdir(parents=True)
        for i in range(8):
            noise = random.integers(0, 255, (10, 60, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((120, 20)).save(tmp_path / "wide" / label / f"{i}.png")
    request = plan.Request(
        photos=str(tmp_path / "wide"),
        out=str(tmp_path / "runs"),
        backbones=("pixels",),
        methods=("features",),
        head="knn",
        heatmaps="none",
    )
    said: list[str] = []
    run = run_command.run(request, say=said.append, cache=cache)
    (note,) = [line for line in said if "centre crop" in line]
    assert "--fit pad or --fit squash" in note
    assert "the centre crop cuts off" in (run.folder / "report.html").read_text(encoding="utf-8")
    said.clear()
    run_command.run(dataclasses.replace(request, fit="squash"), say=said.append, cache=cache)
    assert not any("centre crop" in line for line in said)


def test_the_report_tells_given_splits_from_those_that_were_taken(digits: Path, tmp_path: Path, cache: Cache) -> None:
    for digit in ("0", "1"):
        for i, file in enumerate(sorted((digits / digit).iterdir())):
            target = tmp_path / "given" / ("val" if i < 3 else "train") / digit / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    found = load_dataset(plan.Request(photos=str(tmp_path / "given"), seed=7), cache, lambda *_: None)
    assert found.moves == {"train": {"train": 10, "test": 4}, "val": {"val": 6}}
    counts = {"train": 10, "val_n": 6, "test_n": 4}
    page = sections.splitting(RunRecord.from_json({"split": {"given": True, "moves": found.moves, "seed": 7, **counts}}))
    assert page is not None
    assert page["lines"][:2] == [
        "Kept as given: 10 train, 6 validation.",
        "Set aside by Sightline, because this split was not given: 4 test images from train (seed 7).",
    ]
    assert any("no test split found: 4 test images were taken from train (seed 7)" in n for n in found.catalog.notes)


def test_file_properties_that_do_better_than_chance_are_a_note_below_the_alarm() -> None:
    labels = np.array([0, 1] * 200)
    right = np.random.default_rng(0).random(400) < 0.67
    sure = np.where(right, 0.6, 0.4)
    probs = np.where((labels == 1)[:, None], np.stack([1 - sure, sure], 1), np.stack([sure, 1 - sure], 1))
    detail = shortcut.alarm(probs, labels, ("cat", "dog"))
    assert detail["notable"] and not detail["alarm"]
    (note,) = headline.alarms(RunRecord.from_json({"shortcut": {**detail, "feature": "file size"}}))
    assert note.level == "note" and "file size" in note.text and note.title.endswith("(chance 50\N{NO-BREAK SPACE}%)")
    assert not shortcut.alarm(np.full((400, 2), 0.5), labels, ("cat", "dog"))["notable"]


def test_outputs_of_explain_inside_the_photo_folder_are_not_scanned(
    digits: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sl.fit(sl.scan(digits), PIXELS, out=digits / "results", cache=cache)
    image = str(min((digits / "0").iterdir()))
    monkeypatch.chdir(digits)
    explain_command.explain(str(run.folder), [image], cache=cache)
    assert (digits / "explanations").is_dir()
    assert len(image_files(digits)[0]) == 20
