"""Names → networks: what there is, what it needs, how it is built, and one surface over all of them.

Importing this costs no torch, nor does asking what was asked on this machine before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sightline.networks.description import DEFAULTS, build, describe
from sightline.networks.downloads import download_bytes
from sightline.networks.known import table
from sightline.networks.user import register
from sightline.networks.weights import weights_hash

if TYPE_CHECKING:
    from sightline.networks.surface import Network, tensors

__all__ = ["DEFAULTS", "Network", "build", "describe", "download_bytes", "register", "table", "tensors", "weights_hash"]


def __getattr__(name: str) -> Any:
    """The names that need torch, imported when they are asked for."""
    if name in ("Network", "tensors"):
        from sightline.networks import surface

        return getattr(surface, name)
    raise AttributeError(f"module 'sightline.networks' has no attribute {name!r}")
