"""Names → networks: what there is, what it needs, how it is built, and one surface over all of them.

Importing this costs no torch, nor does asking what was asked on this machine before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sightline.networks.description import DEFAULTS, build, describe
from sightline.networks.downloads import download_bytes
from sightline.networks.known import SPECIAL, table
from sightline.networks.names import check_name
from sightline.networks.user import register
from sightline.networks.weights import weights_hash

if TYPE_CHECKING:
    from sightline.networks.own import OwnClassifier, own_classifier
    from sightline.networks.surface import Network, tensors
    from sightline.networks.whole import Untrained, untrained

__all__ = [
    "DEFAULTS",
    "SPECIAL",
    "Network",
    "OwnClassifier",
    "Untrained",
    "build",
    "check_name",
    "describe",
    "download_bytes",
    "own_classifier",
    "register",
    "table",
    "tensors",
    "untrained",
    "weights_hash",
]
_HOMES = {
    "Network": "surface",
    "OwnClassifier": "own",
    "Untrained": "whole",
    "own_classifier": "own",
    "tensors": "surface",
    "untrained": "whole",
}
"""Names that need torch → the module where they live."""


def __getattr__(name: str) -> Any:
    """The names that need torch, imported when they are asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sightline.networks' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"sightline.networks.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
