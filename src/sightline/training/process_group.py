"""Distributed training: processes that `torchrun` starts train one network together, each on a share of every batch.

This module does not import torch, since the environment says whether there are several processes.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.errors import RequestError, SightlineError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_PATIENCE = timedelta(hours=12)
"""Timeout of one process waiting for another; torchrun ends all of them if one dies."""
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Processes of one training.

    Args:
        rank: Rank of this process, from 0. The first one alone writes files.
        count: Number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return the slice of n images for this process; shares differ by at most one image.

        Example:
            >>> [ProcessGroup(rank, 3).share(8) for rank in range(3)]
            [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        each, more = divmod(n, self.count)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def add_up(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place; the result has the same bits in each."""
        if self.count > 1:
            _group().all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in any process."""
        if self.count == 1:
            return flag
        import torch

        return bool(self.add_up(torch.tensor(float(flag))))  # on the CPU, without waiting for the accelerator

    def wait(self) -> None:
        """Wait for all processes."""
        self.any(False)

    def check(self, batches: Sequence[np.ndarray]) -> None:
        """Check that batches can be shared: BatchNorm needs at least two images per process.

        Raises:
            RequestError: If a share would be smaller.
        """
        least = min(len(batch) for batch in batches)
        if self.count > 1 and least < 2 * self.count:
            what = f"a batch of {least} images cannot be shared out among {self.count} processes"
            raise RequestError(
                what, f"set batch_size to at least {2 * self.count}, or start fewer processes with --nproc_per_node"
            )

    def forward_of(self, network: nn.Module, device: torch.device) -> Any:
        """Return the network wrapped for distributed training: gradients become those of the images of all processes."""
        from torch.nn.parallel import DistributedDataParallel

        where = [device.index if device.index is not None else _current()] if device.type == "cuda" else None
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # torch before 2.15
        options: dict[str, Any] = {name: False}  # `average_statistics` averages them
        return DistributedDataParallel(network, device_ids=where, static_graph=True, **options)

    def average_statistics(self, network: nn.Module) -> None:
        """Average the BatchNorm statistics of layers in training mode over all processes."""
        if self.count == 1:
            return
        import torch
        from torch.nn.modules.batchnorm import _BatchNorm

        layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training and m.running_mean is not None]
        statistics = [t for layer in layers for t in (layer.running_mean, layer.running_var) if t is not None]
        if statistics:
            mean = self.add_up(torch.cat([t.flatten() for t in statistics])) / self.count
            torch._foreach_copy_(statistics, list(torch.split(mean, [t.numel() for t in statistics])))


ALONE = ProcessGroup()


def started() -> ProcessGroup:
    """Return the processes that `torchrun` started, read from the environment."""
    count = os.environ.get("WORLD_SIZE", "1")
    if "LOCAL_RANK" not in os.environ or not count.isdigit():  # variables of another program
        return ALONE
    return ProcessGroup(int(os.environ.get("RANK", "0")), max(1, int(count)))


def check_alone(what: str) -> None:
    """Refuse work that cannot be distributed.

    Raises:
        RequestError: If several processes were started.
    """
    count = started().count
    if count > 1:
        raise RequestError(
            f"{what} cannot be shared out among {count} processes",
            "start it without torchrun, which only `sightline train` supports",
        )


def here() -> ProcessGroup:
    """Return the group that this process has joined; a group of one without `torchrun`."""
    if started().count == 1:
        return ALONE
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        return ALONE
    return ProcessGroup(distributed.get_rank(), distributed.get_world_size())


@contextlib.contextmanager
def joined(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, for the block; without `torchrun` the group has one process.

    On CUDA each process uses the GPU of its local rank with NCCL; on the CPU they communicate with gloo. A group that exists
    already, as in the workers of Ray Train, is used and kept.

    Raises:
        RequestError: If there is no GPU for this process, or the device does not support distributed training.
        SightlineError: If another process ends during the work.
    """
    group = started()
    if group.count == 1:
        yield ALONE
        return
    import torch
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        yield group
        return
    if device not in ("cpu", "cuda") or not distributed.is_available():
        raise RequestError(f"distributed training is not available on {device} here", "use --device cpu or cuda")
    if device == "cuda":
        number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= there:
            raise RequestError(
                f"there are {there} GPUs, and none is left for process {number}", f"use --nproc_per_node {there}"
            )
        torch.cuda.set_device(number)
    # If it is imported after the group is created, its functions keep the group forever as a default argument: the threads of
    # gloo then outlive the interpreter, which sometimes ends the process with SIGABRT.
    import torch.distributed.nn

    distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield group
    except RuntimeError as error:
        if not any(words in str(error) for words in _GONE):
            raise
        raise SightlineError("another process of this training has ended", "its own error message gives the reason") from error
    finally:
        distributed.destroy_process_group()


def _group() -> Any:
    from torch import distributed

    return distributed


def _current() -> int:
    import torch

    return torch.cuda.current_device()
