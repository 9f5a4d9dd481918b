"""Archives: check every member before anything is written, and unpack once into the cache, under the archive's hash."""

from __future__ import annotations

import atexit
import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import re
import secrets
import shutil
import stat
import tarfile
import tempfile
import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sightline.errors import DataError, RequestError
from sightline.files import is_file, open_regular
from sightline.store import UNPACKED, Cache, file_digest, log

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
"""Names of archives that Sightline reads, in lower case."""
_OTHER_ARCHIVES = (".7z", ".rar", ".tar.zst", ".tzst", ".tar.z", ".tar.lz", ".tar.lzma", ".cab", ".lzh", ".ace", ".iso")
MOST_FILES = 1_000_000
MOST_BYTES = 1 << 40
HIGHEST_RATIO = 100
"""Maximum ratio of unpacked to packed bytes, of the whole archive and of each file above `_FREE_BYTES`."""
_FREE_BYTES = 8 << 20
_RESERVE_BYTES = 256 << 20  # of the disk, that unpacking leaves free
_MOST_HEADER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_LONGEST_NAME_BYTES = 255
_DRIVE = re.compile(r"[A-Za-z]:")
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, UnicodeError, ValueError, OverflowError)
_UNPACK_YOURSELF = "if you trust it, unpack it yourself and name the folder"


@dataclass(frozen=True, slots=True)
class _Member:
    """Entry of an archive.

    Args:
        name: Name as stored.
        parts: Folders and file name.
        kind: `file`, `folder`, or a description of anything else, such as `a link`.
        size_bytes: Unpacked size.
        packed_bytes: Packed size, None if unknown.
        handle: The library's own object.
    """

    name: str
    parts: tuple[str, ...]
    kind: str
    size_bytes: int
    packed_bytes: int | None
    handle: Any


# ------------------------------------------------------------------------------------------------------------ recognition


def has_archive_name(path: str | Path) -> bool:
    """Return whether a name ends like that of an archive, supported or not.

    Example:
        >>> has_archive_name("photos.TAR.GZ"), has_archive_name("photos.rar"), has_archive_name("labels.csv.gz")
        (True, True, False)
    """
    return os.fspath(path).lower().endswith(SUFFIXES + _OTHER_ARCHIVES)


def is_archive(path: str | Path) -> bool:
    """Return whether a path is a regular file with the name or the first bytes of an archive. A folder named x.zip is none.

    Raises:
        NotReadableError: If it is a device, a pipe or a socket.
    """
    if not is_file(path):
        return False
    return has_archive_name(path) or _format(path) is not None


def _format(path: str | Path) -> str | None:
    """Return `zip` or `tar` by an archive's content, None if it is neither or cannot be read."""
    try:
        with open_regular(path) as file:
            head = file.read(8) or b""
            if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                return None if os.fspath(path).lower().endswith(".npz") else "zip"
            file.seek(0)
            with _decompressed(file) as stream:
                block = stream.read(512)
        return "tar" if len(block) == 512 and (block[257:262] == b"ustar" or _has_tar_checksum(block)) else None
    except (OSError, *_DAMAGE):
        return None


