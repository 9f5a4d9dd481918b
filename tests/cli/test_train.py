"""`sightline train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline import inputs
from sightline.cli.app import app
from sightline.records import Recipe

RECIPE = 'backbone = "pixels"\nhead = "logistic"\nimage_size = 8\n[settings]\nfolds = 3\n'


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"})


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return str(tmp_path / "recipe.toml")


@pytest.mark.slow
def test_a_sweep_from_the_command_line(digits: Path, recipe: str, tmp_path: Path) -> None:
    arguments = ["train", str(digits), recipe, "--sweep", "head.C=0.001,1", "--seeds", "2", "-o", str(tmp_path / "s")]
    ended = invoke(*arguments)
    assert ended.exit_code == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].split()[:6] == ["head.C", "accuracy", "range", "seconds", "parameters", "features"]
    assert lines[1].split()[0] == "0.001" and lines[2].split()[0] == "1" and lines[2].endswith("best")
    assert "C=1 is best" in ended.stdout and str(tmp_path / "s" / "report.html") in ended.stdout
    assert "0.001, seed 1: " in ended.stderr

    again = invoke(*arguments, "--json")
    value = json.loads(again.stdout)
    assert value["keys"] == ["head.C"] and value["seeds"] == [0, 1] and len(value["settings"]) == 2
    assert value["val"]["accuracy"] == value["settings"][value["best"]]["accuracy"]
    assert Path(value["recipe"]).is_file() and Path(value["report"]).is_file()


def test_set_changes_a_nested_key(digits: Path, recipe: str, tmp_path: Path) -> None:
    ended = invoke("train", str(digits), recipe, "--set", "head.C=0.5", "-o", str(tmp_path / "s"), "--json")
    assert ended.exit_code == 0, ended.output
    assert inputs.read_recipe(tmp_path / "s" / "recipe.toml").settings["head"] == {"C": 0.5}


def test_options_replace_a_recipe_file_and_can_be_saved_as_one(digits: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.toml"
    options = ["--method", "features", "--backbone", "pixels", "--head", "centroid", "--seed", "5", "--set", "image_size=8"]
    ended = invoke("train", str(digits), *options, "--save-recipe", str(saved), "-o", str(tmp_path / "r"), "--json")
    assert ended.exit_code == 0, ended.output
    expected = Recipe(backbone="pixels", head="centroid", image_size=8, seed=5)
    assert inputs.read_recipe(saved) == inputs.read_recipe(tmp_path / "r" / "recipe.toml") == expected
    again = invoke("train", str(digits), str(saved), "-o", str(tmp_path / "r"), "--json")
    assert json.loads(again.stdout)["reused"]
    wrong = invoke("train", str(digits), "--method", "features", "--epochs", "3", "-o", str(tmp_path / "w"))
    assert wrong.exit_code == 2 and "no key" in wrong.stderr and not (tmp_path / "w").exists()


def test_images_deleted_before_training_are_counted_and_named(digits: Path, tmp_path: Path) -> None:
    table, recipe = tmp_path / "table.csv", tmp_path / "recipe.toml"
    recipe.write_text('method = "scratch"\nbackbone = "cnn(filters=[4])"\nimage_size = 16\n[settings]\nepochs = 1\n')
    assert invoke("scan", str(digits), "-o", str(table)).exit_code == 0
    gone = min((digits / "3").glob("*.png"))
    gone.unlink()
    ended = invoke("train", str(table), str(recipe), "-o", str(tmp_path / "s"))
    assert ended.exit_code == 0, ended.output
    told = " ".join(ended.stderr.split())
    assert "left out, not decodable" in told and f"3/{gone.name}" in told


def test_several_seeds_report_the_range_of_accuracy(digits: Path, recipe: str, tmp_path: Path) -> None:
    ended = invoke("train", str(digits), recipe, "--seeds", "2", "-o", str(tmp_path / "s"), "--json")
    value = json.loads(ended.stdout)
    assert (value["keys"], value["seeds"], value["comparisons"]) == ([], [0, 1], [])
    assert value["words"][1].startswith("The random seed alone changes the accuracy by up to")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--sweep", "head.c=1"], "did you mean"),
        (["train", "--sweep", "foldz=1"], "did you mean 'folds'"),
        (["train", "--sweep", "folds=3,99"], "folds"),
        (["train", "--seeds", "0"], "--seeds cannot be 0"),
        (["train", "--seeds", "2", "--continue", "runs/x"], "cannot be combined with --continue"),
        (["train", "--sweep", "folds=3,4", "--continue", "runs/x"], "cannot be combined with --continue"),
        (["train", "--find-rate", "--continue", "runs/x"], "cannot be combined with --continue"),
        (["train", "--find-rate", "--sweep", "folds=3,4"], "--find-rate works on one recipe"),
        (["train", "--set", "head.c=1"], "did you mean"),
    ],
)
def test_wrong_arguments_are_exit_code_2(arguments: list[str], words: str, digits: Path, recipe: str, tmp_path: Path) -> None:
    command, *rest = arguments
    ended = invoke(command, str(digits), recipe, *rest, "-o", str(tmp_path / "s"))
    assert ended.exit_code == 2 and ended.stdout == ""
    assert words in " ".join(ended.stderr.split()) and "Traceback" not in ended.stderr
    assert not (tmp_path / "s").exists()
