"""Hardware: what depends on the device, decided by rules and never by timing, so that results are reproducible."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from sightline import engine
from sightline.training import process_group

SHARE = 0.4
"""Largest share of an accelerator's free memory for the training images; the rest is for the network."""
COMPILE_FROM_STEPS = 2000
"""Number of steps from which a network is compiled, which takes as long as a few hundred steps."""


def half_precision(device: torch.device) -> bool:
    """Return whether training on a device runs in bfloat16."""
    return engine.fast_precision(device.type, training=True) == "bf16"


def fits(size_bytes: int, device: torch.device) -> bool:
    """Return whether data of this size may stay in the memory of a device: `SHARE` of what is free; always true on a CPU."""
    if device.type == "cuda":
        return size_bytes <= SHARE * torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return size_bytes <= SHARE * (torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return True


def memory_bytes() -> int | None:
    """Return the memory of the machine in bytes; None if the operating system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def forward_of(network: nn.Module, device: torch.device, steps: int) -> Callable[..., Any]:
    """Return the network for forward passes in training: compiled on CUDA if many steps follow, else itself.

    Parts that cannot be compiled run uncompiled. On a CPU, compiling gained 55 against 49 images/s, and needs a C++ compiler.
    """
    if device.type != "cuda" or steps < COMPILE_FROM_STEPS or importlib.util.find_spec("triton") is None:
        return network
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True
    return torch.compile(network)


@contextlib.contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Restore the random state of torch afterwards, and use deterministic kernels."""
    cuda = device.type == "cuda"
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if cuda else []))
        if cuda:
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        yield


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the exact bits of a training depend on beside its recipe."""
    return {
        "processes": process_group.here().count,
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "precision": "bf16" if half_precision(device) else "f32",
    }
