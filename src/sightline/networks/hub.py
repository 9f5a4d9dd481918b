"""Published weights: whether they are on this machine, whether they can be fetched, and what to do where neither is so."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from sightline.errors import WeightsError
from sightline.networks import weights
from sightline.networks.entry import NetworkEntry

_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_HOST_S, _FILE_S = 5.0, 10.0
"""How long a server may take to answer at all, and to say that it has a file."""
_START_S, _STALL_S = 45.0, 60.0
"""How long the checks and the first byte of a file may take together, and how long a download may stand still after that."""
_POLL_S = 0.2
_CHUNK_BYTES = 1 << 17
"""The hub's library reports a download after so many bytes; its own 10 MB are a minute of a slow line."""
_began: dict[str, float] = {}
"""When a file was first asked for, by its address."""


def here(entry: NetworkEntry) -> Path | None:
    """The published file in the library's own cache, or None."""
    if entry.hub:
        import huggingface_hub

        for name in (entry.file,) if entry.file else _FILES:
            found = huggingface_hub.try_to_load_from_cache(entry.hub, name)
            if isinstance(found, str):
                return Path(found)
        return None
    file = _checkpoints() / entry.url.rpartition("/")[2]
    return file if entry.url and file.is_file() else None


def check(entry: NetworkEntry, name: str) -> None:
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
    _began.setdefault(address(entry), time.monotonic())
    if not reachable(address(entry), _FILE_S):
        raise absent(entry, name, f"{_name_of_host(entry)} does not answer")


def fetch(entry: NetworkEntry, name: str) -> Path:
    """Download published weights into the library's own cache; a server that sends nothing is given up within a minute.

    Ctrl-C and SIGTERM are obeyed at once: the download runs in a thread that nothing waits for.

    Args:
        entry: Which; not yet here.
        name: As the user wrote it.

    Returns:
        The file.

    Raises:
        WeightsError: They could not be downloaded; the message names the file and where to put it.
    """
    done: queue.SimpleQueue[Path | BaseException] = queue.SimpleQueue()
    arrived: list[float] = []

    def work() -> None:
        try:
            done.put(_download(entry, arrived))
        except BaseException as error:
            done.put(error)

    now = time.monotonic()
    began = _began.pop(address(entry), now)
    deadline = (began if now - began < _START_S else now) + _START_S
    size = _downloaded_bytes(entry)
    threading.Thread(target=work, name="sightline-download", daemon=True).start()
    while True:
        try:
            found = done.get(timeout=_POLL_S)
        except queue.Empty:
            before, size = size, _downloaded_bytes(entry)
            if size > before or arrived:
                arrived.clear()
                deadline = time.monotonic() + _STALL_S
            elif time.monotonic() > deadline:
                raise absent(entry, name, f"{_name_of_host(entry)} has stopped answering") from None
            continue
        if isinstance(found, Path):
            return found
        line = (str(found).strip().splitlines() or [type(found).__name__])[0][:240]
        raise absent(entry, name, f"they cannot be downloaded ({line})") from found


def _download(entry: NetworkEntry, arrived: list[float]) -> Path:
    """Download a file by the library's own function, into its own cache.

    Args:
        entry: Which.
        arrived: Takes the number of bytes that have come, where the library tells it before it writes them.
    """
    if entry.hub:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError

        repository, _, revision = entry.hub.partition("@")
        huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
        more: dict[str, Any] = {"revision": revision or None, "endpoint": _host(entry)}
        if "tqdm_class" in inspect.signature(huggingface_hub.hf_hub_download).parameters:
            more["tqdm_class"] = _bar(arrived)
        names = (entry.file,) if entry.file else _FILES
        for number, file in enumerate(names):
            try:
                return Path(huggingface_hub.hf_hub_download(repository, file, **more))
            except EntryNotFoundError:
                if number == len(names) - 1:
                    raise
    import torch

    target = _checkpoints() / entry.url.rpartition("/")[2]
    target.parent.mkdir(parents=True, exist_ok=True)
    promised = re.search(r"-([0-9a-f]{8,})\.", target.name)  # the names of these files end in the start of their SHA-256
    torch.hub.download_url_to_file(entry.url, str(target), promised[1] if promised else None)
    return target


def _bar(arrived: list[float]) -> type:
    """The hub's progress bar, which also notes what has come."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> Any:
            if n:
                arrived.append(n)
            return super().update(n)

    return Bar


def _downloaded_bytes(entry: NetworkEntry) -> int:
    """The bytes of all files where a download of this entry writes."""
    folder = _checkpoints()
    if entry.hub:
        import huggingface_hub.constants

        folder = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{entry.hub.partition('@')[0].replace('/', '--')}"
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat(follow_symlinks=False).st_size
    return total


def _checkpoints() -> Path:
    """Where torch keeps downloaded files."""
    home = Path(os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch")
    return home / "hub" / "checkpoints"


def absent(entry: NetworkEntry, name: str, reason: str = "") -> WeightsError:
    """The error for weights that are not here and cannot be fetched: it names the file and the place."""
    why = reason or f"{_name_of_host(entry)} cannot be reached"
    return WeightsError(
        f"the weights of {entry.name} are not on this machine, and {why}",
        weights.where_to_get(name, address(entry)),
    )


def address(entry: NetworkEntry) -> str:
    """Where the published file can be had."""
    if entry.hub:
        repository, _, revision = entry.hub.partition("@")
        return f"{_host(entry)}/{repository}/resolve/{revision or 'main'}/{entry.file or _FILES[0]}"
    return entry.url


def _name_of_host(entry: NetworkEntry) -> str:
    return urllib.parse.urlsplit(_host(entry)).hostname or _host(entry)


def _host(entry: NetworkEntry) -> str:
    if entry.hub:
        return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    parts = urllib.parse.urlsplit(entry.url)
    return f"{parts.scheme}://{parts.netloc}"


@functools.cache
def reachable(url: str, patience_s: float = _HOST_S) -> bool:
    """Whether a server answers to an address, whatever it says; asked once.

    Proxies of the environment are used; offline modes are respected.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=patience_s):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
