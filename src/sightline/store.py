"""Everything that touches the disk on Sightline's behalf: canonical hashes, atomic writes, the cache, named random streams."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import math
import os
import re
import secrets
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np

from sightline.errors import RequestError
from sightline.files import chunks

log = logging.getLogger("sightline")

# ---------------------------------------------------------------------------------------------------------------- hashes


def plain(value: Any) -> Any:
    """`value` as JSON's own types: dataclasses become objects, paths POSIX strings, numpy scalars numbers.

    Raises:
        TypeError: The value has no JSON form, or is a number that JSON does not have (NaN, infinity).
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            raise TypeError(f"{value} has no JSON form")
        return float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(v) for v in items]
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value.tolist()]
    if isinstance(value, PurePath):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8.

    Example:
        >>> canonical_json({"b": 1, "a": (1.0, "é")}).decode("utf-8")
        '{"a":[1.0,"é"],"b":1}'
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", errors="backslashreplace")


def digest(value: Any) -> str:
    """The first 128 bits of the SHA-256 of a value's canonical JSON, as 32 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:32]


def bytes_digest(data: bytes | memoryview) -> str:
    """The SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a regular file's bytes, as 64 hexadecimal digits, in bounded memory.

    Raises:
        OSError: As of `chunks`.
    """
    found = hashlib.sha256()
    for data in chunks(path):
        found.update(data)
    return found.hexdigest()


# ---------------------------------------------------------------------------------------------------------- atomic writes


def replace(source: Path, target: Path) -> None:
    """`os.replace`, tried again for about 2 s where another program (a virus scanner on Windows) holds the target."""
    delay_s = 0.01
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if delay_s > 1.0 or os.name != "nt":
                raise
            time.sleep(delay_s)
            delay_s *= 2


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable, where the system lets one open a folder."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` whole, when the block ends, or not at all.

    Args:
        path: Where the finished file will be; its folder is made.
        sync: Wait until the bytes are on the disk. Only what can be computed again (the cache) goes without.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        replace(temporary, path)
        if sync:
            _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):  # a full disk names no file
            error.filename = str(path)  # the name that the user knows
        raise


OUTPUT_MARK = ".sightline"
"""A file of this name marks a folder of results; a scan of photographs leaves such folders out."""


def output_folder(folder: Path) -> Path:
    """Create a folder for results, with its parents, and mark it. One that already holds files of others stays unmarked.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # the first result says that the folder cannot be written
        if next(folder.iterdir(), None) is None:
            write_text(folder / OUTPUT_MARK, "Sightline wrote this folder. A scan of photographs leaves it out.\n")
    return folder


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically: a reader sees the old complete one or the new complete one."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, with `\\n` line ends on every system."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented UTF-8 JSON with sorted keys, atomically."""
    write_text(path, json.dumps(plain(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


# ---------------------------------------------------------------------------------------------------------- output folders

LOCK = ".sightline.lock"
"""Stays in an output folder; the process that writes there holds it."""
_OWNER = ".sightline.pid"
_TEMPORARY = re.compile(r"\..{1,80}\.[0-9a-f]{12}\.tmp", re.DOTALL)
_UNLOCKABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


@contextlib.contextmanager
def lock_folder(folder: Path, *, depth: int = 3) -> Iterator[None]:
    """Keep other processes from writing into a folder for the block, and remove what a killed one has left half written.

    The folder is made and marked if it is missing, and removed again if nothing was written into it. The system releases the
    lock when the process ends, however it ends. A folder that cannot be written is not locked: its first write says so.

    Args:
        folder: The output folder of one command.
        depth: How many levels of it are searched for temporary files; other output folders in it are left alone.

    Raises:
        RequestError: Another process writes into the folder.
        OSError: The folder cannot be made.
    """
    import filelock

    made = not folder.is_dir()
    output_folder(folder)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        with contextlib.suppress(OSError):
            owner = (folder / _OWNER).read_text(encoding="utf-8")
            raise _written_elsewhere(folder, f" (process {owner})") from error
        raise _written_elsewhere(folder, "") from error
    except OSError as error:
        if error.errno not in _UNLOCKABLE:
            error.filename = str(folder)
            raise
        yield
        return
    try:
        with contextlib.suppress(OSError):
            (folder / _OWNER).write_text(str(os.getpid()), encoding="utf-8")
        _remove_temporary(folder, depth)
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / _OWNER).unlink()
        with contextlib.suppress(OSError):
            if made and set(os.listdir(folder)) <= {LOCK, OUTPUT_MARK}:
                (folder / LOCK).unlink()
                (folder / OUTPUT_MARK).unlink(missing_ok=True)
                folder.rmdir()
        lock.release()


def _written_elsewhere(folder: Path, owner: str) -> RequestError:
    """Return the error for a folder that another process writes into."""
    hint = "wait until it has finished, or name another folder with -o"
    return RequestError(f"{folder} is being written by another sightline{owner}", hint)


def _remove_temporary(folder: Path, depth: int) -> None:
    """Remove the temporary files of `atomic_file` in a folder that this process has locked."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    os.unlink(entry)
                elif depth > 1 and entry.is_dir(follow_symlinks=False) and not os.path.exists(Path(entry) / LOCK):
                    _remove_temporary(Path(entry), depth - 1)


