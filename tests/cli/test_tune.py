"""`sightline tune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline.cli.app import app

RECIPE = 'backbone = "pixels"\nhead = "logistic"\nimage_size = 8\n[settings]\nfolds = 3\n'


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"})


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return str(tmp_path / "recipe.toml")


@pytest.mark.slow
def test_a_search_from_the_command_line(digits: Path, recipe: str, tmp_path: Path) -> None:
    arguments = ["tune", str(digits), recipe, "--trials", "2", "--max-parameters", "1e5", "-o", str(tmp_path / "s")]
    ended = invoke(*arguments)
    assert ended.exit_code == 0, ended.stderr
    assert ended.stdout.splitlines()[0].split() == ["trial", "accuracy", "log", "loss", "seconds", "parameters"]
    assert "the starting recipe" in ended.stdout and "trial 1: " in ended.stderr
    value = json.loads(invoke(*arguments, "--json").stdout)
    assert len([t for t in value["trials"] if t["state"] not in ("rejected", "repeated")]) == 2
    best = next(t for t in value["trials"] if t["number"] == value["best"])
    assert value["val"]["accuracy"] == best["accuracy"] and Path(value["recipe"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tune", "--set", "head.c=1"], "did you mean"),
        (["tune", "--trials", "0"], "--trials cannot be 0"),
        (["tune", "--budget", "soon"], "--budget 'soon'"),
        (["tune", "--set", "method=baseline"], "nothing to tune in baseline"),
    ],
)
def test_wrong_arguments_are_exit_code_2(arguments: list[str], words: str, digits: Path, recipe: str, tmp_path: Path) -> None:
    command, *rest = arguments
    ended = invoke(command, str(digits), recipe, *rest, "-o", str(tmp_path / "s"))
    assert ended.exit_code == 2 and ended.stdout == ""
    assert words in " ".join(ended.stderr.split()) and "Traceback" not in ended.stderr
    assert not (tmp_path / "s").exists()
