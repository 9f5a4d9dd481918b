"""Storage: canonical JSON and hashes, atomic writes, folder locks, the cache, and named random streams."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
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
    """Convert a value to JSON types: dataclasses become objects, paths POSIX strings, numpy scalars numbers.

    Raises:
        TypeError: If the value has no JSON form, or is NaN or infinite.
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
    """Return the canonical JSON text of a value: sorted keys, no spaces, UTF-8.

    Example:
        >>> canonical_json({"b": 1, "a": (1.0, "é")}).decode("utf-8")
        '{"a":[1.0,"é"],"b":1}'
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", errors="backslashreplace")


def digest(value: Any) -> str:
    """Return the first 128 bits of the SHA-256 of a value's canonical JSON, as 32 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:32]


def bytes_digest(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a regular file's bytes, as 64 hexadecimal digits, in bounded memory.

    Raises:
        OSError: As in `chunks`.
    """
    sha256 = hashlib.sha256()
    for data in chunks(path):
        sha256.update(data)
    return sha256.hexdigest()


def now() -> str:
    """Return the local time in ISO 8601 with its UTC offset, in seconds."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


# ---------------------------------------------------------------------------------------------------------- atomic writes


def replace(source: Path, target: Path) -> None:
    """Call `os.replace`; on Windows retry for about 2 s if another program, such as a virus scanner, has the target open."""
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
    """Make a rename inside `folder` durable, except on Windows, where folders cannot be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary binary file that replaces `path` when the block ends, and is removed if the block fails.

    Args:
        path: Path of the finished file; its folder is created.
        sync: Whether to wait until the bytes are on the disk. False is for data that can be recomputed, such as the cache.
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
            error.filename = str(path)  # the user does not know the temporary name
        raise


OUTPUT_MARK = ".sightline"
"""Name of the file that marks a folder of results; scans ignore such folders."""


def output_folder(folder: Path) -> Path:
    """Create a folder for results, with its parents, and mark it. A folder that already contains files is not marked.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # writing the first result reports a folder that is not writable
        if next(folder.iterdir(), None) is None:
            write_text(folder / OUTPUT_MARK, "Sightline wrote this folder. A scan of photographs leaves it out.\n")
    return folder


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically: a reader sees either the complete old file or the complete new one."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, with `\\n` line endings on every system."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented UTF-8 JSON with sorted keys, atomically."""
    write_text(path, json.dumps(plain(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(file: Path, line: bytes) -> None:
    """Append a line to a file of lines and wait until it is on the disk; a line that was interrupted is completed first.

    Args:
        file: The file; it is created, readable by its owner only, if it does not exist.
        line: The line without its end.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
    with open(descriptor, "r+b", buffering=0) as stream:
        end = stream.seek(0, os.SEEK_END)
        whole = True
        if end:
            stream.seek(end - 1)
            whole = stream.read(1) == b"\n"
        stream.write(b"".join((b"" if whole else b"\n", line, b"\n")))
        os.fsync(descriptor)


@contextlib.contextmanager
def locked_file(file: Path, timeout_s: float) -> Iterator[None]:
    """Hold a lock file for the block.

    Raises:
        TimeoutError: If another process holds it for more than `timeout_s` seconds.
    """
    import filelock

    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=timeout_s)
    except filelock.Timeout as error:
        raise TimeoutError(f"another process has locked it for {timeout_s:g} s") from error
    try:
        yield
    finally:
        lock.release()


# ---------------------------------------------------------------------------------------------------------- output folders

LOCK = ".sightline.lock"
"""Name of the lock file of an output folder; it is not removed when the lock is released."""
_OWNER = ".sightline.pid"
_TEMPORARY = re.compile(r"\..{1,80}\.[0-9a-f]{12}\.tmp", re.DOTALL)
_UNLOCKABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


@contextlib.contextmanager
def lock_folder(folder: Path, *, depth: int = 3) -> Iterator[None]:
    """Lock an output folder against other processes for the block, and remove temporary files of killed processes.

    A missing folder is created and marked, and removed again if nothing was written into it. The operating system releases the
    lock when the process ends, even if it is killed. A folder that is not writable is not locked; the first write reports it.

    Args:
        folder: Output folder of one command.
        depth: Number of folder levels that are searched for temporary files; output folders inside it are skipped.

    Raises:
        RequestError: If another process writes into the folder.
        OSError: If the folder cannot be created.
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
            raise _written_elsewhere(folder, f" (PID {owner})") from error
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
    return RequestError(f"{folder} is being written by another sightline process{owner}", hint)


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
UNPACKED = ("archives", "datasets")
"""Parts of the cache whose entries are folders: unpacked archives, and images of data sets that were passed from Python."""


def cache_root() -> Path:
    """Return the cache folder: `SIGHTLINE_CACHE`, or the user's cache folder."""
    named = os.environ.get("SIGHTLINE_CACHE")
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("sightline", appauthor=False)


