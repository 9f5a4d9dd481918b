"""Vector instructions of the processor, on which the speed of a precision and the last bits of a result depend."""

from __future__ import annotations

import functools
import importlib
import platform
import sys

_FLAGS = (
    *("avx", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)
"""Instructions that OpenVINO and torch choose their kernels by, named as in Linux's /proc/cpuinfo."""
_NUMPY_NAMES = {
    "AVX": "avx",
    "AVX2": "avx2",
    "FMA3": "fma",
    "AVX512F": "avx512f",
    "AVX512VNNI": "avx512_vnni",
    "AVX512BF16": "avx512_bf16",
    "ASIMD": "asimd",
    "ASIMDDP": "asimddp",
    "SVE": "sve",
}
"""numpy's names of the same instructions."""


@functools.cache
def instruction_class() -> str:
    """Return the machine type and the vector instructions of the processor.

    Windows and macOS do not list instructions in a file. There those that numpy detects are returned, among which `avx_vnni` of
    processors without AVX512 is not.

    Example:
        >>> instruction_class().split()[0] == platform.machine().lower()
        True
    """
    found = _linux_flags() if sys.platform == "linux" else _numpy_flags()
    return " ".join([platform.machine().lower(), *(flag for flag in _FLAGS if flag in found)])


def has_vnni() -> bool:
    """Return whether the processor has instructions for dot products of 8-bit integers (VNNI)."""
    return not {"avx_vnni", "avx512_vnni"}.isdisjoint(instruction_class().split())


def _linux_flags() -> set[str]:
    """Return the flags of the first processor in /proc/cpuinfo: `flags` on x86, `Features` on ARM."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next(set(line.split(":", 1)[1].split()) for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return set()


def _numpy_flags() -> set[str]:
    """Return the instructions that numpy detects."""
    module = importlib.import_module("numpy._core._multiarray_umath")
    detected: dict[str, bool] = getattr(module, "__cpu_features__", {})
    return {name for numpys, name in _NUMPY_NAMES.items() if detected.get(numpys)}
