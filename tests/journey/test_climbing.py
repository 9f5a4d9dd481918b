"""The ladder: cheap before dear, nothing that cannot win any more, the network that did best is the one that learns on."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline import networks
from sightline.errors import DataError, RequestError
from sightline.journey import climbing
from sightline.journey.request import BEST, BUDGET_S, Plan, Request, Step, check, make_plan
from sightline.records import Backbone, Catalog, Predictions, Preprocess, Recipe
from sightline.store import Cache
from sightline.training import methods
from sightline.training.work import Candidate, Work

NET = Backbone("net", "timm", Preprocess(), 8, weights_hash="x", parameters=1_000_000)


def fake(method: str, right: int, n: int = 10, name: str = "net", source: str = "timm") -> Candidate:
    """A candidate of which only the validation answers and the names matter."""
    backbone = dataclasses.replace(NET, name=name, source=source)  # type: ignore[arg-type]
    card = SimpleNamespace(method=method, backbone=backbone, recipe=Recipe(method=method, backbone=name))
    true = np.array([1] * right + [0] * (n - right))
    val = Predictions(tuple(map(str, range(n))), ("a", "b"), true, np.tile([0.1, 0.9], (n, 1)))
    return Candidate(SimpleNamespace(card=card), f"{name} + {method}", val, "validation", 1.0)  # type: ignore[arg-type]


def climb(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: list[Step], given: dict[str, Candidate], budget_s: float = 100.0
) -> tuple[climbing.Climbed, list[str], list[Recipe]]:
    """Climb with fitted candidates by method and backbone."""
    tried: list[Recipe] = []

    def fit(work: Work, recipe: Recipe) -> list[Candidate]:
        tried.append(recipe)
        key = recipe.method if recipe.method in given else f"{recipe.method} {recipe.backbone}"
        return [given[key]]

    monkeypatch.setattr(methods, "fit", fit)
    monkeypatch.setattr(Work, "split", lambda self, *names: np.arange(40))
    said: list[str] = []
    work = Work(Catalog.__new__(Catalog), np.zeros(0), (), Cache(tmp_path))
    return climbing.climb(Plan(tuple(steps)), work, budget_s, said.append), said, tried


def step(method: str, backbone: str = "net", why: str | None = None) -> Step:
    return Step(Recipe(method=method, backbone=backbone), 1.0, why)


def test_fine_tuning_takes_the_network_whose_features_did_best(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {
        "features a": fake("features", 7, name="a"),
        "features b": fake("features", 8, name="b"),
        "features pixels": fake("features", 9, name="pixels", source="pixels"),
        "finetune": fake("finetune", 9, name="b"),
    }
    steps = [step("features", "a"), step("features", "b"), step("features", "pixels"), step("finetune", BEST)]
    found, said, tried = climb(monkeypatch, tmp_path, steps, given)
    assert [r.backbone for r in tried] == ["a", "b", "pixels", "b"], "pixels are no network that could learn"
    assert said[-1].startswith("finetune on b: 0.900") and not found.skipped


def test_what_cannot_win_any_more_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"baseline": fake("baseline", 10), "shortcut": fake("shortcut", 10), "features": fake("features", 10)}
    steps = [step("baseline"), step("features"), step("scratch"), step("finetune"), step("shortcut")]
    found, said, tried = climb(monkeypatch, tmp_path, steps, given)
    assert [r.method for r in tried] == ["baseline", "features", "shortcut"], "a baseline that is always right stops nothing"
    why = "it cannot win any more: net + features has all 10 held-out images right"
    assert found.skipped == [("scratch", "net", why), ("finetune", "net", why)]
    assert f"net from scratch: left out, {why}" in said and f"finetune on net: left out, {why}" in said


def test_a_spent_budget_and_a_failure_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"baseline": fake("baseline", 5), "features": fake("features", 6)}
    found, _, tried = climb(monkeypatch, tmp_path, [step("baseline"), step("features")], given, budget_s=0.0)
    assert [r.method for r in tried] == ["baseline"] and found.skipped == [("features", "net", "the budget is spent")]
    steps = [step("baseline"), step("finetune", BEST), step("scratch", why="about 900 s")]
    found, _, _ = climb(monkeypatch, tmp_path, steps, given)
    assert [s[2] for s in found.skipped] == ["no network gave features", "about 900 s"]
    with pytest.raises(DataError, match="no method was tried"):
        climb(monkeypatch, tmp_path, [step("scratch", why="too long")], given)


# --------------------------------------------------------------------------------------------------- what is given up


def course(leader: int, accuracies: list[float], images: int = 40) -> str | None:
    """How a training of ten epochs is given up against a leader of so many right answers in 100; None where it is not."""
    hope = climbing.Hope(fake("features", leader, 100), images)
    try:
        for epoch, accuracy in enumerate(accuracies, 1):
            hope(epoch / 10, accuracy)
    except climbing._GivenUp as reason:
        return str(reason)
    return None


def test_a_training_that_falls_too_far_behind_is_given_up() -> None:
    told = "given up after 40% of its epochs: 0.50 against 0.85 of net + features"
    assert course(85, [0.4, 0.48, 0.5, 0.5, 0.9]) == told, "not before, and no later"
    assert course(85, [0.2, 0.3, 0.5, 0.6, 0.8]) is None, "it grows quickly enough"
    assert course(85, [0.7, 0.7, 0.7, 0.75, 0.74]) is None, "40 images cannot tell these apart"
    late = course(85, [0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6])
    assert late is not None and late.startswith("given up after 60%"), "the doubling before 0.6 may be repeated in part"
    assert course(100, [0.5] * 10) is not None and course(100, [0.9] * 10) is None
    assert course(85, [0.5, 0.5, 0.5, 0.5], images=4) is None, "four images say nothing"
    assert course(85, [math.nan, math.nan, math.nan, math.nan]) is None


def test_the_clock_counts_only_where_it_shall(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(climbing.time, "perf_counter", lambda: now[0])
    for time_s, expected in ((100.0, "given up after 45% of its time: 0.40 against 0.85 of net + features"), (math.inf, None)):
        now[0] = 0.0
        hope, found = climbing.Hope(fake("features", 85, 100), 40, time_s), None
        try:
            for epoch in (1, 2, 3):
                now[0] += 15.0
                hope(epoch / 100, 0.4)
        except climbing._GivenUp as reason:
            found = str(reason)
        assert found == expected


@pytest.mark.parametrize(("budget_s", "expected"), [(100.0, 0.9 * 100 / 2), (BUDGET_S, BUDGET_S)])
def test_a_hopeless_step_is_said_and_leaves_time_for_fine_tuning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget_s: float, expected: float
) -> None:
    """Under a budget that somebody set half of the time stays for fine-tuning; where nobody set one, it is as it was."""
    given: dict[str, Work] = {}

    def fit(work: Work, recipe: Recipe) -> list[Candidate]:
        given[recipe.method] = work
        if recipe.method == "scratch":
            for epoch in range(1, 11) if work.watch is not None else ():
                work.watch(epoch / 10, 0.5)
        return [fake(recipe.method, 34 if recipe.method == "features" else 35, 40)]

    monkeypatch.setattr(methods, "fit", fit)
    monkeypatch.setattr(Work, "split", lambda self, *names: np.arange(40))
    said: list[str] = []
    work = Work(Catalog.__new__(Catalog), np.zeros(0), (), Cache(tmp_path))
    steps = (step("baseline"), step("features"), step("scratch"), step("finetune"))
    found = climbing.climb(Plan(steps), work, budget_s, said.append)
    why = "given up after 40% of its epochs: 0.50 against 0.85 of net + features"
    assert found.skipped == [("scratch", "net", why)] and f"net from scratch: {why}" in said
    assert [c.classifier.card.method for c in found.candidates] == ["baseline", "features", "finetune"]
    assert given["scratch"].budget_s == pytest.approx(expected, abs=1)
    assert given["finetune"].budget_s == pytest.approx(0.9 * budget_s, abs=1)
    assert given["baseline"].watch is None and given["features"].watch is None
    climbing.climb(Plan((step("baseline"), step("scratch"))), work, budget_s, said.append)
    alone = 0.9 * budget_s if budget_s != BUDGET_S else budget_s
    assert given["scratch"].budget_s == pytest.approx(alone, abs=1), "nothing is planned behind it"


# ------------------------------------------------------------------------------------------------------------------ plan


@pytest.fixture
def photos(digits: Path) -> Catalog:
    return catalogs.scan(digits)


def planned(request: Request, photos: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch, *names: str) -> Plan:
    """A plan on a machine on which some networks' weights are."""

    def describe(name: str, **_: object) -> Backbone:
        if name not in names:
            from sightline.errors import WeightsError

            raise WeightsError(f"no weights of {name}")
        return dataclasses.replace(NET, name=name)

    real = networks.describe
    monkeypatch.setattr(networks, "describe", lambda n, **own: real(n, **own) if n == "pixels" else describe(n, **own))
    monkeypatch.setattr(networks, "download_bytes", lambda *_: None)
    return make_plan(request, photos, cache, "cpu", lambda line: None)


