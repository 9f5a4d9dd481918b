"""Scores of `evaluate`: intervals with groups, curves as tables, the positive class, inverted predictions."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sightline import catalog as catalogs
from sightline.cli.app import app
from sightline.commands import evaluate as evaluate_command
from sightline.records import Catalog, Predictions
from sightline.store import Cache, write_text
from tests.conftest import write_few_digits


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two digits, 40 images of each, and a made-up table about them: scenes of five are right or wrong together."""
    folder = tmp_path_factory.mktemp("numbers")
    found = catalogs.scan(str(write_few_digits(folder / "digits", 40)))
    rows = np.isin(np.array(found.column("label")), ("3", "8"))
    found = Catalog(found.table.filter(rows.tolist()), found.root)
    y = np.array([label == "8" for label in found.column("label")]).astype(int)
    scene = np.arange(80) // 5
    sure = np.random.default_rng(0).normal(1.2, 1.5, 16)[scene]
    p = 1 / (1 + np.exp(-np.where(y == 1, sure, -sure)))
    for name, column in (("good", p), ("inverted", 1 - p)):
        answers = Predictions(tuple(found.paths), ("3", "8"), y, np.stack([1 - column, column], 1))
        write_text(folder / f"{name}.csv", answers.to_csv())
    catalogs.save(found, folder / "alone.csv")
    catalogs.save(found.with_column("group", [f"scene {s}" for s in scene]), folder / "grouped.csv")
    return {"folder": folder, "cache": Cache(folder / "cache")}


def evaluate(place: dict[str, Any], table: str, catalog: str, out: Path, **options: Any) -> Any:
    folder = place["folder"]
    return evaluate_command.evaluate(
        str(folder / f"{table}.csv"), str(folder / f"{catalog}.csv"), out=str(out), cache=place["cache"], **options
    )


def test_a_column_group_makes_the_intervals_wider(place: dict[str, Any], tmp_path: Path) -> None:
    alone, grouped = (evaluate(place, "good", name, tmp_path / name).data["test"] for name in ("alone", "grouped"))
    assert grouped["clusters"] == 16 and alone["clusters"] > 60
    for name in ("accuracy", "balanced_accuracy", "mcc", "log_loss", "roc_auc", "pr_auc", "eer"):
        assert alone[name] == grouped[name]
        widths = [s[f"{name}_high"] - s[f"{name}_low"] for s in (alone, grouped)]
        assert widths[1] > 1.3 * widths[0], name
    assert "16 clusters" in grouped["intervals"]["accuracy"]


def test_curves_are_tables_in_the_folder(place: dict[str, Any], tmp_path: Path) -> None:
    run = evaluate(place, "good", "alone", tmp_path / "run", positive="3")
    names = sorted(f.name for f in (run.folder / "curves").iterdir())
    kinds = ("accuracy_coverage", "calibration", "det", "precision_recall", "roc", "thresholds")
    assert names == [f"test_{kind}.csv" for kind in kinds]
    with open(run.folder / "curves" / "test_roc.csv", encoding="utf-8", newline="") as text:
        rows = [r for r in csv.DictReader(text) if r["class"] == "3"]
    x, y = (np.array([float(r[k]) for r in rows]) for k in ("false_positive_rate", "true_positive_rate"))
    assert float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum()) == pytest.approx(run.data["test"]["roc_auc"], abs=1e-12)


def test_the_command_prints_every_number_with_its_interval(place: dict[str, Any], tmp_path: Path) -> None:
    from sightline.evaluation import METRICS

    folder = place["folder"]
    words = ["evaluate", str(folder / "inverted.csv"), str(folder / "alone.csv"), "--positive", "8", "-o", str(tmp_path / "a")]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    assert "positive class      8" in said.stdout and "the scores look inverted" in said.stdout
    for name in set(METRICS) - {"top_5"}:
        assert f"\n{name:<20}" in f"\n{said.stdout}", name
    told = json.loads(CliRunner().invoke(app, [*words[:-1], str(tmp_path / "b"), "--json"]).stdout)
    for name in METRICS:
        value, low, high = (told[key] for key in (name, f"{name}_low", f"{name}_high"))
        assert (low <= value <= high) if name != "top_5" else (value is None and told["reasons"][name])
    assert told["inverted"] and told["intervals"]["roc_auc"].startswith("DeLong") and told["positive"] == "8"
