"""Sweeps: one split for all fits, resumable, reproducible, with sentences that match the table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline import studies
from sightline.commands import study, sweep, tune
from sightline.commands import train as single
from sightline.errors import DataError, RequestError, SightlineError
from sightline.inputs import read_predictions, read_recipe
from sightline.records import Catalog, Predictions, Recipe
from sightline.store import Cache
from sightline.studies.sweep import MOST_FITS, Outcome

TIMES = ("created", "seconds", "name", "photos")


def without_times(data: Any) -> Any:
    """Return a study's data without times and names, which differ between equal studies."""
    if isinstance(data, dict):
        return {k: without_times(v) for k, v in data.items() if k not in TIMES}
    return [without_times(v) for v in data] if isinstance(data, list) else data


def predictions(right: np.ndarray) -> Predictions:
    probs = np.where(right[:, None], [0.8, 0.2], [0.3, 0.7])
    return Predictions(tuple(f"{i}.png" for i in range(len(right))), ("a", "b"), np.zeros(len(right), dtype=np.int64), probs)


def test_a_plan_is_the_grid_under_every_seed() -> None:
    fits = studies.plan(Recipe(seed=5), {"head": ["ridge", "knn"], "image_size": [8, 16]}, 2)
    assert [(f.setting["head"], f.setting["image_size"], f.seed) for f in fits] == [
        (h, s, seed) for h in ("ridge", "knn") for s in (8, 16) for seed in (5, 6)
    ]
    assert [f.recipe.seed for f in fits] == [5, 6] * 4
    assert len({f.name for f in fits}) == 8
    assert fits[0].name.startswith("head-ridge-image-size-8-seed-5-")
    assert fits == studies.plan(Recipe(seed=5), {"head": ["ridge", "knn"], "image_size": [8, 16]}, 2)


