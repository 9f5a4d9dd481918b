"""bf16 and int8 are compared with float32 on the user's images, and used only if they pass."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline import classifier, engine, networks
from sightline.commands.card import describe
from sightline.deadline import Deadline
from sightline.engine import quantising
from sightline.engine import session as sessions
from sightline.errors import ModelFileError, RequestError
from sightline.features import Features
from sightline.records import Recipe
from sightline.store import Cache
from sightline.training import methods, precision
from sightline.training.context import Context, extract
from sightline.training.precision import GATES, Gate
from tests.conftest import write_few_digits

RECIPE = Recipe(backbone="resnet10t", weights="random", image_size=32, head="ridge")
ANY = Gate(least_images=1, changed_share=1.0, mean_cosine=0.0)
NONE = Gate(least_images=1, changed_share=1.0, mean_cosine=2.0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """80 digits with their splits."""
    folder = tmp_path_factory.mktemp("precision")
    found = catalogs.scan(write_few_digits(folder / "digits", 8))
    divided = found.with_column("split", [("train", "train", "val", "test")[i % 4] for i in range(len(found))])
    return Context(divided, np.arange(len(divided)), divided.classes, Cache(folder / "cache"))


def fitted(context: Context) -> Any:
    return methods.fit(context, RECIPE)[0].classifier


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [True, False])
def test_bf16_is_compared_with_float32_on_the_images(
    trusted: bool, digits: Context, cache: Cache, emulated_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GATES, "bf16", ANY if trusted else NONE)
    context = dataclasses.replace(digits, cache=cache)
    made = fitted(context)
    verdict, used = made.card.precision, "bf16" if trusted else "f32"
    assert verdict["used"] == made.precision == used and verdict["judged_on"] == len(context.split("train", "val"))
    assert 0.998 < verdict["min_cosine"] < 1
    opened: list[int] = []
    monkeypatch.setattr(engine, "open_session", lambda *_, **own: opened.append(own["expected"]))
    assert len(made.predict(context.catalog.where(split="val"), cache=cache)) == len(context.split("val")) and not opened


@pytest.mark.slow
def test_features_computed_in_float32_are_recorded_as_float32(
    digits: Context, cache: Cache, emulated_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So few images that the network is not converted for them: there is no bf16 to compare."""
    monkeypatch.setattr(sessions, "PATIENCE_IMAGES", 1000)
    made = fitted(dataclasses.replace(digits, cache=cache))
    assert made.card.precision == {"used": "f32", "why": "all features were computed in float32"}


@pytest.mark.slow
def test_the_environment_variable_f32_overrides_the_precision_of_a_classifier(
    digits: Context, cache: Cache, emulated_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GATES, "bf16", ANY)
    made = fitted(dataclasses.replace(digits, cache=cache))
    assert made.precision == "bf16" and made.session(cache).precision == "bf16"
    monkeypatch.setenv("SIGHTLINE_PRECISION", "f32")
    assert made.precision == "f32" and made.session(cache).precision == "f32"


@pytest.fixture(scope="module")
def quantised(digits: Context) -> bytes:
    """The network of RECIPE in int8, made once from few calibration images."""
    pytest.importorskip("nncf")
    backbone = methods.fit(digits, RECIPE)[0].classifier.card.backbone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantising, "CALIBRATION_IMAGES", 8)
        payload = engine.quantised(backbone, digits.cache)
    assert payload is not None
    return payload


@pytest.fixture
def int8(digits: Context, quantised: bytes, emulated_vnni: None, monkeypatch: pytest.MonkeyPatch) -> Context:
    """The digits on a processor on which int8 is tried, with a gate that lets it pass."""
    monkeypatch.setitem(GATES, "int8", ANY)
    monkeypatch.setattr(engine, "quantised", lambda *_: quantised)
    return digits


def test_int8_is_used_and_travels_in_the_classifier_file(int8: Context, quantised: bytes, tmp_path: Path, cache: Cache) -> None:
    made = fitted(int8)
    facts = made.card.precision
    assert facts["used"] == made.precision == "int8" and made.quantised == quantised
    assert 0.9 < facts["mean_cosine"] < 1 and 0 <= facts["p_value"] <= 1 and -1 <= facts["map_correlation"] <= 1
    val = int8.catalog.where(split="val")
    expected = made.predict(val, cache=int8.cache).probs
    loaded = classifier.load(made.save(tmp_path / "model.safetensors"))
    np.testing.assert_array_equal(loaded.predict(val, cache=cache).probs, expected)  # nothing is cached here
    assert cache.names("networks") == []  # neither torch nor a conversion was needed


