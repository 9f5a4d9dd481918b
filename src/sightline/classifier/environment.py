"""Computing environment of a result: machine and package versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

_PACKAGES = ("sightline", "torch", "torchvision", "timm", "openvino", "numpy", "scikit-learn", "pillow")


def environment(device: str = "cpu") -> dict[str, Any]:
    """Return Python version, platform, processor, cores, device and package versions.

    If torch is loaded, also its number of threads and instruction set, on which the last bits of a training depend.
    """
    torch = sys.modules.get("torch")
    of_torch = (
        {}
        if torch is None
        else {"threads": torch.get_num_threads(), "instruction_set": torch.backends.cpu.get_cpu_capability()}
    )
    return {
        **of_torch,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "device": device,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that a result depends on."""
    installed = {}
    for name in _PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _processor() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
