"""Export to OpenVINO: a model as XML with its weights beside it."""

from __future__ import annotations

import runpy

import numpy as np

from sightline.export import model as graphs
from sightline.export import runtime, script
from sightline.export.format import ExportFormat, ExportRequest, Written
from sightline.store import write_text


def write(request: ExportRequest) -> Written:
    """Write `STEM.xml`, `STEM.bin` and `predict.py`. OpenVINO has no float64 on a CPU, so geometry is in float32."""
    file, single = f"{request.stem}.xml", request.precision == "f32"
    made = runtime.openvino_model(graphs.build(request.model, request.cache, real=np.float32).proto)
    if not single:
        from sightline.export.int8 import quantised_openvino

        made = quantised_openvino(request, made)
    runtime.save_openvino(made, request.folder / file)
    write_text(request.folder / "predict.py", script.openvino_script(file))
    predict = runpy.run_path(str(request.folder / "predict.py"))["predict"]
    files = (file, f"{request.stem}.bin", "predict.py")
    if not single:
        return Written(files, files[:2], predict)
    core = graphs.build(request.model, request.cache, from_pixels=True, real=np.float32)
    return Written(files, files[:2], predict, core.inputs, runtime.run_openvino(core.proto))


FORMAT = ExportFormat(name="openvino", title="OpenVINO", suffix=".xml", precisions=("f32", "int8"), write=write)
