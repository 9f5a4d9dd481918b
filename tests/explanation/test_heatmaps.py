"""Heatmaps of a classifier: a planted square with a random network, crops, and constant maps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import sightline
from sightline import catalog, classifier, engine, networks
from sightline.classifier import Classifier
from sightline.commands import explain
from sightline.errors import RequestError
from sightline.explanation.checks import evidence
from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.options import ExplainOptions
from sightline.heads import fit
from sightline.records import Card, Explanation, Recipe
from sightline.store import Cache

SIDE, SQUARE, CELL = 112, 32, 28


def scenes(n: int, seed: int) -> np.ndarray:
    """Soft patches of colour, uint8 (n, SIDE, SIDE, 3)."""
    from PIL import Image

    random = np.random.default_rng(seed)
    coarse = random.integers(20, 236, (n, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for c in coarse])


def planted(images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same with a magenta square, and the squares' upper left corners (n, 2)."""
    random = np.random.default_rng(seed)
    made, places = images.copy(), random.integers(0, SIDE - SQUARE + 1, (len(images), 2))
    for image, (top, left) in zip(made, places, strict=True):
        image[top : top + SQUARE, left : left + SQUARE] = (255, 0, 255)
    return made, places


def fitted(kind: str, images: np.ndarray, labels: np.ndarray, cache: Cache) -> Classifier:
    """A head on a residual network of 4×4 cells whose weights are drawn at random."""
    name = "resnet10t"
    backbone = networks.describe(name, weights="random", image_size=SIDE, cache=cache)
    backbone = dataclasses.replace(backbone, preprocess=dataclasses.replace(backbone.preprocess, fit="squash"))
    bare = Card(("plain", "square"), backbone, kind, {}, "features", dataclasses.replace(Recipe(), backbone=name))
    tensors = classifier.backbone_tensors(backbone, cache)
    session = Classifier(bare, None, tensors).session(cache)  # type: ignore[arg-type]
    features = np.concatenate([session.run(images[i : i + 16])[0] for i in range(0, len(images), 16)])
    rows = np.arange(len(labels))
    folds = [(rows[rows % 3 != i], rows[rows % 3 == i]) for i in range(3)]
    settings = {"trees": 120} if kind == "forest" else {}
    head = fit(kind, features, labels, 2, folds=folds, refit=True, settings=settings, seed=0).head
    return Classifier(bare, head, tensors)


def cropping(model: Classifier, crops: int) -> Classifier:
    """The same, which answers with the mean over so many crops."""
    return dataclasses.replace(model, card=dataclasses.replace(model.card, crops=crops))


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def trained() -> tuple[np.ndarray, np.ndarray]:
    """60 plain scenes and 60 with a square, with their classes."""
    return np.concatenate([scenes(60, 0), planted(scenes(60, 1), 2)[0]]), np.repeat([0, 1], 60)


@pytest.fixture(scope="module")
def linear(trained: tuple[np.ndarray, np.ndarray], own_cache: Cache) -> Classifier:
    return fitted("logistic", *trained, own_cache)


def near(found: Explanation, place: np.ndarray, margin: int) -> bool:
    """Whether the peak lies within so many pixels of the square."""
    row, column = found.peak()
    return bool((place - margin <= (row, column)).all() and ((row, column) < place + SQUARE + margin).all())


@pytest.mark.slow
@pytest.mark.parametrize("kind, method, margin", [("logistic", "gradcam", CELL), ("forest", "masks", CELL)])
def test_the_peak_lies_on_a_planted_square(
    kind: str,
    method: str,
    margin: int,
    linear: Classifier,
    trained: tuple[np.ndarray, np.ndarray],
    own_cache: Cache,
) -> None:
    model = linear if kind == "logistic" else fitted(kind, *trained, own_cache)
    images, places = planted(scenes(40, 3), 4)
    plain = scenes(40, 3)
    answers = model.predict(list(np.concatenate([images, plain])), cache=own_cache).y_pred
    assert np.mean(answers == np.repeat([1, 0], 40)) > 0.9
    names, options = [str(i) for i in range(40)], ExplainOptions(cache=own_cache, method=method)
    found, _ = heatmaps_of(model, list(images), names, [1] * 40, options, cropped=True)
    hits = [near(item, place, margin) for item, place in zip(found, places, strict=True)]
    assert np.mean(hits) >= 0.95, np.mean(hits)
    elsewhere = [near(item, place, margin) for item, place in zip(found, np.roll(places, 1, axis=0), strict=True)]
    assert np.mean(elsewhere) < 0.8  # a map that always points at the middle would do as well there


