"""What using a network would fetch, asked before anything is fetched."""

from __future__ import annotations

from sightline.networks import hub, index, user, weights
from sightline.networks.index import SPECIAL
from sightline.store import Cache


def download_bytes(name: str, wanted: str, cache: Cache) -> int | None:
    """About how much would be downloaded to use a network; None where nothing would, 0 where it is not known.

    Args:
        name: As for `describe`.
        wanted: `pretrained`, `random`, or a file.
        cache: Where the libraries' lists are kept.
    """
    if wanted != "pretrained" or name in SPECIAL or user.is_user(name) or weights.look_up(name) is not None:
        return None
    entry = index.find(name, cache)
    if entry is None or hub.here(entry) is not None or not (entry.hub or entry.url):
        return None
    return 4 * (entry.parameters or 0)