@pytest.mark.parametrize(
    ("sweeps", "seeds", "words"),
    [
        ({"hed": ["knn"]}, 1, "no key in a recipe of features 'hed'"),
        ({"head": []}, 1, "--sweep head has no values"),
        ({"head": ["knn", "knn"]}, 1, "--sweep head has a value twice"),
        ({"seed": [1, 2]}, 1, "--sweep does not take the key seed"),
        ({"head": ["knn"]}, 0, "--seeds cannot be 0"),
        ({"image_size": list(range(8, 8 + MOST_FITS))}, 2, "this sweep has 2,000 fits"),
    ],
)
def test_an_invalid_plan_is_refused(sweeps: dict[str, list[Any]], seeds: int, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        studies.plan(Recipe(), sweeps, seeds)


def test_table_and_conclusions_equal_the_worked_example() -> None:
    """12 images, two seeds; 15 is right on all, 0 on all but one under one seed, 90 on half of them."""
    fits = studies.plan(Recipe(method="scratch"), {"augment.rotation": [0, 15, 90]}, 2)
    whole, but_one, half = np.ones(12, bool), np.arange(12) > 0, np.arange(12) % 2 == 0
    rights = [whole, but_one, whole, whole, half, half]
    outcomes = [Outcome(predictions(r), 2.0 + i, 7) for i, r in enumerate(rights)]
    found = studies.summarise(Recipe(method="scratch"), fits, outcomes)
    assert [row.label for row in found.settings] == ["0", "15", "90"]
    assert [row.accuracy for row in found.settings] == pytest.approx([23 / 24, 1, 1 / 2])
    assert [(row.accuracy_low, row.accuracy_high) for row in found.settings] == [(11 / 12, 1), (1, 1), (0.5, 0.5)]
    assert [row.seconds for row in found.settings] == [2.5, 4.5, 6.5]
    assert (found.best, found.default, found.images, found.seeds) == (1, None, 12, [0, 1])
    against = {found.settings[c.b].label: c for c in found.comparisons}
    assert against["0"].p == 1.0 and not against["0"].significant
    assert against["90"].p == pytest.approx(2 / 64)  # six images that only 15 has, each counted once
    assert against["90"].p_corrected == pytest.approx(6 / 64)
    assert found.words == [
        "rotation=15 came first (100.0 %, the mean of 2 seeds).",
        "Its lead over 0 and 90 is not significant with 12 images.",
        "The random seed alone changes the accuracy by up to 8.3 percentage points.",
    ]
    assert [row.mark for row in found.settings] == ["", "first, may be chance", ""]


def test_equal_settings_are_tied_and_none_is_best() -> None:
    fits = studies.plan(Recipe(), {"head": ["knn", "ridge", "forest"]}, 1)
    whole = np.ones(12, bool)
    found = studies.summarise(Recipe(), fits, [Outcome(predictions(r)) for r in (whole, whole, np.arange(12) > 0)])
    assert [row.mark for row in found.settings] == ["tied", "tied", ""]
    assert found.words[:2] == [
        "head=knn and ridge are tied (100.0 %).",
        "Its lead over forest is not significant with 12 images.",
    ]


def test_significant_differences_are_reported() -> None:
    fits = studies.plan(Recipe(), {"head": ["knn", "ridge", "forest"]}, 1)
    none = np.zeros(40, bool)
    found = studies.summarise(Recipe(), fits, [Outcome(predictions(r)) for r in (~none, none, np.arange(40) > 0)])
    assert found.words[:2] == [
        "head=knn came first (100.0 %).",
        "Its lead over forest is not significant with 40 images.",
    ]
    found = studies.summarise(Recipe(), fits[:2], [Outcome(predictions(r)) for r in (~none, none)])
    assert found.words[:2] == ["head=knn is best (100.0 %).", "It is significantly better than ridge, on 40 images."]
    assert [row.mark for row in found.settings] == ["best", ""]


def test_a_failed_fit_excludes_its_setting_and_is_reported() -> None:
    fits = studies.plan(Recipe(), {"head": ["knn", "ridge"]}, 2)
    fine = Outcome(predictions(np.arange(20) > 3))
    found = studies.summarise(Recipe(), fits, [fine, Outcome(None, why="it diverged"), fine, fine])
    assert [row.failed for row in found.settings] == ["it diverged", None]
    assert found.settings[found.best].label == "ridge" and found.comparisons == []
    assert "knn failed: it diverged." in found.words
    with pytest.raises(DataError, match="every fit of the sweep failed: it diverged"):
        studies.summarise(Recipe(), fits, [Outcome(None, why="it diverged")] * 4)


@pytest.mark.slow
def test_a_sweep_is_runs_of_one_split(divided: Catalog, tiny: Recipe, cache: Cache, tmp_path: Path) -> None:
    said: list[str] = []
    sweeps = {"augment.rotation": [0, 90]}
    done = sweep.sweep(divided, tiny, sweeps, tmp_path / "a", seeds=2, say=said.append, cache=cache)
    data = done.data
    assert len(said) == 4 and said[0].startswith("0, seed 0: ")
    for row in data["settings"]:
        for seed, name, accuracy in zip(data["seeds"], row["runs"], row["by_seed"], strict=True):
            run = json.loads((done.folder / name / "run.json").read_text())
            assert run["test_openings"] == [] and run["seed"] == seed
            recipe = read_recipe(done.folder / name / "recipe.toml")
            assert recipe.settings["augment"] == {"policy": "light", "rotation": row["setting"]["augment.rotation"]}
            val = read_predictions(done.folder / name / "predictions" / "val.csv")
            assert float((val.y_pred == val.y_true).mean()) == accuracy
            assert sorted(val.paths) == sorted(divided.where(split="val").paths)
    assert data["images"] == len(divided.where(split="val"))
    best = read_recipe(done.best_recipe)
    assert best.settings["augment"]["rotation"] == data["settings"][data["best"]]["setting"]["augment.rotation"]
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert all(line.replace("'", "&#39;") in page for line in data["words"])

    again = sweep.sweep(divided, tiny, sweeps, tmp_path / "b", seeds=2, cache=cache)
    assert without_times(again.data) == without_times(data)


def test_a_sweep_gives_the_number_of_features_and_their_memory(
    divided: Catalog, pixels: Recipe, tiny: Recipe, cache: Cache, tmp_path: Path
) -> None:
    ridge = dataclasses.replace(pixels, head="ridge")
    found = sweep.sweep(divided, ridge, {"image_size": [8, 16]}, tmp_path / "a", cache=cache)
    images = sum(split in ("train", "val") for split in divided.column("split"))
    widths = [8 * 8 * 3, 16 * 16 * 3]
    assert [(s["feature_width"], s["feature_bytes"]) for s in found.data["settings"]] == [(w, 4 * w * images) for w in widths]
    assert "Features (memory)" in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    trained = sweep.sweep(divided, tiny, {"epochs": [1]}, tmp_path / "b", cache=cache)
    assert trained.data["settings"][0]["feature_bytes"] is None


@pytest.mark.slow
def test_a_killed_sweep_resumes(
    divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[str] = []
    train = single.train

    def dying(catalog: Catalog, recipe: Recipe, out: Path, **rest: Any) -> Any:
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(out.name)
        return train(catalog, recipe, out, **rest)

    monkeypatch.setattr(study, "train", dying)
    sweeps = {"head.C": [0.1, 1.0, 10.0]}
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(divided, pixels, sweeps, tmp_path / "s", cache=cache)
    assert not (tmp_path / "s" / "study.json").exists()
    before = [(tmp_path / "s" / name / "run.json").read_bytes() for name in fitted]
    monkeypatch.setattr(study, "train", train)
    done = sweep.sweep(divided, pixels, sweeps, tmp_path / "s", cache=cache)
    assert [(tmp_path / "s" / name / "run.json").read_bytes() for name in fitted] == before
    assert len(done.data["settings"]) == 3

    monkeypatch.setattr(study, "train", None)  # a finished study fits nothing
    assert sweep.sweep(divided, pixels, sweeps, tmp_path / "s", cache=cache).data == done.data
    monkeypatch.setattr(study, "train", train)
    more = sweep.sweep(divided, pixels, {"head.C": [0.1, 1.0, 10.0, 100.0]}, tmp_path / "s", cache=cache)
    assert [(tmp_path / "s" / name / "run.json").read_bytes() for name in fitted] == before
    assert len(more.data["settings"]) == 4


@pytest.mark.slow
def test_a_killed_fit_resumes_from_its_checkpoint(divided: Catalog, tiny: Recipe, cache: Cache, tmp_path: Path) -> None:
    recipe = dataclasses.replace(tiny, settings={**tiny.settings, "epochs": 4})
    whole = sweep.sweep(divided, recipe, {}, tmp_path / "whole", cache=cache)
    told: list[str] = []

    def dying(stage: str, done: int, total: int) -> None:
        told.append(stage)
        if "epoch 3" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(divided, recipe, {}, tmp_path / "cut", progress=dying, cache=cache)
    told.clear()
    done = sweep.sweep(divided, recipe, {}, tmp_path / "cut", progress=lambda s, *_: told.append(s), cache=cache)
    assert not any("epoch 1 " in s for s in told), "it began anew"
    assert any("epoch 3 " in s for s in told)
    assert without_times(done.data) == without_times(whole.data)
    name = done.data["settings"][0]["runs"][0]
    one, two = ((s.folder / name / "predictions" / "val.csv").read_bytes() for s in (whole, done))
    assert one == two


def test_invalid_values_are_refused_before_the_first_fit(divided: Catalog, tiny: Recipe, cache: Cache, tmp_path: Path) -> None:
    for sweeps, words in (
        ({"augment.rotation": [0, 999]}, "rotation cannot be 999"),
        ({"augment.rotatoin": [0]}, "rotatoin"),
        ({"learning_rate": [1e-3, "fast"]}, "'learning_rate'"),
        ({"learning_rate": [float("nan"), 0.1]}, "learning_rate cannot be nan"),
        ({"learning_rate": [0.1, 0.1]}, "has a value twice"),
    ):
        with pytest.raises(RequestError, match=words):
            sweep.sweep(divided, tiny, sweeps, tmp_path / "s", cache=cache)
        assert not (tmp_path / "s").exists()


def test_a_folder_holds_one_study(divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path) -> None:
    sweep.sweep(divided, pixels, {}, tmp_path / "s", seeds=1, cache=cache)
    with pytest.raises(RequestError, match="a study of another recipe"):
        sweep.sweep(divided, dataclasses.replace(pixels, image_size=12), {}, tmp_path / "s", cache=cache)
    fewer = divided.rows([i % 9 > 0 for i in range(len(divided))])
    with pytest.raises(RequestError, match="a study of other images or splits"):
        sweep.sweep(fewer, pixels, {}, tmp_path / "s", cache=cache)
    with pytest.raises(RequestError, match=r"a study of another kind \(sweep\)"):
        tune.tune(divided, pixels, tmp_path / "s", trials=1, cache=cache)


def test_a_fit_that_fails_for_a_reason_does_not_end_the_sweep(
    divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = single.train

    def diverging(catalog: Catalog, recipe: Recipe, out: Path, **rest: Any) -> Any:
        if recipe.settings["head"]["C"] == 1.0:
            raise SightlineError("training diverged")
        return train(catalog, recipe, out, **rest)

    monkeypatch.setattr(study, "train", diverging)
    done = sweep.sweep(divided, pixels, {"head.C": [0.1, 1.0]}, tmp_path / "s", cache=cache)
    assert [row["failed"] for row in done.data["settings"]] == [None, "training diverged"]
    assert "failed: training diverged" in (done.folder / "report.html").read_text(encoding="utf-8")
