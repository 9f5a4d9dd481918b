"""Single commands in sequence, and their errors."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HEAVY = {"torch", "torchvision", "timm"}


@pytest.mark.slow
def test_train_as_a_recipe_says(cli: Callable[..., Any], sightline: Callable[..., Any], digits: Path, tmp_path: Path) -> None:
    recipe = 'method = "features"\nbackbone = "pixels"\nhead = "ridge"\n[settings]\nfolds = 3\n'
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    assert cli("scan", "digits", "-o", "catalog.csv").code == 0
    divided = cli("split", "catalog.csv", "--json")
    assert divided.code == 0, divided.err
    counts = json.loads(divided.out)
    assert counts["train"] + counts["val"] + counts["test"] == 300
    assert counts["straddling"] == 0

    ended = cli("train", "catalog.csv", "recipe.toml", "-o", "mine", "--set", "head=centroid", "--json")
    assert ended.code == 0, ended.err
    value = json.loads(ended.out)
    assert {"run", "classifier", "method", "val", "epochs", "steps", "seconds"} <= set(value)
    assert value["val"]["accuracy"] > 0.7
    data = json.loads((tmp_path / "mine" / "run.json").read_text(encoding="utf-8"))
    assert data["head"] == "centroid"
    assert data["test_openings"] == []

    (tmp_path / "broken.jpg").write_bytes(b"")
    ended = sightline("predict", "mine", "digits/7", "broken.jpg", "-o", "answers.csv", "--json")
    assert ended.code == 1 and "1 of 31 files have no prediction" in ended.err
    *told, failed = json.loads(ended.out)
    assert len(told) == 30
    assert all(row["probabilities"][row["label"]] == row["probability"] for row in told)
    assert failed["path"] == "broken.jpg"
    assert failed["error"]
    assert not ended.modules & HEAVY  # `pixels` needs no network
    table = (tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()
    assert table[0].startswith("path,label,predicted,probability,p:0") and "unsure" in table[0]
    remarks = [line["unsure"] == "yes" for line in csv.DictReader(table) if not line["problem"]]
    assert remarks == [row["unsure"] for row in told]
    scored = cli("evaluate", "answers.csv", "digits", "-o", "back", "--json")  # what is told besides is passed over
    assert scored.code == 0, scored.err
    right = sum(row["label"] == Path(row["path"]).parent.name for row in told) / len(told)
    assert json.loads(scored.out)["accuracy"] == right
    assert cli("predict", "mine", "broken.jpg").err.count("broken.jpg") == 1

    wrong = cli("train", "catalog.csv", "recipe.toml", "-o", "other", "--set", "fold=3")
    assert wrong.code == 2
    assert "did you mean 'folds'?" in wrong.err


def test_invalid_requests_are_refused_with_the_reason(cli: Callable[..., Any], digits: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, code, said in (
        (("run", "empty"), 2, "empty"),
        (("predict", "digits/0", "digits"), 2, "digits"),
        (("evaluate", "nothing", "digits"), 2, "nothing"),
        (("train", "digits", "no.toml"), 2, "no.toml"),
        (("split", "nothing.csv"), 2, "nothing.csv"),
        (("mistakes", "digits"), 2, "run.json"),
    ):
        ended = cli(*arguments, "--json")
        assert (ended.code, ended.out) == (code, ""), f"{arguments}: {ended.err}"
        assert said in ended.err
        assert "error: " in ended.err
        assert "Traceback" not in ended.err


@pytest.mark.slow
def test_a_threshold_is_saved_and_applied(cli: Callable[..., Any], digits: Path, tmp_path: Path) -> None:
    """Chosen on held-out images, kept in the classifier, obeyed by predict, evaluate, and a table of predictions."""
    from sightline import classifier

    common = ("--classes", "3,8", "--backbone", "pixels", "--methods", "features", "--head", "centroid", "--positive", "3")
    ended = cli("run", "digits", *common, "--threshold", "fpr=0", "-o", "runs", "--json", "--heatmaps", "none")
    assert ended.code == 0, ended.err
    run = tmp_path / json.loads(ended.out)["run"]
    data = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert data["threshold"]["by"] == "fpr=0" and data["threshold"]["positive"] == "3"
    value = data["threshold"]["value"]
    card = classifier.load(run).card
    assert (card.threshold, card.positive) == (value, "3") and value != 0.5
    three = data["classes"].index("3")
    assert data["val"]["confusion"][1 - three][three] == 0  # no false alarm where it was chosen
    rows = json.loads(cli("predict", str(run), "digits/3", "digits/8", "--json").out)
    assert all((row["label"] == "3") == (row["probabilities"]["3"] >= value) for row in rows)
    assert all(row["probability"] == row["probabilities"][row["label"]] for row in rows)
    scored = cli("evaluate", str(run), str(run / "catalog.csv"), "-o", "again", "--json", "--heatmaps", "none")
    table = cli("evaluate", str(run / "predictions" / "test.csv"), str(run / "catalog.csv"), "-o", "table", "--json")
    accuracies = [json.loads(e.out)["accuracy"] for e in (scored, table)]
    assert accuracies == [data["test"]["accuracy"]] * 2
    assert "criterion: fpr=0" in (run / "report.html").read_text(encoding="utf-8")

    assert cli("run", "digits", *common, "--threshold", "youdn", "-o", "r").err.count("did you mean 'youden'?") == 1
    wrong = cli("run", "digits", "--methods", "baseline", "--threshold", "f1", "-o", "r")
    assert wrong.code == 2 and "two classes" in wrong.err
