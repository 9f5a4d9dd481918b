"""Download sizes: how much would be downloaded to use a network, without downloading it."""

from __future__ import annotations

from sightline.networks import index, user
from sightline.networks.index import SPECIAL
from sightline.store import Cache


def download_bytes(name: str, weights_from: str, cache: Cache) -> int | None:
    """Return about how many bytes would be downloaded to use a network; None if nothing would, 0 if the size is unknown.

    Args:
        name: Name of the network, as for `describe`.
        weights_from: `pretrained`, `random`, or a file.
        cache: Cache of the libraries' lists of networks.
    """
    if weights_from != "pretrained" or name in SPECIAL or user.is_user(name):
        return None
    entry = index.find(name, cache)
    if entry is None or index.weights_at(name, entry) is not None or not (entry.hub or entry.url):
        return None
    return 4 * (entry.parameters or 0)
