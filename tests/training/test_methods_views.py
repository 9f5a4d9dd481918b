"""Augmented views for fitting heads and crops for prediction, each cached separately."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline import classifier, engine, features, heads, pixels
from sightline.errors import DataError, RequestError
from sightline.records import Recipe
from sightline.store import Cache
from sightline.training import augment, augmented_views, context, methods, pretrained
from sightline.training.context import Context
from sightline.training.methods import features as on_features
from tests.conftest import write_few_digits

SMALL = Recipe(backbone="resnet10t", weights="random", image_size=32, head="logistic", settings={"head": {"C": [0.1, 1.0]}})


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """100 digits; features are kept from test to test."""
    folder = tmp_path_factory.mktemp("views")
    found = catalogs.scan(write_few_digits(folder / "digits", 10))
    cache = Cache(folder / "cache")
    twins = catalogs.find_duplicates(found, cache)
    divided = catalogs.split(found, clusters=twins)
    return Context(divided, catalogs.together(divided, twins), divided.classes, cache)


def with_settings(**settings: object) -> Recipe:
    return dataclasses.replace(SMALL, settings={**SMALL.settings, **settings})


# ----------------------------------------------------------------------------------------------------------- augmentation


def test_a_view_is_a_function_of_content_view_and_seed(gathered: Context) -> None:
    seen = pretrained.resolve(gathered, SMALL).preprocess
    looks = augmented_views.view_looks(gathered, seen, 3, "strong", 0)
    images = np.stack([pixels.decode(f, seen) for f in gathered.catalog.files()[:4]])
    contents = gathered.catalog.column("content")[:4]
    together = looks.make(1, images, contents)
    assert together.dtype == np.uint8 and together.shape == images.shape
    for i in (3, 0):
        np.testing.assert_array_equal(looks.make(1, images[[i]], [contents[i]])[0], together[i])
    assert not np.array_equal(looks.make(2, images, contents), together)
    other = augmented_views.view_looks(gathered, seen, 3, "strong", 1)
    assert not np.array_equal(other.make(1, images, contents), together)
    assert other.names != looks.names and len({str(n) for n in looks.names}) == 3


def test_a_view_is_the_augmented_image() -> None:
    """The identity changes nothing; a flip mirrors the image."""
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    same = augment.draw(augment.Policy(), 3, seed=0, epoch=1)
    np.testing.assert_array_equal(augmented_views.warped(images, same, "reflection"), images)
    mirrored = augment.draw(augment.Policy(flip=1.0), 3, seed=0, epoch=1)
    np.testing.assert_array_equal(augmented_views.warped(images, mirrored, "reflection"), images[:, :, ::-1])


@pytest.mark.slow
def test_adding_views_extracts_features_of_the_new_ones_only(gathered: Context) -> None:
    own = dataclasses.replace(gathered, cache=Cache(gathered.cache.root.parent / "counted"))
    backbone = pretrained.resolve(own, SMALL)
    rows = own.split("train", "val")
    counts = []
    for number in (2, 2, 3):
        looks = augmented_views.view_looks(own, backbone.preprocess, number, "light", 0)
        found = context.extract(own, backbone, "f32", rows, looks=looks)
        assert found.values.shape == (len(rows), number, backbone.features) and found.ok.all()
        counts.append(found.computed)
    distinct = len({own.catalog.column("content")[i] for i in rows})
    assert counts == [2 * distinct, 0, distinct]


@pytest.mark.slow
def test_views_are_trained_on_with_their_image_and_never_held_out(gathered: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds hold out unchanged images; views are in the training parts that contain their image."""
    seen: dict[str, object] = {}
    real = heads.fit

    def spy(kind: str, values: np.ndarray, labels: np.ndarray, classes: int, **own: object) -> heads.Fit:
        seen.update(values=values, labels=labels, folds=own["folds"])
        return real(kind, values, labels, classes, **own)  # type: ignore[arg-type]

    monkeypatch.setattr(on_features.heads, "fit", spy)
    best = methods.fit(gathered, with_settings(views=2, augment="light"))[0]
    rows = gathered.split("train", "val")
    n, labels = len(rows), np.asarray(seen["labels"])
    image = np.concatenate([np.arange(n), np.repeat(np.arange(n), 2)])
    assert len(labels) == 3 * n
    np.testing.assert_array_equal(labels, gathered.labels[rows][image])
    folds: Sequence[tuple[np.ndarray, np.ndarray]] = seen["folds"]  # type: ignore[assignment]
    for fitted, held in folds:
        assert held.max() < n and not set(image[fitted]) & set(held.tolist())
        counts = np.bincount(image[fitted], minlength=n)
        assert set(counts[counts > 0].tolist()) == {3}
    assert len(best.val) == n and best.label.endswith("logistic, 2 views")
    assert len(set(best.val.paths)) == n


