"""What numbers were made with: machine and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

_PACKAGES = ("sightline", "torch", "torchvision", "timm", "openvino", "numpy", "scikit-learn", "pillow")


def environment(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were made with: Python, platform, processor, cores, device, versions.

    Where torch has computed, its threads and the instruction set as well: the last bits of a training depend on them.
    """
    torch = sys.modules.get("torch")
    own = (
        {}
        if torch is None
        else {"threads": torch.get_num_threads(), "instruction_set": torch.backends.cpu.get_cpu_capability()}
    )
    return {
        **own,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "device": device,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on; what is not installed is left out."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
