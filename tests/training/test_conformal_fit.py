"""Data on which uncertainty is fitted: held-out predictions, by class if classes are imbalanced, and images not trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline.evaluation import conformal, out_of_distribution
from sightline.records import Predictions, Recipe
from sightline.store import Cache
from sightline.training import conformal_fit, methods
from sightline.training.conformal_fit import with_uncertainty
from sightline.training.context import Candidate, Context

RECIPE = Recipe(backbone="pixels", head="centroid")


@pytest.fixture
def context(digits: Path, cache: Cache) -> Context:
    found = catalogs.scan(digits)
    twins = catalogs.find_duplicates(found, cache)
    divided = catalogs.split(found, clusters=twins)
    return Context(divided, catalogs.together(divided, twins), divided.classes, cache)


def with_answers(candidate: Candidate, counts: list[int]) -> Candidate:
    """The candidate with as many held-out answers of each class."""
    y = np.repeat(np.arange(len(counts)), counts)
    probs = np.random.default_rng(0).dirichlet(np.ones(10), len(y))
    paths = tuple(str(i) for i in range(len(y)))
    return dataclasses.replace(candidate, val=Predictions(paths, candidate.val.classes, y, probs))


@pytest.mark.parametrize(
    ("counts", "by_class"),
    [([30] * 10, False), ([200] + [30] * 9, True), ([200] + [30] * 8 + [18], False), ([80] + [30] * 9, False)],
)
def test_imbalanced_classes_get_a_threshold_each_if_each_has_enough_images(
    context: Context, counts: list[int], by_class: bool
) -> None:
    best = methods.fit(context, RECIPE)[0]
    made = with_uncertainty(context, with_answers(best, counts)).classifier
    assert made.card.uncertainty.by_class is by_class and made.card.uncertainty.images == sum(counts)
    bars = made.set_thresholds(0.9)
    assert bars is not None and (len(np.unique(bars)) > 1) is by_class


def test_too_few_held_out_predictions_give_no_prediction_sets(context: Context) -> None:
    best = methods.fit(context, RECIPE)[0]
    made = with_uncertainty(context, with_answers(best, [1] * 10)).classifier
    answers = made.predict(context.catalog.where(split="test"), cache=context.cache)
    assert made.set_thresholds() is None and made.uncertainty(answers) is None
    doubts = made.uncertainty(answers, 0.8)
    assert doubts is not None and doubts.coverage == 0.8


def test_many_held_out_predictions_are_sampled(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformal_fit, "MOST_ANSWERS", 100)
    made = with_uncertainty(context, methods.fit(context, RECIPE)[0]).classifier
    assert made.card.uncertainty.images == 100 == len(made.limits["scores"]) == len(made.limits["labels"])


def test_ood_scores_on_pretrained_features_leave_out_the_own_cluster(context: Context) -> None:
    """One distance per image of train and val, each without its own cluster."""
    made = with_uncertainty(context, methods.fit(context, RECIPE)[0]).classifier
    rows = context.split("train", "val")
    assert made.card.uncertainty.ood_images == len(rows) and len(made.limits["bank"]) == len(rows)
    assert made.card.uncertainty.ood_rate == out_of_distribution.RATE
    chosen = context.catalog.rows(np.isin(np.arange(len(context.catalog)), rows).tolist())
    answers = made.predict(chosen, cache=context.cache)
    assert answers.ood_score is not None and answers.ood_threshold is not None
    itself = answers.ood_score.mean()  # each has itself in the bank now, at distance 0
    assert itself < answers.ood_threshold and (answers.ood_score > answers.ood_threshold).mean() < out_of_distribution.RATE


@pytest.mark.slow
def test_ood_scores_of_a_network_trained_from_scratch_use_validation_images(context: Context) -> None:
    recipe = Recipe(method="scratch", backbone="cnn(filters=[4, 8])", settings={"epochs": 1})
    made = with_uncertainty(context, methods.fit(context, recipe)[0]).classifier
    assert made.card.uncertainty.ood_images == len(context.split("val")) == made.card.uncertainty.images
    assert len(made.limits["bank"]) == len(context.split("train"))


def test_uncertainty_does_not_depend_on_the_test_split(context: Context) -> None:
    tests = np.isin(np.arange(len(context.catalog)), context.split("test"))
    shuffled = [("0" if t else label) for t, label in zip(tests, context.catalog.column("label"), strict=True)]
    other = dataclasses.replace(context, catalog=context.catalog.with_column("label", shuffled))
    one, two = (with_uncertainty(w, methods.fit(w, RECIPE)[0]).classifier for w in (context, other))
    for name in ("scores", "labels", "bank"):
        np.testing.assert_array_equal(one.limits[name], two.limits[name])
    assert one.card.uncertainty == two.card.uncertainty


def test_the_default_coverage_needs_nineteen_images() -> None:
    assert conformal.needed(conformal.COVERAGE) == 19
