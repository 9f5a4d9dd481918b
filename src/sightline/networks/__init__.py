"""Networks by name: list, describe and build them, with one interface for timm, torchvision, classic and user-defined networks.

Importing this package does not import torch; neither does `describe` for a network that was described on this machine before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sightline.networks.description import DEFAULTS, build, describe, describe_recipe
from sightline.networks.downloads import download_bytes
from sightline.networks.index import SPECIAL, macs_of, table
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
    "describe_recipe",
    "download_bytes",
    "macs_of",
    "own_classifier",
    "random_network",
    "register",
    "table",
    "tensors",
    "weights_hash",
]
_LAZY_MODULES = {
    "Network": "network",
    "OwnClassifier": "pretrained_classifier",
    "RandomNetwork": "random_init",
    "own_classifier": "pretrained_classifier",
    "tensors": "network",
    "random_network": "random_init",
}
"""Names whose modules import torch → the module that defines them."""


def __getattr__(name: str) -> Any:
    """Import a name that needs torch on first access."""
    if name not in _LAZY_MODULES:
        raise AttributeError(f"module 'sightline.networks' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"sightline.networks.{_LAZY_MODULES[name]}"), name)
    globals()[name] = value
    return value
