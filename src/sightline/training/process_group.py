"""Several processes that learn one network together, as `torchrun` starts them: who takes which share, and what they agree on.

Importing this costs no torch: whether there are several is in the environment.
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
"""How long one process waits for another; torchrun ends all of them where one dies."""
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes of one training, and this one among them.

    Args:
        rank: This process, from 0. The first one alone writes.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """The part of n images that is this process's; shares differ by one image at most.

        Example:
            >>> [Ranks(rank, 3).share(8) for rank in range(3)]
            [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        each, more = divmod(n, self.count)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place, the same bits on each."""
        if self.count > 1:
            _group().all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is so on any of them."""
        if self.count == 1:
            return flag
        import torch

        return bool(self.add_up(torch.tensor(float(flag))))  # over the processors: no accelerator is waited for

    def of_first(self, value: float) -> float:
        """The first one's value: clocks differ, decisions must not."""
        if self.count == 1:
            return value
        import torch

        return float(self.add_up(torch.tensor(value if self.first else 0.0, dtype=torch.float64)))

    def wait(self) -> None:
        """Until all of them are here."""
        self.any(False)

    def check(self, batches: Sequence[np.ndarray]) -> None:
        """Refuse batches that cannot be shared: BatchNorm learns from two images at least.

        Raises:
            RequestError: A share would be smaller.
        """
        least = min(len(batch) for batch in batches)
        if self.count > 1 and least < 2 * self.count:
            what = f"a batch of {least} images cannot be shared out among {self.count} processes"
            raise RequestError(what, f"set batch_size to {2 * self.count} at least, or start fewer with --nproc_per_node")

    def forward_of(self, network: nn.Module, device: torch.device) -> Any:
        """What is called for a pass in place of a network: its gradients become those of all processes' images."""
        from torch.nn.parallel import DistributedDataParallel

        where = [device.index if device.index is not None else _current()] if device.type == "cuda" else None
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # torch before 2.15
        own: dict[str, Any] = {name: False}  # `average_statistics` sees to them
        return DistributedDataParallel(network, device_ids=where, static_graph=True, **own)

    def average_statistics(self, network: nn.Module) -> None:
        """Give every process the mean of all processes' BatchNorm statistics, of layers that are learning."""
        if self.count == 1:
            return
        import torch
        from torch.nn.modules.batchnorm import _BatchNorm

        layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training and m.running_mean is not None]
        own = [t for layer in layers for t in (layer.running_mean, layer.running_var) if t is not None]
        if own:
            mean = self.add_up(torch.cat([t.flatten() for t in own])) / self.count
            torch._foreach_copy_(own, list(torch.split(mean, [t.numel() for t in own])))


ALONE = ProcessGroup()


def started() -> ProcessGroup:
    """The processes that `torchrun` started, by the environment that it gives them."""
    count = os.environ.get("WORLD_SIZE", "1")
    if "LOCAL_RANK" not in os.environ or not count.isdigit():  # another program's variables
        return ALONE
    return ProcessGroup(int(os.environ.get("RANK", "0")), max(1, int(count)))


def check_alone(what: str) -> None:
    """Refuse work that is no use to several processes.

    Raises:
        RequestError: There are several.
    """
    count = started().count
    if count > 1:
        raise RequestError(
            f"{what} cannot be shared out among {count} processes", "leave torchrun out: `sightline train` takes it"
        )


def here() -> ProcessGroup:
    """The processes that this one has joined."""
    if started().count == 1:
        return ALONE
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        return ALONE
    return ProcessGroup(distributed.get_rank(), distributed.get_world_size())


@contextlib.contextmanager
def joined(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, for the block; alone where it started none.

    On CUDA each takes the GPU of its number, and they speak over NCCL, else over gloo.

    Raises:
        RequestError: There is no GPU for this one, or the device cannot be shared out.
        SightlineError: Another process has ended in the midst of the work.
    """
    found = started()
    if found.count == 1:
        yield ALONE
        return
    import torch
    from torch import distributed

    if device not in ("cpu", "cuda") or not distributed.is_available():
        raise RequestError(f"several processes cannot learn together on {device} here", "take --device cpu or cuda")
    if device == "cuda":
        number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= there:
            raise RequestError(f"{there} GPUs are here, and process {number} is one more", f"take --nproc_per_node {there}")
        torch.cuda.set_device(number)
    # Imported after the group was made, its functions keep the group for good as a default argument: gloo's threads then
    # outlive the interpreter, which now and then ends the process with SIGABRT.
    import torch.distributed.nn

    distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield found
    except RuntimeError as error:
        if not any(words in str(error) for words in _GONE):
            raise
        raise SightlineError("another process of this training has ended", "what it says of itself is the reason") from error
    finally:
        distributed.destroy_process_group()


def _group() -> Any:
    from torch import distributed

    return distributed


def _current() -> int:
    import torch

    return torch.cuda.current_device()
