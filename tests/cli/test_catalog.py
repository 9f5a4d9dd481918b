"""`sightline catalog diff` and the options of `scan` and `split` that tests of the functions do not cover."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sightline.cli.app import app
from tests.conftest import write_few_digits


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_few_digits(tmp_path / "digits", 4)
    return tmp_path


def call(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_catalog_diff_prints_what_changed(digits: Path) -> None:
    first = call("scan", "digits", "--sheet", "samples.png")
    assert "size: work at" in first and (digits / "samples.png").is_file()
    call("split", "catalog.csv", "-o", "split.csv", "--folds", "2")
    value = json.loads(call("catalog", "diff", "catalog.csv", "split.csv", "--json"))
    assert not value["same"] and value["added"] == value["removed"] == [] and value["split"]
    assert "split: " in call("catalog", "diff", "catalog.csv", "split.csv")
    assert call("catalog", "diff", "split.csv", "split.csv").strip() == "The catalogs do not differ."


def test_split_prints_that_no_duplicates_cross_splits(digits: Path) -> None:
    call("scan", "digits")
    assert "clusters straddle" in call("split", "catalog.csv")
    assert "nothing was assigned: all images had a split" in call("split", "catalog.csv", "--val", "0")
    assert json.loads(call("split", "catalog.csv", "--json"))["proof"].startswith("0 of ")


def test_a_sheet_of_another_format_is_refused_before_the_scan(digits: Path) -> None:
    done = CliRunner().invoke(app, ["scan", "digits", "--sheet", "samples.gif"])
    assert done.exit_code != 0 and not (digits / "catalog.csv").exists()
