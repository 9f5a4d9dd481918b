"""Downloads of published weights: check for a local copy, check that the server answers, download with time limits."""

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
from sightline.networks import installed, weights
from sightline.networks.entry import NetworkEntry

_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_HOST_S, _FILE_S = 5.0, 10.0
"""Time limits for a server's first answer and for its answer about one file."""
_START_S, _STALL_S = 45.0, 60.0
"""Time limits for the checks up to the first byte of a file, and for a download that makes no progress."""
_POLL_S = 0.2
_CHUNK_BYTES = 1 << 17
"""Bytes between two progress reports of huggingface_hub. Its default of 10 MB takes a minute on a slow connection."""
_began: dict[str, float] = {}
"""Address of a file → time of the first request for it."""


def here(entry: NetworkEntry) -> Path | None:
    """Return the published file in the library's own cache, or None."""
    if entry.hub:
        import huggingface_hub

        for name in (entry.file,) if entry.file else _FILES:
            cached = huggingface_hub.try_to_load_from_cache(entry.hub, name)
            if isinstance(cached, str):
                return Path(cached)
        return None
    file = _checkpoints() / entry.url.rpartition("/")[2]
    return file if entry.url and file.is_file() else None


def check(entry: NetworkEntry, name: str) -> None:
    """Check, within seconds, that published weights are on this machine or can be downloaded.

    Args:
        entry: The weights.
        name: Name of the network as the user wrote it, for the error message.

    Raises:
        WeightsError: If no weights were published, or they are not on this machine and the server does not answer.
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
    """Download published weights into the library's own cache, and stop if the server sends nothing for a minute.

    The download runs in a daemon thread, so that Ctrl-C and SIGTERM end the program at once.

    Args:
        entry: The weights, not yet on this machine.
        name: Name of the network as the user wrote it.

    Returns:
        The downloaded file.

    Raises:
        WeightsError: If the download fails; the message names the file and where to put it.
    """
    results: queue.SimpleQueue[Path | BaseException] = queue.SimpleQueue()
    received: list[float] = []

    def work() -> None:
        try:
            results.put(_download(entry, received))
        except BaseException as error:
            results.put(error)

    now = time.monotonic()
    began = _began.pop(address(entry), now)
    deadline = (began if now - began < _START_S else now) + _START_S
    size = _downloaded_bytes(entry)
    threading.Thread(target=work, name="sightline-download", daemon=True).start()
    while True:
        try:
            result = results.get(timeout=_POLL_S)
        except queue.Empty:
            before, size = size, _downloaded_bytes(entry)
            if size > before or received:
                received.clear()
                deadline = time.monotonic() + _STALL_S
            elif time.monotonic() > deadline:
                raise absent(entry, name, f"{_name_of_host(entry)} stopped responding") from None
            continue
        if isinstance(result, Path):
            return result
        line = (str(result).strip().splitlines() or [type(result).__name__])[0][:240]
        raise absent(entry, name, f"the download failed ({line})") from result


def _download(entry: NetworkEntry, received: list[float]) -> Path:
    """Download a file with the library's own function into its own cache.

    Args:
        entry: The weights.
        received: List to which numbers of received bytes are appended, if the library reports them before writing.
    """
    if entry.hub:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError

        repository, _, revision = entry.hub.partition("@")
        huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
        more: dict[str, Any] = {"revision": revision or None, "endpoint": _host(entry)}
        if "tqdm_class" in inspect.signature(huggingface_hub.hf_hub_download).parameters:
            more["tqdm_class"] = _counting_tqdm(received)
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
    sha256_start = re.search(r"-([0-9a-f]{8,})\.", target.name)  # these file names end in the start of the file's SHA-256
    torch.hub.download_url_to_file(entry.url, str(target), sha256_start[1] if sha256_start else None)
    return target


def _counting_tqdm(received: list[float]) -> type:
    """Return a subclass of the hub's progress bar that also appends the numbers of received bytes to a list."""
    from huggingface_hub.utils.tqdm import tqdm

    class CountingTqdm(tqdm):
        def update(self, n: float | None = 1) -> Any:
            if n:
                received.append(n)
            return super().update(n)

    return CountingTqdm


def _downloaded_bytes(entry: NetworkEntry) -> int:
    """Return the total size of the files in the folder that a download of this entry writes to."""
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
    """Return torch's folder of downloaded files."""
    home = Path(os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch")
    return home / "hub" / "checkpoints"


def absent(entry: NetworkEntry, name: str, reason: str = "") -> WeightsError:
    """Return the error for weights that are missing and cannot be downloaded; its hint says where to put the file."""
    off = "HF_HUB_OFFLINE turns downloads off" if _offline() else f"{_name_of_host(entry)} cannot be reached"
    return WeightsError(
        f"the weights of {entry.name} are not on this machine, and {reason or off}",
        installed.suggestion(name) + weights.where_to_get(name, address(entry)),
    )


def address(entry: NetworkEntry) -> str:
    """Return the download address of the published file."""
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


def _offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


@functools.cache
def reachable(url: str, patience_s: float = _HOST_S) -> bool:
    """Return whether a server answers a request for an address, with any status. The result is cached.

    Proxies of the environment are used, and HF_HUB_OFFLINE is respected.
    """
    if _offline():
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=patience_s):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
