"""bf16 is judged on the user's images, and only where features were computed in it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline import engine
from sightline.engine import session as sessions
from sightline.records import Recipe
from sightline.store import Cache
from sightline.training import methods, precision
from sightline.training.context import Context
from tests.conftest import write_few_digits

RECIPE = Recipe(backbone="resnet10t", weights="random", image_size=32, head="ridge")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """40 digits with their splits."""
    folder = tmp_path_factory.mktemp("precision")
    found = catalogs.scan(write_few_digits(folder / "digits", 4))
    divided = found.with_column("split", [("train", "train", "val", "test")[i % 4] for i in range(len(found))])
    return Context(divided, np.arange(len(divided)), divided.classes, Cache(folder / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [True, False])
def test_bf16_is_judged_by_float32_on_the_images(
    trusted: bool, digits: Context, cache: Cache, emulated_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "MEAN_COSINE", 0.998 if trusted else 2.0)
    monkeypatch.setattr(precision, "CHANGED_SHARE", 1.0)
    context = dataclasses.replace(digits, cache=cache)
    made = methods.fit(context, RECIPE)[0].classifier
    verdict, used = made.card.precision, "bf16" if trusted else "f32"
    assert verdict["used"] == made.precision == used and verdict["judged_on"] == len(context.split("train", "val"))
    assert 0.998 < verdict["min_cosine"] < 1
    opened: list[int] = []
    monkeypatch.setattr(engine, "open_session", lambda *_, **own: opened.append(own["expected"]))
    assert len(made.predict(context.catalog.where(split="val"), cache=cache)) == len(context.split("val")) and not opened


@pytest.mark.slow
def test_what_was_computed_in_float32_is_not_called_bf16(
    digits: Context, cache: Cache, emulated_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So few images that the network is not converted for them: there is no bf16 to be judged."""
    monkeypatch.setattr(sessions, "PATIENCE_IMAGES", 1000)
    made = methods.fit(dataclasses.replace(digits, cache=cache), RECIPE)[0].classifier
    assert made.card.precision == {"used": "f32", "why": "all features were computed in float32"}


@pytest.mark.slow
def test_a_setting_of_float32_holds_for_a_classifier_that_may_use_bf16(
    digits: Context, cache: Cache, emulated_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "CHANGED_SHARE", 1.0)
    context = dataclasses.replace(digits, cache=cache)
    made = methods.fit(context, RECIPE)[0].classifier
    assert made.precision == "bf16" and made.session(cache).precision == "bf16"
    monkeypatch.setenv("SIGHTLINE_PRECISION", "f32")
    assert made.precision == "f32" and made.session(cache).precision == "f32"
