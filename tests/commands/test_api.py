"""Python API: accepted forms of classifiers and images, and errors for all others."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import sightline as sl
from sightline.classifier import Classifier
from sightline.cli.app import app
from sightline.errors import RequestError, SightlineError
from sightline.inputs import read_predictions
from sightline.networks import describe
from sightline.records import Card, Catalog, Explanation, Head, Recipe, Run
from sightline.store import Cache
from tests.conftest import write_few_digits

SIDE = 16


def left_half(cache: Cache, recipe: str = "features") -> Classifier:
    """Looks at the image's own pixels: the brighter the left half, the more a cat."""
    backbone = describe("pixels", cache=cache)
    rows, columns = backbone.preprocess.size
    weights = np.zeros((2, rows, columns, 3), dtype=np.float32)
    weights[0, :, : columns // 2], weights[1, :, : columns // 2] = 0.01, -0.01
    if backbone.layout == "nchw":
        weights = weights.transpose(0, 3, 1, 2)
    bias = np.array([-0.005, 0.005], dtype=np.float32) * rows * columns * 3 / 2
    head = Head("logistic", 2, {}, {"weights": np.ascontiguousarray(weights.reshape(2, -1)), "bias": bias})
    plain = dataclasses.replace(Recipe(), backbone="pixels")
    return Classifier(Card(("Cats", "dogs"), backbone, "logistic", {}, recipe, plain), head)


@pytest.fixture
def model(cache: Cache) -> Classifier:
    return left_half(cache)


@pytest.fixture
def images() -> np.ndarray:
    """uint8 (3, 2 SIDE, 2 SIDE, 3), noise: a cat, and two dogs."""
    made = np.random.default_rng(0).integers(0, 256, (3, 2 * SIDE, 2 * SIDE, 3), dtype=np.uint8)
    made[0, :, :SIDE], made[1:, :, :SIDE] = 255, 0
    return made


@pytest.fixture
def files(images: np.ndarray, tmp_path: Path) -> list[str]:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    names = [str(tmp_path / "photos" / f"{i}.png") for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(name)
    return names


def same(found: list[Explanation], expected: list[Explanation]) -> bool:
    """Whether heat, place and class are the same, whatever the images' names."""
    pairs = list(zip(found, expected, strict=True))
    assert all(one.target == other.target and one.box == other.box for one, other in pairs)
    return all(np.array_equal(one.heat, other.heat) for one, other in pairs)


def test_arrays_are_explained_as_the_files_that_hold_them(
    model: Classifier, images: np.ndarray, files: list[str], cache: Cache
) -> None:
    expected = sl.explain(model, files, cache=cache)
    assert [e.target for e in expected] == ["Cats", "dogs", "dogs"] and [e.path for e in expected] == files
    for given in (images, list(images), tuple(images), np.array(files), iter(files), str(Path(files[0]).parent)):
        assert same(sl.explain(model, given, cache=cache), expected)
    found = sl.explain(model, images, cache=cache)
    assert [e.path for e in found] == ["array 0", "array 1", "array 2"]
    for one in (images[0], images[:1], [images[0]], files[0], Path(files[0])):
        assert same(sl.explain(model, one, cache=cache), expected[:1])
    grey = images[..., 0]
    as_rgb = sl.explain(model, np.repeat(grey[..., None], 3, axis=3), cache=cache)
    assert same(sl.explain(model, grey, cache=cache), as_rgb) and same(sl.explain(model, grey[0], cache=cache), as_rgb[:1])


def test_a_catalog_is_explained_in_its_order(model: Classifier, files: list[str], cache: Cache) -> None:
    catalog = sl.scan(str(Path(files[0]).parent), label_from=r"(\d)\.png")
    assert isinstance(catalog, Catalog)
    found = sl.explain(model, catalog, cache=cache)
    assert [e.path for e in found] == catalog.paths and same(found, sl.explain(model, files, cache=cache))
    with pytest.raises(RequestError, match="no image"):
        sl.explain(model, catalog.where(label="9"), cache=cache)


def test_a_classifier_can_be_given_as_object_run_or_path(
    model: Classifier, images: np.ndarray, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    file = model.save(tmp_path / "run" / "classifier.safetensors")
    (tmp_path / "run" / "run.json").write_text('{"version": 1, "kind": "train"}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    expected, hidden = sl.explain(model, images, cache=cache), sl.hide(model, images[0], (0, 0, SIDE, 2 * SIDE), cache=cache)
    run = Run.load(tmp_path / "run")
    for given in ("run", tmp_path / "run", file, str(file), run, dataclasses.replace(run, classifier=model)):
        assert same(sl.explain(given, images, cache=cache), expected)
        again = sl.hide(given, images[0], (0, 0, SIDE, 2 * SIDE), cache=cache)
        np.testing.assert_array_equal(again.after, hidden.after)
    for wrong in (None, 5, object()):
        for ask in (lambda w: sl.explain(w, images, cache=cache), lambda w: sl.hide(w, images[0], (0, 0, 1, 1), cache=cache)):
            with pytest.raises(RequestError, match="a classifier cannot be of type") as told:
                ask(wrong)
            assert told.value.hint
    with pytest.raises(RequestError, match="no network"):
        sl.explain("resnet5o", images, cache=cache)


def test_explaining_a_classifier_without_pixels_is_refused(model: Classifier, images: np.ndarray, cache: Cache) -> None:
    blind = dataclasses.replace(model, card=dataclasses.replace(model.card, backbone=describe("none", cache=cache)))
    with pytest.raises(RequestError, match="does not use the image's pixels"):
        sl.explain(blind, images, cache=cache)
    with pytest.raises(RequestError, match="does not use the image's pixels"):
        sl.hide(blind, images[0], (0, 0, 1, 1), cache=cache)


@pytest.mark.slow
@pytest.mark.realdata
def test_a_published_network_is_explained_by_its_name(shared: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(shared / "weights"))
    file = min((shared / "data" / "imagenet_sample").glob("*_pug.JPEG"))
    (found,) = sl.explain("mobilenetv2_100", file, cache=cache)
    assert found.target == "pug"
    (other,) = sl.explain("mobilenetv2_100", file, target="PUG", contrast="boxer", cache=cache)
    assert other.contrast == "boxer"
    hidden = sl.hide("mobilenetv2_100", file, (0, 0, 40, 40), cache=cache)
    assert hidden.classes[int(hidden.before.argmax())] == "pug"


def test_targets_are_named_in_any_case_or_numbered_for_all_images_or_each(
    model: Classifier, images: np.ndarray, cache: Cache
) -> None:
    def asked(target: Any, **more: Any) -> list[str]:
        return [e.target for e in sl.explain(model, images, target=target, cache=cache, **more)]

    for target in (0, np.int64(0), "Cats", "cats", "CATS", ["cats", 0, "Cats"], np.zeros(3, dtype=np.int64)):
        assert asked(target) == ["Cats"] * 3
    assert asked(("dogs", 0, 1)) == ["dogs", "Cats", "dogs"]
    assert asked([None, None, "cats"]) == ["Cats", "dogs", "Cats"] and asked(None) == ["Cats", "dogs", "dogs"]
    (one,) = sl.explain(model, images[0], target=["dogs"], cache=cache)
    assert one.target == "dogs"
    assert asked("cats", contrast=1) == ["Cats"] * 3 and asked(None, contrast="DOGS") == ["Cats"] * 3


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("cast", "no class 'cast'"),
        (2, "class 2 is not one of the 2 classes"),
        (-1, "class -1"),
        (True, "True is not a class"),
        (0.0, "0.0 is not a class"),
        ({"a": 1}, "is not a class"),
        (["cats", "dogs"], "2 classes for 3 images"),
        ([], "0 classes for 3 images"),
        (["cats", "dogs", 7], "class 7"),
        (["cats", "dogs", 1.5], "1.5 is not a class"),
        (np.zeros((3, 1), dtype=int), "is not a class"),
    ],
)
def test_unknown_target_classes_are_refused(
    model: Classifier, images: np.ndarray, cache: Cache, target: Any, told: str
) -> None:
    with pytest.raises(RequestError, match=told) as refused:
        sl.explain(model, images, target=target, cache=cache)
    assert refused.value.hint
    if not isinstance(target, list | np.ndarray):
        with pytest.raises(RequestError, match=told):
            sl.explain(model, images, contrast=target, cache=cache)
    with pytest.raises(RequestError, match="compared with itself"):
        sl.explain(model, images, target=["cats", "dogs", None], contrast="Dogs", cache=cache)


def test_values_that_are_not_images_are_refused(
    model: Classifier, images: np.ndarray, files: list[str], cache: Cache, tmp_path: Path
) -> None:
    from PIL import Image

    (tmp_path / "empty").mkdir()
    odd = [[], (), None, 5, {}, b"x", [None], [[1, 2]], Image.fromarray(images[0]), np.array(5), np.zeros(7), images[None]]
    odd += [np.zeros((0, 4, 4, 3), np.uint8), [images[:1]], images.astype(complex), [images[0], files[0]], "nowhere.png"]
    odd += [str(tmp_path / "empty"), np.zeros((4, 0, 3), np.uint8)]
    for wrong in odd:
        for target in (None, "Cats"):
            with pytest.raises(RequestError) as told:
                sl.explain(model, wrong, target=target, cache=cache)  # type: ignore[arg-type]
            assert told.value.hint
    for wrong in (None, 5, [files[0]], "nowhere.png", str(tmp_path), images, np.array(5), images[0].astype(complex)):
        with pytest.raises(RequestError) as told:
            sl.hide(model, wrong, (0, 0, 4, 4), cache=cache)  # type: ignore[arg-type]
        assert told.value.hint
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    for ask in (sl.explain, lambda m, name, cache: sl.hide(m, name, (0, 0, 4, 4), cache=cache)):
        with pytest.raises(SightlineError, match=r"text\.png"):
            ask(model, str(tmp_path / "text.png"), cache=cache)  # type: ignore[operator]


def test_hide_accepts_regions_and_masks_for_files_and_arrays(
    model: Classifier, images: np.ndarray, files: list[str], cache: Cache
) -> None:
    half = (0, 0, SIDE, 2 * SIDE)
    mask = np.zeros((2 * SIDE, 2 * SIDE), dtype=bool)
    mask[:, :SIDE] = True
    expected = sl.hide(model, images[0], half, cache=cache)
    assert expected.before[0] > 0.5 and expected.before[0] > expected.after[0] + 0.2 and expected.share == 0.5
    assert expected.classes == ("Cats", "dogs")
    ways: list[Any] = [
        half,
        [half],
        list(half),
        "0,0,16,32",
        ["0,0,16,32"],
        np.array(half),
        np.array([half]),
        [(0, 0, 16, 9), half],
    ]
    ways += [mask, mask.tolist(), mask.astype(int).tolist(), mask.astype(np.uint8) * 255, mask.astype(float)]
    for covered in ways:
        for image in (images[0], files[0], Path(files[0]), images[0] / 255):
            np.testing.assert_allclose(sl.hide(model, image, covered, cache=cache).after, expected.after, atol=1e-3)
    for other in (mask, mask.tolist()):
        again = sl.hide(model, images[0], mask=other, cache=cache)
        np.testing.assert_array_equal(again.after, expected.after)
        np.testing.assert_array_equal(again.mask, mask)
    both = sl.hide(model, images[0], (SIDE, 0, 4, 4), mask=mask, cache=cache)
    assert both.share == (mask.sum() + 16) / mask.size
    assert sl.hide(model, images[0, ..., 0], half, cache=cache).image.shape == (2 * SIDE, 2 * SIDE, 3)


@pytest.mark.parametrize(
    ("covered", "told"),
    [
        ((), "nothing of"),
        ((0, 0, 999, 999), "all of"),
        ((99, 0, 1, 1), "beyond"),
        ((0, 0, 0, 3), "no area"),
        ((-1, 0, 2, 3), "starts outside"),
        ((1, 2, 3), "1 is not a region"),
        ([(1, 2, 3)], "is not a region"),
        ((1, 2, 3, 4.5), "is not a region"),
        ([None], "None is not a region"),
        ([[[1], [1, 2]]], "is not a region"),
        ("1,2", "'1,2' is not a region"),
        (None, "cannot be of type NoneType"),
        ({}, "cannot be of type dict"),
        ([[True, False]], "mask is 2×1 px"),
        ([[0, 1], [1]], "not equally long"),
        (np.ones((3, 3), dtype=bool), "mask is 3×3 px"),
        (np.array(5), "0-dimensional"),
        (np.full((32, 32), "x"), "other values than True and False"),
        (np.linspace(0, 1, 1024).reshape(32, 32), "other values than True and False"),
        (np.ones((32, 32), dtype=bool), "all of"),
    ],
)
def test_invalid_regions_and_masks_are_refused(
    model: Classifier, images: np.ndarray, cache: Cache, covered: Any, told: str
) -> None:
    with pytest.raises(RequestError, match=told) as refused:
        sl.hide(model, images[0], covered, cache=cache)
    assert refused.value.hint
    with pytest.raises(RequestError, match="two masks"):
        sl.hide(model, images[0], np.eye(32, dtype=bool), mask=np.eye(32, dtype=bool), cache=cache)


@pytest.mark.slow
def test_scoring_training_images_warns_and_out_of_fold_predictions_do_not(tmp_path: Path, cache: Cache) -> None:
    digits = write_few_digits(tmp_path / "digits", 12)
    catalog = sl.split(sl.scan(str(digits)), seed=0, cache=cache)
    recipe = sl.Recipe(backbone="pixels", head="logistic")
    run = sl.fit(catalog, recipe, out=tmp_path / "run", cache=cache)
    val, test = (catalog.where(split=name) for name in ("val", "test"))
    with pytest.warns(sl.TrainingImagesWarning, match=f"all {len(val)} images were used to fit this classifier"):
        flattering = sl.score(run.classifier.predict(val, cache=cache))
    assert flattering["accuracy"] == 1.0 and flattering["in_training"] == len(val)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        honest = sl.score(run.held_out)
        assert sl.score(run.classifier.predict(test, cache=cache))["in_training"] == 0
    assert honest["accuracy"] == run.data["val"]["accuracy"] < 1 and honest["n"] == len(catalog) - len(test)
    assert run.data["val_estimate"] == "CV (train+val, 5 folds)"
    crossed, of_val = (read_predictions(run.folder / "predictions" / f"{n}.csv") for n in ("cross_validated", "val"))
    assert crossed.paths == run.held_out.paths and set(of_val.paths) == set(val.paths)
    np.testing.assert_array_equal(of_val.probs, crossed.select(np.isin(crossed.paths, val.paths)).probs)

    sl.save_catalog(catalog, tmp_path / "digits.csv")
    asked = [str(run.folder), str(tmp_path / "digits.csv"), "--split", "all", "-o", str(tmp_path / "e")]
    ended = CliRunner().invoke(app, ["evaluate", *asked])
    lines = ended.stdout.splitlines()
    counted = f"{len(catalog) - len(test):,} of {len(catalog):,} images were used to fit this classifier"
    assert lines[0].startswith("CAUTION: ") and counted in " ".join(lines[:3])
    value = json.loads(CliRunner().invoke(app, ["evaluate", *asked, "--json"]).stdout)
    assert counted in value["caution"] and value["in_training"] == len(catalog) - len(test)
