"""What training does differently on different machines: by rules, never by timing, so that bits are repeatable."""

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
"""Of an accelerator's free memory: what the training images may take; the rest is for the network."""
COMPILE_FROM_STEPS = 2000
"""A network is compiled where so many steps follow: it takes the time of a few hundred."""


def half_precision(device: torch.device) -> bool:
    """Return whether training on a device runs in bfloat16."""
    return engine.fast_precision(device.type, training=True) == "bf16"


def fits(size_bytes: int, device: torch.device) -> bool:
    """Whether so much may lie in a device's memory all the time: `SHARE` of what is free there; on a CPU it does already."""
    if device.type == "cuda":
        return size_bytes <= SHARE * torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return size_bytes <= SHARE * (torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return True


def memory_bytes() -> int | None:
    """The machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def forward_of(network: nn.Module, device: torch.device, steps: int) -> Callable[..., Any]:
    """What is called for a pass while learning: on CUDA, where many steps follow, the network compiled, else itself.

    What cannot be compiled runs as it is. On a CPU compiling gained 55 against 49 images/s, and needs a compiler.
    """
    if device.type != "cuda" or steps < COMPILE_FROM_STEPS or importlib.util.find_spec("triton") is None:
        return network
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True
    return torch.compile(network)


@contextlib.contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Leave the program's own random numbers as they are, and choose kernels that give the same bits again."""
    cuda = device.type == "cuda"
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if cuda else []))
        if cuda:
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        yield


def machine(device: torch.device) -> dict[str, Any]:
    """What the last bits of a training depend on beside its recipe: processes, threads, instruction set, device, versions,
    precision."""
    return {
        "processes": process_group.here().count,
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "precision": "bf16" if half_precision(device) else "f32",
    }
