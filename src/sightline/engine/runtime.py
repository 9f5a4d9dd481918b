"""OpenVINO: imported without its telemetry, torch modules converted for it, models packed, compiled and run."""

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
    """The `openvino` module, or None where there is no wheel for this machine.

    Importing it sends a usage event wherever `openvino_telemetry` can be imported. Nothing leaves the machine because of
    Sightline, so that module is hidden while OpenVINO is imported; it then takes its own silent stand-in.
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
"""Where a network can run."""


@functools.cache
def core() -> Any:
    """OpenVINO's one runtime of this process."""
    return openvino().Core()  # type: ignore[union-attr]


PRECISION_VARIABLE = "SIGHTLINE_PRECISION"
"""The environment variable that turns bf16 off: `f32` computes everything in float32, `auto` is the default."""


def allowed_precision(precision: Precision) -> Precision:
    """Return float32 where `SIGHTLINE_PRECISION` asks for it, else `precision`.

    Raises:
        RequestError: If the variable is neither `auto` nor `f32`.
    """
    setting = os.environ.get(PRECISION_VARIABLE) or "auto"
    if setting not in ("auto", "f32"):
        raise RequestError(f"{PRECISION_VARIABLE} is {setting!r}, and must be auto or f32", f"unset {PRECISION_VARIABLE}")
    return "f32" if setting == "f32" else precision


def fast_precision(device: str = "cpu", *, training: bool = False) -> Precision:
    """Return the fastest precision that this machine computes in: bf16 where its processor has it, else float32.

    Everything that may use bf16 asks this function, so that `SIGHTLINE_PRECISION` holds for all of it.

    Args:
        device: `cpu`, `cuda` or `mps`.
        training: Whether torch trains a network there. On a CPU torch then needs AVX512_BF16 or AMX; a frozen network runs in
            OpenVINO, which knows other instructions too.

    Raises:
        RequestError: If `SIGHTLINE_PRECISION` is neither `auto` nor `f32`.
    """
    if allowed_precision("bf16") == "f32":
        return "f32"
    return "bf16" if _has_bf16(device, training) else "f32"


def _has_bf16(device: str, training: bool) -> bool:
    """Whether bf16 is computed in hardware; where it is emulated it is slower than float32."""
    if device == "cpu" and not training:
        return openvino() is not None and "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    import torch

    if device == "cpu":
        found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # absent from older torch: then float32
        units = found.get("avx512_bf16") or found.get("amx_bf16")
        return bool(units and torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return device == "cuda" and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def choose_device(device: str = "auto") -> str:
    """`cpu`, `cuda` or `mps`: what `auto` means here, without importing torch on a machine with no accelerator.

    Raises:
        RequestError: There is no such device, or not on this machine.
    """
    if device not in ("auto", *DEVICES):
        raise unknown("device", device, ["auto", *DEVICES])
    if device == "cpu":
        return device
    if device != "auto":
        import torch

        if not {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
            raise RequestError(f"torch finds no {device} device on this machine", "leave out --device, or write --device cpu")
        return device
    if sys.platform == "darwin" or _has_nvidia():
        import torch

        if torch.cuda.is_available():
            return "cuda"
        if torch.backends.mps.is_available():
            return "mps"
    return "cpu"


def _has_nvidia() -> bool:
    """Whether an NVIDIA driver is loaded; asked of the system, since asking torch costs seconds."""
    if os.name == "nt":
        return Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll").exists()
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def convert(module: nn.Module, example: torch.Tensor) -> bytes:
    """A torch module as the bytes of an OpenVINO model with a free batch size, traced from one example.

    As bytes, since the constants of a model fresh from the front end lie in torch's memory, which may be gone when OpenVINO
    reads them.

    The front end is called directly: `openvino.convert_model` does the same around it and reports its use. torch's own check
    of a trace runs the network twice more; ours, on real images, comes later and says more.
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
    kind = openvino().Type.u8 if example.dtype == torch.uint8 else openvino().Type.f32  # type: ignore[union-attr]
    model.inputs[0].get_node().set_element_type(kind)
    model.inputs[0].get_node().set_partial_shape(openvino().PartialShape([-1, *example.shape[1:]]))  # type: ignore[union-attr]
    model.validate_nodes_and_infer_types()
    return pack(model)


def pack(model: Any) -> bytes:
    """An OpenVINO model as bytes: the length of its XML, the XML, the weights."""
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder, "m.xml"), Path(folder, "m.bin")
        openvino().serialize(model, str(xml), str(weights))  # type: ignore[union-attr]
        text = xml.read_bytes()
        return struct.pack("<Q", len(text)) + text + weights.read_bytes()


@dataclass(frozen=True, slots=True)
class Compiled:
    """A model ready to run, and the memory that its constants lie in, which OpenVINO reads but does not own.

    Attributes:
        precision: What OpenVINO computes in, which is float32 where the processor lacks what was asked for.
    """

    run: Any
    precision: Precision
    held: tuple[Any, ...]

    def __call__(self, values: np.ndarray) -> Any:
        """The outputs for one batch, in their order; they lie in OpenVINO's memory until the next call."""
        return self.run(values, share_outputs=True)


def compile_packed(payload: bytes, precision: Precision) -> Compiled:
    """What `pack` gave, ready to run."""
    (length,) = struct.unpack_from("<Q", payload)
    numbers = np.array(np.frombuffer(payload, np.uint8, offset=8 + length))  # aligned, and ours
    weights = openvino().Tensor(numbers, shared_memory=True)  # type: ignore[union-attr]
    model = core().read_model(model=payload[8 : 8 + length], weights=weights)
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core().compile_model(model, "CPU", hints)
    used: Precision = "bf16" if compiled.get_property("INFERENCE_PRECISION_HINT") == openvino().Type.bf16 else "f32"  # type: ignore[union-attr]
    return Compiled(compiled, used, (numbers, weights, model))


def version() -> str:
    """OpenVINO's version, `none` where it is not installed."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return "none"
