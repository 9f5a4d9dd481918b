"""An exported graph computes what the classifier computes, for every head, with crops, and for ensembles."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import sightline as sl
from sightline.classifier import Classifier
from sightline.errors import RequestError
from sightline.evaluation import out_of_distribution
from sightline.export import model as exported
from sightline.heads import HEADS
from sightline.records import Uncertainty
from sightline.store import Cache

onnxruntime = pytest.importorskip("onnxruntime")


def images(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return random images whose mean colour tells their class, and the classes."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    x = rng.integers(0, 120, (n, 20, 30, 3)) + 100 * np.eye(3, dtype=int)[y][:, None, None]
    return x.astype(np.uint8), y


def fitted(head: str = "centroid", side: int = 4, **params: Any) -> Classifier:
    """Return a classifier of the pixels of `images`."""
    return sl.ImageClassifier("pixels", head, image_size=side, **params).fit(*images()).classifier_


def run(model: Classifier, cache: Cache, arrays: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
    """Return the outputs of the exported graph for each image."""
    proto = exported.build(model, cache, **options).proto
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rows = [session.run(None, {"image": array}) for array in arrays]
    return {name: np.stack([row[i] for row in rows]) for i, name in enumerate(names)}


@pytest.mark.parametrize("head", HEADS)
def test_probabilities_of_every_head(head: str, cache: Cache) -> None:
    settings = {"forest": {"trees": 5}, "mlp": {"units": [[8, 0.0]], "epochs": 3}}.get(head)
    model, (x, _) = fitted(head, head_settings=settings), images()
    expected = model.predict(x, cache=cache).probs
    for real, most in ((np.float64, 1e-6), (np.float32, 1e-3)):
        assert np.abs(run(model, cache, x[:8], real=real)["probabilities"] - expected[:8]).max() < most


def test_neighbours_at_distance_zero_vote_alike(cache: Cache) -> None:
    x, y = images(12)
    model = sl.ImageClassifier("pixels", "knn", image_size=4, head_settings={"neighbours": 2})
    rows = [0] * 6 + [1] * 6
    model.fit(x[rows], y[rows])
    expected = model.predict_proba(x[:2])
    assert np.abs(run(model.classifier_, cache, x[:2])["probabilities"] - expected).max() < 1e-6


def ensemble() -> Classifier:
    """Return an ensemble of two classifiers whose classes are in another order."""
    first, second = fitted(), fitted("ridge", 8)
    order = (2, 0, 1)
    arrays = {name: array[list(order)] if name in ("weights", "bias") else array for name, array in second.head.arrays.items()}
    names = tuple(second.classes[i] for i in order)
    second = dataclasses.replace(
        second, card=dataclasses.replace(second.card, classes=names), head=dataclasses.replace(second.head, arrays=arrays)
    )
    backbone = dataclasses.replace(first.card.backbone, source="ensemble", name="ensemble")
    card = dataclasses.replace(
        first.card, backbone=backbone, head="ensemble", members=(first.card, second.card), weights=(0.7, 0.3), temperature=1.7
    )
    return Classifier(card, dataclasses.replace(first.head, arrays={}), members=(first, second))


def test_ensembles(cache: Cache) -> None:
    model, (x, _) = ensemble(), images()
    expected = model.predict(x, cache=cache)
    assert np.abs(run(model, cache, x[:8])["probabilities"] - expected.probs[:8]).max() < 1e-6


@pytest.mark.parametrize("side", [4, 20])
def test_distance_from_the_training_images(side: int, cache: Cache) -> None:
    """Also of features that are folded because there are more than 1,024."""
    x, _ = images()
    features = sl.FeatureExtractor("pixels", image_size=side).fit_transform(x[:9])
    bank = out_of_distribution.directions(features).astype(np.float16)
    model = fitted(side=side)
    model = dataclasses.replace(
        model, card=dataclasses.replace(model.card, uncertainty=Uncertainty(ood_threshold=0.1)), limits={"bank": bank}
    )
    expected = model.predict(x, cache=cache).ood_score
    assert expected is not None
    assert np.abs(run(model, cache, x)["ood_score"][:, 0] - expected).max() < 1e-5
    assert np.abs(run(model, cache, x, small=True)["ood_score"][:, 0] - expected).max() < 5e-3


def test_metadata_tells_how_to_use_the_file(cache: Cache) -> None:
    facts = {p.key: p.value for p in exported.build(fitted(), cache).proto.metadata_props}
    assert facts["sightline.classes"] == '["0", "1", "2"]'
    assert {"sightline.licence", "sightline.temperature", "sightline.prediction_set", "sightline.input"} <= set(facts)


def test_a_classifier_of_file_properties_is_refused(cache: Cache) -> None:
    model = fitted()
    card = dataclasses.replace(model.card, backbone=dataclasses.replace(model.card.backbone, source="file"))
    with pytest.raises(RequestError, match="cannot be exported"):
        exported.build(dataclasses.replace(model, card=card), cache)


@pytest.mark.slow
def test_crops_of_a_network_from_an_image_and_from_pixels(cache: Cache) -> None:
    pytest.importorskip("onnxscript")
    x, y = images(12)
    model = sl.ImageClassifier("cnn(filters=[4])", "ridge", weights="random", image_size=16).fit(x, y).classifier_
    model = dataclasses.replace(model, card=dataclasses.replace(model.card, crops=10))
    expected = model.predict(x, cache=cache).probs
    assert np.abs(run(model, cache, x)["probabilities"] - expected).max() < 1e-5
    made = exported.build(model, cache, from_pixels=True)
    session = onnxruntime.InferenceSession(made.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    from sightline import pixels

    whole = pixels.decode_array(x[0], made.inputs[0])[None]
    assert np.abs(session.run(None, {"pixels_1": whole})[0] - expected[0]).max() < 1e-5
