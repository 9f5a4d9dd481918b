"""Safe file access: open only regular files, and read no more bytes than their size."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sightline.errors import RequestError

LARGEST_BYTES = 2 << 30
"""Maximum size of a file that is read whole."""
_FLAGS = ("O_RDONLY", "O_BINARY", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_NOINHERIT")
_OPEN_FLAGS = sum(getattr(os, name, 0) for name in _FLAGS)  # distinct bits; a flag that this system lacks counts 0
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


class NotReadableError(OSError, RequestError):
    """Path that Sightline does not open: a device, a pipe, a socket, a file that is too large, or an invalid name.

    Args:
        path: The path.
        kind: Short description for the catalog's `problem` column, such as `not a file`.
        detail: Detail after it in that column, such as `it is a pipe`.
        what: Predicate of the message, such as `is not a regular file: it is a pipe`.
    """

    def __init__(self, path: object, kind: str, detail: str, what: str) -> None:
        OSError.__init__(self, errno.EINVAL, what, str(path))
        self.kind, self.detail, self.what = kind, detail, what
        self.message, self.hint = f"{str(path)!r} {what}" if "\0" in str(path) else f"{path} {what}", "name a regular file"

    def __str__(self) -> str:
        return RequestError.__str__(self)


def _not_regular(path: object, kind: str) -> NotReadableError:
    """Return the error for a path that is not a regular file but `kind`."""
    return NotReadableError(path, "not a file", f"it is {kind}", f"is not a regular file: it is {kind}")


def kind_of_file(mode: int) -> str | None:
    """Return the type of a special file by its `st_mode`, such as `a pipe`; None for a regular file or a folder.

    Example:
        >>> kind_of_file(stat.S_IFIFO), kind_of_file(stat.S_IFREG)
        ('a pipe', None)
    """
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return next((name for test, name in _KINDS if test(mode)), "a special file")


def is_file(path: str | Path) -> bool:
    """Return whether a path is a regular file; False if it does not exist or is a folder.

    Raises:
        NotReadableError: If it is a device, a pipe or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    kind = kind_of_file(mode)
    if kind is not None:
        raise _not_regular(path, kind)
    return stat.S_ISREG(mode)


def open_regular(path: str | Path) -> io.FileIO:
    """Open a regular file for reading, unbuffered. Every user-supplied file is opened here.

    A device, a pipe or a socket is not opened: reading could block or never end.

    Raises:
        NotReadableError: If it is not a regular file, or the name is invalid.
        OSError: If it does not exist, is a folder, or cannot be opened.
    """
    try:
        _check_regular(os.stat(path), path)
        descriptor = os.open(path, _OPEN_FLAGS)  # O_NONBLOCK: do not block if a pipe has replaced the file meanwhile
    except ValueError as error:  # a NUL character, or one that the file system's encoding lacks
        why = "it contains a character that is not allowed in file names"
        raise NotReadableError(path, "name", why, f"is not a valid file name: {why}") from error
    try:
        _check_regular(os.fstat(descriptor), path)
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(status: os.stat_result, path: object) -> None:
    """Raise an error if a file is not a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = kind_of_file(status.st_mode)
    if kind is not None:
        raise _not_regular(path, kind)


def chunks(path: str | Path, limit_bytes: int | None = None, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """Yield a regular file's bytes in chunks, up to the size that it had when it was opened.

    Args:
        path: The file.
        limit_bytes: Maximum size of the file; None allows any size.
        chunk_bytes: Size of a chunk.

    Raises:
        NotReadableError: If it is not a regular file, is too large, or has bytes although its size is 0, as files in /proc do.
        OSError: As in `open_regular`.
    """
    with open_regular(path) as file:
        left = os.fstat(file.fileno()).st_size
        if limit_bytes is not None and left > limit_bytes:
            size = f"the file has {left / 1e9:.1f} GB"
            raise NotReadableError(path, "too large", size, f"is too large: {size}")
        if left == 0 and file.read(1) != b"":  # None: reading would block
            raise _not_regular(path, "a system file without a size")
        while left > 0:
            data = file.read(min(left, chunk_bytes))
            if not data:
                return
            left -= len(data)
            yield data


def read_bytes(path: str | Path, limit_bytes: int = LARGEST_BYTES) -> bytes:
    """Return a regular file's bytes.

    Raises:
        OSError: As in `chunks`.
    """
    return b"".join(chunks(path, limit_bytes, chunk_bytes=limit_bytes))


def read_text(path: str | Path) -> str:
    """Return a regular file's text in UTF-8, without a byte order mark.

    Raises:
        OSError: As in `chunks`.
        UnicodeDecodeError: If it is not UTF-8.
    """
    return read_bytes(path).decode("utf-8-sig")