def test_the_ladder_ends_with_fine_tuning(photos: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    two = list(networks.DEFAULTS)[:2]
    plan = planned(Request("photos", budget_s=3600), photos, cache, monkeypatch, *two)
    found = [(s.recipe.method, s.recipe.backbone) for s in plan.steps]
    assert found[-2:] == [("scratch", "cnn"), ("finetune", BEST)]
    one = planned(Request("photos", budget_s=3600), photos, cache, monkeypatch, two[0])
    assert (one.steps[-1].recipe.method, one.steps[-1].recipe.backbone) == ("finetune", two[0])
    none = planned(Request("photos", budget_s=3600), photos, cache, monkeypatch)
    assert "finetune" not in [s.recipe.method for s in none.steps]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request("photos", methods=("scratch",)), ["cnn"]),
        (Request("photos", methods=("scratch",), backbones=("happy_cnn",)), ["happy_cnn"]),
        (Request("photos", methods=("scratch",), backbones=("lenet5", "cnn(filters=[8])")), ["lenet5", "cnn(filters=[8])"]),
        (Request("photos", methods=("features", "scratch"), weights="random", backbones=("pixels", "resnet9")), ["resnet9"]),
        (Request("photos", methods=("scratch",), backbones=("pixels",)), ["cnn"]),
        (Request("photos", weights="random", backbones=("happy_cnn",)), ["cnn"]),  # scratch is not asked for
    ],
)
def test_scratch_trains_the_named_networks(request_: Request, expected: list[str], photos: Catalog, cache: Cache) -> None:
    request_ = dataclasses.replace(request_, image_size=32, budget_s=3600)
    plan = make_plan(request_, photos, cache, "cpu", lambda line: None)
    recipes = [s.recipe for s in plan.steps if s.recipe.method == "scratch"]
    assert [r.backbone for r in recipes] == expected and {r.image_size for r in recipes} == {32}
    assert all(any(f"  {name} from scratch: " in line for line in plan.lines) for name in expected)


