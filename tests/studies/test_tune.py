"""Searches: no test labels, reproducible, resumable, within limits, and cautious about chance."""

from __future__ import annotations

import dataclasses
import math
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline import heads, networks
from sightline.commands import train
from sightline.commands import tune as tune_command
from sightline.errors import RequestError, SightlineError
from sightline.inputs import read_recipe
from sightline.records import Catalog, Recipe
from sightline.records.study import BestAgainstDefault
from sightline.runs import executor
from sightline.search_space import Choice, Space, Suggest
from sightline.store import Cache
from sightline.studies import recipe_edit, search_spaces, search_summary, tune
from sightline.training import methods, tuning
from sightline.training.method import SearchContext
from sightline.training.methods import finetune, frozen, scratch
from sightline.training.optimizers import OPTIMIZERS

FINISHED = ("complete", "pruned", "repeated", "rejected", "failed")


def without_times(data: Any) -> Any:
    """Return a study's data without times and names, which differ between equal studies."""
    if isinstance(data, dict):
        return {k: without_times(v) for k, v in data.items() if k not in ("created", "seconds", "name", "photos", "id")}
    return [without_times(v) for v in data] if isinstance(data, list) else data


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search only heads that fit within milliseconds."""
    for name, kind in heads.HEADS.items():
        if name not in ("logistic", "knn", "centroid"):
            monkeypatch.setitem(heads.HEADS, name, dataclasses.replace(kind, search_space={}))


RATES = {"scratch": scratch.RATES, "frozen": frozen.RATES, "finetune": finetune.SEARCH_RATES}


def propose(recipe: Recipe, suggest: Suggest, context: SearchContext) -> Recipe:
    """Draw the next recipe of a search."""
    return search_spaces.search_space_of(recipe)(recipe, suggest, context)


def random_draws(seed: int) -> Suggest:
    """Draw from search spaces without Optuna, both ends included."""
    draws = np.random.default_rng(seed)

    def suggest(name: str, space: Space) -> Any:
        if isinstance(space, Choice):
            return space.options[draws.integers(len(space.options))]
        share = draws.choice([0.0, 1.0, draws.random()])
        low, high = (math.log(space.low), math.log(space.high)) if space.log else (space.low, space.high)
        value = low + share * (high - low)
        value = min(max(math.exp(value) if space.log else value, space.low), space.high)
        return round(value) if space.whole else value

    return suggest


@pytest.mark.parametrize("method", [name for name, method in methods.METHODS.items() if method.search_space is not None])
@pytest.mark.parametrize("seed", range(5))
def test_every_drawn_recipe_is_valid(method: str, seed: int, cache: Cache, tmp_path: Path) -> None:
    backbone = {"scratch": "cnn", "warmstart": str(tmp_path), "features": "pixels"}.get(method, "resnet10t")
    recipe = Recipe(method=method, backbone=backbone, weights="random", settings={"epochs": 3} if method != "features" else {})
    proposed = propose(recipe, random_draws(seed), SearchContext((backbone,), 32))
    if method in ("features", "scratch"):
        recipe_edit.check(proposed, 10, cache)
    else:  # without building the network each time
        recipe_edit.build(proposed)
        from sightline.training import augment

        augment.policy_for(proposed.settings["augment"], np.zeros((1, 8, 8, 3), np.uint8))
    assert proposed.seed == recipe.seed
    assert method == "features" or proposed.settings["epochs"] == 3  # what is not searched stays


@pytest.mark.slow
@pytest.mark.parametrize("method", ["features", "frozen", "finetune"])
def test_networks_that_do_not_accept_the_image_size_are_not_tried(
    method: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = networks.describe_recipe  # with random weights: published ones are not on every machine
    monkeypatch.setattr(
        search_spaces.networks,
        "describe_recipe",
        lambda recipe, cache: describe(dataclasses.replace(recipe, weights="random"), cache),
    )
    monkeypatch.setattr(search_spaces.networks, "download_bytes", lambda *_: None)
    monkeypatch.setattr(search_spaces, "BACKBONES", ("inception_v3", "resnet18"))
    fixed = Recipe(method=method, image_size=64)
    assert search_spaces.here(fixed, 64, None, cache).backbones == (fixed.backbone, "resnet18")
    assert search_spaces.here(dataclasses.replace(fixed, image_size=None), 64, None, cache).backbones == (
        fixed.backbone,
        "inception_v3",
        "resnet18",
    )


@pytest.mark.parametrize("policy", tuning.POLICY_NAMES)
def test_the_search_draws_the_strength_of_augmentation(policy: str) -> None:
    from sightline.training import augment

    assert set(tuning.POLICY_NAMES) == set(augment.POLICIES)
    assert tuning.strengthened(policy, 1.0) == policy
    image = np.zeros((1, 8, 8, 3), np.uint8)
    plain, strong = (augment.policy_for(p, image)[1] for p in (policy, tuning.strengthened(policy, 2)))
    assert strong.span("rotation")[1] == min(180, 2 * plain.span("rotation")[1])
    assert strong.flip == plain.flip


@pytest.mark.slow
def test_the_number_of_parameters_equals_that_of_the_fitted_classifier(divided: Catalog, cache: Cache, tmp_path: Path) -> None:
    for recipe in (
        Recipe(method="scratch", backbone="cnn(filters=[4, 8])", image_size=16, settings={"epochs": 1}),
        Recipe(backbone="pixels", head="logistic", image_size=8, settings={"head": {"C": 1.0}}),
        Recipe(backbone="pixels", head="mlp", image_size=8, settings={"head": {"units": [[6, 0.1]], "epochs": 1}}),
    ):
        run = train.train(divided, recipe, tmp_path / recipe.id, cache=cache)
        said = run.data["ladder"][0]["parameters"]
        # What the run counts has, beside what is learnt, the features' mean.
        width = 192 if recipe.method == "features" else 0
        if recipe.method == "scratch":
            made = networks.random_network(
                "cnn(batch_norm=True, pool=[2, 1], filters=[4, 8])", image_size=16, classes=10, meta=True
            )
            assert methods.count_parameters(recipe, 10, 64, cache) == sum(p.numel() for p in made.net.parameters())
        else:
            assert methods.count_parameters(recipe, 10, 64, cache) == said - width


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_no_test_label_is_ever_read(divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path) -> None:
    labels, splits = divided.column("label"), divided.column("split")
    test = [i for i, s in enumerate(splits) if s == "test"]
    turned = dict(zip(test, [labels[i] for i in test[1:] + test[:1]], strict=True))
    assert sum(labels[i] != v for i, v in turned.items()) >= 5
    turned |= dict.fromkeys(test[3:5], "a class that only the test split has")
    poisoned = divided.with_column("label", [turned.get(i, v) for i, v in enumerate(labels)])
    contents = ["0" * 64 if i in test[:3] else c for i, c in enumerate(poisoned.column("content"))]  # nor a test image
    poisoned = poisoned.with_column("content", contents)
    one, two = (tune_command.tune(c, pixels, tmp_path / n, trials=4, cache=cache) for c, n in ((divided, "a"), (poisoned, "b")))
    assert without_times(one.data) == without_times(two.data)
    assert one.best_recipe.read_bytes() == two.best_recipe.read_bytes()
    assert one.data["images"] == sum(s in ("train", "val") for s in splits)


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_an_interrupted_search_equals_an_uninterrupted_one(
    divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune_command.tune(divided, pixels, tmp_path / "whole", trials=8, cache=cache)
    fit, calls = methods.fit, [0]

    def dying(context: Any, recipe: Recipe) -> Any:
        calls[0] += 1
        if calls[0] in (3, 6):
            raise KeyboardInterrupt
        return fit(context, recipe)

    monkeypatch.setattr(methods, "fit", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune_command.tune(divided, pixels, tmp_path / "cut", trials=8, cache=cache)
        assert not (tmp_path / "cut" / "study.json").exists()
    done = tune_command.tune(divided, pixels, tmp_path / "cut", trials=8, cache=cache)
    assert without_times(done.data) == without_times(whole.data)
    assert calls[0] == 2 + len([t for t in done.data["trials"] if t["state"] in ("complete", "pruned")])

    monkeypatch.setattr(methods, "fit", None)  # nothing is left to fit
    again = tune_command.tune(divided, pixels, tmp_path / "cut", trials=8, cache=cache)
    assert without_times(again.data) == without_times(whole.data)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_recipe_is_the_first_trial_and_the_best_one_runs(
    divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path
) -> None:
    lines: list[str] = []
    done = tune_command.tune(divided, pixels, tmp_path / "s", trials=9, say=lines.append, cache=cache)
    data = done.data
    assert data["trials"][0]["params"] == {} and data["trials"][0]["recipe"]["head"] == "logistic"
    assert sum(data["counts"].values()) == len(data["trials"]) == len(lines)
    assert sum(n for s, n in data["counts"].items() if s != "repeated") == 9
    complete = [t for t in data["trials"] if t["state"] == "complete"]
    best = next(t for t in complete if t["number"] == data["best"])
    assert best["accuracy"] == max(t["accuracy"] for t in complete)
    assert [p["best"] for p in data["path"]] == np.maximum.accumulate([t["accuracy"] for t in complete]).tolist()
    assert sum(data["importance"].values()) == pytest.approx(1) or data["importance"] == {}
    run = train.train(divided, read_recipe(done.best_recipe), tmp_path / "best", cache=cache)
    assert run.data["val"]["accuracy"] == pytest.approx(best["accuracy"])
    assert not data["comparison"]["told_apart"] or data["comparison"]["p"] < 0.05
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert all(line.replace("'", "&#39;") in page for line in data["words"])


@pytest.mark.slow
def test_training_by_epochs_is_searched_and_large_networks_are_skipped(
    divided: Catalog, tiny: Recipe, cache: Cache, tmp_path: Path
) -> None:
    done = tune_command.tune(divided, tiny, tmp_path / "s", trials=3, max_parameters=9000, cache=cache)
    trials = done.data["trials"]
    assert {t["state"] for t in trials} <= set(FINISHED)
    assert all(t["parameters"] > 9000 and t["accuracy"] is None for t in trials if t["state"] == "rejected")
    assert all(t["parameters"] <= 9000 for t in trials if t["state"] == "complete")
    assert done.data["counts"]["rejected"] >= 1
    recipe = read_recipe(done.best_recipe)
    assert (recipe.method, recipe.settings["epochs"]) == ("scratch", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_recipe_above_the_limit_is_fitted_but_cannot_win(
    divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path
) -> None:
    done = tune_command.tune(divided, pixels, tmp_path / "s", trials=8, max_parameters=500, cache=cache)
    assert done.data["trials"][0]["parameters"] == 1930 and done.data["best"] != 0
    best = next(t for t in done.data["trials"] if t["number"] == done.data["best"])
    assert best["parameters"] <= 500
    assert "The starting recipe has 1,930 parameters, more than 500." in done.data["words"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_time_ends_a_search_and_more_time_continues_it(divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path) -> None:
    done = tune_command.tune(divided, pixels, tmp_path / "s", trials=5, budget_s=1e-3, cache=cache)
    assert len(done.data["trials"]) == 1
    assert done.data["words"][-1] == "1 of 5 trials fit into the time limit; the same command continues the search."
    done = tune_command.tune(divided, pixels, tmp_path / "s", trials=5, cache=cache)
    assert sum(n for s, n in done.data["counts"].items() if s != "repeated") == 5


class _Backwards(executor.Local):
    """Fits the proposals of a round in another order, from pickled tasks, as machines of a cluster do."""

    def search(self, *arguments: Any, **options: Any) -> list[tune.Trial]:
        def run(tasks: Any) -> list[tune.Outcome]:
            copies = [pickle.loads(pickle.dumps(dataclasses.replace(t, context=None))) for t in tasks]
            pairs = list(zip(copies, tasks, strict=True))
            assert len(tasks) <= 3
            fits = [tune.fit_task(dataclasses.replace(copy, context=task.context)) for copy, task in reversed(pairs)]
            return fits[::-1]

        return tune.search(*arguments, **options, run=run)


@pytest.mark.usefixtures("quick")
def test_the_trials_of_a_round_do_not_depend_on_where_they_are_fitted(
    divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path
) -> None:
    here = tune_command.tune(divided, pixels, tmp_path / "here", trials=7, concurrent=3, cache=cache)
    with executor.using(_Backwards()):
        there = tune_command.tune(divided, pixels, tmp_path / "there", trials=7, concurrent=3, cache=cache)
    assert without_times(there.data) == without_times(here.data)
    assert sum(n for s, n in here.data["counts"].items() if s not in ("repeated", "rejected")) == 7


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_a_trial_that_runs_out_of_time_is_not_counted(
    divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, before = methods.fit, tune_command.tune(divided, pixels, tmp_path / "s", trials=3, cache=cache)

    def slow(context: Any, recipe: Recipe) -> Any:
        time.sleep(1.1)
        context.progress("features", 1, 2)
        return fit(context, recipe)

    monkeypatch.setattr(methods, "fit", slow)
    began = time.perf_counter()
    cut = tune_command.tune(divided, pixels, tmp_path / "s", trials=6, budget_s=1.0, cache=cache)
    assert time.perf_counter() - began < 20
    assert without_times(cut.data["trials"]) == without_times(before.data["trials"])
    monkeypatch.setattr(methods, "fit", fit)
    after = tune_command.tune(divided, pixels, tmp_path / "s", trials=6, cache=cache)
    whole = tune_command.tune(divided, pixels, tmp_path / "whole", trials=6, cache=cache)
    assert without_times(after.data) == without_times(whole.data)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_trial_interrupted_before_it_was_closed_is_closed_on_resume(
    divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = tune._close

    def dying(optuna: Any, search: Any, number: int, known: Any) -> None:
        if number == 3:
            raise KeyboardInterrupt
        tell(optuna, search, number, known)

    monkeypatch.setattr(tune, "_close", dying)
    with pytest.raises(KeyboardInterrupt):
        tune_command.tune(divided, pixels, tmp_path / "cut", trials=6, cache=cache)
    monkeypatch.setattr(tune, "_close", tell)
    done = tune_command.tune(divided, pixels, tmp_path / "cut", trials=6, cache=cache)
    once = tune_command.tune(divided, pixels, tmp_path / "a", trials=6, cache=cache)
    assert without_times(done.data) == without_times(once.data)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_failed_trial_is_recorded(
    divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = methods.fit

    def failing(context: Any, recipe: Recipe) -> Any:
        if recipe.image_size != 8:
            raise SightlineError("it diverged")
        return fit(context, recipe)

    monkeypatch.setattr(methods, "fit", failing)
    done = tune_command.tune(divided, pixels, tmp_path / "s", trials=6, cache=cache)
    assert {t["why"] for t in done.data["trials"] if t["state"] == "failed"} == {"it diverged"}
    with pytest.raises(SightlineError, match="it diverged"):
        tune_command.tune(divided, dataclasses.replace(pixels, image_size=9), tmp_path / "t", trials=2, cache=cache)


def test_a_fit_that_is_unlikely_to_win_is_pruned(divided: Catalog, pixels: Recipe, cache: Cache, tmp_path: Path) -> None:
    context, storage = _work(divided, cache), tmp_path / "optuna.db"
    with tune.quiet() as optuna:
        search = tune._open(optuna, storage, trains=True)
        for _ in range(tune.STARTUP):
            trial = search.ask()
            for step in range(1, 10):
                trial.report(0.9, step)
            search.tell(trial, 0.9)
        asking = search.ask()
        watched = tune._with_pruning(search, context, Recipe(method="scratch"), asking)
        assert watched.watch is not None
        watched.watch(0.2, 0.1)  # too early to say
        watched.watch(0.35, 0.85)  # below the median, but within noise
        with pytest.raises(tune._Pruned, match=r"stopped early after 50% at an accuracy of 0\.100"):
            watched.watch(0.5, 0.1)


def _work(divided: Catalog, cache: Cache) -> Any:
    from sightline.training.context import Context

    return Context(divided, np.arange(len(divided)), divided.classes, cache)


def test_a_pruned_training_is_recorded_as_pruned(
    divided: Catalog, tiny: Recipe, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = methods.fit

    def hopeless(context: Any, recipe: Recipe) -> Any:
        if recipe != tiny:
            raise tune._Pruned("stopped early after 30% at an accuracy of 0.1")
        return fit(context, recipe)

    monkeypatch.setattr(methods, "fit", hopeless)
    done = tune_command.tune(divided, tiny, tmp_path / "s", trials=3, cache=cache)
    assert done.data["counts"]["pruned"] == 2 and done.data["best"] == 0
    assert done.data["words"][0].startswith("No trial was better than the starting recipe")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trials": 0}, "--trials cannot be 0"),
        ({"budget_s": 0.0}, "the budget must be more than 0 s, not 0 s"),
        ({"max_parameters": 0.5}, "--max-parameters cannot be 0.5"),
        ({"concurrent": 0}, "--concurrent cannot be 0"),
    ],
)
def test_invalid_numbers_are_refused(divided: Catalog, options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=words):
        tune_command.tune(divided, Recipe(backbone="pixels"), tmp_path / "s", **options)


def test_a_method_without_settings_is_not_searched(divided: Catalog, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is nothing to tune in baseline"):
        tune_command.tune(divided, Recipe(method="baseline"), tmp_path / "s")


def test_a_winner_within_noise_is_reported_as_such() -> None:
    base = tune.Trial(0, Recipe(), {}, "complete", 0.90, 0.3)
    best = dataclasses.replace(base, number=3, accuracy=0.92)

    def sentences(best: tune.Trial, difference: float, p: float, **options: Any) -> list[str]:
        comparison = BestAgainstDefault(difference, difference, difference, p, significant=p < 0.05)
        return search_summary.sentences(best, base, comparison, optimism=None, images=100, max_parameters=None, **options)

    assert sentences(best, 0.02, 0.3) == [
        "Trial 3 came first, 92.0 % against 90.0 %, but 2.0 percentage points on 100 images may be due to chance (p = 0.3): "
        "the starting recipe may be as good."
    ]
    tied = "Trial 3 and the starting recipe are tied, 92.0 % each on 100 images; the trial has the lower log loss."
    assert sentences(best, 0.0, 1.0) == [tied]
    (line,) = sentences(base, 0.0, 1.0, tried=1)
    assert line.startswith("Only the starting recipe was tried (90.0 %)") and "--budget" in line
    assert sentences(best, 0.02, 0.003) == ["Trial 3 is better than the starting recipe: 92.0 % against 90.0 % (p = 0.003)."]


@pytest.mark.parametrize("method", ["scratch", "frozen", "finetune"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_learning_rates_are_searched_in_the_range_of_the_optimizer(method: str, optimizer: str) -> None:
    """Each range contains the default learning rate, well inside."""
    asked: dict[str, Any] = {}

    def suggest(name: str, space: Space) -> Any:
        asked[name] = space
        return random_draws(0)(name, space)

    backbone = "cnn" if method == "scratch" else "mobilenetv2_100"
    recipe = Recipe(method=method, backbone=backbone, settings={"optimizer": optimizer})
    proposed = propose(recipe, suggest, SearchContext((backbone,), 32))
    rates = asked["learning_rate"]
    assert rates == RATES[method][optimizer] and proposed.settings["optimizer"] == optimizer
    own = finetune.RATES[optimizer] if method == "finetune" else OPTIMIZERS[optimizer].learning_rate
    assert 2 * rates.low <= own <= rates.high / 2 and rates.log


def test_a_method_without_a_set_optimizer_uses_its_default() -> None:
    asked: dict[str, Any] = {}

    def suggest(name: str, space: Space) -> Any:
        asked[name] = space
        return random_draws(0)(name, space)

    propose(Recipe(method="finetune", backbone="mobilenetv2_100"), suggest, SearchContext(("mobilenetv2_100",), 32))
    assert asked["learning_rate"] == RATES["finetune"]["sgd"]
    with pytest.raises(RequestError, match="lion"):
        propose(Recipe(method="scratch", settings={"optimizer": "lion"}), suggest, SearchContext(("cnn",), 32))


def test_progressive_resizing_is_searched_if_the_recipe_has_it() -> None:
    found = set()
    for seed in range(8):
        recipe = Recipe(method="scratch", backbone="cnn", settings={"resize_from": 0.5})
        found.add(propose(recipe, random_draws(seed), SearchContext(("cnn",), 64)).settings["resize_from"])
        plain = propose(dataclasses.replace(recipe, settings={}), random_draws(seed), SearchContext(("cnn",), 64))
        assert "resize_from" not in plain.settings
    assert found == {0.5, 1.0}
