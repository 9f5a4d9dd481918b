"""Cross-validation: no leaks, clusters stay together, interrupted ones resume, and scores are correct."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sightline import catalog as catalogs
from sightline.cli.app import app
from sightline.commands import cross_validate
from sightline.errors import DataError, RequestError
from sightline.inputs import read_predictions
from sightline.records import Catalog, Recipe
from sightline.store import Cache
from sightline.studies import cross_validation as folding
from sightline.training.context import Context

RECIPE = Recipe(backbone="pixels", head="centroid")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Digits of four classes, some of which are duplicates and groups, with a test split."""
    from tests.conftest import write_few_digits

    folder = tmp_path_factory.mktemp("folds")
    photos = write_few_digits(folder / "digits", 30)
    for number in range(4, 10):
        for file in (photos / str(number)).iterdir():
            file.unlink()
        (photos / str(number)).rmdir()
    originals = sorted((photos / "1").iterdir())[:6]
    for file in originals:
        (photos / "1" / f"again-{file.name}").write_bytes(file.read_bytes())
    cache = Cache(folder / "cache")
    found = catalogs.scan(str(photos))
    groups = [f"{p[0]}-{i % 9}" if p.startswith("2/") else None for i, p in enumerate(found.paths)]
    found = found.with_column("group", groups)
    divided = catalogs.split(found, seed=0, clusters=catalogs.find_duplicates(found, cache=cache))
    catalogs.save(divided, folder / "digits.csv")
    return {"folder": folder, "photos": photos, "cache": cache, "found": found, "divided": divided}


def work_of(catalog: Catalog, cache: Cache) -> Context:
    """The work of a cross-validation over all of a catalog."""
    clusters = catalogs.together(catalog, catalogs.find_duplicates(catalog, cache=cache))
    return Context(catalog, clusters, catalog.classes, cache)


def test_folds_partition_the_images_and_keep_clusters_together(place: dict[str, Any]) -> None:
    context = work_of(place["found"], place["cache"])
    assert len(np.unique(context.cluster)) < len(context.cluster) - 15
    for repeat in range(2):
        parts = [p for p in folding.parts(context, 3, 2, seed=5) if p.repeat == repeat]
        held = np.concatenate([p.held for p in parts])
        assert sorted(held.tolist()) == list(range(len(context.catalog)))
        for part in parts:
            assert not set(context.cluster[part.held]) & set(context.cluster[part.train])
            assert len(part.held) + len(part.train) == len(context.catalog)
    one, two = (np.sort(p.held).tolist() for p in folding.parts(context, 3, 2, seed=5) if p.fold == 0)
    assert one != two
    again = folding.parts(context, 3, 2, seed=5)[0]
    assert np.sort(again.held).tolist() == one


@pytest.mark.slow
def test_predictions_do_not_depend_on_held_out_labels(place: dict[str, Any]) -> None:
    """With the labels of one fold permuted, its predictions stay bit-identical."""
    catalog = place["found"].rows(p[0] in "03" for p in place["found"].paths)
    context = work_of(catalog, place["cache"])
    recipe = dataclasses.replace(RECIPE, head="auto", threshold="f1")
    part = folding.parts(context, 3, 1, seed=0)[1]
    before = folding.fit_part(context, recipe, part)
    labels = catalog.column("label")
    for row in part.held:
        labels[row] = "3" if labels[row] == "0" else "0"
    turned = dataclasses.replace(context, catalog=catalog.with_column("label", labels))
    after = folding.fit_part(turned, recipe, part)
    np.testing.assert_array_equal(before.answers.probs, after.answers.probs)
    assert before.facts["head"] == after.facts["head"] and (before.answers.y_true != after.answers.y_true).all()
    assert before.answers.threshold == after.answers.threshold and before.answers.threshold is not None


@pytest.mark.slow
def test_a_threshold_changes_predictions_and_not_probabilities(place: dict[str, Any], tmp_path: Path) -> None:
    """Another criterion changes only what depends on the predictions; the page names the thresholds of the folds."""
    catalog = place["found"].rows(p[0] in "03" for p in place["found"].paths)
    catalog = catalog.rows(bool(i % 3) or p[0] == "0" for i, p in enumerate(catalog.paths))
    recipe = dataclasses.replace(RECIPE, positive="3", head="ridge", image_size=8)
    own: dict[str, Any] = {"folds": 3, "cache": place["cache"]}
    half = cross_validate.cross_validate(catalog, recipe, tmp_path / "half", **own)
    dear = dataclasses.replace(recipe, threshold="cost=1000:1")
    cost = cross_validate.cross_validate(catalog, dear, tmp_path / "cost", **own)
    for name in ("log_loss", "brier", "roc_auc", "pr_auc", "eer"):
        assert cost.data["val"][name] == half.data["val"][name], name
    one, two = (read_predictions(d.folder / "predictions" / "cross_validated.csv") for d in (half, cost))
    np.testing.assert_array_equal(one.probs, two.probs)
    assert one.threshold is None and two.threshold is not None and two.threshold[0] == "3"
    bars = cost.data["threshold"]["bars"]
    assert cost.data["threshold"]["by"] == "cost=1000:1" and half.data["threshold"]["bars"] == []
    assert len(bars) == 3 and set(bars) == set(np.unique(two.thresholds).tolist())
    k = two.classes.index("3")
    np.testing.assert_array_equal(two.y_pred == k, two.probs[:, k] >= two.thresholds)
    assert cost.data["val"]["accuracy"] == pytest.approx(float((two.y_pred == two.y_true).mean()))
    page = (cost.folder / "report.html").read_text(encoding="utf-8")
    assert "one threshold per fold (criterion: cost=1000:1)" in page and "a miss costs 1000, a false alarm 1" in page
    assert "the default" not in page and "Each fold has its own decision threshold" in page
    costs = (cost.folder / "curves" / "cross_validated_thresholds.csv").read_text(encoding="utf-8").splitlines()
    assert max(float(line.split(",")[-1]) for line in costs[1:]) > 100


