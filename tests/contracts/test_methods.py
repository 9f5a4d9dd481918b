"""Every method returns classifiers that give the same predictions after saving and loading, evaluated on held-out images."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline import classifier, heads
from sightline.errors import DataError, RequestError
from sightline.evaluation import conformal
from sightline.records import Predictions, Recipe
from sightline.store import Cache
from sightline.training import methods
from sightline.training.conformal_fit import with_uncertainty
from sightline.training.context import Candidate, Context
from sightline.training.method import Workload
from tests.conftest import write_few_digits

RECIPES = {
    "baseline": Recipe(method="baseline"),
    "shortcut": Recipe(method="shortcut"),
    "features": Recipe(method="features", backbone="pixels", head="centroid"),
    "scratch": Recipe(method="scratch", backbone="cnn(filters=[4, 8])", settings={"epochs": 1}),
    "frozen": Recipe(method="frozen", backbone="resnet10t", weights="random", image_size=32, settings={"epochs": 1}),
    "finetune": Recipe(
        method="finetune", backbone="resnet10t", weights="random", image_size=32, settings={"epochs": 1, "unfreeze": 1}
    ),
    "warmstart": Recipe(method="warmstart", backbone="EARLIER", settings={"epochs": 1}),
    "ensemble": Recipe(
        method="ensemble", settings={"recipe": {"method": "features", "backbone": "pixels", "head": "centroid"}, "seeds": 2}
    ),
}


def recipe_of(name: str, context: Context, folder: Path) -> Recipe:
    """Return the recipe of a method; for `warmstart`, save an earlier classifier to the folder first."""
    recipe = RECIPES[name]
    if recipe.backbone != "EARLIER":
        return recipe
    kept = np.isin(context.labels, range(4))
    catalog = context.catalog.rows(kept.tolist())
    few = dataclasses.replace(context, catalog=catalog, cluster=context.cluster[kept], classes=context.classes[:4])
    made = methods.fit(few, dataclasses.replace(RECIPES["scratch"], seed=3))[0]
    return dataclasses.replace(recipe, backbone=str(made.classifier.save(folder / "earlier.safetensors")))


def context_of(digits: Path, cache: Cache) -> Context:
    found = catalogs.scan(digits)
    twins = catalogs.find_duplicates(found, cache)
    divided = catalogs.split(found, clusters=twins)
    return Context(divided, catalogs.together(divided, twins), divided.classes, cache)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """300 digits that no test changes; features are computed once."""
    folder = tmp_path_factory.mktemp("methods")
    return context_of(write_few_digits(folder / "digits", 30), Cache(folder / "cache"))


@pytest.fixture
def changeable(digits: Path, cache: Cache) -> Context:
    """300 digits whose files a test may change."""
    return context_of(digits, cache)


def left(answers: Predictions) -> float:
    """Return how much log loss another temperature would still save, in nats."""
    logits = heads.log_probs(answers.probs)
    return heads.log_loss(logits, answers.y_true) - heads.log_loss(
        logits / heads.temperature(logits, answers.y_true), answers.y_true
    )


def check_calibration(recipe: Recipe, context: Context, candidates: list[Candidate], folder: Path) -> None:
    """Check that no other temperature is better, and that the saved classifier gives the calibrated predictions."""
    for found in candidates:
        assert abs(left(found.val)) < 1e-4, found.label
    best = with_uncertainty(context, candidates[0])
    loaded = classifier.load(best.classifier.save(folder / "m.safetensors"))
    if best.estimate == "val" and not methods.METHODS[recipe.method].fits_heads:  # heads are refitted on all images
        wanted = {p: i for i, p in enumerate(best.val.paths)}
        answers = loaded.predict(context.catalog.rows(p in wanted for p in context.catalog.paths), cache=context.cache)
        expected = best.val.probs[[wanted[p] for p in answers.paths]]
        np.testing.assert_allclose(answers.probs, expected, atol=1e-4)
    card = loaded.card
    assert (
        card.uncertainty.images == len(best.val) == len(loaded.limits["scores"]) and card.uncertainty.fitted_on == best.estimate
    )
    np.testing.assert_allclose(loaded.limits["scores"], conformal.nonconformity(best.val.probs, best.val.y_true))


def test_every_method_has_a_recipe_here() -> None:
    assert set(RECIPES) == set(methods.METHODS)


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_record_is_consistent(name: str) -> None:
    method = methods.METHODS[name]
    assert method.name == name and method.title
    assert method is importlib.import_module(f"sightline.training.methods.{name}").METHOD, "a file of its own"
    assert all(dataclasses.is_dataclass(kind) for kind in method.settings_of(Recipe(method=name)))
    assert (method.find_lr is not None) == method.by_epochs, "what trains by epochs has a learning rate"
    assert not method.fills_time or method.by_epochs
    assert not method.fits_heads or (method.pretrained and not method.by_epochs)
    assert (method.search_space is None) == (method.count_parameters is None), "a search reports the number of parameters"
    assert (method.fixed_backbone is not None) == (method.fixed_head is not None) == (method.network == "none")
    assert method.role == "classifier" or method.network == "none"
    assert method.estimate_seconds(Workload(images=100, budget_s=60, features_s=5, forward_s=2)) > 0


def test_there_is_one_reference_and_one_shortcut_check() -> None:
    roles = [method.role for method in methods.METHODS.values()]
    assert roles.count("reference") == roles.count("shortcut_check") == 1


SLOW = ("frozen", "finetune", "warmstart")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in RECIPES])
def test_a_method_keeps_the_contract(name: str, context: Context, tmp_path: Path) -> None:
    recipe = recipe_of(name, context, tmp_path)
    candidates = methods.fit(context, recipe)
    check_calibration(recipe, context, candidates, tmp_path)
    best = candidates[0]
    assert [c.val_accuracy for c in candidates] == sorted((c.val_accuracy for c in candidates), reverse=True)
    held_out = {p for p, s in zip(context.catalog.paths, context.catalog.column("split"), strict=True) if s != "test"}
    assert set(best.val.paths) <= held_out, "test images were looked at"
    assert best.val.classes == context.classes
    np.testing.assert_allclose(best.val.probs.sum(axis=1), 1, atol=1e-9)
    assert best.seconds > 0 and best.classifier.card.method == name
    loaded = classifier.load(best.classifier.save(tmp_path / "m.safetensors"))
    rows = context.catalog.where(split="test")
    before, after = (m.predict(rows, cache=context.cache) for m in (best.classifier, loaded))
    np.testing.assert_allclose(before.probs, after.probs, atol=1e-6)
    train = [c for c, s in zip(context.catalog.column("content"), context.catalog.column("split"), strict=True) if s == "train"]
    assert loaded.was_trained_on(train).all()
    assert not loaded.was_trained_on(rows.column("content")).any()


def test_an_image_with_undecodable_pixels_is_counted_apart(changeable: Context) -> None:
    paths = [p for p, s in zip(changeable.catalog.paths, changeable.catalog.column("split"), strict=True) if s == "test"]
    file = changeable.catalog.file(paths[0])
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255  # the header stays whole, the pixels' checksum does not
    file.write_bytes(data)
    rescanned = catalogs.scan(changeable.catalog.root)
    divided = rescanned.with_column("split", changeable.catalog.column("split"))
    broken = dataclasses.replace(changeable, catalog=divided)
    best = methods.fit(broken, RECIPES["features"])[0]
    assert [e.path for e in best.undecodable["test"]] == [paths[0]]
    answers = best.classifier.predict(divided.where(split="test"), cache=changeable.cache)
    assert list(answers.errors) == [paths[0]] and len(answers) == len(paths) - 1


def test_a_file_that_changed_after_the_scan_is_not_trusted(changeable: Context) -> None:
    paths = [p for p, s in zip(changeable.catalog.paths, changeable.catalog.column("split"), strict=True) if s == "train"]
    other = next(p for p in changeable.catalog.paths if p.split("/")[0] != paths[0].split("/")[0])
    changeable.catalog.file(paths[0]).write_bytes(changeable.catalog.file(other).read_bytes())
    best = methods.fit(changeable, RECIPES["features"])[0]
    assert [e.path for e in best.undecodable["train"]] == [paths[0]]


def test_unknown_methods_settings_and_a_single_class_are_refused(context: Context) -> None:
    with pytest.raises(RequestError, match="did you mean 'features'"):
        methods.fit(context, Recipe(method="featurs"))
    with pytest.raises(RequestError, match="did you mean 'folds'"):
        methods.fit(context, Recipe(method="features", backbone="pixels", settings={"fold": 3}))
    one = context.catalog.rows(c == "3" for c in context.catalog.column("label"))
    alone = dataclasses.replace(context, catalog=one, cluster=np.arange(len(one)), classes=("3",))
    with pytest.raises(DataError, match="one class"):
        methods.fit(alone, RECIPES["features"])
