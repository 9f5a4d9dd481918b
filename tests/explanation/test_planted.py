"""Planted evidence: heatmaps and alarms find the known difference between two classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sightline import classifier, networks
from sightline.classifier import Classifier
from sightline.explanation import class_maps
from sightline.explanation.checks import evidence
from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.methods import integrated_gradients
from sightline.explanation.options import ExplainOptions
from sightline.heads import fit
from sightline.records import Card, Explanation, Recipe
from sightline.store import Cache

SIDE, SQUARE = 224, 64


def with_squares(photographs: list[np.ndarray], seed: int) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Copies with a magenta square of 64 px at a place drawn anew for each, and the squares' upper left corners."""
    random = np.random.default_rng(seed)
    made, places = [], []
    for photograph in photographs:
        top, left = (int(v) for v in random.integers(0, SIDE - SQUARE + 1, 2))
        copy = photograph.copy()
        copy[top : top + SQUARE, left : left + SQUARE] = (255, 0, 255)
        made.append(copy)
        places.append((top, left))
    return made, places


def fitted(
    name: str, images: list[np.ndarray], labels: np.ndarray, classes: tuple[str, ...], kind: str, cache: Cache
) -> Classifier:
    """A head on a named network's features of arrays that it sees as they are."""
    backbone = networks.describe(name, weights="pretrained", cache=cache)
    backbone = dataclasses.replace(backbone, preprocess=dataclasses.replace(backbone.preprocess, fit="squash"))
    bare = Card(classes, backbone, kind, {}, "features", dataclasses.replace(Recipe(), backbone=name))
    session = Classifier(bare, None, classifier.backbone_tensors(backbone, cache)).session(cache)  # type: ignore[arg-type]
    features = np.concatenate([session.run(np.stack(images[i : i + 16]))[0] for i in range(0, len(images), 16)])
    rows = np.arange(len(labels))
    folds = [(rows[rows % 3 != i], rows[rows % 3 == i]) for i in range(3)]
    settings = {"trees": 200} if kind == "forest" else {}
    head = fit(kind, features, labels, len(classes), folds=folds, refit=True, settings=settings, seed=0).head
    return Classifier(bare, head, classifier.backbone_tensors(backbone, cache))


def near(found: Explanation, place: tuple[int, int]) -> bool:
    """Return whether the peak lies on the square."""
    row, column = found.peak()
    top, left = place
    return top <= row < top + SQUARE and left <= column < left + SQUARE


def photographs_of(shared: Path, kind: str, n: int) -> list[np.ndarray]:
    from sightline import pixels
    from sightline.records import Preprocess

    files = sorted((shared / "data" / "cats_dogs" / kind).iterdir())[:n]
    return [pixels.decode(f, Preprocess(size=(SIDE, SIDE))) for f in files]


@pytest.fixture
def weights(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(shared / "weights"))


@pytest.mark.slow
@pytest.mark.realdata
def test_integrated_gradients_peak_on_the_planted_square(
    shared: Path, weights: None, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On photographs; of the methods on maps, `test_heatmaps.py` asks the same on drawn scenes."""
    monkeypatch.setattr(integrated_gradients, "SEGMENTS", 6)  # near enough for where the heat lies, and many times quicker
    whole = photographs_of(shared, "cats", 164)
    order = np.random.default_rng(1).permutation(len(whole))
    plain, marked = [whole[i] for i in order[:82]], [whole[i] for i in order[82:]]
    marked, places = with_squares(marked, 2)
    trained = 70
    labels = np.repeat([0, 1], trained)
    made = fitted("mobilenetv2_100", plain[:trained] + marked[:trained], labels, ("plain", "square"), "logistic", cache)
    tested, at = marked[trained:], places[trained:]
    names, options = [str(i) for i in range(len(tested))], ExplainOptions(cache=cache, method="integrated-gradients")
    found, _ = heatmaps_of(made, tested, names, [1] * len(tested), options, cropped=True)
    hits = [near(f, p) for f, p in zip(found, at, strict=True)]
    assert np.mean(hits) >= 0.95, f"{np.mean(hits):.3f} of {len(hits)}"


@pytest.mark.slow
@pytest.mark.realdata
def test_a_caption_at_the_bottom_raises_the_alarm_and_plain_photographs_do_not(
    shared: Path, weights: None, cache: Cache
) -> None:
    from PIL import Image, ImageDraw

    from sightline.explanation.draw.lettering import font

    def captioned(image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image)
        pen = ImageDraw.Draw(picture)
        pen.rectangle((0, SIDE - 26, SIDE, SIDE), fill=(255, 255, 255))
        pen.text((6, SIDE - 22), "www.photographs.example", fill=(0, 0, 0), font=font(15))
        return np.asarray(picture)

    cats, dogs = photographs_of(shared, "cats", 200), photographs_of(shared, "dogs", 100)
    for caption, first, second in (
        (True, [captioned(c) for c in cats[:100]], cats[100:]),  # the caption is the only difference
        (False, cats[:100], dogs),
    ):
        made = fitted("mobilenetv2_100", first[:70] + second[:70], np.repeat([0, 1], 70), ("one", "other"), "logistic", cache)
        views = []
        for target, tested in enumerate((first[70:], second[70:])):
            names, options = [str(i) for i in range(30)], ExplainOptions(cache=cache, method="gradcam")
            found, _ = heatmaps_of(made, tested, names, [target] * 30, options, cropped=True)
            views.append(class_maps.view(made.classes[target], found))
        alarms = [r for r in class_maps.regions([v for v in views if v is not None]) if class_maps.concentrated(r)]
        regions = {(a["class"], a["region"]) for a in alarms}
        assert (("one", "lower border") in regions) == caption, alarms
        assert caption or not alarms


@pytest.mark.slow
@pytest.mark.realdata
def test_an_edge_filter_in_place_of_a_method_fails_the_checks(
    shared: Path, weights: None, cache: Cache, tmp_path: Path
) -> None:
    from PIL import Image

    from sightline.explanation.checks import measures, verdict

    cats, dogs = photographs_of(shared, "cats", 80), photographs_of(shared, "dogs", 80)
    made = fitted("mobilenetv2_100", cats[:70] + dogs[:70], np.repeat([0, 1], 70), ("cat", "dog"), "logistic", cache)
    files = []
    for i, image in enumerate(cats[70:]):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(files[-1])

    def edges(_: Classifier, images: np.ndarray, targets: np.ndarray) -> list[np.ndarray]:
        return list(measures.edge_heat(images, (7, 7)))

    skill = evidence.Skill(verdict.judge_classifier(95, 100, 0.5))
    names = [str(f) for f in files]
    told = evidence.gather(made, files, names, [0] * 10, ExplainOptions(cache=cache), skill=skill, make=edges)
    assert told is not None and told.shared["verdict"] == "don't rely on this"
    assert next(f for f in told.shared["findings"] if f["check"] == "weights")["correlation"]["all weights"] == pytest.approx(
        1.0
    )
    true = evidence.gather(made, files, names, [0] * 10, ExplainOptions(cache=cache, method="gradcam"), skill=skill)
    assert true is not None
    assert next(f for f in true.shared["findings"] if f["check"] == "weights")["verdict"] == "passes"
    guesses = evidence.Skill(verdict.judge_classifier(52, 100, 0.5))
    chance = evidence.gather(made, files, names, [0] * 10, ExplainOptions(cache=cache), skill=guesses)
    assert chance is not None and chance.shared["verdict"] == "don't rely on this"
