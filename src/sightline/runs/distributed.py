"""`train` by several processes that `torchrun` started: one of them writes, all give the same run."""

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
    """Let several processes carry a training out together, where several were started.

    Args:
        train: The verb, of a catalog, a `recipe`, and maybe a `device`. What it gives in a process that is not the first is
            looked at for its folder alone.

    Raises:
        RequestError: The method has nothing to share out.
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
            what = f"{method.name} does not learn by epochs: {started.count} processes would all do the same"
            raise RequestError(what, f"leave torchrun out; methods that share their work: {known}")
        with process_group.joined(engine.choose_device(given.get("device", "auto"))) as team:
            made = train(*args, **kwargs)
            team.wait()
            return made if team.first else Run.load(made.folder)

    return run