def _has_tar_checksum(block: bytes) -> bool:
    """Return whether a block is a tar header, by its checksum: old formats lack a signature."""
    try:
        stored = int(block[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    return stored == sum(block) - sum(block[148:156]) + 8 * 32 and any(block[:100])


@contextlib.contextmanager
def _decompressed(file: IO[bytes]) -> Iterator[Any]:
    """Open a compressed stream by its first bytes; yield the file itself if it is not compressed."""
    head = file.read(6) or b""
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=file, mode="rb") as unzipped:
            yield unzipped
    elif head.startswith(b"BZh"):
        with bz2.BZ2File(file, "rb") as unbzipped:
            yield unbzipped
    elif head.startswith((b"\xfd7zXZ\x00", b"]\x00\x00")):
        with lzma.LZMAFile(file, "rb") as unxzipped:
            yield unxzipped
    else:
        yield file


# ----------------------------------------------------------------------------------------------------------------- paths


_unpacked: dict[tuple[str, int, int], Path] = {}
_unpacking = threading.Lock()


def split_inside(path: str | Path) -> tuple[Path, str] | None:
    """Return (archive, POSIX path inside it) if one of a path's parents is an archive, or (archive, "") for an archive.

    A path that exists in the file system is not inside an archive.
    """
    whole = Path(os.path.abspath(path))
    for place in (whole, *whole.parents):
        try:
            mode = os.stat(place).st_mode
        except (OSError, ValueError):
            continue
        if not stat.S_ISREG(mode) or not is_archive(place):
            return None
        return place, whole.relative_to(place).as_posix() if place != whole else ""
    return None


def real_path(path: str | Path) -> Path | None:
    """Return where a path inside an archive, or an archive itself, lies unpacked; None if no archive is part of the path.

    Raises:
        DataError: If the archive is refused.
    """
    inside = split_inside(path)
    if inside is None:
        return None
    folder = unpacked(inside[0])
    return folder.joinpath(*inside[1].split("/")) if inside[1] else folder


def unpacked(archive: Path) -> Path:
    """Return the folder with an archive's files; unpack it if that was not done before.

    The folder is in the cache, under the hash of the archive's bytes, or temporary if the cache cannot be written.

    Raises:
        DataError: If the archive is damaged, encrypted or not supported, or contains anything unsafe. Nothing is written then.
        RequestError: If there is not enough space.
    """
    status = os.stat(archive)
    key = (os.path.abspath(archive), status.st_size, status.st_mtime_ns)
    with _unpacking:
        known = _unpacked.get(key)
        if known is None or not known.is_dir():
            known = _unpacked[key] = _find_or_unpack(Path(archive))
        return known


def _find_or_unpack(archive: Path) -> Path:
    """Return the folder in the cache with an archive's files, unpacked now if needed."""
    cache = Cache()
    name = f"{UNPACKED[0]}/{file_digest(archive)}"
    folder = cache.root.joinpath(*name.split("/"))
    with cache.lock("unpack", timeout_s=600):
        if folder.is_dir():
            with contextlib.suppress(OSError):
                os.utime(folder)
            return folder
        with _opened(archive) as (members, source):
            members = _checked(members, archive)
            temporary = _temporary(folder, archive)
            try:
                hashes = _extract(members, source, temporary, archive)
                if temporary.parent != folder.parent:
                    return temporary
                os.rename(temporary, folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        cache.write_json(f"manifests/{folder.name}", hashes)
        cache.evict(keep=name)
    return folder


def _temporary(folder: Path, archive: Path) -> Path:
    """Create a temporary folder beside the final one, or anywhere if the cache cannot be written."""
    temporary = folder.with_name(f".{folder.name[:16]}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        log.warning("the cache cannot be written (%s); %s is unpacked into a temporary folder", error, archive)
        temporary = Path(tempfile.mkdtemp(prefix="sightline-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


# --------------------------------------------------------------------------------------------------------------- reading


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tuple[list[_Member], Any]]:
    """Open an archive, and yield its members and the object that reads them.

    Raises:
        DataError: If it is not a supported archive, is damaged, or has too many or too large members.
    """
    if os.fspath(archive).lower().endswith(_OTHER_ARCHIVES):
        what = f"{archive} is an archive of a kind that Sightline does not read ({archive.suffix})"
        raise DataError(what, "unpack it and name the folder")
    try:
        with open_regular(archive) as file:
            if (file.read(2) or b"") == b"PK":
                file.seek(0)
                with zipfile.ZipFile(file) as opened:
                    yield _zip_members(opened, archive), opened
                return
            file.seek(0)
            with _decompressed(file) as stream, tarfile.open(fileobj=_Bounded(stream), mode="r:") as tar:  # type: ignore[call-overload]
                yield _tar_members(tar, archive), tar
    except (DataError, RequestError):
        raise
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except (NotImplementedError, RuntimeError) as error:  # compression methods and encryption that zipfile lacks
        raise DataError(f"{archive} cannot be unpacked ({error})", _UNPACK_YOURSELF) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(archive, error) from error  # a wrong checksum of a compressed file


def _damaged(archive: Path, error: BaseException) -> DataError:
    """Return the error for an archive that cannot be read to its end."""
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return DataError(f"{archive} is damaged, truncated, or not an archive ({reason})", "get the file again")


class _Bounded:
    """Decompressed stream of a tar file that refuses to read a large header into memory.

    Args:
        stream: Seekable binary stream.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `_MOST_HEADER_BYTES` of them."""
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        return self.stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset."""
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the offset."""
        return self.stream.tell()


_ZIP_SPECIAL = {
    stat.S_IFLNK: "a link",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def _zip_members(opened: zipfile.ZipFile, archive: Path) -> list[_Member]:
    """Return the members of a ZIP archive."""
    infos = opened.infolist()
    windows = not any("/" in i.filename for i in infos)  # some programs of Windows write backslashes only
    members = []
    for info in infos:
        if info.flag_bits & 0x1:
            raise DataError(f"{archive} is encrypted ({info.filename!r} needs a password)", "unpack it and name the folder")
        name = info.orig_filename.replace("\\", "/") if windows else info.orig_filename
        kind = _ZIP_SPECIAL.get(stat.S_IFMT(info.external_attr >> 16), "folder" if name.endswith("/") else "file")
        members.append(_Member(name, _parts(name), kind, info.file_size, info.compress_size, info))
    return members


def _tar_members(tar: tarfile.TarFile, archive: Path) -> list[_Member]:
    """Return the members of a tar archive, without decompressing more than the limit of unpacked bytes.

    Raises:
        DataError: If the archive has no end marker.
    """
    members: list[_Member] = []
    total, most = 0, _most_bytes(archive)
    for info in tar:
        total += info.size
        if total > most or len(members) >= MOST_FILES:  # before the file's bytes are skipped
            raise _too_large(archive, total, len(members))
        kind = "folder" if info.isdir() else "a sparse file" if info.issparse() else "file" if info.isreg() else _tar_kind(info)
        members.append(_Member(info.name, _parts(info.name), kind, info.size, None, info))
    stream = tar.fileobj
    assert stream is not None
    stream.seek(tar.offset)
    end = stream.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        what = f"{archive} is truncated or damaged: it ends after {len(members):,} entries without an end marker"
        raise DataError(what, "get the file again")
    return members


def _tar_kind(info: tarfile.TarInfo) -> str:
    """Return the description of a tar entry that is neither a file nor a folder."""
    if info.issym() or info.islnk():
        return "a link"
    return "a pipe" if info.isfifo() else "a device" if info.isdev() else f"an entry of the unknown type {info.type!r}"


def _parts(name: str) -> tuple[str, ...]:
    """Return the folders and the file name of an entry."""
    return tuple(part for part in name.split("/") if part not in ("", "."))


# -------------------------------------------------------------------------------------------------------------- checking


def _checked(members: Sequence[_Member], archive: Path) -> list[_Member]:
    """Return the members, after checking all of them.

    Raises:
        DataError: If the archive is unsafe or has no files; the message names the first such member.
        RequestError: If there is not enough space.
    """
    for member in members:
        fault = _fault(member)
        if fault is not None:
            raise DataError(f"{archive} is refused: {_shown(member.name)} {fault}", _UNPACK_YOURSELF)
    _check_collisions(members, archive)
    _check_sizes(members, archive)
    if not any(m.kind == "file" for m in members):
        raise DataError(f"{archive} contains no files", "name an archive of photographs")
    return [m for m in members if m.parts]


def _shown(name: str) -> str:
    """Return a member's name for messages."""
    return repr(name if len(name) <= 120 else name[:117] + "...")


def _fault(member: _Member) -> str | None:
    """Return why a member is not unpacked, None if it is safe."""
    name = member.name
    if member.kind not in ("file", "folder"):
        return f"is {member.kind}, not a file"
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        return "has an absolute path"
    if ".." in name.replace("\\", "/").split("/"):
        return "leads out of the archive ('..')"
    if "\0" in name:
        return "has a NUL character in its name"
    if os.sep == "\\" and any(c in part for part in member.parts for c in '\\:*?"<>|'):
        return "has a name that Windows does not allow"
    if any(len(part.encode("utf-8", "surrogateescape")) > _LONGEST_NAME_BYTES for part in member.parts) or len(name) > 4096:
        return "has too long a name"
    if member.size_bytes < 0:
        return "has a negative size"
    if member.kind == "file" and has_archive_name(member.parts[-1] if member.parts else ""):
        return "is an archive inside the archive"
    large = member.size_bytes > _FREE_BYTES
    if large and member.packed_bytes is not None and member.size_bytes > HIGHEST_RATIO * max(1, member.packed_bytes):
        return f"unpacks to {_size(member.size_bytes)}, more than {HIGHEST_RATIO} times its size in the archive"
    return None


def _check_collisions(members: Sequence[_Member], archive: Path) -> None:
    """Check that no two files have one name, or names that differ only by case or Unicode form.

    Raises:
        DataError: If two have, or a file is also a folder: one would overwrite the other.
    """
    seen: dict[str, _Member] = {}
    folders: set[str] = set()
    for member in members:
        key = unicodedata.normalize("NFC", "/".join(member.parts)).casefold()
        inner = key if member.kind == "folder" else key.rpartition("/")[0]
        while inner and inner not in folders:
            folders.add(inner)
            inner = inner.rpartition("/")[0]
        if member.kind == "folder":
            continue
        other = seen.setdefault(key, member)
        if other is not member:
            same = (
                "occurs twice"
                if other.parts == member.parts
                else f"and {_shown(other.name)} differ only by case or Unicode form"
            )
            raise DataError(f"{archive} is refused: {_shown(member.name)} {same}", "give every file in it another name")
    both = next((m for key, m in seen.items() if key in folders), None)
    if both is not None:
        raise DataError(f"{archive} is refused: {_shown(both.name)} is a file and a folder", _UNPACK_YOURSELF)


def _most_bytes(archive: Path) -> int:
    """Return the maximum number of bytes that an archive may unpack to."""
    return min(MOST_BYTES, max(_FREE_BYTES, HIGHEST_RATIO * os.path.getsize(archive)))


def _check_sizes(members: Sequence[_Member], archive: Path) -> None:
    """Check the number of files and the total size.

    Raises:
        DataError: If there are too many files or bytes, or too many for the size of the archive.
        RequestError: If the disk of the cache has too little space.
    """
    total = sum(m.size_bytes for m in members)
    if len(members) > MOST_FILES or total > _most_bytes(archive):
        raise _too_large(archive, total, len(members))
    folder = Cache().root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free
        if total > max(0, free - _RESERVE_BYTES):
            what = f"{archive} unpacks to {_size(total)}, and the disk of the cache {Cache().root} has {_size(free)} free"
            raise RequestError(what, "free some space, or set SIGHTLINE_CACHE to a folder on another disk")


def _too_large(archive: Path, total: int, count: int) -> DataError:
    """Return the error for an archive with too many files or bytes."""
    packed = os.path.getsize(archive)
    what = f"{count:,} entries with at least {_size(total)} in a file of {_size(packed)}"
    limits = f"the limits are {MOST_FILES:,} entries, {_size(MOST_BYTES)}, and {HIGHEST_RATIO} times the size of the archive"
    return DataError(f"{archive} is refused: it has {what}; {limits}", _UNPACK_YOURSELF)


def _size(count: int) -> str:
    """Return a number of bytes for messages.

    Example:
        >>> _size(1500), _size(3_000_000_000)
        ('1.5 kB', '3.0 GB')
    """
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


# ------------------------------------------------------------------------------------------------------------- extraction


def _extract(members: Sequence[_Member], source: Any, folder: Path, archive: Path) -> dict[str, str]:
    """Write all members into a new folder.

    Returns:
        Relative POSIX path → SHA-256 of every file.

    Raises:
        DataError: If a member has more or fewer bytes than its header says, or a wrong checksum.
    """
    hashes: dict[str, str] = {}
    for member in members:
        target = folder.joinpath(*member.parts)
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = source.open(member.handle) if isinstance(source, zipfile.ZipFile) else source.extractfile(member.handle)
        sha256, left = hashlib.sha256(), member.size_bytes
        with stream, open(target, "xb") as out:
            while data := stream.read(_CHUNK_BYTES):
                left -= len(data)
                if left < 0:
                    break
                sha256.update(data)
                out.write(data)
        if left:
            raise DataError(
                f"{archive} is damaged: {_shown(member.name)} does not have the size stated in its header", "get the file again"
            )
        hashes["/".join(member.parts)] = sha256.hexdigest()
    return hashes
