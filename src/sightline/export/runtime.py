"""Runtimes of exported files: onnxruntime and OpenVINO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.engine.runtime import core, openvino
from sightline.errors import SightlineError
from sightline.export.agreement import FromPixels
from sightline.export.model import PROBABILITIES

if TYPE_CHECKING:
    import onnx


def onnx_session(model: bytes) -> Any:
    """Return an onnxruntime session on the CPU."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(model: onnx.ModelProto) -> FromPixels:
    """Return the function of a graph whose inputs are preprocessed images, in onnxruntime."""
    session = onnx_session(model.SerializeToString())
    names = [value.name for value in session.get_inputs()]

    def run(images: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(session.run([PROBABILITIES], dict(zip(names, images, strict=True)))[0])

    return run


def run_openvino(model: onnx.ModelProto) -> FromPixels:
    """Return the function of a graph whose inputs are preprocessed images, in OpenVINO."""
    compiled = core().compile_model(openvino_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [value.get_any_name() for value in compiled.inputs]

    def run(images: Sequence[np.ndarray]) -> np.ndarray:
        return np.array(compiled(dict(zip(names, images, strict=True)))[PROBABILITIES])

    return run


def openvino_model(model: onnx.ModelProto) -> Any:
    """Return an ONNX model as an OpenVINO model, with its metadata as JSON in the runtime information `sightline/facts`.

    Raises:
        SightlineError: If OpenVINO is not installed.
    """
    module = openvino()
    if module is None:
        raise SightlineError("OpenVINO is not installed", "pip install openvino, or export --to onnx")
    made = core().read_model(model.SerializeToString(), module.Tensor(np.zeros(0, np.uint8)))
    facts = {p.key.removeprefix("sightline."): json.loads(p.value) for p in model.metadata_props}
    made.set_rt_info(json.dumps(facts, ensure_ascii=False), ["sightline", "facts"])
    return made


def save_openvino(made: Any, file: Path) -> None:
    """Write an OpenVINO model as .xml and .bin; the weights stay in float32."""
    openvino().save_model(made, str(file), compress_to_fp16=False)  # type: ignore[union-attr]
