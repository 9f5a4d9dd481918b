"""Inference sessions: OpenVINO compared with torch, cache, conversion, import without telemetry."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from sightline import engine, networks
from sightline.engine import session as sessions
from sightline.errors import RequestError
from sightline.records import Backbone
from sightline.store import Cache

SMALL = ("resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224")
"""A mean tail, a tail with a layer of its own, tokens."""


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    """Random networks with small inputs."""
    cache = Cache(tmp_path_factory.mktemp("describe"))
    return {n: networks.describe(n, weights="random", cache=cache) for n in SMALL}


def images(backbone: Backbone, n: int) -> np.ndarray:
    """Noise with structure, uint8 (n, h, w, 3)."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (n, 8, 8, 3))
    h, w = backbone.preprocess.size
    return np.kron(coarse, np.ones((1, -(-h // 8), -(-w // 8), 1))).astype(np.uint8)[:, :h, :w]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_openvino_gives_torchs_features_and_maps(name: str, backbones: dict[str, Backbone], cache: Cache) -> None:
    backbone = backbones[name]
    x = images(backbone, 9)
    fast = engine.open_session(backbone, cache=cache)
    features, maps = fast.run(x, maps=True)
    assert fast.runtime == "openvino" and features.shape == (9, backbone.features) and maps is not None
    slow = sessions._torch_session(backbone, "f32", "cpu", cache, "k", lambda: networks.build(backbone))
    expected, expected_maps = slow.run(x, maps=True)
    assert expected_maps is not None
    scale = np.abs(expected).max()
    np.testing.assert_allclose(features, expected, atol=2e-4 * scale)
    np.testing.assert_allclose(maps, expected_maps, atol=2e-3 * np.abs(expected_maps).max())
    assert fast.tail_is_mean == slow.tail_is_mean == (name == "resnet10t")
    np.testing.assert_allclose(fast.tail(maps), features, atol=2e-3 * scale)
    alone = np.concatenate([fast.run(x[i : i + 1])[0] for i in range(3)])
    np.testing.assert_allclose(alone, features[:3], atol=1e-5 * scale)


@pytest.mark.slow
@pytest.mark.precision
def test_the_fastest_precision_gives_nearly_torchs_features(backbones: dict[str, Backbone], cache: Cache) -> None:
    backbone = backbones["mobilenetv3_small_050"]
    x = images(backbone, 9)
    session = engine.open_session(backbone, cache=cache, precision=engine.fast_precision())
    found, _ = session.run(x)
    assert session.precision == engine.fast_precision() and session.runtime == "openvino"
    expected, _ = sessions._torch_session(backbone, "f32", "cpu", cache, "k", lambda: networks.build(backbone)).run(x)
    assert engine.cosines(found, expected).min() > (0.9999 if session.precision == "f32" else 0.99)


def test_a_session_reports_the_precision_that_openvino_uses(
    backbones: dict[str, Backbone], cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If OpenVINO computes in float32 although bf16 was requested, the session reports float32."""
    from sightline.engine import runtime

    has_bf16 = runtime._has_bf16("cpu", False)
    monkeypatch.setenv("SIGHTLINE_PRECISION", "auto")
    monkeypatch.setattr(runtime, "_has_bf16", lambda device, training: True)
    session = engine.open_session(backbones["resnet10t"], cache=cache, precision="bf16")
    assert session.precision == ("bf16" if has_bf16 else "f32")


def test_float32_can_be_demanded_everywhere(
    backbones: dict[str, Backbone], cache: Cache, emulated_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.fast_precision() == engine.fast_precision(training=True) == "bf16"
    monkeypatch.setenv("SIGHTLINE_PRECISION", "f32")
    assert engine.fast_precision() == engine.fast_precision(training=True) == engine.allowed_precision("bf16") == "f32"
    assert engine.open_session(backbones["resnet10t"], cache=cache, precision="bf16").precision == "f32"
    monkeypatch.setenv("SIGHTLINE_PRECISION", "half")
    with pytest.raises(RequestError, match="SIGHTLINE_PRECISION is 'half', and must be auto or f32"):
        engine.fast_precision()


def test_a_converted_network_is_opened_without_building_it(backbones: dict[str, Backbone], cache: Cache) -> None:
    backbone = backbones["resnet10t"]
    first = engine.open_session(backbone, cache=cache)
    expected, _ = first.run(images(backbone, 4))

    def never() -> None:
        raise AssertionError("the network was built again")

    second = engine.open_session(backbone, cache=cache)
    second._load = never  # type: ignore[assignment]
    found, _ = second.run(images(backbone, 4))
    assert (found == expected).all() and second.tail_is_mean


def test_a_network_with_wrong_openvino_results_runs_in_torch(
    backbones: dict[str, Backbone], cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sessions, "WORST_COSINE", 1.1)
    session = engine.open_session(backbones["resnet10t"], cache=cache)
    session.run(images(session.backbone, 4))
    assert session.runtime == "torch" and "disagree" in caplog.text
    assert not [n for n in cache.names("networks") if n.endswith("/whole")]


def test_a_network_is_converted_after_many_calls_and_not_for_few_images(backbones: dict[str, Backbone], cache: Cache) -> None:
    runtimes = [engine.open_session(backbones["resnet10t"], cache=cache, expected=10).runtime for _ in range(3)]
    assert runtimes == ["torch", "torch", "openvino"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_tails_gradient_is_its_derivative(name: str, backbones: dict[str, Backbone], cache: Cache) -> None:
    session = engine.open_session(backbones[name], cache=cache)
    _, maps = session.run(images(session.backbone, 1), maps=True)
    assert maps is not None
    random = np.random.default_rng(1)
    weights = random.normal(size=session.backbone.features).astype(np.float32)
    gradient = session.tail_gradient(maps, weights)
    step = random.normal(size=maps.shape).astype(np.float32) * np.abs(maps).mean()
    eps = 1e-2

    def score(at: np.ndarray) -> float:
        return float(session.tail(at.astype(np.float32))[0].astype(np.float64) @ weights)

    numeric = (score(maps + eps * step) - score(maps - eps * step)) / (2 * eps)
    assert float((gradient * step).sum()) == pytest.approx(numeric, rel=0.05, abs=1e-3 * abs(score(maps)))


def test_the_pixels_backbone_returns_the_image(cache: Cache) -> None:
    backbone = networks.describe("pixels", image_size=8, cache=cache)
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    features, maps = engine.open_session(backbone, cache=cache).run(x, maps=True)
    np.testing.assert_array_equal(features, x.reshape(3, -1).astype(np.float32) / 255)
    assert maps is not None and maps.shape == (3, 8, 8, 3)


def test_cosines_of_zeros_and_nans() -> None:
    a = np.array([[1, 0], [0, 0], [0, 0], [np.nan, 1]], dtype=np.float32)
    b = np.array([[1, 0], [0, 0], [1, 0], [1, 1]], dtype=np.float32)
    assert engine.cosines(a, b).tolist() == [1, 1, 0, 0]


def test_the_first_import_of_openvino_hides_its_telemetry() -> None:
    code = (
        "import sys\nfrom sightline.engine import runtime\nruntime.core()\n"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert 'stub' in telemetry_utils.tm.__name__, telemetry_utils.tm\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_absent_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    with pytest.raises(RequestError, match="there is no device 'cdua'"):
        engine.choose_device("cdua")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="no cuda device on this machine"):
        engine.choose_device("cuda")
    assert engine.choose_device("cpu") == "cpu"


@pytest.mark.slow
def test_images_run_one_by_one_where_a_batch_would_change_their_features(
    backbones: dict[str, Backbone], cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = engine.open_session(backbones["resnet10t"], cache=cache)
    forward = sessions.Session._forward
    rounded = lambda self, x, maps: (forward(self, x, maps)[0] + len(x) * 1e-6, forward(self, x, maps)[1])  # noqa: E731
    x = images(backbones["resnet10t"], 4)
    session.run(x[:1])
    monkeypatch.setattr(sessions.Session, "_forward", rounded)
    alone = np.concatenate([session.run(x[i : i + 1])[0] for i in range(4)])
    np.testing.assert_array_equal(session.run(x)[0], alone)  # the first batch
    np.testing.assert_array_equal(session.run(x)[0], alone)
    features, maps = session.run(x, maps=True)
    assert maps is not None and len(features) == len(maps) == 4
