"""Published weights: whether they are on this machine, whether they can be fetched, and what to do where neither is so."""

from __future__ import annotations

import functools
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from sightline.errors import WeightsError
from sightline.networks import weights
from sightline.networks.known import Entry

_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_PATIENCE_S = 5.0


def here(entry: Entry) -> Path | None:
    """The published file in the library's own cache, or None."""
    if entry.hub:
        import huggingface_hub

        for name in (entry.file,) if entry.file else _FILES:
            found = huggingface_hub.try_to_load_from_cache(entry.hub, name)
            if isinstance(found, str):
                return Path(found)
        return None
    home = Path(os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch")
    file = home / "hub" / "checkpoints" / entry.url.rpartition("/")[2]
    return file if entry.url and file.is_file() else None


def check(entry: Entry, name: str) -> None:
    """Make sure, within seconds, that published weights are here or can be fetched.

    Args:
        entry: Which.
        name: As the user wrote it: a file of that name is found in the folders of SIGHTLINE_WEIGHTS.

    Raises:
        WeightsError: They exist but there is no network, or none were ever published.
    """
    if here(entry) is not None:
        return
    if not (entry.hub or entry.url):
        hint = weights.where_to_get(name, "")
        raise WeightsError(f"no weights of {entry.architecture} were published", hint)
    if not reachable(_host(entry)):
        raise absent(entry, name)


def absent(entry: Entry, name: str, reason: str = "") -> WeightsError:
    """The error for weights that are not here and cannot be fetched: it names the file and the place."""
    why = reason or f"{urllib.parse.urlsplit(_host(entry)).hostname} cannot be reached"
    return WeightsError(
        f"the weights of {entry.name} are not on this machine, and {why}",
        weights.where_to_get(name, address(entry)),
    )


def address(entry: Entry) -> str:
    """Where the published file can be had."""
    if entry.hub:
        repository, _, revision = entry.hub.partition("@")
        return f"{_host(entry)}/{repository}/resolve/{revision or 'main'}/{entry.file or _FILES[0]}"
    return entry.url


def _host(entry: Entry) -> str:
    if entry.hub:
        return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    parts = urllib.parse.urlsplit(entry.url)
    return f"{parts.scheme}://{parts.netloc}"


@functools.cache
def reachable(host: str) -> bool:
    """Whether a server answers at all, asked once. Proxies of the environment are used; offline modes are respected."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(host, method="HEAD"), timeout=_PATIENCE_S):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
