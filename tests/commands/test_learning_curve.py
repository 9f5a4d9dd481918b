"""Learning curve of a recipe, and in the report of a run."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sightline.cli.app import app
from sightline.commands import learning_curve
from sightline.commands import run as run_command
from sightline.runs.plan import Request
from sightline.store import Cache


@pytest.mark.slow
def test_a_recipe_has_a_learning_curve(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('backbone = "pixels"\nhead = "ridge"\n', encoding="utf-8")
    own = ["evaluate", str(digits), str(tmp_path / "r.toml"), "--learning-curve", "--goal", "0.99", "-o", str(tmp_path / "lc")]
    ended = CliRunner().invoke(app, [*own, "--json"])
    assert ended.exit_code == 0, ended.stderr
    value = json.loads(ended.stdout)
    points = value["points"]
    assert [p["images"] for p in points] == sorted(p["images"] for p in points) and points[-1]["images"] >= 230
    assert points[-1]["measured"] > points[0]["measured"] + 0.05
    assert all(p["low"] <= p["accuracy"] <= p["high"] for p in points)
    assert value["goal"] == 0.99 and len(value["words"]) == 2
    rows = list(csv.DictReader((tmp_path / "lc" / "learning-curve.csv").read_text(encoding="utf-8").splitlines()))
    assert {"images", "measured", "accuracy", "low", "high"} == set(rows[0]) and len(rows) == len(points) + 40
    assert (tmp_path / "lc" / "learning-curve.svg").read_text(encoding="utf-8").startswith("<svg")
    again = CliRunner().invoke(app, [*own, "--json"])
    assert json.loads(again.stdout)["points"] == points


@pytest.mark.parametrize(
    ("recipe", "options", "said"),
    [
        ('method = "scratch"\nbackbone = "lenet5"', [], "needs the method features"),
        ('backbone = "pixels"', ["--goal", "95"], "--goal must be an accuracy between 0 and 1, not 95"),
        ('backbone = "pixels"', ["--folds", "5"], "leave out --folds"),
        ('backbone = "pixels"', ["--repeats", "2"], "leave out --repeats"),
    ],
)
def test_methods_without_a_learning_curve_are_refused(
    recipe: str, options: list[str], said: str, digits: Path, tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text(recipe, encoding="utf-8")
    ended = CliRunner().invoke(app, ["evaluate", str(digits), str(tmp_path / "r.toml"), "--learning-curve", *options])
    assert ended.exit_code == 2 and said in ended.stderr


@pytest.mark.slow
def test_a_run_has_its_curve_and_suggests_a_cross_validation(
    digits: Path, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_curve, "FASTEST_S", 1e9)  # so short a run would do without
    request = Request(
        photos=str(digits),
        out=str(tmp_path / "runs"),
        backbones=("pixels",),
        methods=("features",),
        head="centroid",
        heatmaps="none",
    )
    done = run_command.run(request, cache=cache)
    told = done.data["learning"]
    assert told["of_chosen"] and told["images"] == 240 and told["orders"] == 1
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "Learning curve: would more photographs help?" in page and told["words"][0] in page.replace("\xa0", " ")
    command = done.data["crossvalidate"]
    assert command in page.replace("&#34;", '"') and "Only" in page
    catalog, recipe = (Path(part) for part in shlex.split(command)[2:4])
    ended = CliRunner().invoke(
        app, ["evaluate", str(catalog), str(recipe), "--folds", "2", "-o", str(tmp_path / "cv"), "--json"]
    )
    assert ended.exit_code == 0 and json.loads(ended.stdout)["n"] == 240
