"""Alarm for borders: heat at a border, and a probability that falls if the border is blurred."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from sightline.catalog import scan
from sightline.classifier import Classifier
from sightline.explanation.checks.evidence import skill_of
from sightline.explanation.checks.run_checks import judge
from sightline.explanation.options import ExplainOptions
from sightline.heads import fit
from sightline.networks import describe
from sightline.records import Card, Recipe
from sightline.store import Cache


def framed(n: int, grey: int, seed: int) -> np.ndarray:
    """White images uint8 (n, 28, 28, 3) with faint noise, whose left border of 4 px has a grey value."""
    images = np.random.default_rng(seed).integers(235, 256, (n, 28, 28, 3)).astype(np.uint8)
    images[:, :, :4] = grey + np.random.default_rng(seed + 1).integers(0, 10, (n, 28, 4, 3))
    return images


def test_an_alarm_takes_that_blurring_the_border_lowers_the_probability(tmp_path: Path, cache: Cache) -> None:
    from PIL import Image

    backbone = describe("pixels", cache=cache)
    side = backbone.preprocess.size[0]
    values = {"black": 0, "grey": 120}
    for name, grey in values.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, image in enumerate(framed(14, grey, 10 * grey)):
            Image.fromarray(image).save(tmp_path / "photos" / name / f"{i}.png")
    catalog = scan(tmp_path / "photos")
    learnt = [np.stack([np.asarray(Image.fromarray(x).resize((side, side))) for x in framed(30, g, g + 7)]) for g in (0, 120)]
    features = np.concatenate(learnt).reshape(60, -1).astype(np.float32) / 255
    labels, rows = np.repeat([0, 1], 30), np.arange(60)
    folds = [(rows[rows % 3 != i], rows[rows % 3 == i]) for i in range(3)]
    head = fit("ridge", features, labels, 2, folds=folds, refit=True, settings={}, seed=0).head
    recipe = dataclasses.replace(Recipe(), backbone="pixels")
    model = Classifier(Card(("black", "grey"), backbone, "ridge", {}, "features", recipe), head)
    answers = model.predict(catalog, cache=cache)
    found = judge(model, catalog, answers, ExplainOptions(cache=cache), skill_of(model, answers=answers)).class_maps
    assert found is not None
    alarms = {(a.class_name, a.region) for a in found.alarms}
    harmless = {(a.class_name, a.region): a for a in found.harmless}
    assert ("black", "left border") in alarms, "blurred with the white beside it, black is gone"
    assert ("grey", "left border") in harmless and ("grey", "left border") not in alarms
    grey = harmless["grey", "left border"]
    assert grey.after is not None and grey.before is not None and grey.after > grey.before, "it becomes brighter still"
    assert found.by == "predicted"
