"""Every command that shows predictions of labelled test images is recorded in the test-set log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import sightline as sl
from sightline import catalog as catalogs
from sightline.cli.app import app
from sightline.commands import explain
from sightline.commands import train as train_command
from sightline.errors import RequestError
from sightline.records import Catalog, Recipe, Run
from sightline.runs import gallery, test_set_log
from sightline.runs.record import HeatmapBlocks
from sightline.store import Cache
from tests.conftest import write_few_digits


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Catalog, Cache]:
    """A run of `train`, its catalog with a test split, and its cache."""
    folder = tmp_path_factory.mktemp("looks")
    cache = Cache(folder / "cache")
    found = catalogs.scan(write_few_digits(folder / "digits", 12))
    found = found.rows([label in ("0", "1", "7") for label in found.column("label")])
    divided = sl.split(found, val=0.25, test=0.25, cache=cache)
    catalogs.save(divided, folder / "catalog.csv")
    run = train_command.train(divided, Recipe(backbone="pixels", head="centroid"), folder / "run", cache=cache)
    return run, catalogs.load(folder / "catalog.csv"), cache


@pytest.fixture(autouse=True)
def _own_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LEDGER", str(tmp_path / "ledger"))


def lines() -> list[dict[str, Any]]:
    """Return the accesses in the log."""
    file = test_set_log.root() / "openings.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def explained(run: Run, tmp_path: Path, cache: Cache, *images: str, **more: Any) -> list[dict[str, Any]]:
    return explain.explain(str(run.folder), images, out=str(tmp_path / "out"), checks=False, cache=cache, **more)


@pytest.mark.slow
def test_explain_of_a_run_that_was_not_tested_shows_validation_images(
    trained: tuple[Run, Catalog, Cache], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, _, cache = trained
    rows = explained(run, tmp_path, cache)
    assert {row["split"] for row in rows} == {"val"} and not lines() and "earlier call" not in caplog.text
    assert all(row["sheet"].endswith(f"-{row['label']}.png") and row["average"]["by"] == "label" for row in rows)
    assert "did not use the test split" in (run.folder / "report.html").read_text(encoding="utf-8")
    rows = explained(run, tmp_path, cache, split="test")
    assert {row["split"] for row in rows} == {"test"} and "heatmaps of an earlier call" in caplog.text
    assert [(line["verb"], line["n"]) for line in lines()] == [("explain", len(rows))]
    explained(run, tmp_path, cache, split="test")
    assert len(lines()) == 1, "the same answers again are no new look"
    with pytest.raises(RequestError, match="tset"):
        explained(run, tmp_path, cache, split="tset")


@pytest.mark.slow
def test_named_test_images_count_whatever_names_them(trained: tuple[Run, Catalog, Cache], tmp_path: Path) -> None:
    run, catalog, cache = trained
    tests = catalog.where(split="test")
    explained(run, tmp_path, cache, *(str(f) for f in catalog.where(split="val").files()))
    assert not lines()
    explained(run, tmp_path, cache, str(tests.files()[0]))
    assert [line["n"] for line in lines()] == [1]
    copied = tmp_path / "copies" / tests.column("label")[1] / "x.png"
    copied.parent.mkdir(parents=True)
    copied.write_bytes(tests.files()[1].read_bytes())
    explained(run, tmp_path, cache, str(tmp_path / "copies"))
    assert [line["n"] for line in lines()] == [1, 1]
    explained(run, tmp_path, cache, str(run.folder.parent / "catalog.csv"))
    assert [line["n"] for line in lines()] == [1, 1, len(tests)]


def test_python_counts_scores_and_explanations_of_test_images(trained: tuple[Run, Catalog, Cache]) -> None:
    run, catalog, cache = trained
    model = sl.load(run.classifier_file)
    sl.score(model.predict(catalog.where(split="val"), cache=cache))
    sl.explain(model, catalog.where(split="train"), cache=cache)
    assert not lines()
    answers = model.predict(catalog, cache=cache)
    assert not lines(), "predictions alone show no label"
    sl.score(answers)
    assert [(line["verb"], line["n"]) for line in lines()] == [("score", len(catalog.where(split="test")))]
    sl.score(answers.select(np.arange(len(answers))))
    assert len(lines()) == 1
    sl.explain(model, catalog.where(split="test"), cache=cache)
    assert len(lines()) == 1 or lines()[1]["verb"] == "explain"


@pytest.mark.parametrize("verb", ["evaluate", "mistakes", "compare"])
def test_every_command_on_the_test_split_is_counted(
    verb: str, trained: tuple[Run, Catalog, Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, catalog, cache = trained
    monkeypatch.setenv("SIGHTLINE_CACHE", str(cache.root))
    table = str(run.folder.parent / "catalog.csv")
    if verb == "compare":
        other = run.folder.parent / "other"
        train_command.train(catalog, Recipe(backbone="pixels", head="ridge"), other, cache=cache)
        words = ["compare", str(run.folder), str(other), "--split", "test", "-o", str(tmp_path / "c")]
    else:
        out = ["-o", str(tmp_path / "e"), "--heatmaps", "none"] if verb == "evaluate" else []
        words = [verb, str(run.folder), table, *out]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 0, ended.output
    assert [(line["verb"], line["n"]) for line in lines()] == [(verb, len(catalog.where(split="test")))]


def written(trained: tuple[Run, Catalog, Cache], folder: Path, **more: Any) -> HeatmapBlocks:
    run, catalog, cache = trained
    model, rows = sl.load(run.classifier_file), catalog.where(split="val")
    own: dict[str, Any] = {"cache": cache, "device": "cpu", "seed": 0, "progress": lambda *_: None}
    return gallery.write_explanations(folder, model, catalog, model.predict(rows, cache=cache), **own, **more)


def test_heatmaps_can_be_left_out_or_be_few(trained: tuple[Run, Catalog, Cache], tmp_path: Path) -> None:
    none = written(trained, tmp_path / "none", heatmaps="none")
    assert none.explanations == [] and none.checks is None and not (tmp_path / "none").exists()
    few, every = (written(trained, tmp_path / kind, heatmaps=kind) for kind in ("few", "all"))
    assert 0 < len(few.explanations) <= gallery.FEW_WRONG + gallery.FEW_RIGHT
    assert every.progress.drawn == every.progress.total == len(every.explanations)
    assert few.checks is not None and (few.checks.images or 0) <= gallery.FEW_VIEWED


def test_explanations_of_the_checks_are_drawn_without_being_computed_again(
    trained: tuple[Run, Catalog, Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline.explanation.checks import run_checks

    names: list[str] = []
    real = run_checks.heatmaps_of
    monkeypatch.setattr(run_checks, "heatmaps_of", lambda *a, **b: names.extend(a[2]) or real(*a, **b))
    drawn = written(trained, tmp_path / "all").explanations
    assert {e.path for e in drawn} <= set(names) and len(names) == len(set(names))


class SlowMachine:
    """A clock of a machine on which only asking the classifier, heat and drawing take time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, heat_s: float, ask_s: float, draw_s: float) -> None:
        from sightline.explanation.checks import evidence, run_checks

        self.now = 0.0
        for module in (evidence, run_checks):
            monkeypatch.setattr(module, "heatmaps_of", self.slow(module.heatmaps_of, lambda a: heat_s * len(a[1])))
            real = module.probs_of
            monkeypatch.setattr(module, "probs_of", lambda *a, real=real: self.slow(real(*a), lambda b: ask_s * len(b[0])))
        monkeypatch.setattr(gallery, "write_overlay", self.slow(gallery.write_overlay, lambda a: draw_s))

    def slow(self, real: Any, seconds: Any) -> Any:
        def wrapped(*args: Any, **more: Any) -> Any:
            self.now += seconds(args)
            return real(*args, **more)

        return wrapped

    def __call__(self) -> float:
        return self.now


@pytest.mark.slow
@pytest.mark.parametrize("speed", [(0.5, 0.01, 0.2), (0.1, 0.001, 2.0), (2.0, 0.02, 0.1)])
def test_heatmaps_end_within_their_time_the_most_important_first(
    speed: tuple[float, float, float], trained: tuple[Run, Catalog, Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(trained, tmp_path / "whole")
    with monkeypatch.context() as patch:
        clock = SlowMachine(patch, *speed)
        written(trained, tmp_path / "measured", clock=clock)
        needed = clock.now
    budget = needed / 2
    clock = SlowMachine(monkeypatch, *speed)
    cut = written(trained, tmp_path / "cut", clock=clock, budget_s=budget)
    drawn = cut.progress.drawn
    assert clock.now <= 1.2 * budget and cut.progress.seconds == pytest.approx(clock.now)
    assert drawn is not None and 0 < drawn <= cut.progress.total == len(whole.explanations)
    assert drawn == cut.progress.total or clock.now >= 0.8 * budget, "the time is used"
    assert [e.path for e in cut.explanations] == [e.path for e in whole.explanations][:drawn]
    assert len(list((tmp_path / "cut" / "explanations").glob("*.png"))) == drawn
