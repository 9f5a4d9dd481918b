"""8-bit networks: calibrated on training images with onnxruntime's quantiser, or with NNCF for OpenVINO."""

from __future__ import annotations

from typing import Any

from sightline.export.format import ExportRequest


def quantised_onnx(request: ExportRequest) -> dict[str, Any]:
    """Return the quantised networks."""
    raise NotImplementedError


def quantised_openvino(request: ExportRequest, model: Any) -> Any:
    """Return the quantised model."""
    raise NotImplementedError