def test_thresholds_of_all_folds_are_for_the_same_class(place: dict[str, Any], tmp_path: Path) -> None:
    """Of as many images each, the rarer class would differ from fold to fold."""
    catalog = place["found"].rows(p[0] in "03" for p in place["found"].paths)
    labels = ["a" if p[0] == "0" else "b" for p in catalog.paths]
    recipe = dataclasses.replace(RECIPE, threshold="youden")
    turned = catalog.with_column("label", labels)
    done = cross_validate.cross_validate(turned, recipe, tmp_path / "cv", folds=4, cache=place["cache"])
    answers = read_predictions(done.folder / "predictions" / "cross_validated.csv")
    assert answers.threshold is not None and answers.threshold[0] == done.data["positive"] == done.data["threshold"]["positive"]


@pytest.mark.slow
def test_a_cross_validation_is_a_run_with_out_of_fold_predictions(place: dict[str, Any], tmp_path: Path) -> None:
    done = cross_validate.cross_validate(place["divided"], RECIPE, tmp_path / "cv", folds=3, repeats=2, cache=place["cache"])
    told = done.data["crossvalidation"]
    splits = place["divided"].column("split")
    answers = read_predictions(done.folder / "predictions" / "cross_validated.csv")
    assert set(answers.paths) == {p for p, s in zip(place["divided"].paths, splits, strict=True) if s != "test"}
    assert told["closed"] == splits.count("test") and done.data["test"] is None
    second = read_predictions(done.folder / "predictions" / "cross_validated-2.csv")
    each = [float((t.y_pred == t.y_true).mean()) for t in (answers, second)]
    assert told["by_repeat"] == pytest.approx(each) and told["accuracy"] == pytest.approx(np.mean(each))
    assert done.data["val"]["accuracy_low"] < told["accuracy"] < done.data["val"]["accuracy_high"]
    weighted = sum(p["n"] * p["accuracy"] for p in told["parts"]) / sum(p["n"] for p in told["parts"])
    assert weighted == pytest.approx(told["accuracy"]) and len(told["parts"]) == 6
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "held-out images" in page and "Cross-validation folds" in page
    assert "test images were not used" in page and "still closed" not in page
    assert not (done.folder / "folds").exists() and (done.folder / "folds.csv").is_file()
    assert (
        cross_validate.cross_validate(place["divided"], RECIPE, tmp_path / "cv", folds=3, repeats=2, cache=place["cache"]).data[
            "created"
        ]
        == done.data["created"]
    )
    with pytest.raises(RequestError, match="holds another run"):
        cross_validate.cross_validate(place["divided"], RECIPE, tmp_path / "cv", folds=2, cache=place["cache"])


