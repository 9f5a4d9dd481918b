"""The temperature is fitted on held-out predictions, after test-time crops and the mean of an ensemble; then OOD thresholds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sightline import classifier
from sightline.records import Recipe
from sightline.store import Cache
from sightline.training import methods
from sightline.training.conformal_fit import with_uncertainty
from sightline.training.context import Context

from .test_methods import RECIPES, check_calibration, context, left  # noqa: F401

NETWORK = {"backbone": "resnet10t", "weights": "random", "image_size": 32}
CROPPED = {
    "features": Recipe(method="features", **NETWORK, head="logistic", settings={"crops": 5}),  # type: ignore[arg-type]
    "scratch": Recipe(method="scratch", backbone="cnn(filters=[4, 8])", settings={"epochs": 1, "crops": 5}),
    "ensemble": Recipe(
        method="ensemble",
        settings={
            "recipe": {"method": "scratch", "backbone": "cnn(filters=[4, 8])", "settings": {"epochs": 1, "crops": 5}},
            "seeds": 2,
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CROPPED)
def test_crops_come_before_the_calibration(name: str, context: Context, tmp_path: Path) -> None:  # noqa: F811
    check_calibration(CROPPED[name], context, methods.fit(context, CROPPED[name]), tmp_path)


@pytest.mark.slow
def test_an_ensemble_of_candidates_is_calibrated_on_its_mean(context: Context) -> None:  # noqa: F811
    from sightline.training.methods import ensemble

    fitted = [methods.fit(context, RECIPES[name])[0] for name in ("scratch", "features")]
    (found,) = ensemble.of_candidates(context, Recipe(method="ensemble"), fitted)
    assert abs(left(found.val)) < 1e-4
    assert found.classifier.card.temperature != 1


def test_files_without_uncertainty_still_predict(context: Context, tmp_path: Path, cache: Cache) -> None:  # noqa: F811
    plain = methods.fit(context, RECIPES["features"])[0].classifier
    loaded = classifier.load(plain.save(tmp_path / "m.safetensors"))
    answers = loaded.predict(context.catalog.where(split="test"), cache=cache)
    assert loaded.set_thresholds(0.9) is None and answers.ood_score is None and answers.ood_threshold is None


def test_out_of_distribution_images_have_high_scores_and_others_rarely_do(context: Context, tmp_path: Path) -> None:  # noqa: F811
    recipe = dataclasses.replace(RECIPES["features"], head="logistic")
    made = with_uncertainty(context, methods.fit(context, recipe)[0]).classifier
    loaded = classifier.load(made.save(tmp_path / "m.safetensors"))
    like = loaded.predict(context.catalog.where(split="test"), cache=context.cache)
    noise = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    odd = loaded.predict(noise, cache=context.cache)
    assert like.ood_score is not None and odd.ood_score is not None and like.ood_threshold == odd.ood_threshold is not None
    assert (like.ood_score > like.ood_threshold).mean() < 0.2 and (odd.ood_score > odd.ood_threshold).mean() > 0.9
    kept = like.select(np.array([0, 2]))
    assert kept.ood_score is not None and kept.ood_score.tolist() == like.ood_score[[0, 2]].tolist()
    assert loaded.limits["bank"].nbytes <= 2 << 20
