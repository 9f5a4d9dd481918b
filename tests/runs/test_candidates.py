"""Candidates: fast ones first, those that cannot win are skipped, the best network is fine-tuned."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline import networks
from sightline.deadline import Deadline
from sightline.errors import DataError, RequestError
from sightline.records import Backbone, Catalog, Predictions, Preprocess, Recipe
from sightline.runs import candidates
from sightline.runs.plan import BEST, Plan, PlannedStep, Request, check, make_plan
from sightline.store import Cache
from sightline.training import methods
from sightline.training.context import Candidate, Context

NET = Backbone("net", "timm", Preprocess(), 8, weights_hash="x", parameters=1_000_000, pretrained_on="ImageNet-1k")


def fake(method: str, right: int, n: int = 10, name: str = "net", source: str = "timm") -> Candidate:
    """Return a candidate with the given validation predictions and names."""
    backbone = dataclasses.replace(NET, name=name, source=source)  # type: ignore[arg-type]
    card = SimpleNamespace(method=method, backbone=backbone, recipe=Recipe(method=method, backbone=name))
    true = np.array([1] * right + [0] * (n - right))
    val = Predictions(tuple(map(str, range(n))), ("a", "b"), true, np.tile([0.1, 0.9], (n, 1)))
    return Candidate(SimpleNamespace(card=card), f"{name} + {method}", val, "val", 1.0)  # type: ignore[arg-type]


class SlowClock:
    """Clock that advances only when work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def climb(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    steps: list[PlannedStep],
    given: dict[str, Candidate],
    budget_s: float = 100.0,
    cost_s: dict[str, float] | None = None,
) -> tuple[candidates.Candidates, list[str], list[Recipe]]:
    """Climb with fitted candidates by method and backbone, each of which takes so many seconds (0 where none are named)."""
    tried: list[Recipe] = []
    clock = SlowClock()

    def fit(context: Context, recipe: Recipe) -> list[Candidate]:
        tried.append(recipe)
        key = recipe.method if recipe.method in given else f"{recipe.method} {recipe.backbone}"
        seconds = (cost_s or {}).get(recipe.method, 0.0)
        images = 100
        for done in range(images + 1 if seconds else 0):  # one report for each hundredth of the work
            context.progress("features", done, images)
            clock.now += seconds / images
        return [dataclasses.replace(given[key], seconds=seconds or 1.0)]

    monkeypatch.setattr(methods, "fit", fit)
    monkeypatch.setattr(Context, "split", lambda self, *names: np.arange(40))
    monkeypatch.setattr(candidates.folders, "clusters_of", lambda catalog, cluster, answers: np.arange(len(answers)))
    said: list[str] = []
    context = Context(Catalog.__new__(Catalog), np.zeros(0), (), Cache(tmp_path))
    found = candidates.fit_candidates(Plan(tuple(steps)), context, Deadline.after(budget_s, clock), said.append)
    said.append(f"took {clock.now:.1f} s")
    return found, said, tried


def step(method: str, backbone: str = "net", why: str | None = None, seconds: float = 1.0, ahead: bool = False) -> PlannedStep:
    return PlannedStep(Recipe(method=method, backbone=backbone), seconds, why, measured=True, unless_far_ahead=ahead)


def test_fine_tuning_uses_the_network_with_the_best_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {
        "features a": fake("features", 7, name="a"),
        "features b": fake("features", 8, name="b"),
        "features pixels": fake("features", 9, name="pixels", source="pixels"),
        "finetune": fake("finetune", 9, name="b"),
    }
    steps = [step("features", "a"), step("features", "b"), step("features", "pixels"), step("finetune", BEST)]
    found, said, tried = climb(monkeypatch, tmp_path, steps, given)
    assert [r.backbone for r in tried] == ["a", "b", "pixels", "b"], "pixels are no network that could learn"
    assert said[-2].startswith("finetune on b: 0.900") and not found.skipped