def test_heatmaps_and_checks_share_one_network(linear: Classifier, own_cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    original = engine.open_session
    monkeypatch.setattr(engine, "open_session", lambda *a, **own: (opened.append(own["expected"]), original(*a, **own))[1])
    images, options = list(scenes(2, 3)), ExplainOptions(cache=own_cache, method="gradcam")
    linear.predict(images, cache=own_cache, sessions=options.sessions)
    for _ in range(3):
        heatmaps_of(linear, images, ["a", "b"], [1, 1], options, cropped=True)
        evidence.probs_of(linear, options)(np.stack(images))
    assert len(opened) == 1


def test_heatmaps_of_crops_are_placed_at_their_positions(linear: Classifier, own_cache: Cache, tmp_path: Path) -> None:
    from PIL import Image

    model = cropping(linear, 10)
    backbone = dataclasses.replace(
        model.card.backbone, preprocess=dataclasses.replace(model.card.backbone.preprocess, fit="crop", crop_fraction=0.875)
    )
    model = dataclasses.replace(model, card=dataclasses.replace(model.card, backbone=backbone))
    image = np.asarray(Image.fromarray(scenes(1, 5)[0]).resize((256, 256))).copy()
    image[:64, :64] = (255, 0, 255)  # a corner that the centre look hardly sees
    files = [tmp_path / "a.png", tmp_path / "broken.png"]
    Image.fromarray(image).save(files[0])
    files[1].write_bytes(b"no image")
    found, errors = heatmaps_of(model, files, ["a", "broken"], [1, 1], ExplainOptions(cache=own_cache))
    assert [item.path for item in found] == ["a"] and list(errors) == ["broken"]
    assert found[0].layer.startswith("mean over 10 crops") and found[0].box == pytest.approx((0, 0, 256, 256), abs=2)
    row, column = found[0].peak()
    assert row < 128 and column < 128, (row, column)
    images, kept = evidence.read_seen(model, files)
    assert kept == [0] and images.shape == (1, 128, 128, 3)
    probs = evidence.probs_of(model, ExplainOptions(cache=own_cache))(images)
    np.testing.assert_allclose(probs, model.predict([files[0]], cache=own_cache).probs, atol=0.02)


def test_from_python_a_layer_and_a_contrast_can_be_named(linear: Classifier, own_cache: Cache, tmp_path: Path) -> None:
    from PIL import Image

    image, _ = planted(scenes(1, 6), 7)
    Image.fromarray(image[0]).save(tmp_path / "a.png")
    one = sightline.explain(linear, tmp_path / "a.png", layer="layer3", method="gradcam", cache=own_cache)[0]
    assert one.heat.shape == (7, 7) and one.layer.startswith("layer3") and one.target == "square"
    against = sightline.explain(linear, tmp_path / "a.png", contrast="square", cache=own_cache)[0]
    assert (against.target, against.contrast) == ("plain", "square")  # its answer is the class that is set against
    with pytest.raises(RequestError, match="squar"):
        sightline.explain(linear, tmp_path / "a.png", contrast="squar", cache=own_cache)


@pytest.mark.slow
def test_images_get_their_classes_from_folders_and_catalogs(
    linear: Classifier, own_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setattr(explain, "gather", lambda *a, **b: None)  # the checks are tested elsewhere
    linear.save(tmp_path / "model.safetensors")
    images, _ = planted(scenes(2, 8), 9)
    for name, image in zip(("square/a.png", "plain/deep/b.png", "other/c.png"), [*images, scenes(1, 8)[0]], strict=True):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "set" / name)
    own = {"cache": own_cache, "out": str(tmp_path / "out")}
    rows = explain.explain(str(tmp_path / "model.safetensors"), [str(tmp_path / "set")], **own)
    assert {Path(r["path"]).name: r["label"] for r in rows} == {"a.png": "square", "b.png": "plain", "c.png": None}
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {
        "right-square.png",
        "wrong-plain.png",
    } <= names and "average.png" not in names  # one image a class; b has a square, and lies among the plain
    one = explain.explain(str(tmp_path / "model.safetensors"), [str(tmp_path / "set/square/a.png")], **own)
    assert one[0]["label"] is None
    table = tmp_path / "set.csv"
    catalog.save(sightline.scan(tmp_path / "set"), table)
    told = explain.explain(str(tmp_path / "model.safetensors"), [str(table)], target="plain", **own)
    assert {Path(r["path"]).name: (r["label"], r["target"]) for r in told}["c.png"] == ("other", "plain")
    plain = tmp_path / "plain.csv"  # not ours: path and label alone, and its word on b counts
    plain.write_text("path,label\nset/plain/deep/b.png,square\nset/square/a.png,plain\n", encoding="utf-8")
    told = explain.explain(str(tmp_path / "model.safetensors"), [str(plain)], **own)
    assert {Path(r["path"]).name: r["label"] for r in told} == {"a.png": "plain", "b.png": "square"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="no image in"):
        explain.explain(str(tmp_path / "model.safetensors"), [str(tmp_path / "empty")], **own)


@pytest.mark.slow
def test_a_constant_heatmap_has_no_peak_and_a_label(
    linear: Classifier, own_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from sightline.explanation.draw import overlay

    arrays = {**linear.head.arrays, "weights": np.zeros_like(linear.head.arrays["weights"])}
    dataclasses.replace(linear, head=dataclasses.replace(linear.head, arrays=arrays)).save(tmp_path / "flat.safetensors")
    Image.fromarray(scenes(1, 8)[0]).save(tmp_path / "a.png")
    notes = []
    monkeypatch.setattr(overlay, "_note", lambda pen, text, x, y: notes.append(text))
    row = explain.explain(
        str(tmp_path / "flat.safetensors"), [str(tmp_path / "a.png")], cache=own_cache, out=str(tmp_path / "out")
    )[0]
    assert row["peak"] is None and notes == ["uniform: no evidence"] and row["check"]["verdict"] != "passes"
