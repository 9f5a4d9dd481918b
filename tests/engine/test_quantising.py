"""int8: ranges belong to the network, and a quantised network is opened without torch."""

from __future__ import annotations

import numpy as np
import pytest

from sightline import engine, networks
from sightline.engine import quantising
from sightline.records import Backbone
from sightline.store import Cache

pytest.importorskip("nncf")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, Cache, bytes]:
    """A random network at 64 px, and its quantised form."""
    cache = Cache(tmp_path_factory.mktemp("int8"))
    backbone = networks.describe("resnet10t", weights="random", image_size=64, cache=cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantising, "CALIBRATION_IMAGES", 8)
        payload = engine.quantised(backbone, cache)
    assert payload is not None
    return backbone, cache, payload


def test_int8_features_are_near_float32_and_their_tail_is_in_float32(made: tuple[Backbone, Cache, bytes]) -> None:
    backbone, cache, payload = made
    images = quantising.calibration_images((64, 64))[:9]
    fast = engine.open_session(backbone, cache=cache, precision="int8", quantised=payload)
    exact = engine.open_session(backbone, cache=cache)
    features, maps = fast.run(images, maps=True)
    expected, _ = exact.run(images)
    assert fast.precision == "int8" and maps is not None
    assert 0.98 < engine.cosines(features, expected).mean() < 1 - 1e-6
    assert fast.tail_is_mean and np.abs(fast.tail(maps) - features).max() <= 1e-4 * np.abs(features).max()
    alone = np.concatenate([fast.run(images[i : i + 1])[0] for i in range(9)])
    np.testing.assert_array_equal(alone, features)


def test_a_network_is_quantised_once_and_opened_without_building_it(
    made: tuple[Backbone, Cache, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, cache, payload = made
    monkeypatch.setattr(networks, "build", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(quantising, "_quantise", lambda *_: 1 / 0)
    assert engine.quantised(backbone, cache) == payload
    session = engine.open_session(backbone, cache=cache, precision="int8", quantised=payload)
    assert session.run(np.zeros((1, 64, 64, 3), np.uint8))[0].shape == (1, backbone.features)
    assert session.ranges in session.identity


@pytest.mark.slow
def test_quantising_again_gives_the_same_bytes_and_prints_nothing(
    made: tuple[Backbone, Cache, bytes], cache: Cache, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone, _, payload = made
    monkeypatch.setattr(quantising, "CALIBRATION_IMAGES", 8)
    assert engine.quantised(backbone, cache) == payload
    printed = capfd.readouterr()
    assert printed.out == "" and "WARNING" not in printed.err


def test_without_nncf_there_is_no_int8(
    made: tuple[Backbone, Cache, bytes], cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> None:
        raise ImportError("No module named 'nncf'")

    monkeypatch.setattr(quantising, "nncf", missing)
    assert engine.quantised(made[0], cache) is None and "NNCF cannot be imported" in caplog.text


def test_a_damaged_network_in_int8_runs_in_float32(
    made: tuple[Backbone, Cache, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    backbone, cache, payload = made
    session = engine.open_session(backbone, cache=cache, precision="int8", quantised=payload[:200])
    assert session.precision == "f32" and "cannot run resnet10t in int8" in caplog.text


def test_calibration_images_are_the_same_everywhere() -> None:
    images = quantising.calibration_images((32, 48))
    assert images.shape == (200, 32, 48, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images, quantising.calibration_images((32, 48)))
    assert len({image.tobytes() for image in images}) == 200


@pytest.mark.slow
def test_a_network_whose_padding_depends_on_the_image_size_runs_in_int8(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantising, "CALIBRATION_IMAGES", 8)
    backbone = networks.describe("tf_mobilenetv3_small_minimal_100", weights="random", image_size=64, cache=cache)
    payload = engine.quantised(backbone, cache)
    session = engine.open_session(backbone, cache=cache, precision="int8", quantised=payload)
    assert session.precision == "int8" and session.run(np.zeros((1, 64, 64, 3), np.uint8))[0].shape == (1, backbone.features)