@pytest.mark.slow
def test_an_interrupted_cross_validation_resumes_with_the_missing_folds(
    place: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[str] = []
    real = folding.fit_part

    def watched(context: Context, recipe: Recipe, part: folding.Part) -> folding.Fitted:
        if len(fitted) == 2:
            fitted.append("killed")
            raise KeyboardInterrupt
        fitted.append(part.name)
        return real(context, recipe, part)

    monkeypatch.setattr(folding, "fit_part", watched)
    own: dict[str, Any] = {"folds": 3, "cache": place["cache"]}
    with pytest.raises(KeyboardInterrupt):
        cross_validate.cross_validate(place["divided"], RECIPE, tmp_path / "cv", **own)
    assert not (tmp_path / "cv" / "run.json").exists()
    with pytest.raises(RequestError, match="another recipe"):
        other = dataclasses.replace(RECIPE, head="knn")
        cross_validate.cross_validate(place["divided"], other, tmp_path / "cv", **own)
    done = cross_validate.cross_validate(place["divided"], RECIPE, tmp_path / "cv", **own)
    assert fitted == ["r1-f1", "r1-f2", "killed", "r1-f3"]
    monkeypatch.undo()
    whole = cross_validate.cross_validate(place["divided"], RECIPE, tmp_path / "whole", **own)
    texts = [(d.folder / "predictions" / "cross_validated.csv").read_bytes() for d in (done, whole)]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_methods_by_epochs_can_be_cross_validated(place: dict[str, Any], tmp_path: Path) -> None:
    catalog = place["found"].rows(p[0] in "03" for p in place["found"].paths)
    recipe = Recipe(
        method="scratch", backbone="lenet5", weights="random", image_size=32, settings={"epochs": 1, "batch_size": 8}
    )
    done = cross_validate.cross_validate(catalog, recipe, tmp_path / "cv", folds=2, cache=place["cache"])
    assert done.data["crossvalidation"]["images"] == len(catalog) and done.data["crossvalidation"]["closed"] == 0


def test_an_earlier_classifier_that_has_seen_an_image_is_refused(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Earlier:
        seen = 0

        def was_trained_on(self, contents: list[str]) -> np.ndarray:
            return np.arange(len(contents)) < self.seen

    context, recipe = work_of(place["found"], place["cache"]), Recipe(method="warmstart", backbone="runs/earlier")
    monkeypatch.setattr(folding.classifier, "load", lambda name: Earlier())
    folding.check(recipe, 5, 1)
    folding.check_unseen(context, recipe)
    monkeypatch.setattr(Earlier, "seen", 2)
    with pytest.raises(RequestError, match=f"runs/earlier was trained on 2 of the {len(context.catalog)} images"):
        folding.check_unseen(context, recipe)


def test_intervals_widen_with_clusters_and_not_with_repeats() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(200) < 0.8).astype(float)
    alone = folding.interval(right, np.arange(200))
    pairs = folding.interval(np.repeat(right, 2), np.repeat(np.arange(200), 2))
    assert np.subtract(*pairs[::-1]) == pytest.approx(np.subtract(*alone[::-1]), rel=0.01)
    assert folding.interval(np.ones(50), np.arange(50))[0] == pytest.approx(0.929, abs=0.001)  # Wilson's, not [1, 1]


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({}, {"folds": 1}, "--folds cannot be 1"),
        ({}, {"repeats": 0}, "--repeats cannot be 0"),
        ({"method": "featres"}, {}, "did you mean 'features'"),
        ({"method": "ensemble"}, {}, "may have been trained on the held-out images"),
        ({"head": "logistc"}, {}, "did you mean 'logistic'"),
        ({"positive": "9"}, {}, "there is no class '9'"),
    ],
)
def test_invalid_requests_are_refused(
    change: dict[str, Any], options: dict[str, Any], said: str, place: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RequestError) as caught:
        cross_validate.cross_validate(
            place["divided"], dataclasses.replace(RECIPE, **change), tmp_path / "x", cache=place["cache"], **options
        )
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_the_positive_class_is_checked_before_images_are_read(
    place: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline.commands import run as run_command
    from sightline.commands import train as train_command
    from sightline.runs.plan import Request
    from sightline.training import methods

    def never(*_: Any) -> None:
        raise AssertionError("features were asked for")

    monkeypatch.setattr(methods, "fit", never)
    recipe = dataclasses.replace(RECIPE, positive="nine")
    own: dict[str, Any] = {"cache": place["cache"]}
    request = Request(photos=str(place["photos"]), out=str(tmp_path), recipe=recipe, heatmaps="none")
    calls: list[Callable[[], Any]] = [
        lambda: cross_validate.cross_validate(place["divided"], recipe, tmp_path / "a", **own),
        lambda: train_command.train(place["divided"], recipe, tmp_path / "b", **own),
        lambda: run_command.run(request, **own),
    ]
    for call in calls:
        with pytest.raises(RequestError, match="there is no class 'nine'"):
            call()
    four = dataclasses.replace(RECIPE, threshold="youden")
    with pytest.raises(DataError, match="a threshold needs two classes, but there are 4"):
        train_command.train(place["divided"], four, tmp_path / "c", **own)


@pytest.mark.slow
def test_catalog_and_recipe_can_be_given_in_either_order(place: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('backbone = "pixels"\nhead = "centroid"\n', encoding="utf-8")
    table, recipe = str(place["folder"] / "digits.csv"), str(tmp_path / "r.toml")
    values = []
    for number, pair in enumerate(((table, recipe), (recipe, table))):
        ended = CliRunner().invoke(app, ["evaluate", *pair, "--folds", "2", "-o", str(tmp_path / str(number)), "--json"])
        assert ended.exit_code == 0, ended.stderr
        values.append(json.loads(ended.stdout))
    assert values[0]["accuracy"] == values[1]["accuracy"] and values[0]["n"] == values[1]["n"] > 80
    wrong = CliRunner().invoke(app, ["evaluate", str(tmp_path / "0"), table, "--folds", "3"])
    assert wrong.exit_code == 2 and "needs a recipe" in wrong.stderr and "recipe.toml --folds" in wrong.stderr
