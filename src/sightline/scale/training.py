"""Training of one network by several processes of a cluster, with Ray Train."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

from sightline import blocks, remote
from sightline.errors import SightlineError
from sightline.records import Recipe, silent
from sightline.scale import cluster

if TYPE_CHECKING:
    from sightline.training.context import Candidate, Context

_RETRIES = 3
"""Number of times that a training starts again from its checkpoint after a machine was lost."""


def processes(workers: int | None) -> int:
    """Return the number of processes: as requested, or one per GPU, or one per machine without GPUs."""
    return workers or cluster.gpus() or cluster.machines()


def fit(context: Context, recipe: Recipe, count: int) -> list[Candidate]:
    """Fit a recipe in several processes, each on a share of every batch: the weights are those of `torchrun`.

    The first process writes checkpoints to the run folder, which lies on a file system that all machines share; a training that
    loses a machine resumes from them.

    Args:
        context: The images; its progress is not shown.
        recipe: A recipe whose method is distributed.
        count: Number of processes.

    Raises:
        SightlineError: If a process raises one, or a machine is lost too often.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    accelerated = context.device == "cuda"
    plain = dataclasses.replace(context, progress=silent, compute_features=None)
    store = blocks.location(context.cache)
    context.cache.root.mkdir(parents=True, exist_ok=True)
    folder = f"{store}/train" if remote.is_uri(store) else tempfile.mkdtemp(prefix="train-", dir=context.cache.root)
    trainer = TorchTrainer(
        _train,
        train_loop_config={"work": [ray.put((plain, recipe))]},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if accelerated else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=count,
            use_gpu=accelerated,
            resources_per_worker=None if accelerated else {"CPU": _cpus(count)},
            placement_strategy="SPREAD",
        ),
        run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=_RETRIES)),
    )
    try:
        result = trainer.fit()
    except Exception as error:
        raise _cause(error) from error
    finally:
        if not remote.is_uri(store):
            shutil.rmtree(folder, ignore_errors=True)
    return list(result.return_value)


def _cpus(count: int) -> int:
    """Return the number of CPUs of each of `count` processes."""
    per_machine = -(-count // cluster.machines())
    return max(1, cluster.smallest_machine_cpus() // per_machine)


def _train(config: dict[str, Any]) -> list[Candidate] | None:
    """Fit the recipe in one process, and return the candidates of the first."""
    import ray

    from sightline.training import methods, process_group

    context, recipe = ray.get(config["work"][0])
    with process_group.joined(context.device) as team:
        candidates = methods.fit(context, recipe)
        team.wait()
        return candidates if team.first else None


def _cause(error: BaseException) -> SightlineError:
    """Return the error of a worker, or one that says that the training has ended."""
    inner: BaseException | None = error
    while inner is not None:
        for found in (inner, getattr(inner, "cause", None), *getattr(inner, "worker_failures", {}).values()):
            if isinstance(found, SightlineError):
                return found
        inner = inner.__cause__
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return SightlineError(f"the training on the cluster has ended: {reason}", "start it again with --resume")