def test_candidates_that_cannot_win_are_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"baseline": fake("baseline", 10), "shortcut": fake("shortcut", 10), "features": fake("features", 10)}
    steps = [step("baseline"), step("features"), step("scratch"), step("finetune"), step("shortcut")]
    found, said, tried = climb(monkeypatch, tmp_path, steps, given)
    assert [r.method for r in tried] == ["baseline", "features", "shortcut"], "a baseline that is always right stops nothing"
    why = "it cannot win any more: net + features has all 10 held-out images right"
    assert found.skipped == [("scratch", "net", why), ("finetune", "net", why)]
    assert f"net from scratch: skipped, {why}" in said and f"finetune on net: skipped, {why}" in said


def test_a_spent_budget_and_a_failed_candidate_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {"baseline": fake("baseline", 5), "features": fake("features", 6)}
    found, _, tried = climb(monkeypatch, tmp_path, [step("baseline"), step("features")], given, budget_s=0.0)
    assert [r.method for r in tried] == ["baseline"] and found.skipped == [("features", "net", "no time is left in the budget")]
    steps = [step("baseline"), step("finetune", BEST), step("scratch", why="about 900 s")]
    found, _, _ = climb(monkeypatch, tmp_path, steps, given)
    assert [s[2] for s in found.skipped] == ["no network gave features", "about 900 s"]
    with pytest.raises(DataError, match="no method was tried"):
        climb(monkeypatch, tmp_path, [step("scratch", why="too long")], given)


# --------------------------------------------------------------------------------------------------- what is given up


def course(leader: int, accuracies: list[float], images: int = 40) -> str | None:
    """How a training of ten epochs is given up against a leader of so many right answers in 100; None where it is not."""
    judge = candidates.EarlyGiveUp(fake("features", leader, 100), images)
    try:
        for epoch, accuracy in enumerate(accuracies, 1):
            judge(epoch / 10, accuracy)
    except candidates._GivenUp as reason:
        return str(reason)
    return None


def test_a_training_that_falls_too_far_behind_is_given_up() -> None:
    told = "stopped early after 40% of its epochs (0.50; net + features already has 0.85)"
    assert course(85, [0.4, 0.48, 0.5, 0.5, 0.9]) == told, "not before, and no later"
    assert course(85, [0.2, 0.3, 0.5, 0.6, 0.8]) is None, "it grows quickly enough"
    assert course(85, [0.7, 0.7, 0.7, 0.75, 0.74]) is None, "40 images cannot tell these apart"
    late = course(85, [0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6])
    assert late is not None and late.startswith("stopped early after 60%"), "the doubling before 0.6 may be repeated in part"
    assert course(100, [0.5] * 10) is not None and course(100, [0.9] * 10) is None
    assert course(85, [0.5, 0.5, 0.5, 0.5], images=4) is None, "four images say nothing"
    assert course(85, [math.nan, math.nan, math.nan, math.nan]) is None


def test_only_a_run_with_a_budget_gives_up_candidates_and_after_five_epochs() -> None:
    told = "stopped early after 75% of its time (0.40; net + features already has 0.85)"
    for deadline_s, expected in ((100.0, told), (math.inf, None)):
        clock = SlowClock()
        judge = candidates.EarlyGiveUp(fake("features", 85, 100), 40, Deadline(deadline_s, clock))
        reason, epochs = None, 0
        try:
            for epoch in range(1, 7):
                clock.now, epochs = 15.0 * epoch, epoch
                judge(epoch / 100, 0.4)
        except candidates._GivenUp as error:
            reason = str(error)
        assert reason == expected and epochs == (5 if expected else 6)