def test_a_head_that_is_trained_by_epochs_has_a_history(gathered: Context) -> None:
    head = {"units": [[8, 0.0]], "epochs": 4}
    (made,) = methods.fit(gathered, dataclasses.replace(SMALL, head="mlp", settings={"head": head}))
    assert [row["epoch"] for row in made.history] == [1, 2, 3, 4]
    assert set(made.history[0]) == {"epoch", "train_loss", "val_loss", "val_accuracy"}
    best = made.detail["best_epoch"]
    assert best == min(made.history, key=lambda row: row["val_loss"])["epoch"]
    assert made.course is not None and made.course.startswith(f"Kept epoch {best} of 4")
    (plain,) = methods.fit(gathered, SMALL)
    assert plain.history == () and "best_epoch" not in plain.detail


def test_one_fold_scores_heads_on_the_validation_images(gathered: Context) -> None:
    (made,) = methods.fit(gathered, with_settings(folds=1))
    assert made.estimate == context.VAL
    assert set(made.val.paths) == set(gathered.catalog.where(split="val").paths)
    outside = gathered.catalog.rows(split != "val" for split in gathered.catalog.column("split"))
    alone = dataclasses.replace(gathered, catalog=outside, cluster=np.arange(len(outside)))
    with pytest.raises(DataError, match="a head with folds = 1 needs validation images"):
        methods.fit(alone, with_settings(folds=1))


def test_invalid_settings_of_views_are_refused(gathered: Context) -> None:
    with pytest.raises(RequestError, match="views cannot be 101"):
        methods.fit(gathered, with_settings(views=101))
    with pytest.raises(RequestError, match="did you mean 'light'"):
        methods.fit(gathered, with_settings(views=1, augment="ligth"))
    with pytest.raises(RequestError, match="'file' does not look at"):
        methods.fit(gathered, Recipe(backbone="file", head="ridge", settings={"views": 1}))


# ------------------------------------------------------------------------------------------------------------------ crops


@pytest.fixture(scope="module")
def plain(gathered: Context) -> classifier.Classifier:
    return methods.fit(gathered, SMALL)[0].classifier


def test_predictions_over_crops_are_the_calibrated_mean_of_probabilities(
    gathered: Context, plain: classifier.Classifier
) -> None:
    tests = gathered.catalog.where(split="test")
    run = plain.session(gathered.cache, device="cpu")
    seen = plain.card.backbone.preprocess
    whole = np.stack([pixels.decode(f, pixels.uncut(seen)) for f in tests.files()])
    for crops in (5, 10):
        each = [heads.probs(plain.head, run.run(pixels.cut(whole, seen.size, i))[0]) for i in range(crops)]
        expected = np.mean(each, axis=0) ** (1 / plain.card.temperature)
        expected /= expected.sum(axis=1, keepdims=True)
        found = plain.predict(tests, crops=crops, cache=gathered.cache)
        np.testing.assert_allclose(found.probs, expected, atol=1e-6)
    assert not np.allclose(found.probs, plain.predict(tests, cache=gathered.cache).probs, atol=1e-3)
    assert np.array_equal(
        plain.predict(tests, crops=1, cache=gathered.cache).probs, plain.predict(tests, cache=gathered.cache).probs
    )


