"""`--crops` of `predict` and `evaluate`: applied with a network, refused without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sightline import catalog as catalogs
from sightline.cli.app import app
from sightline.commands import train as train_command
from sightline.records import Recipe
from sightline.store import Cache


def trained(digits: Path, folder: Path, **recipe: object) -> Path:
    """A run on digits, and the table of their splits beside it."""
    run = train_command.train(catalogs.scan(digits), Recipe(**recipe), folder / "run", cache=Cache())  # type: ignore[arg-type]
    return run.folder


def asked(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, list(arguments))
    return ended.exit_code, ended.stdout


@pytest.mark.slow
def test_the_option_crops_sets_the_number_of_crops(digits: Path, tmp_path: Path) -> None:
    run = trained(digits, tmp_path, backbone="resnet10t", weights="random", image_size=32, head="ridge")
    some = str(digits / "3")
    answers = {}
    for crops in ("1", "5", "10"):
        code, out = asked("predict", str(run), some, "--crops", crops, "--json")
        assert code == 0
        answers[crops] = [row["probability"] for row in json.loads(out)]
    code, out = asked("predict", str(run), some, "--json")
    assert [row["probability"] for row in json.loads(out)] == answers["1"]
    assert answers["1"] != answers["5"] != answers["10"]
    table = str(run / "catalog.csv")
    code, out = asked("evaluate", str(run), table, "--crops", "10", "-o", str(tmp_path / "scored"), "--json")
    assert code == 0 and json.loads(out)["n"] == 60
    assert json.loads((tmp_path / "scored" / "run.json").read_text(encoding="utf-8"))["crops"] == 10


@pytest.mark.slow
@pytest.mark.parametrize(("crops", "message"), [("3", "crops cannot be 3"), ("5", "5 crops are not possible for a classifier")])
def test_invalid_numbers_of_crops_are_refused(digits: Path, tmp_path: Path, crops: str, message: str) -> None:
    run = trained(digits, tmp_path, backbone="pixels", head="centroid")
    ended = CliRunner().invoke(app, ["predict", str(run), str(digits / "3"), "--crops", crops])
    assert ended.exit_code == 2 and message in " ".join((ended.stderr or ended.output).split())


def test_a_table_of_predictions_has_no_crops(digits: Path, tmp_path: Path) -> None:
    run = trained(digits, tmp_path, backbone="pixels", head="centroid")
    table = str(run / "predictions" / "val.csv")
    ended = CliRunner().invoke(app, ["evaluate", table, str(run / "catalog.csv"), "--crops", "5"])
    assert ended.exit_code == 2