def test_elsewhere_an_int8_classifier_runs_in_float32(int8: Context, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fitted(int8)
    monkeypatch.setattr(engine, "has_vnni", lambda: False)
    assert made.precision == "int8"  # the machine of the training
    monkeypatch.setattr(engine, "instruction_class", lambda: "x86_64 avx2")
    assert made.precision == "f32"
    assert made.session(cache).precision == "f32"


@pytest.mark.parametrize(("agree", "used"), [(True, "int8"), (False, "f32")])
def test_heatmaps_use_float32_unless_int8_maps_agree(
    agree: bool, used: str, int8: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "MAP_CORRELATION", -1.0 if agree else 2.0)
    made = fitted(int8)
    assert made.session(int8.cache, maps=True).precision == used and made.session(int8.cache).precision == "int8"


def test_int8_needs_256_images_and_no_worse_accuracy(int8: Context, quantised: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = fitted(int8).card.backbone
    monkeypatch.setitem(GATES, "int8", Gate(256, 0.02, 0.0))
    assert precision.choose(int8, backbone).precision == "f32"
    monkeypatch.setitem(GATES, "int8", dataclasses.replace(ANY, mean_cosine=0.0))
    worse = lambda *a: shuffled(extract(*a), a[2])  # noqa: E731

    def shuffled(found: Features, asked: str) -> Features:
        order = np.random.default_rng(0).permutation(len(found.values))
        return dataclasses.replace(found, values=found.values[order]) if asked == "int8" else found

    monkeypatch.setattr(precision, "extract", worse)
    choice = precision.choose(int8, backbone)
    assert choice.precision == "f32" and choice.facts["p_value"] < 0.05 and "does not pass" in choice.facts["why"]


def test_int8_is_left_out_where_quantising_would_take_too_long(int8: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = networks.describe("resnet10t", weights="random", image_size=32, cache=int8.cache)
    assert precision._quick_to_quantise(int8, backbone)
    late = dataclasses.replace(int8, deadline=Deadline.after(30, lambda: 0.0))
    assert not precision._quick_to_quantise(late, backbone)
    monkeypatch.setattr(precision, "MOST_MACS", 1e6)
    assert not precision._quick_to_quantise(int8, backbone)
    assert precision.choose(int8, backbone).precision == "f32"


def test_a_demanded_precision_is_used_without_passing(int8: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GATES, "int8", NONE)
    assert fitted(int8).precision == "f32"
    made = fitted(dataclasses.replace(int8, precision="int8"))
    assert made.precision == "int8" and "demanded" in made.card.precision["why"]
    assert fitted(dataclasses.replace(int8, precision="f32")).card.precision["used"] == "f32"
    monkeypatch.setattr(engine, "quantised", lambda *_: None)
    with pytest.raises(RequestError, match="resnet10t cannot run in int8 here"):
        fitted(dataclasses.replace(int8, precision="int8"))


def test_a_resumed_run_keeps_its_precision(int8: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = dataclasses.replace(int8, checkpoint=tmp_path)
    assert fitted(context).precision == "int8"
    monkeypatch.setitem(GATES, "int8", NONE)
    assert fitted(context).precision == "int8"  # nothing is compared again
    monkeypatch.setattr(engine, "precisions", lambda device: ("f32",))
    assert fitted(context).precision == "int8"


def test_the_card_names_the_measured_difference(int8: Context) -> None:
    made = fitted(int8)
    facts = made.card.precision
    compared = f"{facts['answers_changed']} of {facts['judged_on']} out-of-fold predictions differed"
    assert (
        f"resnet10t runs in int8 on processors with VNNI, and in float32 elsewhere; {compared}" in describe(made, None).cautions
    )


def test_a_changed_byte_of_the_quantised_network_is_refused(int8: Context, tmp_path: Path) -> None:
    made = fitted(int8)
    broken = dataclasses.replace(made, quantised=made.quantised[:-1] + b"?")
    with pytest.raises(ModelFileError, match="int8 does not match"):
        classifier.load(broken.save(tmp_path / "model.safetensors"))
