"""Names → networks: what there is, what it needs, how it is built, and one surface over all of them.

Importing this costs no torch, nor does asking what was asked on this machine before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sightline.networks.description import DEFAULTS, build, describe
from sightline.networks.downloads import download_bytes
from sightline.networks.index import SPECIAL, table
from sightline.networks.names import check_name
from sightline.networks.user import register
from sightline.networks.weights import weights_hash

if TYPE_CHECKING:
    from sightline.networks.network import Network, tensors
    from sightline.networks.pretrained_classifier import OwnClassifier, own_classifier
    from sightline.networks.random_init import RandomNetwork, random_network

__all__ = [
    "DEFAULTS",
    "SPECIAL",
    "Network",
    "OwnClassifier",
    "RandomNetwork",
    "build",
    "check_name",
    "describe",
    "download_bytes",
    "own_classifier",
    "random_network",
    "register",
    "table",
    "tensors",
    "weights_hash",
]
_HOMES = {
    "Network": "network",
    "OwnClassifier": "pretrained_classifier",
    "RandomNetwork": "random_init",
    "own_classifier": "pretrained_classifier",
    "tensors": "network",
    "random_network": "random_init",
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
