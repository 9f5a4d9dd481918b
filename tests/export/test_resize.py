"""The preprocessing inside an exported graph gives the pixels of the decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sightline import pixels
from sightline.engine.graph import Graph, Value
from sightline.export.resize import crop_views, preprocess_image
from sightline.records import Preprocess

onnxruntime = pytest.importorskip("onnxruntime")
SIZES = [(40, 60), (61, 43), (24, 32), (300, 90), (90, 300), (500, 700), (1001, 333), (7, 5)]


def compiled(preprocess: Preprocess, real: Any = np.float64, crops: int = 1) -> Any:
    """Return a function image → network's input in onnxruntime."""
    from onnx import TensorProto, helper

    graph = Graph(np.dtype(real))
    image = Value(graph, "image", np.dtype(np.uint8))
    result = preprocess_image(image, pixels.uncut(preprocess) if crops > 1 else preprocess)
    result = crop_views(result, preprocess, crops) if crops > 1 else result
    model = graph.model(
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])],
        [helper.make_tensor_value_info(result.name, TensorProto.UINT8, None)],
        {},
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda array: session.run(None, {"image": array})[0]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_pixels_are_those_of_the_decoder(fit: Any, interpolation: Any) -> None:
    preprocess = Preprocess(size=(24, 32), fit=fit, interpolation=interpolation)
    run, rng = compiled(preprocess), np.random.default_rng(0)
    for size in SIZES:
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        assert np.array_equal(run(image)[0], pixels.decode_array(image, preprocess)), size


def test_square_crops_and_float32_geometry() -> None:
    preprocess, rng = Preprocess(size=(32, 32)), np.random.default_rng(1)
    exact, single = compiled(preprocess), compiled(preprocess, np.float32)
    for size in SIZES:
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        expected = pixels.decode_array(image, preprocess)
        assert np.array_equal(exact(image)[0], expected)
        difference = np.abs(single(image)[0].astype(int) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.05


def test_ten_crops_are_those_of_prediction() -> None:
    preprocess = Preprocess(size=(16, 16))
    image = np.random.default_rng(2).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    whole = pixels.decode_array(image, pixels.uncut(preprocess))[None]
    expected = np.concatenate([pixels.cut(whole, preprocess.size, i) for i in range(10)])
    assert np.array_equal(compiled(preprocess, crops=10)(image), expected)
