"""OpenVINO runtime: import it without telemetry, convert, compile and run models, and choose device and precision."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sightline.engine.instructions import has_vnni, instruction_class
from sightline.errors import RequestError, unknown
from sightline.store import log

if TYPE_CHECKING:
    import torch
    from torch import nn

Precision = Literal["f32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "int8")


@functools.cache
def openvino() -> Any | None:
    """Return the `openvino` module, or None if it is not installed.

    Importing it sends a usage event if `openvino_telemetry` can be imported. Sightline sends nothing, so that module is hidden
    during the import; OpenVINO then uses its own silent replacement.
    """
    if importlib.util.find_spec("openvino") is None:
        return None
    try:
        with _without_telemetry():
            return importlib.import_module("openvino")
    except ImportError as error:
        log.warning("OpenVINO cannot be imported (%s); networks run in torch", error)
        return None


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hide the module through which OpenVINO and NNCF report their use, for the block in which they are imported."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before


@functools.cache
def nncf() -> Any:
    """Return the `nncf` module, imported without its telemetry; its log messages below errors are silenced.

    Raises:
        ImportError: If it is not installed.
    """
    openvino()  # imported first: NNCF imports it
    with _without_telemetry():
        module = importlib.import_module("nncf")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return module


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


def precisions(device: str = "cpu") -> tuple[Precision, ...]:
    """Return the precisions in which a frozen network is tried on this machine, the fastest first; the last is float32.

    The order depends on the instruction class alone and is not timed, so that one command gives one classifier on machines of
    one kind: int8, bf16, float32 with VNNI, else bf16, float32; without those that the machine does not support.
    """
    if allowed_precision("int8") == "f32":
        return ("f32",)
    int8: tuple[Precision, ...] = ("int8",) if device == "cpu" and has_vnni() and openvino() is not None else ()
    bf16: tuple[Precision, ...] = ("bf16",) if _has_bf16(device, False) else ()
    return (*int8, *bf16, "f32")


def identity(runtime: str, precision: Precision, device: str, ranges: str = "") -> str:
    """Return what features depend on beside image, preprocessing and weights; part of their key in the cache.

    Args:
        runtime: `openvino`, `torch` or `numpy`.
        precision: Precision in use.
        device: `cpu`, `cuda` or `mps`.
        ranges: Identity of the quantised network, for int8.
    """
    if runtime == "numpy":
        return "numpy"
    if device == "cuda":
        import torch

        device = torch.cuda.get_device_name()
    machine = instruction_class() if device == "cpu" else device
    return " ".join(filter(None, [runtime, package_version(runtime), precision, ranges, machine]))


def identities(is_network: bool, precision: Precision, device: str, ranges: str = "") -> dict[str, Precision]:
    """Return `identity` → precision of the cached features that serve a request, the preferred first.

    Features in bf16 and float32 serve a request for bf16, since bf16 approximates float32; int8 is never mixed with another.
    """
    if not is_network:
        return {"numpy": "f32"}
    if precision == "int8":
        return {identity("openvino", precision, device, ranges): precision}
    kinds: tuple[Precision, ...] = (precision, "f32")
    runtimes = ("openvino", "torch") if device == "cpu" else ("torch",)
    return {identity(runtime, kind, device): kind for kind in kinds for runtime in runtimes}


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
    """Compiled model.

    Attributes:
        precision: Precision in use: float32 if the processor doesn't support the requested one.
        model: The model that was compiled, with the memory of its constants.
    """

    run: Any
    precision: Precision
    model: Unpacked

    def __call__(self, values: np.ndarray) -> Any:
        """Return the outputs for one batch; they are valid until the next call, since OpenVINO reuses their memory."""
        return self.run(values, share_outputs=True)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """OpenVINO model, and the memory of its constants, which OpenVINO reads but does not own."""

    graph: Any
    held: tuple[Any, ...]


def unpack(payload: bytes) -> Unpacked:
    """Return the model in the bytes of `pack`."""
    (length,) = struct.unpack_from("<Q", payload)
    numbers = np.array(np.frombuffer(payload, np.uint8, offset=8 + length))  # an aligned copy that we own
    weights = openvino().Tensor(numbers, shared_memory=True)  # type: ignore[union-attr]
    return Unpacked(core().read_model(model=payload[8 : 8 + length], weights=weights), (numbers, weights))


def compile_packed(payload: bytes, precision: Precision) -> Compiled:
    """Compile the bytes of `pack`. What a quantised network does not compute in int8, it computes in float32."""
    model = unpack(payload)
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core().compile_model(model.graph, "CPU", hints)
    is_bf16 = compiled.get_property("INFERENCE_PRECISION_HINT") == openvino().Type.bf16  # type: ignore[union-attr]
    used: Precision = "int8" if precision == "int8" else "bf16" if is_bf16 else "f32"
    return Compiled(compiled, used, model)


@functools.cache
def package_version(name: str = "openvino") -> str:
    """Return the version of an installed package, or `none`."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