# ------------------------------------------------------------------------------------------------------------------ cache

_MAGIC = b"SLCACHE1"
_HEADER_BYTES = len(_MAGIC) + 32
_CHECK_EVERY_BYTES = 64 << 20
_STALE_S = 24 * 3600.0


def cache_root() -> Path:
    """The cache's folder: `SIGHTLINE_CACHE`, or the system's own place for caches."""
    named = os.environ.get("SIGHTLINE_CACHE")
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("sightline", appauthor=False)


def cache_limit_bytes() -> int:
    """How large the cache may grow: `SIGHTLINE_CACHE_GB`, or 20 GB."""
    text = os.environ.get("SIGHTLINE_CACHE_GB", "20")
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < 1e9:
        raise RequestError(f"SIGHTLINE_CACHE_GB={text!r} is not a size in GB", "set it to a number such as 20")
    return int(limit * 1e9)


class Cache:
    """Bytes under names such as `features/ab12/0001`, each file with its checksum, never trusted unchecked.

    An entry is written once, whole, and never changed. A damaged entry reads as absent and is removed. Where the folder
    cannot be written, or the disk is full, the work goes on uncached and says so once. The least recently used entries
    go when the limit is passed; one process at a time does that, under a lock.

    Args:
        root: The folder; made at the first write.
        limit_bytes: The size to stay under.
    """

    def __init__(self, root: Path | None = None, limit_bytes: int | None = None) -> None:
        self.root = cache_root() if root is None else Path(root)
        self.limit_bytes = cache_limit_bytes() if limit_bytes is None else limit_bytes
        self._unchecked_bytes = _CHECK_EVERY_BYTES
        self._writable = True

    def _file(self, name: str) -> Path:
        return self.root.joinpath(*name.split("/"))

    def read(self, name: str) -> bytes | None:
        """The payload of an entry, or None where it is absent or damaged (then it is removed, and that is logged)."""
        file = self._file(name)
        try:
            with open(file, "rb") as stream:
                header = stream.read(_HEADER_BYTES)
                payload = stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            log.warning("the cache entry %s cannot be read (%s); it is computed again", file, error)
            return None
        if header != _MAGIC + hashlib.sha256(payload).digest():
            log.warning("the cache entry %s is damaged; it is computed again", file)
            with contextlib.suppress(OSError):
                file.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(file)
        return payload

    def write(self, name: str, payload: bytes | memoryview) -> bool:
        """Store an entry. Returns whether it was kept; an unwritable cache is not an error."""
        if not self._writable:
            return False
        try:
            with atomic_file(self._file(name), sync=False) as file:
                file.write(_MAGIC + hashlib.sha256(payload).digest())
                file.write(payload)
        except OSError as error:
            self._writable = False
            log.warning("the cache at %s cannot be written (%s); this run goes on without it", self.root, error)
            return False
        self._unchecked_bytes += len(payload)
        if self._unchecked_bytes >= _CHECK_EVERY_BYTES:
            self._unchecked_bytes = 0
            self.evict()
        return True

    def read_json(self, name: str) -> Any:
        """The JSON value of an entry, or None."""
        payload = self.read(name)
        return None if payload is None else json.loads(payload)

    def write_json(self, name: str, value: Any) -> bool:
        """Store a JSON value."""
        return self.write(name, canonical_json(value))

    def names(self, prefix: str = "") -> list[str]:
        """The names of all entries that begin with `prefix`, sorted. `prefix` is whole folders, such as `features/ab12`."""
        folder = self._file(prefix) if prefix else self.root
        if not folder.is_dir():
            return []
        found = (p.relative_to(self.root).as_posix() for p in folder.rglob("*") if p.is_file())
        return sorted(n for n in found if not n.rpartition("/")[2].startswith("."))

    def remove(self, name: str) -> None:
        """Remove one entry, if it is there."""
        with contextlib.suppress(OSError):
            self._file(name).unlink()

    def size_bytes(self, prefix: str = "") -> int:
        """The bytes that the entries take on disk."""
        total = 0
        for name in self.names(prefix):
            with contextlib.suppress(OSError):
                total += self._file(name).stat().st_size
        return total

    def clear(self, prefix: str = "") -> int:
        """Remove all entries under `prefix`. Returns how many there were."""
        names = self.names(prefix)
        for name in names:
            self.remove(name)
        return len(names)

    def verify(self) -> list[str]:
        """Check every entry's checksum; remove the damaged ones and return their names."""
        return [name for name in self.names() if self.read(name) is None]

    @contextlib.contextmanager
    def lock(self, name: str = "cache", timeout_s: float = 60.0) -> Iterator[bool]:
        """Hold a lock between processes for the block. Yields False where it could not be had in time."""
        import filelock

        lock = filelock.FileLock(self.root / f".{name}.lock")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=timeout_s)
        except (filelock.Timeout, OSError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def evict(self) -> int:
        """Remove stale temporary files, and the least recently used entries until 90 % of the limit. Returns how many."""
        with self.lock(timeout_s=0.0) as held:
            if not held:
                return 0
            self._sweep()
            entries: list[tuple[float, int, str]] = []
            for name in self.names():
                with contextlib.suppress(OSError):
                    status = self._file(name).stat()
                    entries.append((status.st_mtime, status.st_size, name))
            excess = sum(size for _, size, _ in entries) - self.limit_bytes
            if excess <= 0:
                return 0
            excess += self.limit_bytes // 10
            removed = 0
            for _, size, name in sorted(entries):
                if excess <= 0:
                    break
                self.remove(name)
                excess -= size
                removed += 1
            return removed

    def _sweep(self) -> None:
        """Remove temporary files that a killed process left a day ago or earlier."""
        for file in self.root.rglob(".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > _STALE_S:
                    file.unlink()

    def remember(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON value under `name`, made and stored where it is absent."""
        value = self.read_json(name)
        if value is None:
            value = plain(make())
            self.write_json(name, value)
        return value


# ---------------------------------------------------------------------------------------------------------- random streams


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """A random generator that is a function of the seed and of what it is for, and of nothing else.

    Two purposes never share numbers, and a draw for one image does not depend on how many were drawn before it.

    Example:
        >>> bool(stream(0, "split", "cat").random() == stream(0, "split", "cat").random())
        True
    """
    key = hashlib.sha256(canonical_json([seed, *purpose])).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key[:16], dtype=np.uint64)))


def slug(text: str) -> str:
    """Return a portable name for a file or a folder: lower-case letters and digits of any script, and `-`.

    It has at most 40 characters and 80 bytes, and is never a name that Windows reserves.

    Example:
        >>> slug("My photos (2024)!"), slug("赤い花")
        ('my-photos-2024', '赤い花')
    """
    letters = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    name = re.sub("-+", "-", "".join(c if unicodedata.category(c)[0] in "LMN" else "-" for c in letters)).strip("-")[:40]
    name = name.encode("utf-8", errors="replace")[:80].decode("utf-8", errors="ignore").strip("-")
    reserved = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in "0123456789¹²³")}
    return name if name and name not in reserved else f"photos-{name}".strip("-")


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Return each name's slug; names whose slugs differ in nothing but case get six digits of their hash behind them.

    Example:
        >>> slugs(["cat", "C++", "C#"])
        {'cat': 'cat', 'C++': 'c-f3c665', 'C#': 'c-58a165'}
    """
    found = {name: slug(name) for name in names}
    count = Counter(short.casefold() for short in found.values())
    return {name: short if count[short.casefold()] == 1 else f"{short}-{digest(name)[:6]}" for name, short in found.items()}
