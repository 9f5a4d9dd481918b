"""Trials of a hyperparameter search as Ray tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sightline.records import silent
from sightline.scale import cluster
from sightline.studies.tune import FitTask, Outcome, fit_task


def fit_all(tasks: Sequence[FitTask]) -> list[Outcome]:
    """Fit all tasks at the same time, and return their outcomes in order. A task on a machine that is lost runs again.

    Raises:
        SightlineError: As in `fit_task`.
    """
    import ray

    if not tasks:
        return []
    machines, count = cluster.machines(), len(tasks)
    each = -(-count // machines)  # tasks per machine
    resources: dict[str, float] = {"num_cpus": max(1, cluster.smallest_machine_cpus() // each)}
    if tasks[0].context.device == "cuda":
        resources["num_gpus"] = min(1, cluster.gpus() / count)
    # The driver's progress and its way to compute features stay there.
    context = ray.put(dataclasses.replace(tasks[0].context, progress=silent, compute_features=None))
    fit = ray.remote(_fit).options(max_retries=3, **resources)
    return list(ray.get([fit.remote(dataclasses.replace(task, context=None), context) for task in tasks]))  # type: ignore[arg-type]


def _fit(task: FitTask, context: Any) -> Outcome:
    """Fit one task with the context of all."""
    return fit_task(dataclasses.replace(task, context=context))
