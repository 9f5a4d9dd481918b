"""What limits are fitted on: held-out answers, by class where classes are very unlike, and images that no weight has seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline.evaluation import conformal, unlike
from sightline.records import Predictions, Recipe
from sightline.store import Cache
from sightline.training import limits, methods
from sightline.training.limits import limited
from sightline.training.work import Candidate, Work

RECIPE = Recipe(backbone="pixels", head="centroid")


@pytest.fixture
def work(digits: Path, cache: Cache) -> Work:
    found = catalogs.scan(digits)
    twins = catalogs.duplicates(found, cache)
    divided = catalogs.split(found, clusters=twins)
    return Work(divided, catalogs.together(divided, twins), divided.classes, cache)


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
def test_unlike_classes_get_a_promise_each_where_there_are_enough(work: Work, counts: list[int], by_class: bool) -> None:
    best = methods.fit(work, RECIPE)[0]
    made = limited(work, with_answers(best, counts)).classifier
    assert made.card.limits.by_class is by_class and made.card.limits.images == sum(counts)
    bars = made.bars(0.9)
    assert bars is not None and (len(np.unique(bars)) > 1) is by_class


def test_few_answers_promise_nothing(work: Work) -> None:
    best = methods.fit(work, RECIPE)[0]
    made = limited(work, with_answers(best, [1] * 10)).classifier
    answers = made.predict(work.catalog.where(split="test"), cache=work.cache)
    assert made.bars() is None and made.doubts(answers) is None
    doubts = made.doubts(answers, 0.8)
    assert doubts is not None and doubts.coverage == 0.8


def test_many_answers_are_drawn_from(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_ANSWERS", 100)
    made = limited(work, methods.fit(work, RECIPE)[0]).classifier
    assert made.card.limits.images == 100 == len(made.limits["scores"]) == len(made.limits["labels"])


def test_features_that_were_not_learnt_here_are_compared_across_clusters(work: Work) -> None:
    """As many bars as images: train and val, each without its own cluster."""
    made = limited(work, methods.fit(work, RECIPE)[0]).classifier
    rows = work.split("train", "val")
    assert made.card.limits.unlike_images == len(rows) and len(made.limits["bank"]) == len(rows)
    assert made.card.limits.unlike_rate == unlike.RATE
    chosen = work.catalog.rows(np.isin(np.arange(len(work.catalog)), rows).tolist())
    answers = made.predict(chosen, cache=work.cache)
    assert answers.unlike is not None and answers.unlike_bar is not None
    itself = answers.unlike.mean()  # each has itself in the bank now, at distance 0
    assert itself < answers.unlike_bar and (answers.unlike > answers.unlike_bar).mean() < unlike.RATE


@pytest.mark.slow
def test_a_network_that_learnt_here_is_judged_by_validation_images(work: Work) -> None:
    recipe = Recipe(method="scratch", backbone="cnn(filters=[4, 8])", settings={"epochs": 1})
    made = limited(work, methods.fit(work, recipe)[0]).classifier
    assert made.card.limits.unlike_images == len(work.split("val")) == made.card.limits.images
    assert len(made.limits["bank"]) == len(work.split("train"))


def test_the_test_split_has_no_part_in_it(work: Work) -> None:
    tests = np.isin(np.arange(len(work.catalog)), work.split("test"))
    shuffled = [("0" if t else label) for t, label in zip(tests, work.catalog.column("label"), strict=True)]
    other = dataclasses.replace(work, catalog=work.catalog.with_column("label", shuffled))
    one, two = (limited(w, methods.fit(w, RECIPE)[0]).classifier for w in (work, other))
    for name in ("scores", "labels", "bank"):
        np.testing.assert_array_equal(one.limits[name], two.limits[name])
    assert one.card.limits == two.card.limits


def test_the_default_promise_needs_nineteen() -> None:
    assert conformal.needed(conformal.COVERAGE) == 19
