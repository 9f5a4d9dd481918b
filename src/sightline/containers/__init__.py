"""Files that contain many images: archives, which are unpacked once into the cache, and arrays, which are read in place.

Their images have paths of their own, `photos.zip/cat/1.jpg` and `x.h5#12`, which are opened here like those of files, and like
URIs of files on object stores, `s3://bucket/cat/1.jpg`.
"""

from __future__ import annotations

import os
from pathlib import Path

from sightline import files, remote
from sightline.containers import array_sets
from sightline.containers.archives import has_archive_name, is_archive, real_path, split_inside, unpacked
from sightline.containers.array_files import is_array_file
from sightline.files import LARGEST_BYTES, NotReadableError
from sightline.store import bytes_digest, file_digest

__all__ = [
    "array_sets",
    "digest",
    "has_archive_name",
    "holds_images",
    "is_archive",
    "is_array_file",
    "is_file",
    "read_bytes",
    "real_file",
    "real_path",
    "split_inside",
    "unpacked",
]


def real_file(path: str | Path) -> Path:
    """Return where a path lies in the file system: itself, or in the unpacked archive that is part of it.

    Raises:
        DataError: If the archive is refused.
    """
    if os.path.lexists(path):
        return Path(path)
    return real_path(path) or Path(path)


def read_bytes(path: str | Path, limit_bytes: int = LARGEST_BYTES) -> bytes:
    """Return the bytes of a regular file, of a file in an archive, or of an image in a file of arrays (numpy's format).

    Raises:
        OSError: As in `files.read_bytes`.
        DataError: If the archive or the file of arrays is refused.
    """
    try:
        return files.read_bytes(path, limit_bytes)
    except (FileNotFoundError, NotADirectoryError):
        item = _item(path)
        if item is not None:
            return array_sets.read_item(*item)
        if remote.is_uri(path):
            return remote.read_bytes(path, limit_bytes)
        real = real_path(path)
        if real is None:
            raise
        return files.read_bytes(real, limit_bytes)


def is_file(path: str | Path) -> bool:
    """Return whether a path can be read by `read_bytes`.

    Raises:
        NotReadableError: If it is a device, a pipe or a socket.
        DataError: If the archive or the file of arrays is refused.
    """
    if os.path.lexists(path):
        return files.is_file(path)
    if remote.is_uri(path):
        return remote.is_file(path)
    if _item(path) is not None:
        try:
            read_bytes(path)
        except FileNotFoundError:
            return False
        return True
    real = real_path(path)
    return real is not None and files.is_file(real)


def digest(path: str | Path) -> str:
    """Return the SHA-256 of what `read_bytes` returns, as 64 hexadecimal digits; a regular file is not read whole.

    Raises:
        OSError, DataError: As in `read_bytes`.
    """
    return file_digest(Path(path)) if os.path.lexists(path) else bytes_digest(read_bytes(path))


def holds_images(path: str | Path) -> bool:
    """Return whether a path is an archive, a folder in an archive, or a file of arrays.

    Raises:
        NotReadableError: If it is a device, a pipe or a socket.
        DataError: If the archive is refused.
    """
    if os.path.lexists(path):
        return is_archive(path) or (is_array_file(path) and files.is_file(path))
    real = real_path(path)
    return real is not None and (real.is_dir() or (is_array_file(real) and files.is_file(real)))


def _item(path: str | Path) -> tuple[Path, str | None, int] | None:
    """Return (file of arrays, array, number) of the path of an image in such a file, None for any other path."""
    parts = array_sets.split_item(os.fspath(path))
    if parts is None or not is_array_file(parts[0]):
        return None
    file = real_file(parts[0])
    try:
        return (file, parts[1], parts[2]) if files.is_file(file) else None
    except NotReadableError:
        return None
