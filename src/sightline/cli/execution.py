"""Choice of the executor: this machine, or a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sightline.errors import unknown

PLACES = ("local", "ray")


@contextlib.contextmanager
def on(place: str, *, workers: int | None = None) -> Iterator[None]:
    """Run the heavy work inside the block on this machine, or on the Ray cluster that `RAY_ADDRESS` names.

    Args:
        place: `local` or `ray`.
        workers: Number of processes that train one network together; None for one per GPU, or one per machine without GPUs.

    Raises:
        RequestError: If the place is not known, or Ray is not installed.
    """
    if place not in PLACES:
        raise unknown("value of --on", place, PLACES)
    if place == "local":
        yield
        return
    from sightline import scale
    from sightline.runs import executor

    with scale.connected(), executor.using(scale.RayExecutor(workers)):
        yield
