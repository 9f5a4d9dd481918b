"""The classics exported to ONNX give the same logits in OpenVINO, at any batch size."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline import networks
from sightline.networks import names
from sightline.networks.classics import CLASSICS

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
openvino = pytest.importorskip("openvino", reason="openvino is not installed")

SMALLEST_PX = 32  # below it maps are single cells, and a mistake about positions would not show
NETWORKS = [
    "lenet5",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "googlenet",
            "resnet18",
            "xception(width=0.25, middle_blocks=1)",
            "cnn(filters=[4, 8], flatten_dropout=0.3, dense=[(16, 0.5)])",
        )
    ),
]
"""One of each kind of block: deeper networks repeat them."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_same_logits_from_onnx(name: str, tmp_path: Path) -> None:
    side = max(SMALLEST_PX, CLASSICS[names.parse(name)[0]].smallest)
    made = networks.random_network(name, image_size=side, seed=3)
    batch = torch.export.Dim("batch", min=1, max=64)
    example = torch.zeros((2, made.channels, side, side))
    file = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            made.net, (example,), str(file), dynamo=True, verbose=False, external_data=False, dynamic_shapes=({0: batch},)
        )
    run = openvino.compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for n in (1, 3):
        x = torch.randn((n, made.channels, side, side), generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            expected = made.net(x).numpy()
        assert np.abs(run(x.numpy())[0] - expected).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))
