"""Connection to a Ray cluster: join the one that `RAY_ADDRESS` names, or start one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from sightline.errors import RequestError, SightlineError

OBJECT_STORE_BYTES = 512 << 20
"""Shared memory of a cluster that is started here; the pipelines hold a few decoded blocks at a time."""


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to Ray for the block; a connection that exists already is used and kept.

    The cluster is that of `RAY_ADDRESS`; without it, one is started on this machine, without a dashboard, and ended with the
    block. Ray's usage statistics are off. Workers get the environment variables whose names begin with `SIGHTLINE_`.

    Raises:
        RequestError: If Ray is not installed.
        SightlineError: If the cluster cannot be reached.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "180000")  # a loaded machine starts Ray's own processes slowly
    try:
        import ray
        import ray.data  # noqa: F401 - the extra without it is incomplete
    except ImportError as error:
        raise RequestError('--on ray needs Ray, which is not installed: pip install "sightline[ray]"') from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        variables = {name: value for name, value in os.environ.items() if name.startswith("SIGHTLINE_")}
        here: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        try:
            ray.init(
                address=address or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": variables} if variables else None,
                **here,
            )
        except Exception as error:  # Ray raises a plain Exception if a machine does not start in time
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            hint = "check RAY_ADDRESS, or unset it to start Ray on this machine" if address else "try again"
            raise SightlineError(f"cannot connect to Ray{f' at {address}' if address else ''}: {reason}", hint) from error
        stop = ray.shutdown
    else:
        stop = _keep
    _quiet(ray)
    try:
        yield
    finally:
        stop()


def _keep() -> None:
    """Keep a connection that another part of the program made."""


def _quiet(ray: Any) -> None:
    """Switch off progress bars and messages of Ray Data, and set how failed blocks are treated."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # `pipeline` runs the images of a failed block again, one by one
    context.verbose_stats_logs = False
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def gpus() -> int:
    """Return the number of GPUs in the cluster."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def machines() -> int:
    """Return the number of machines that are alive."""
    import ray

    return max(1, sum(bool(node["Alive"]) for node in ray.nodes()))


def smallest_machine_cpus() -> int:
    """Return the smallest number of CPUs of a machine that has any, at least 1."""
    import ray

    counts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return min((count for count in counts if count), default=1)