def test_scratch_refuses_an_unknown_network_before_anything_is_trained(photos: Catalog, cache: Cache) -> None:
    for name in ("hapy_cnn", "resnet18(depth=3)", "cnn(filters=8)", "nothing_like_it(filters=[8])"):
        with pytest.raises(RequestError):
            make_plan(Request("photos", methods=("scratch",), backbones=(name,)), photos, cache, "cpu", lambda line: None)


def test_the_plan_stays_within_the_budget(photos: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for budget in (20.0, 60.0, 600.0):
        plan = planned(Request("photos", budget_s=budget), photos, cache, monkeypatch, next(iter(networks.DEFAULTS)))
        assert sum(s.seconds for s in plan.steps if s.why_not is None) <= budget + 1e-6


def test_every_method_may_be_named(photos: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(networks.DEFAULTS))
    request = Request("photos", backbones=(name,), methods=tuple(methods.METHODS), budget_s=3600)
    check(request)
    plan = planned(request, photos, cache, monkeypatch, name)
    assert [s.recipe.method for s in plan.steps] == list(methods.METHODS)
    assert [s.recipe.backbone for s in plan.steps if s.recipe.method in methods.PRETRAINED] == [name] * 3
    with pytest.raises(RequestError, match="warmstart needs an earlier classifier"):
        planned(Request("photos", methods=("warmstart",)), photos, cache, monkeypatch)


def test_an_ensemble_of_what_a_run_has_fitted(digits: Path, cache: Cache) -> None:
    scanned = catalogs.scan(digits)
    found = catalogs.split(scanned, clusters=catalogs.duplicates(scanned, cache))
    work = Work(found, np.arange(len(found)), found.classes, cache)
    steps = [
        Step(Recipe(method="baseline"), 1.0),
        Step(Recipe(backbone="pixels", head="centroid"), 1.0),
        Step(Recipe(method="scratch", backbone="cnn(filters=[4])", settings={"epochs": 1}), 1.0),
        Step(Recipe(method="ensemble", backbone="none"), 1.0),
    ]
    climbed = climbing.climb(Plan(tuple(steps)), work, 600.0, lambda line: None)
    made = climbed.candidates[-1].classifier
    assert [c.method for c in made.card.members] == ["features", "scratch"], "a baseline looks at nothing"
    assert made.card.weights == (0.5, 0.5)