def test_crops_of_files_and_arrays_agree_and_are_cached(
    gathered: Context, plain: classifier.Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = gathered.catalog.where(split="test")
    first = plain.predict(tests, crops=10, cache=gathered.cache)
    arrays = [pixels.upright(f, 4096, plain.card.backbone.preprocess) for f in tests.files()[:3]]
    np.testing.assert_allclose(plain.predict(arrays, crops=10, cache=gathered.cache).probs, first.probs[:3], atol=1e-5)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a network was opened for what is cached")

    monkeypatch.setattr(engine, "open_session", never)
    np.testing.assert_array_equal(plain.predict(tests, crops=10, cache=gathered.cache).probs, first.probs)
    plain.predict(tests, crops=5, cache=gathered.cache)  # the first five of the ten


def test_crops_of_a_recipe_are_saved_and_the_temperature_is_fitted_with_them(gathered: Context) -> None:
    best = methods.fit(gathered, with_settings(crops=5))[0]
    card = best.classifier.card
    assert card.crops == 5
    assert heads.temperature(heads.log_probs(best.val.probs), best.val.y_true) == pytest.approx(1.0, abs=0.02)
    again = best.classifier.predict(gathered.catalog.where(split="test"), cache=gathered.cache)
    asked = best.classifier.predict(gathered.catalog.where(split="test"), crops=5, cache=gathered.cache)
    np.testing.assert_array_equal(again.probs, asked.probs)
    assert card.temperature != methods.fit(gathered, SMALL)[0].classifier.card.temperature


@pytest.mark.parametrize("method", ["scratch", "frozen"])
def test_every_training_method_on_pixels_accepts_crops(gathered: Context, method: str) -> None:
    backbone = "cnn(filters=[4, 8])" if method == "scratch" else "resnet10t"
    recipe = dataclasses.replace(
        SMALL, method=method, backbone=backbone, head="auto", settings={"epochs": 1, "crops": 10, "augment": "none"}
    )
    best = methods.fit(gathered, recipe)[0]
    assert best.classifier.card.crops == 10
    rows = gathered.catalog.where(split="val")
    np.testing.assert_allclose(best.classifier.predict(rows, cache=gathered.cache).probs, best.val.probs, atol=1e-9)


@pytest.mark.parametrize("backbone", ["pixels", "file"])
def test_crops_are_refused_for_a_classifier_without_network(gathered: Context, backbone: str) -> None:
    recipe = Recipe(backbone=backbone, head="centroid")
    with pytest.raises(RequestError, match="5 crops are not possible for a classifier that uses"):
        methods.fit(gathered, dataclasses.replace(recipe, settings={"crops": 5}))
    made = methods.fit(gathered, recipe)[0].classifier
    with pytest.raises(RequestError, match="10 crops are not possible for"):
        made.predict(gathered.catalog.where(split="test"), crops=10, cache=gathered.cache)


def test_an_undecodable_image_has_no_crops(gathered: Context, plain: classifier.Classifier, tmp_path: object) -> None:
    broken = gathered.catalog.root / "broken.png"
    broken.write_bytes(b"no image")
    whole = gathered.catalog.files()[0]
    try:
        answers = plain.predict([broken, whole], crops=5, cache=gathered.cache)
    finally:
        broken.unlink()
    assert answers.paths == (str(whole),) and list(answers.errors) == [str(broken)]


def test_crops_of_one_image_under_two_names_are_computed_once(gathered: Context) -> None:
    backbone = pretrained.resolve(gathered, SMALL)
    file, content = gathered.catalog.files()[0], gathered.catalog.column("content")[0]
    looks = features.crop_views(backbone.preprocess, 5)
    found = features.extract_crops(
        [file, file],
        [content, content],
        backbone,
        looks,
        session=lambda count: engine.open_session(backbone, cache=gathered.cache),
        precision="f32",
        cache=gathered.cache,
    )
    np.testing.assert_array_equal(found.values[0], found.values[1])
    assert found.values.any(axis=(0, 2)).all()