def test_a_hopeless_training_is_stopped_and_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Context] = {}

    def fit(context: Context, recipe: Recipe) -> list[Candidate]:
        given[recipe.method] = context
        if recipe.method == "scratch":
            for epoch in range(1, 11) if context.watch is not None else ():
                context.watch(epoch / 10, 0.5)
        return [fake(recipe.method, 34 if recipe.method == "features" else 35, 40)]

    monkeypatch.setattr(methods, "fit", fit)
    monkeypatch.setattr(Context, "split", lambda self, *names: np.arange(40))
    said: list[str] = []
    context = Context(Catalog.__new__(Catalog), np.zeros(0), (), Cache(tmp_path))
    steps = (step("baseline"), step("features"), step("finetune"), step("scratch"))
    found = candidates.fit_candidates(Plan(steps), context, Deadline.after(100.0), said.append)
    why = "stopped early after 40% of its epochs (0.50; net + finetune already has 0.88)"
    assert found.skipped == [("scratch", "net", why)] and f"net from scratch: {why}" in said
    assert [c.classifier.card.method for c in found.candidates] == ["baseline", "features", "finetune"]
    assert given["finetune"].deadline.at == given["scratch"].deadline.at - 1, "a second stays for scratch behind it"
    assert math.isinf(given["baseline"].deadline.left()) and given["baseline"].watch is None


# ---------------------------------------------------------------------------------------------------------- a slow machine