def cache_limit_bytes() -> int:
    """Return the maximum size of the cache: `SIGHTLINE_CACHE_GB`, or 20 GB.

    Raises:
        RequestError: If `SIGHTLINE_CACHE_GB` is not a size in GB.
    """
    text = os.environ.get("SIGHTLINE_CACHE_GB", "20")
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < 1e9:
        raise RequestError(f"SIGHTLINE_CACHE_GB={text!r} is not a size in GB", "set it to a number such as 20")
    return int(limit * 1e9)


class Cache:
    """Cache of byte strings under names such as `features/ab12/0001`, one file per entry, with a checksum.

    Entries are written atomically and never changed. A damaged entry is removed and treated as absent. If the folder is not
    writable or the disk is full, work continues without the cache after one warning. When the limit is exceeded, the least
    recently used entries are removed by one process at a time, under a lock.

    Args:
        root: Cache folder, created on the first write; None uses `cache_root`.
        limit_bytes: Maximum size; None uses `cache_limit_bytes`.
    """

    def __init__(self, root: Path | None = None, limit_bytes: int | None = None) -> None:
        self.root = cache_root() if root is None else Path(root)
        self.limit_bytes = cache_limit_bytes() if limit_bytes is None else limit_bytes
        self._unchecked_bytes = _CHECK_EVERY_BYTES
        self._writable = True

    def _file(self, name: str) -> Path:
        return self.root.joinpath(*name.split("/"))

    def read(self, name: str) -> bytes | None:
        """Return the payload of an entry, None if it is absent or damaged (a damaged entry is removed and logged)."""
        file = self._file(name)
        try:
            with open(file, "rb") as stream:
                header = stream.read(_HEADER_BYTES)
                payload = stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            log.warning("the cache entry %s cannot be read (%s); recomputing it", file, error)
            return None
        if header != _MAGIC + hashlib.sha256(payload).digest():
            log.warning("the cache entry %s is damaged; recomputing it", file)
            with contextlib.suppress(OSError):
                file.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(file)
        return payload

    def write(self, name: str, payload: bytes | memoryview) -> bool:
        """Store an entry, and return whether it was stored; a cache that is not writable is not an error."""
        if not self._writable:
            return False
        try:
            with atomic_file(self._file(name), sync=False) as file:
                file.write(_MAGIC + hashlib.sha256(payload).digest())
                file.write(payload)
        except OSError as error:
            self._writable = False
            log.warning("the cache %s cannot be written (%s); continuing without it", self.root, error)
            return False
        self._unchecked_bytes += len(payload)
        if self._unchecked_bytes >= _CHECK_EVERY_BYTES:
            self._unchecked_bytes = 0
            self.evict()
        return True

    def read_json(self, name: str) -> Any:
        """Return the JSON value of an entry, None if it is absent."""
        payload = self.read(name)
        return None if payload is None else json.loads(payload)

    def write_json(self, name: str, value: Any) -> bool:
        """Store a JSON value, and return whether it was stored."""
        return self.write(name, canonical_json(value))

    def names(self, prefix: str = "") -> list[str]:
        """Return the sorted names of all entries in the folder `prefix`, such as `features/ab12`; "" for all entries."""
        start = self._file(prefix) if prefix else self.root
        if start.parent.name in UNPACKED and start.parent.parent == self.root:
            return [prefix] if start.is_dir() else []
        return sorted(name for name in self._walk(start) if not name.rpartition("/")[2].startswith("."))

    def _walk(self, start: Path) -> Iterator[str]:
        """Yield the relative paths of all files below a folder, and of the folders in `UNPACKED`, which are not opened."""
        for place, folders, files in os.walk(start):
            inside = Path(place).relative_to(self.root).as_posix()
            yield from (n if inside == "." else f"{inside}/{n}" for n in (folders if inside in UNPACKED else files))
            if inside in UNPACKED:
                folders.clear()

    def remove(self, name: str) -> None:
        """Remove an entry if it exists."""
        file = self._file(name)
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        with contextlib.suppress(OSError):
            file.unlink()

    def _entry_bytes(self, name: str) -> int:
        """Return the size of an entry, 0 if it does not exist."""
        file = self._file(name)
        files = file.rglob("*") if file.is_dir() else [file]
        total = 0
        for each in files:
            with contextlib.suppress(OSError):
                total += each.stat().st_size
        return total

    def size_bytes(self, prefix: str = "") -> int:
        """Return the size of the entries on disk in bytes."""
        return sum(self._entry_bytes(name) for name in self.names(prefix))

    def clear(self, prefix: str = "") -> int:
        """Remove all entries in the folder `prefix`, and return their number."""
        names = self.names(prefix)
        for name in names:
            self.remove(name)
        return len(names)

    def verify(self) -> list[str]:
        """Check every entry's checksum, remove damaged entries, and return their names."""
        return [name for name in self.names() if not self._is_sound(name)]

    def _is_sound(self, name: str) -> bool:
        """Return whether an entry has its checksum; remove it if not. The files of a folder are compared with its manifest."""
        folder = self._file(name)
        if folder.suffix == ".parquet":
            sound = _is_sound_parquet(folder)
            if not sound:
                self.remove(name)
            return sound
        if not folder.is_dir():
            return self.read(name) is not None
        manifest = self.read_json(f"manifests/{folder.name}")
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        if manifest is not None and manifest == {relative: file_digest(file) for relative, file in files.items()}:
            return True
        self.remove(name)
        return False

    @contextlib.contextmanager
    def lock(self, name: str = "cache", timeout_s: float = 60.0) -> Iterator[bool]:
        """Hold a lock between processes for the block. Yield False if it could not be acquired in time."""
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

    def evict(self, keep: str = "") -> int:
        """Remove stale temporary files and, above the limit, the least recently used entries down to 90 % of it.

        Args:
            keep: Name of an entry that is not removed.

        Returns:
            Number of removed entries.
        """
        with self.lock(timeout_s=0.0) as held:
            if not held:
                return 0
            self._sweep()
            entries: list[tuple[float, int, str]] = []
            for name in self.names():
                with contextlib.suppress(OSError):
                    entries.append((self._file(name).stat().st_mtime, self._entry_bytes(name), name))
            excess = sum(size for _, size, _ in entries) - self.limit_bytes
            if excess <= 0:
                return 0
            excess += self.limit_bytes // 10
            removed = 0
            for _, size, name in sorted(entries):
                if excess <= 0:
                    break
                if name == keep:
                    continue
                self.remove(name)
                excess -= size
                removed += 1
            return removed

    def _sweep(self) -> None:
        """Remove temporary files and folders that are at least a day old, left by killed processes."""
        stale = [self._file(name) for name in self._walk(self.root) if re.fullmatch(r"\..*\.tmp", name.rpartition("/")[2])]
        for file in stale:
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > _STALE_S:
                    shutil.rmtree(file, ignore_errors=True) if file.is_dir() else file.unlink()

    def remember(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the JSON value of an entry; call `make` and store its result if it is absent."""
        value = self.read_json(name)
        if value is None:
            value = plain(make())
            self.write_json(name, value)
        return value


def _is_sound_parquet(file: Path) -> bool:
    """Return whether the pages of a Parquet file have their checksums."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        parquet.ParquetFile(file, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError):
        return False
    return True


# ---------------------------------------------------------------------------------------------------------- random streams


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a random generator that depends only on the seed and the purpose.

    Different purposes give independent streams, so a draw for one image does not depend on the draws before it.

    Example:
        >>> bool(stream(0, "split", "cat").random() == stream(0, "split", "cat").random())
        True
    """
    key = hashlib.sha256(canonical_json([seed, *purpose])).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key[:16], dtype=np.uint64)))


def slug(text: str) -> str:
    """Return a portable file or folder name: lower-case letters and digits of any script, and `-`.

    The name has at most 40 characters and 80 bytes, and is not a reserved name of Windows.

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
    """Return each name's slug; slugs that are equal apart from case get six digits of the name's hash appended.

    Example:
        >>> slugs(["cat", "C++", "C#"])
        {'cat': 'cat', 'C++': 'c-f3c665', 'C#': 'c-58a165'}
    """
    by_name = {name: slug(name) for name in names}
    count = Counter(short.casefold() for short in by_name.values())
    return {name: short if count[short.casefold()] == 1 else f"{short}-{digest(name)[:6]}" for name, short in by_name.items()}
