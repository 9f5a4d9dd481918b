"""Stress test: a classifier by brightness is fragile to darkness alone; the altered versions are one use of the test images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import sightline as sl
from sightline.audit import stress
from sightline.cli.app import app
from sightline.records import Run
from sightline.runs import test_set_log


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A classifier of dark and bright pictures, as a run folder, and other such pictures."""
    folder = tmp_path_factory.mktemp("fragile")
    rng = np.random.default_rng(0)
    for part, count in (("train", 16), ("other", 12)):
        for name, level in (("dim", 90), ("bright", 170)):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                grey = rng.normal(level, 12) + rng.normal(0, 6, (40, 40, 3))
                picture = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
                picture.save(folder / part / name / f"{i:02d}.png")
    (folder / "recipe.toml").write_text('method = "features"\nbackbone = "pixels"\nhead = "logistic"\n[settings]\nfolds = 2\n')
    command = ["train", str(folder / "train"), str(folder / "recipe.toml"), "-o", str(folder / "run"), "--json"]
    ended = CliRunner().invoke(app, command, env={"SIGHTLINE_CACHE": str(folder / "cache")})
    assert ended.exit_code == 0, ended.output
    return folder / "run", folder / "other"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LEDGER", str(tmp_path / "ledger"))
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


def test_a_fragile_classifier_is_named_and_the_test_images_are_used_once(fragile: tuple[Path, Path], tmp_path: Path) -> None:
    run, other = fragile
    command = ["evaluate", str(run), str(other), "-o", str(tmp_path / "e"), "--stress-bound", "0.9", "--json"]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 0, ended.output
    value = json.loads(ended.stdout)["stress"]
    assert value["accuracy"] == 1.0 and value["bound"] == 0.9 and value["n"] == value["total"] == 24
    below = {(s["kind"], s["strength"]) for s in value["scores"] if s["below"]}
    assert {kind for kind, _ in below} == {"dark"} and ("dark", 3) in below
    assert value["sentence"].startswith("Accuracy falls below 90.0 % on dark images (brightness ×")
    assert len(value["scores"]) == 3 * len(stress.STRESSES)
    for score in value["scores"]:
        assert score["accuracy_low"] <= score["accuracy"] <= score["accuracy_high"]
        assert (tmp_path / "e" / score["thumbnail"]).is_file()
    page = (tmp_path / "e" / "report.html").read_text(encoding="utf-8")
    assert "Accuracy on altered images" in page and "Accuracy falls on altered images" in page
    lines = (test_set_log.root() / "openings.jsonl").read_text(encoding="utf-8").splitlines()
    record = Run.load(tmp_path / "e").record
    assert len(lines) == 1 and record.test_set_log is not None and record.test_set_log.classifiers == 1
    assert [use.classifiers for use in record.test_set_accesses] == [1]


def test_a_stress_test_after_an_evaluation_is_a_second_use_of_one_classifier(
    fragile: tuple[Path, Path], tmp_path: Path
) -> None:
    run, other = fragile
    settings = {"heatmaps": "none"}
    sl.evaluate(run, other, out=tmp_path / "a", **settings)  # type: ignore[arg-type]
    for name, uses in (("b", 2), ("c", 2)):  # the same stress test again reveals nothing new
        found = sl.evaluate(run, other, out=tmp_path / name, stress=True, **settings).record  # type: ignore[arg-type]
        assert found.stress is not None and found.stress.bound == pytest.approx(0.9) and not found.stress.bound_given
        assert found.test_set_log is not None and found.test_set_log.classifiers == 1
        assert len(found.test_set_accesses) == uses


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["RUN", "PHOTOS", "--stress-bound", "90"], "above 0 and at most 1"),
        (["predictions.csv", "PHOTOS", "--stress"], "table of predictions"),
        (["recipe.toml", "PHOTOS", "--stress"], "sightline train"),
    ],
)
def test_wrong_arguments_are_refused(fragile: tuple[Path, Path], tmp_path: Path, arguments: list[str], word: str) -> None:
    run, other = fragile
    (tmp_path / "recipe.toml").write_text('method = "features"\n')
    (tmp_path / "predictions.csv").write_text("path,p:dim,p:bright\ndim/00.png,0.9,0.1\n")
    names = {"RUN": str(run), "PHOTOS": str(other)}
    paths = [names.get(a) or (str(tmp_path / a) if "." in a and "-" not in a and a[0].isalpha() else a) for a in arguments]
    ended = CliRunner().invoke(app, ["evaluate", *paths, "-o", str(tmp_path / "x")])
    assert ended.exit_code == 2 and word in ended.output and "Traceback" not in ended.output


def test_every_kind_alters_more_with_its_strength() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    for kind in stress.STRESSES:
        changes = [
            np.abs(stress._altered(images, stress._draw(kind, s, 4, seed=0)).astype(float) - images).mean() for s in (1, 2, 3)
        ]
        assert 0.02 < changes[0] < changes[1] < changes[2], kind
