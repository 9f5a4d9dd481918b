"""The scikit-learn interface: the estimators work wherever scikit-learn's do, and predict exactly what the commands predict."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import sightline as sl
from sightline import features
from sightline.errors import DataError, ImageError, RequestError


@pytest.fixture
def files(digits: Path) -> tuple[list[str], list[int]]:
    """60 files of three digits, and their labels."""
    found = [f for label in "017" for f in sorted((digits / label).glob("*.png"))[:20]]
    return [str(f) for f in found], [int(f.parent.name) for f in found]


def pixels_classifier(**params: Any) -> sl.ImageClassifier:
    return sl.ImageClassifier(**{"backbone": "pixels", "head": "centroid", "image_size": 8, **params})


ESTIMATORS = [pixels_classifier(), sl.FeatureExtractor("pixels", image_size=8)]


@pytest.mark.filterwarnings("ignore:Can't test estimator")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_passes_the_checks_of_scikit_learn_that_take_no_table(estimator: Any) -> None:
    estimator_checks.check_estimator(estimator)
    name = type(estimator).__name__
    for check in (
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
    ):
        check(name, clone(estimator))


def test_predicts_exactly_what_the_command_predicts(files: tuple[list[str], list[int]], tmp_path: Path) -> None:
    paths, labels = files
    model = pixels_classifier().fit(paths, labels)
    saved = model.save(tmp_path / "digits.safetensors")
    commanded = sl.predict(saved, paths)
    assert np.array_equal(model.predict_proba(paths), commanded.probs)
    assert model.predict(paths).tolist() == [int(label) for label in commanded.labels]
    assert np.array_equal(sl.ImageClassifier.from_classifier(saved).predict_proba(paths), commanded.probs)
    assert model.score(paths, labels) > 0.9
    assert model.classes_.dtype == np.int64


def test_takes_paths_pillow_images_arrays_and_lists_of_them(files: tuple[list[str], list[int]]) -> None:
    paths, labels = files
    arrays = [np.asarray(Image.open(p)) for p in paths]
    expected = pixels_classifier().fit(paths, labels).predict_proba(paths)
    mixed = [Path(paths[0]), Image.open(paths[1]), arrays[2], *paths[3:]]
    for images in (
        arrays,
        np.stack(arrays),
        np.array(paths),
        np.array(paths, dtype=object),
        mixed,
        [Image.open(p) for p in paths],
    ):
        assert np.array_equal(pixels_classifier().fit(images, labels).predict_proba(images), expected)


def test_turns_pillow_images_upright_and_keeps_alpha() -> None:
    image = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    image.getexif()[0x0112] = 6
    upright = sl.FeatureExtractor("pixels", image_size=4, resize="squash").fit_transform([image])[0].reshape(4, 4, 3)
    assert upright[0, -1, 0] > upright[0, -1, 1] + 0.2  # the red corner is at the top right, on a white background
    assert upright[-1, 0].min() == 1


def test_works_in_cross_validation_searches_pipelines_and_pickles(files: tuple[list[str], list[int]]) -> None:
    paths, labels = files
    assert cross_val_score(pixels_classifier(), paths, labels, cv=3).mean() > 0.9
    search = GridSearchCV(pixels_classifier(), {"head": ["centroid", "ridge"], "image_size": [2, 8]}, cv=2).fit(paths, labels)
    assert search.best_params_["image_size"] == 8
    pipeline = make_pipeline(sl.FeatureExtractor("pixels", image_size=8), LogisticRegression()).fit(paths, labels)
    assert pipeline.score(paths, labels) > 0.9
    model = clone(pixels_classifier(head_settings={"shrinkage": 0.3})).fit(paths, labels)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(paths), model.predict_proba(paths))


def test_shares_the_cache(files: tuple[list[str], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    paths, labels = files
    arrays = [np.asarray(Image.open(p)) for p in paths]
    sl.FeatureExtractor("pixels", image_size=8).fit_transform(paths)
    sl.FeatureExtractor("pixels", image_size=8).fit_transform(arrays)
    monkeypatch.setattr(features.pixels, "batches", lambda *a, **k: pytest.fail("an image was decoded again"))
    pixels_classifier().fit(paths, labels).predict(paths)
    pixels_classifier().fit(arrays, labels).predict(arrays)


def test_refuses_what_holds_no_images(files: tuple[list[str], list[int]], tmp_path: Path) -> None:
    paths, labels = files
    for images in (np.zeros((5, 3)), paths[0], [3, 4], [], {"a": 1}, [np.zeros((2, 2, 7))]):
        with pytest.raises(RequestError, match="pass a list of files"):
            pixels_classifier().fit(images, labels)
    with pytest.raises(DataError, match="60 images and 59 labels"):
        pixels_classifier().fit(paths, labels[1:])
    with pytest.raises(DataError, match="all images have the label"):
        pixels_classifier().fit(paths, [1] * 60)
    with pytest.raises(ImageError, match=r"missing\.png does not exist"):
        pixels_classifier().fit([*paths, str(tmp_path / "missing.png")], [*labels, 1])
    with pytest.raises(ImageError, match=r"array 1 has no finite value"):
        sl.FeatureExtractor("pixels", image_size=8).fit_transform([np.zeros((4, 4)), np.full((4, 4), np.nan)])


@pytest.mark.slow
def test_one_image_per_class_and_several_heads_can_be_fitted(files: tuple[list[str], list[int]]) -> None:
    paths, labels = files
    assert pixels_classifier().fit(paths[::20], labels[::20]).predict(paths[::20]).tolist() == [0, 1, 7]
    model = pixels_classifier(head="auto").fit(paths, labels)
    assert model.classifier_.card.head == model.classifier_.card.recipe.head


def test_explains(files: tuple[list[str], list[int]]) -> None:
    paths, labels = files
    model = pixels_classifier().fit(paths, labels)
    assert model.explain(paths[:1], method="masks")[0].path == paths[0]
