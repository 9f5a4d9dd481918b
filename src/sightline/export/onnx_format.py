"""Export to ONNX, for onnxruntime and every other runtime that reads ONNX."""

from __future__ import annotations

import runpy

import numpy as np

from sightline.export import model as graphs
from sightline.export import runtime, script
from sightline.export.format import ExportFormat, ExportRequest, Written
from sightline.store import write_bytes, write_text


def write(request: ExportRequest) -> Written:
    """Write `STEM.onnx` and `predict.py`."""
    file, single = f"{request.stem}.onnx", request.precision == "f32"
    networks = None
    if not single:
        from sightline.export.int8 import quantised_onnx

        networks = quantised_onnx(request)
    whole = graphs.build(request.model, request.cache, networks=networks)
    write_bytes(request.folder / file, whole.proto.SerializeToString())
    write_text(request.folder / "predict.py", script.onnx_script(file))
    functions = runpy.run_path(str(request.folder / "predict.py"))
    predict = functions["predict"]
    if not single:
        return Written((file, "predict.py"), (file,), predict)
    core = graphs.build(request.model, request.cache, from_pixels=True)
    run = runtime.run_onnx(core.proto)
    return Written((file, "predict.py"), (file,), lambda path: np.asarray(predict(path)), core.inputs, run)


FORMAT = ExportFormat(name="onnx", title="ONNX, for onnxruntime", suffix=".onnx", precisions=("f32", "int8"), write=write)