@pytest.mark.parametrize(("right", "skipped"), [(97, True), (80, False)])
def test_scratch_is_skipped_where_a_pretrained_network_is_far_ahead(
    right: int, skipped: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The leader's interval at 97 of 100: from 0.915; 8.5 % of errors are less than a quarter of the baseline's half."""
    leader = fake("features", right, 100)
    true = np.arange(100) % 2
    probs = np.where(np.arange(100)[:, None] < right, np.eye(2)[true], np.eye(2)[1 - true])
    leader = dataclasses.replace(leader, val=dataclasses.replace(leader.val, y_true=true, probs=probs))
    given = {"features": leader, "scratch": fake("scratch", 6), "baseline": fake("baseline", 5)}
    steps = [step("baseline"), step("features"), step("scratch", ahead=True)]
    found, _, tried = climb(monkeypatch, tmp_path, steps, given)
    assert ("scratch" not in [r.method for r in tried]) == skipped
    if skipped:
        assert found.skipped[0][2].startswith("net + features is far ahead: the lower end of its 95 % interval (91.5%)")
        assert "50.0%" in found.skipped[0][2]
    _, _, tried = climb(monkeypatch, tmp_path, [*steps[:2], step("scratch")], given)
    assert tried[-1].method == "scratch", "whoever names scratch gets it"


@pytest.mark.parametrize("slow", [1, 3, 10, 100])
def test_no_step_overruns_the_budget_on_a_slow_machine(slow: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every step takes so many times its estimate: promising ones come first, what does not fit is skipped or stopped."""
    estimates = {"baseline": 1.0, "shortcut": 2.0, "features": 10.0, "scratch": 20.0}
    given = {m: fake(m, 5 + i) for i, m in enumerate(estimates)}
    steps = [step(m, seconds=s) for m, s in estimates.items()]
    cost_s = {m: slow * s for m, s in estimates.items() if m != "baseline"}
    found, said, _ = climb(monkeypatch, tmp_path, steps, given, budget_s=60.0, cost_s=cost_s)
    took = float(said[-1].split()[1])
    assert took <= 60 * 1.2
    fitted = [c.classifier.card.method for c in found.candidates]
    expected = {1: 4, 3: 3, 10: 2, 100: 1}[slow]
    assert fitted == list(estimates)[:expected] and len(found.skipped) == 4 - expected
    assert not re.search(r"-\d", " ".join(said)), "no negative number"
    if slow == 100:
        assert "features of 100 images would take about 200 s here" in found.skipped[0][2]
        assert took < 40, "measured, not waited for"
    if slow == 3:
        assert "it takes about 60 s here" in found.skipped[0][2], "the estimate follows the measured pace"


# ------------------------------------------------------------------------------------------------------------------ plan


@pytest.fixture
def photos(digits: Path) -> Catalog:
    return catalogs.scan(digits)


def planned(request: Request, photos: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch, *names: str) -> Plan:
    """A plan on a machine on which some networks' weights are."""

    def describe(recipe: Recipe, _: Cache) -> Backbone:
        if recipe.backbone not in names:
            from sightline.errors import WeightsError

            raise WeightsError(f"no weights of {recipe.backbone}")
        return dataclasses.replace(NET, name=recipe.backbone)

    monkeypatch.setattr(networks, "describe_recipe", describe)
    monkeypatch.setattr(networks, "download_bytes", lambda *_: None)
    return make_plan(request, photos, cache, "cpu", lambda line: None)


def test_the_candidates_end_with_fine_tuning(photos: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    two = list(networks.DEFAULTS)[:2]
    plan = planned(Request("photos", budget_s=3600), photos, cache, monkeypatch, *two)
    found = [(s.recipe.method, s.recipe.backbone) for s in plan.steps]
    assert found[-2:] == [("finetune", BEST), ("scratch", "cnn")]
    one = planned(Request("photos", budget_s=3600), photos, cache, monkeypatch, two[0])
    assert (one.steps[-2].recipe.method, one.steps[-2].recipe.backbone) == ("finetune", two[0])
    none = planned(Request("photos", budget_s=3600), photos, cache, monkeypatch)
    assert "finetune" not in [s.recipe.method for s in none.steps]


@pytest.mark.parametrize(
    ("here", "used"),
    [
        (("quick", "substitute"), ("quick", "substitute")),
        (("quick", "strong", "substitute"), ("quick", "strong")),
        (("quick", "strong", "foundation", "substitute"), ("quick", "strong", "foundation")),
        ((), ()),
    ],
)
def test_the_default_networks_include_a_substitute_only_if_stronger_ones_are_missing(
    here: tuple[str, ...], used: tuple[str, ...], photos: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_role = {default.role: name for name, default in networks.DEFAULTS.items()}
    plan = planned(Request("photos"), photos, cache, monkeypatch, *(by_role[role] for role in here))
    assert [n for n in plan.backbones if n != "pixels"] == [by_role[role] for role in used]
    for role in used:
        assert any(line.startswith(f"  {by_role[role]} ({role}): ") for line in plan.lines)
    skipped = {"substitute"} if {"strong", "foundation"} & set(here) else set()
    assert set(plan.missing) == {name for role, name in by_role.items() if role not in {*here, *skipped}}
    assert any("expect a much lower accuracy" in line for line in plan.lines) == (not here)
    assert not any("SIGHTLINE_WEIGHTS" in line for line in plan.lines)


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


def test_every_method_can_be_requested(photos: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(networks.DEFAULTS))
    request = Request("photos", backbones=(name,), methods=tuple(methods.METHODS), budget_s=3600)
    check(request)
    plan = planned(request, photos, cache, monkeypatch, name)
    assert [s.recipe.method for s in plan.steps] == list(methods.METHODS)
    assert [s.recipe.backbone for s in plan.steps if methods.METHODS[s.recipe.method].pretrained] == [name] * 3
    with pytest.raises(RequestError, match="warmstart needs an earlier classifier"):
        planned(Request("photos", methods=("warmstart",)), photos, cache, monkeypatch)


def test_a_run_can_combine_its_candidates_in_an_ensemble(digits: Path, cache: Cache) -> None:
    scanned = catalogs.scan(digits)
    found = catalogs.split(scanned, clusters=catalogs.find_duplicates(scanned, cache))
    context = Context(found, np.arange(len(found)), found.classes, cache)
    steps = [
        PlannedStep(Recipe(method="baseline"), 1.0),
        PlannedStep(Recipe(backbone="pixels", head="centroid"), 1.0),
        PlannedStep(Recipe(method="scratch", backbone="cnn(filters=[4])", settings={"epochs": 1}), 1.0),
        PlannedStep(Recipe(method="ensemble", backbone="none"), 1.0),
    ]
    climbed = candidates.fit_candidates(Plan(tuple(steps)), context, Deadline.after(600.0), lambda line: None)
    made = climbed.candidates[-1].classifier
    assert [c.method for c in made.card.members] == ["features", "scratch"], "a baseline looks at nothing"
    assert made.card.weights == (0.5, 0.5)
