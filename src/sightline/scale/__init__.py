"""Work on a cluster: the executor that runs the commands' heavy work with Ray, an optional dependency (`sightline[ray]`)."""

from sightline.scale.cluster import connected
from sightline.scale.executor import RayExecutor

__all__ = ["RayExecutor", "connected"]
