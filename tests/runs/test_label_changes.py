"""Changed labels: the accuracy under the labels that the run knew and under the present ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from sightline import catalog as catalogs
from sightline.cli.app import app
from sightline.records import Predictions
from sightline.runs import label_changes


def pictures(folder: Path) -> Path:
    """Ten grey pictures, five of each class, of ten different contents."""
    for i in range(10):
        file = folder / ("dark" if i < 5 else "light") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 + 20 * i,) * 3).save(file)
    return folder


def test_both_scores_are_those_of_the_same_predictions(tmp_path: Path) -> None:
    images = catalogs.scan(pictures(tmp_path))
    wrong = images.paths.index("dark/4.png")
    probs = np.tile([0.9, 0.1], (10, 1))
    probs[[i for i, path in enumerate(images.paths) if path.startswith("light") or i == wrong]] = [0.1, 0.9]
    contents = images.column("content")
    old = dict(zip(contents, images.column("label"), strict=True))
    first = images.paths.index("light/9.png")
    del old[contents[first]]  # an image that the run did not have is not compared
    labels = np.array([int(path.startswith("light") or i == wrong) for i, path in enumerate(images.paths)])
    answers = Predictions(tuple(images.paths), ("dark", "light"), labels, probs)
    found = label_changes.label_changes(answers, images, old, np.arange(10), None)
    assert found is not None and (found.n, found.compared) == (1, 9)
    assert (found.old, found.new) == (8 / 9, 1.0) and found.old_low < found.old < found.old_high
    assert [(i.path, i.old, i.new) for i in found.images] == [("dark/4.png", "dark", "light")]
    same = Predictions(answers.paths, answers.classes, images.labels(answers.classes), probs)
    assert label_changes.label_changes(same, images, old, np.arange(10), None) is None


def test_a_corrected_catalog_is_scored_under_old_and_new_labels(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos")
    (tmp_path / "recipe.toml").write_text(
        'method = "features"\nbackbone = "pixels"\nhead = "logistic"\n[settings]\nfolds = 2\n'
    )
    environment = {"SIGHTLINE_CACHE": str(tmp_path / "cache"), "SIGHTLINE_LEDGER": str(tmp_path / "ledger")}

    def sightline(*arguments: str | Path) -> str:
        ended = CliRunner().invoke(app, [*map(str, arguments)], env=environment)
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    sightline("train", photos, tmp_path / "recipe.toml", "-o", tmp_path / "run")
    catalog = catalogs.scan(photos)
    labels = [
        "light" if path == "dark/4.png" else label for path, label in zip(catalog.paths, catalog.column("label"), strict=True)
    ]
    catalogs.save(catalog.with_column("label", labels), tmp_path / "fixed.csv")
    command = ["evaluate", tmp_path / "run", tmp_path / "fixed.csv", "--heatmaps", "none", "-o", tmp_path / "e"]
    value = json.loads(sightline(*command, "--json"))
    assert value["label_changes"]["n"] == 1 and value["label_changes"]["new"] == value["accuracy"]
    assert "changed labels" in sightline(*command)
    assert "1 label was changed after the classifier was made" in (tmp_path / "e" / "report.html").read_text(encoding="utf-8")
    plain = json.loads(sightline("evaluate", tmp_path / "run", photos, "--heatmaps", "none", "-o", tmp_path / "f", "--json"))
    assert plain["label_changes"] is None
