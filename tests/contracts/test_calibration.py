"""Every method's temperature is fitted last: on held-out answers, after crops and the mean of an ensemble; then its limits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sightline import classifier, heads
from sightline.evaluation import conformal
from sightline.records import Predictions, Recipe
from sightline.store import Cache
from sightline.training import methods
from sightline.training.conformal_fit import with_uncertainty
from sightline.training.context import Context

from .test_methods import RECIPES, context, recipe_of  # noqa: F401

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


def left(answers: Predictions) -> float:
    """How much log loss another temperature would still save, in nats."""
    logits = heads.log_probs(answers.probs)
    return heads.log_loss(logits, answers.y_true) - heads.log_loss(
        logits / heads.temperature(logits, answers.y_true), answers.y_true
    )


def check(recipe: Recipe, context: Context, folder: Path) -> None:  # noqa: F811
    """What is left to calibrate is nothing, and the classifier gives the answers that it was calibrated on."""
    candidates = methods.fit(context, recipe)
    for found in candidates:
        assert abs(left(found.val)) < 1e-4, found.label
    best = with_uncertainty(context, candidates[0])
    loaded = classifier.load(best.classifier.save(folder / "m.safetensors"))
    if best.estimate == "val" and recipe.method != "features":  # those are fitted once more on all images
        wanted = {p: i for i, p in enumerate(best.val.paths)}
        answers = loaded.predict(context.catalog.rows(p in wanted for p in context.catalog.paths), cache=context.cache)
        expected = best.val.probs[[wanted[p] for p in answers.paths]]
        np.testing.assert_allclose(answers.probs, expected, atol=1e-4)
    card = loaded.card
    assert card.limits.images == len(best.val) == len(loaded.limits["scores"]) and card.limits.fitted_on == best.estimate
    np.testing.assert_allclose(loaded.limits["scores"], conformal.nonconformity(best.val.probs, best.val.y_true))


SLOW = ("scratch", "frozen", "finetune", "warmstart")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in RECIPES])
def test_every_method_is_calibrated_last(name: str, context: Context, tmp_path: Path) -> None:  # noqa: F811
    check(recipe_of(name, context, tmp_path), context, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CROPPED)
def test_crops_come_before_the_calibration(name: str, context: Context, tmp_path: Path) -> None:  # noqa: F811
    check(CROPPED[name], context, tmp_path)


@pytest.mark.slow
def test_an_ensemble_of_candidates_is_calibrated_on_its_mean(context: Context) -> None:  # noqa: F811
    from sightline.training.methods import ensemble

    fitted = [methods.fit(context, RECIPES[name])[0] for name in ("scratch", "features")]
    (found,) = ensemble.of_candidates(context, Recipe(method="ensemble"), fitted)
    assert abs(left(found.val)) < 1e-4
    assert found.classifier.card.temperature != 1


def test_old_files_without_limits_still_answer(context: Context, tmp_path: Path, cache: Cache) -> None:  # noqa: F811
    plain = methods.fit(context, RECIPES["features"])[0].classifier
    loaded = classifier.load(plain.save(tmp_path / "m.safetensors"))
    answers = loaded.predict(context.catalog.where(split="test"), cache=cache)
    assert loaded.set_thresholds(0.9) is None and answers.ood_score is None and answers.ood_threshold is None


def test_what_is_unlike_is_far_and_what_is_like_is_rarely_so(context: Context, tmp_path: Path) -> None:  # noqa: F811
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
