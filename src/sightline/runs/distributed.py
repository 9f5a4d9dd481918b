"""Distributed training: several processes started by `torchrun` train one run; the first one writes it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec

from sightline import engine
from sightline.errors import RequestError
from sightline.records import Run
from sightline.training import process_group
from sightline.training.methods import METHODS, method_of

P = ParamSpec("P")


def shared(train: Callable[P, Run]) -> Callable[P, Run]:
    """Return a training function that runs in all processes started by `torchrun`.

    Args:
        train: Function of a catalog, a `recipe` and optionally a `device`. Of the run it returns in other processes than the
            first, only the folder is used.

    Raises:
        RequestError: If several processes were started and the method does not train by epochs.
    """

    @functools.wraps(train)
    def run(*args: P.args, **kwargs: P.kwargs) -> Run:
        started = process_group.started()
        if started.count == 1:
            return train(*args, **kwargs)
        given = inspect.signature(train).bind(*args, **kwargs).arguments
        method = method_of(given["recipe"])
        if not method.distributed:
            known = ", ".join(name for name, m in METHODS.items() if m.distributed)
            what = f"{method.name} does not train by epochs, so {started.count} processes would repeat the same work"
            raise RequestError(what, f"start it without torchrun; distributed methods: {known}")
        with process_group.joined(engine.choose_device(given.get("device", "auto"))) as team:
            made = train(*args, **kwargs)
            team.wait()
            return made if team.first else Run.load(made.folder)

    return run
