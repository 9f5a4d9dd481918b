"""8-bit networks: weights and activations as int8, with ranges calibrated on training images.

Only the networks are quantised; preprocessing, heads and calibration stay in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.engine import quantising, runtime
from sightline.errors import ImageError, RequestError, SightlineError
from sightline.export.format import ExportRequest
from sightline.export.model import IMAGE, NETWORK_PREFIX, networks_of
from sightline.export.network import network_model

if TYPE_CHECKING:
    import onnx


def quantised_onnx(request: ExportRequest) -> Mapping[str, Any]:
    """Return the networks of a classifier in 8 bits, from onnxruntime's quantiser, by the keys of `model.build`'s `networks`.

    Weights have a scale per channel and 7 bits; activations have ranges from all calibration images.

    Raises:
        RequestError: If there is no network, or no image to calibrate on.
    """
    import onnx
    from onnxruntime import quantization

    parts = networks_of(request.model)
    _check(parts, request.calibration)
    made = {}
    for key, member in parts.items():
        model = network_model(member, member.card.crops, request.cache)
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "f32.onnx"), Path(folder, "int8.onnx")
            onnx.save(model, str(source))
            quantization.quant_pre_process(str(source), str(source), skip_symbolic_shape=True)
            reader = _Reader(model.graph.input[0].name, _inputs(member, request.calibration))
            quantization.quantize_static(
                str(source),
                str(target),
                reader,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=["Conv", "Gemm", "MatMul"],
                nodes_to_exclude=_sensitive(onnx.load(str(source))),
            )
            made[key] = onnx.load(str(target))
    return made


def _sensitive(model: onnx.ModelProto) -> list[str]:
    """Return the names of the convolutions that stay in float32: the first, the last, and those of single channels.

    They hold few weights, and most of the error: on 100 photographs with MobileNetV2 the mean cosine similarity of features
    rises from 0.88 to 0.96. The reduced range of weights (7 bits) avoids saturation on processors without VNNI instructions.
    """
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    groups = [next((a.i for a in node.attribute if a.name == "group"), 1) for node in convolutions]
    chosen = [node.name for node, group in zip(convolutions, groups, strict=True) if group > 1]
    return list(dict.fromkeys([*chosen, *(node.name for node in (*convolutions[:1], *convolutions[-1:]))]))


class _Reader:
    """Calibration images for onnxruntime's quantiser."""

    def __init__(self, name: str, batches: Iterator[np.ndarray]) -> None:
        self._name, self._batches = name, batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next input, or None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def quantised_openvino(request: ExportRequest, model: Any) -> Any:
    """Return an OpenVINO model whose networks are in 8 bits, from NNCF.

    Weights have 7 bits, so that sums do not overflow on processors without VNNI instructions.

    Raises:
        RequestError: If there is no network, or no image to calibrate on.
        SightlineError: If NNCF is not installed.
    """
    _check(networks_of(request.model), request.calibration)
    nncf = _nncf()
    images = list(_images(request.calibration))
    names = [op.get_friendly_name() for op in model.get_ops()]
    outside = [name for name in names if not name.startswith(NETWORK_PREFIX)]
    with quantising.silent():
        return nncf.quantize(
            model,
            nncf.Dataset(images, lambda image: {IMAGE: image}),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=outside, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )


def _nncf() -> Any:
    """Return NNCF.

    Raises:
        SightlineError: If it is not installed.
    """
    try:
        with quantising.silent():
            return runtime.nncf()
    except ImportError as error:
        hint = "pip install nncf, or export --to onnx --precision int8"
        raise SightlineError(f"8-bit OpenVINO models need NNCF, which cannot be imported ({error})", hint) from error


def _check(parts: Mapping[str, Classifier], files: Sequence[Path]) -> None:
    """Check that there is something to quantise, and something to calibrate on.

    Raises:
        RequestError: If there is not.
    """
    if not parts:
        raise RequestError("there is no network to store in 8 bits", "leave out --precision")
    if not files:
        raise RequestError("int8 needs photographs to calibrate on", "export a run folder, or name some with --images")


def _inputs(member: Classifier, files: Sequence[Path]) -> Iterator[np.ndarray]:
    """Yield preprocessed images, uint8 (crops, height, width, 3)."""
    preprocess, crops = member.card.backbone.preprocess, member.card.crops
    for file in files:
        try:
            image = pixels.decode(file, pixels.uncut(preprocess) if crops > 1 else preprocess)[None]
        except ImageError:
            continue
        yield np.concatenate([pixels.cut(image, preprocess.size, i) for i in range(crops)]) if crops > 1 else image


def _images(files: Sequence[Path]) -> Iterator[np.ndarray]:
    """Yield whole images, uint8 (height, width, 3), at most 1,024 px wide or high."""
    for file in files:
        try:
            yield pixels.upright(file, max_side=1024)
        except ImageError:
            continue
