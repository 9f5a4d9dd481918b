"""OpenVINO runtime: import it without telemetry, convert, compile and run models, and choose device and precision."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sightline.errors import RequestError, unknown
from sightline.store import log

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["f32", "bf16"]


@functools.cache
def openvino() -> Any | None:
    """Return the `openvino` module, or None if it is not installed.

    Importing it sends a usage event if `openvino_telemetry` can be imported. Sightline sends nothing, so that module is hidden
    during the import; OpenVINO then uses its own silent replacement.
    """
    if importlib.util.find_spec("openvino") is None:
        return None
    hidden = "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        log.warning("OpenVINO cannot be imported (%s); networks run in torch", error)
        return None
    finally:
        if hidden:
            sys.modules.pop("openvino_telemetry", None)
    return openvino


DEVICES = ("cpu", "cuda", "mps")
"""Devices on which a network can run."""


@functools.cache
def core() -> Any:
    """Return the OpenVINO runtime of this process."""
    return openvino().Core()  # type: ignore[union-attr]


PRECISION_VARIABLE = "SIGHTLINE_PRECISION"
"""Environment variable that disables bf16: `f32` computes everything in float32, `auto` is the default."""


def allowed_precision(precision: Precision) -> Precision:
    """Return `f32` if `SIGHTLINE_PRECISION` demands it, else `precision`.

    Raises:
        RequestError: If the variable is neither `auto` nor `f32`.
    """
    setting = os.environ.get(PRECISION_VARIABLE) or "auto"
    if setting not in ("auto", "f32"):
        raise RequestError(f"{PRECISION_VARIABLE} is {setting!r}, and must be auto or f32", f"unset {PRECISION_VARIABLE}")
    return "f32" if setting == "f32" else precision


def fast_precision(device: str = "cpu", *, training: bool = False) -> Precision:
    """Return the fastest precision of this machine: bf16 if its processor supports it, else float32.

    All code that may use bf16 calls this function, so that `SIGHTLINE_PRECISION` applies everywhere.

    Args:
        device: `cpu`, `cuda` or `mps`.
        training: Whether torch trains a network there. On a CPU torch then needs AVX512_BF16 or AMX; a frozen network runs in
            OpenVINO, which supports other instructions too.

    Raises:
        RequestError: If `SIGHTLINE_PRECISION` is neither `auto` nor `f32`.
    """
    if allowed_precision("bf16") == "f32":
        return "f32"
    return "bf16" if _has_bf16(device, training) else "f32"


def _has_bf16(device: str, training: bool) -> bool:
    """Return whether the hardware supports bf16; emulated bf16 is slower than float32."""
    if device == "cpu" and not training:
        return openvino() is not None and "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    import torch

    if device == "cpu":
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # absent from older torch: then float32
        units = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        return bool(units and torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return device == "cuda" and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def choose_device(device: str = "auto") -> str:
    """Return `cpu`, `cuda` or `mps`, with `auto` resolved; doesn't import torch on a machine without an accelerator.

    Raises:
        RequestError: If the device is unknown, or absent from this machine.
    """
    if device not in ("auto", *DEVICES):
        raise unknown("device", device, ["auto", *DEVICES])
    if device == "cpu":
        return device
    if device != "auto":
        import torch

        if not {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
            raise RequestError(f"torch finds no {device} device on this machine", "leave out --device, or use --device cpu")
        return device
    if sys.platform == "darwin" or _has_nvidia():
        import torch

        if torch.cuda.is_available():
            return "cuda"
        if torch.backends.mps.is_available():
            return "mps"
    return "cpu"


def _has_nvidia() -> bool:
    """Return whether an NVIDIA driver is loaded, by its device files: importing torch takes seconds."""
    if os.name == "nt":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll").exists()
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def convert(module: nn.Module, example: torch.Tensor) -> bytes:
    """Convert a torch module to the bytes of an OpenVINO model with dynamic batch size, traced from one example.

    The result is bytes because the constants of a newly converted model lie in torch's memory, which may be freed before
    OpenVINO reads them.

    The front end is called directly, since `openvino.convert_model` reports its use. torch's check of the trace would run the
    network twice more; the session later compares the model with torch on real images.
    """
    import warnings

    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, (example,), check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))
        front_end = FrontEndManager().load_by_framework("pytorch")
        model = front_end.convert(front_end.load(decoder))
    dtype = openvino().Type.u8 if example.dtype == torch.uint8 else openvino().Type.f32  # type: ignore[union-attr]
    model.inputs[0].get_node().set_element_type(dtype)
    model.inputs[0].get_node().set_partial_shape(openvino().PartialShape([-1, *example.shape[1:]]))  # type: ignore[union-attr]
    model.validate_nodes_and_infer_types()
    return pack(model)


def pack(model: Any) -> bytes:
    """Return an OpenVINO model as bytes: the length of its XML, the XML, the weights."""
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder, "m.xml"), Path(folder, "m.bin")
        openvino().serialize(model, str(xml), str(weights))  # type: ignore[union-attr]
        text = xml.read_bytes()
        return struct.pack("<Q", len(text)) + text + weights.read_bytes()


@dataclass(frozen=True, slots=True)
class Compiled:
    """Compiled model with the memory of its constants, which OpenVINO reads but does not own.

    Attributes:
        precision: Precision in use: float32 if the processor doesn't support the requested one.
    """

    run: Any
    precision: Precision
    held: tuple[Any, ...]

    def __call__(self, values: np.ndarray) -> Any:
        """Return the outputs for one batch; they are valid until the next call, since OpenVINO reuses their memory."""
        return self.run(values, share_outputs=True)


def compile_packed(payload: bytes, precision: Precision) -> Compiled:
    """Compile the bytes of `pack`."""
    (length,) = struct.unpack_from("<Q", payload)
    numbers = np.array(np.frombuffer(payload, np.uint8, offset=8 + length))  # an aligned copy that we own
    weights = openvino().Tensor(numbers, shared_memory=True)  # type: ignore[union-attr]
    model = core().read_model(model=payload[8 : 8 + length], weights=weights)
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core().compile_model(model, "CPU", hints)
    used: Precision = "bf16" if compiled.get_property("INFERENCE_PRECISION_HINT") == openvino().Type.bf16 else "f32"  # type: ignore[union-attr]
    return Compiled(compiled, used, (numbers, weights, model))


def version() -> str:
    """Return the version of OpenVINO, or `none` if it is not installed."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return "none"
