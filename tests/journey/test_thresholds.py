"""A run with a threshold: recipe, candidates, and the suggested cross-validation."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sightline import classifier
from sightline.cli import run as run_cli
from sightline.cli.app import app
from sightline.commands import run as run_command
from sightline.inputs import read_predictions, read_recipe
from sightline.records import Recipe, Run
from sightline.runs.plan import Request
from sightline.store import Cache
from tests.conftest import write_few_digits


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two digits that are told apart with mistakes, and a bar that takes nearly all for one of them."""
    folder = tmp_path_factory.mktemp("bar")
    photos = write_few_digits(folder / "digits", 40)
    for file in sorted((photos / "1").iterdir())[::8]:  # under the wrong name: they can be found at a price alone
        file.rename(photos / "8" / file.name)
    chosen = {"photos": str(photos), "out": str(folder / "runs"), "classes": {"eight": "8", "one": "1"}}
    request = Request(
        **chosen,
        backbones=("pixels",),
        methods=("baseline", "features"),
        positive="eight",
        threshold="cost=1000:1",
        heatmaps="none",
    )
    return run_command.run(request, cache=Cache(folder / "cache"))


def test_the_recipe_carries_the_threshold_and_its_class(done: Run) -> None:
    written = read_recipe(done.folder / "recipe.toml")
    assert (written.threshold, written.positive) == ("cost=1000:1", "eight")
    assert classifier.load(done.folder).card.recipe == written


@pytest.mark.slow
def test_the_suggested_command_selects_the_head_within_each_fold(done: Run) -> None:
    catalog, recipe = (Path(part) for part in shlex.split(done.data["crossvalidate"])[2:4])
    assert read_recipe(done.folder / "recipe.toml").head != "auto"
    asked = read_recipe(recipe)
    assert (asked.head, asked.threshold, asked.positive) == ("auto", "cost=1000:1", "eight")
    out = str(done.folder.parent / "cv")
    ended = CliRunner().invoke(app, ["evaluate", str(catalog), str(recipe), "--folds", "2", "-o", out, "--json"])
    assert ended.exit_code == 0, ended.stderr
    told = Run.load(Path(out)).data["threshold"]
    assert len(told["bars"]) == 2 and json.loads(ended.stdout)["threshold"] == told
    again = CliRunner().invoke(app, ["evaluate", str(catalog), str(recipe), "--folds", "2", "-o", out])
    assert "for eight, set in each fold by the criterion cost=1000:1" in again.stdout


def test_all_candidates_use_one_threshold_and_the_chosen_one_is_marked(done: Run, capsys: pytest.CaptureFixture[str]) -> None:
    rungs = [r for r in done.data["ladder"] if r["method"] == "features"]
    (chosen,) = [r for r in rungs if r["chosen"]]
    assert chosen["val"]["accuracy"] == max(r["val"]["accuracy"] for r in rungs)
    val = read_predictions(done.held_out_file)
    at_half = float((val.probs.argmax(axis=1) == val.y_true).mean())
    at_bar = float((val.y_pred == val.y_true).mean())
    assert at_bar < at_half == chosen["val"]["accuracy"]
    assert chosen["at_bar"]["accuracy"] == at_bar == done.data["val"]["accuracy"]
    assert chosen["at_bar"]["threshold"] == done.data["threshold"]["value"] and chosen["at_bar"]["by"] == "cost=1000:1"
    assert [r["at_bar"] for r in done.data["ladder"] if not r["chosen"]] == [None] * (len(done.data["ladder"]) - 1)
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "for “eight” (criterion: cost=1000:1): " in page and "All accuracies in this table use a threshold of 0.5" in page
    run_cli.print_run(done)
    printed = capsys.readouterr().out
    assert "at its threshold" in printed and "criterion cost=1000:1" in printed


@pytest.mark.slow
def test_without_a_threshold_none_is_mentioned(digits: Path, tmp_path: Path, cache: Cache) -> None:
    request = Request(
        photos=str(digits), out=str(tmp_path), backbones=("pixels",), methods=("features",), head="centroid", heatmaps="none"
    )
    plain = run_command.run(request, cache=cache)
    assert [r["at_bar"] for r in plain.data["ladder"]] == [None]
    assert read_recipe(plain.folder / "recipe.toml") == Recipe(backbone="pixels", head="centroid")
    assert "recipe.toml" in plain.data["crossvalidate"] and not (plain.folder / "crossvalidate.toml").exists()
