"""Changes of recipe keys, and errors before any work."""

from __future__ import annotations

from typing import Any

import pytest

from sightline.errors import RequestError
from sightline.records import Recipe
from sightline.store import Cache
from sightline.studies.recipe_edit import build, change, check

SCRATCH = Recipe(method="scratch", backbone="cnn", settings={"epochs": 3, "augment": {"policy": "photo", "zoom": 0.1}})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": 5}, {**SCRATCH.settings, "epochs": 5}),
        ({"settings.epochs": 5}, {**SCRATCH.settings, "epochs": 5}),
        ({"augment": "none"}, {"epochs": 3, "augment": "none"}),
        ({"augment.rotation": 30}, {"epochs": 3, "augment": {"policy": "photo", "zoom": 0.1, "rotation": 30}}),
        (
            {"augment": "light", "augment.rotation": 30, "augment.zoom": [0, 1]},
            {"epochs": 3, "augment": {"policy": "light", "rotation": 30, "zoom": [0, 1]}},
        ),
        ({"learning_rate": 1e-3}, {**SCRATCH.settings, "learning_rate": 1e-3}),
    ],
)
def test_keys_and_nested_settings_are_changed(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    before = dict(SCRATCH.settings)
    assert change(SCRATCH, changes).settings == expected
    assert SCRATCH.settings == before


def test_a_nested_key_of_a_default_can_be_changed() -> None:
    changed = change(Recipe(method="scratch"), {"augment.rotation": 30})
    assert changed.settings["augment"] == {"policy": "auto", "rotation": 30}
    changed = change(Recipe(head="logistic"), {"head.C": 0.1, "image_size": 64, "seed": 3})
    assert (changed.settings, changed.image_size, changed.seed, changed.head) == ({"head": {"C": 0.1}}, 64, 3, "logistic")


def test_settings_are_checked_by_the_method_that_is_set_with_them() -> None:
    assert change(Recipe(), {"epochs": 3, "method": "scratch"}).settings == {"epochs": 3}
    warm = Recipe(method="warmstart", backbone="runs/a")
    assert change(warm, {"layer_decay": 0.5}).settings == {"layer_decay": 0.5}
    with pytest.raises(RequestError, match="no key in a recipe of warmstart 'layer_decay'"):
        change(change(warm, {"frozen": True}), {"layer_decay": 0.5})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "did you mean 'epochs'"),
        ("imagesize", "did you mean 'image_size'"),
        ("augmnt.rotation", "did you mean 'augment'"),
        ("C", "known names is similar"),
    ],
)
def test_an_unknown_key_suggests_the_closest(key: str, hint: str) -> None:
    with pytest.raises(RequestError, match=key.partition(".")[0]) as raised:
        change(SCRATCH, {key: 1})
    assert hint in str(raised.value.hint)


def test_a_key_may_depend_on_one_that_is_set_before_it() -> None:
    start = Recipe(method="warmstart", backbone="runs/mine")
    assert change(start, {"settings.unfreeze": 2}).settings == {"unfreeze": 2}
    with pytest.raises(RequestError, match="unfreeze"):  # a frozen network has no such setting
        change(start, {"frozen": True, "settings.unfreeze": 2})


def test_a_key_inside_a_plain_value_is_refused() -> None:
    with pytest.raises(RequestError, match=r"cannot set epochs\.many: epochs is not a table"):
        change(SCRATCH, {"epochs.many": 1})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": "large"}, "'image_size' in the recipe cannot be 'large'"),
        ({"epochs": "many"}, "'epochs' in the settings of scratch cannot be 'many'"),
        ({"learning_rate": 70.0}, "learning_rate cannot be 70"),
        ({"augment.rotatoin": 3}, "rotatoin"),
        ({"augment.rotation": 999}, "rotation cannot be 999"),
        ({"augment": "foto"}, "foto"),
        ({"backbone": "cnm(filters=[3])"}, "cnm"),
        ({"backbone": "cnn(filters=[4, 4, 4, 4], pool=2)", "image_size": 8}, "cannot take images of 8×8 pixels"),
        ({"method": "scrach"}, "scrach"),
        ({"method": "features", "backbone": "pixels", "head": "logistik", "epochs": None}, "epochs|logistik"),
        ({"threshold": "best"}, "best"),
    ],
)
def test_invalid_values_are_refused_before_images_are_read(changes: dict[str, Any], words: str, cache: Cache) -> None:
    with pytest.raises(RequestError, match=words):
        check(change(SCRATCH, changes), 10, cache)


def test_a_head_s_settings_are_checked(cache: Cache) -> None:
    recipe = Recipe(backbone="pixels", head="logistic")
    check(change(recipe, {"head.C": [0.1, 1.0]}), 10, cache)
    with pytest.raises(RequestError, match="'C' of the logistic head cannot be -1"):
        check(change(recipe, {"head.C": -1}), 10, cache)
    with pytest.raises(RequestError, match=r"settings of the logistic head 'c'|'c'"):
        check(change(recipe, {"head.c": 1}), 10, cache)
    with pytest.raises(RequestError, match="settings of a head need its name"):
        check(change(recipe, {"head": "auto", "head.C": 1.0}), 10, cache)


def test_every_setting_has_its_value() -> None:
    made = build(SCRATCH)
    assert (made["network"], made["epochs"], made["batch_size"]) == ("cnn", 3, 64)


@pytest.mark.parametrize(("network", "classes"), [("cnn(classes=7)", 5), ("cnn(classes=1)", 30), ("lenet5(classes=2)", 10)])
def test_a_network_for_another_number_of_classes_is_refused(network: str, classes: int, cache: Cache) -> None:
    with pytest.raises(RequestError, match=f"and the images have {classes}") as raised:
        check(Recipe(method="scratch", backbone=network), classes, cache)
    assert "leave classes out" in str(raised.value.hint)


@pytest.mark.parametrize(("network", "classes"), [("cnn(classes=7)", 7), ("cnn(classes=1)", 2), ("cnn", 5)])
def test_a_network_for_the_number_of_classes_or_one_unit_for_two_is_accepted(network: str, classes: int, cache: Cache) -> None:
    check(Recipe(method="scratch", backbone=network), classes, cache)


def test_the_weights_of_an_ensemble_are_those_of_its_members() -> None:
    recipe = Recipe(method="ensemble", settings={"members": ["runs/a", "runs/b"]})
    for key in ("weights", "settings.weights"):
        changed = change(recipe, {key: [0.9, 0.1]})
        assert changed.settings["weights"] == [0.9, 0.1] and changed.weights == recipe.weights
        assert build(changed)["weights"] == (0.9, 0.1)
    assert change(Recipe(), {"weights": "random"}).weights == "random"


def test_the_spelling_optimiser_suggests_optimizer() -> None:
    scratch = Recipe(method="scratch", backbone="cnn")
    for recipe in (scratch, Recipe(method="finetune"), Recipe(head="mlp")):
        key = "settings.head.optimiser" if recipe.method == "features" else "optimiser"
        with pytest.raises(RequestError) as raised:
            check(change(recipe, {key: "sgd"}), 2, Cache())
        assert raised.value.hint == "did you mean 'optimizer'?"
