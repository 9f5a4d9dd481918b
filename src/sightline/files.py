"""Files that users name: only regular files are opened, and no more is read than their size says."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sightline.errors import RequestError

LARGEST_BYTES = 2 << 30
"""Files that are read whole may have so many bytes."""
_FLAGS = ("O_RDONLY", "O_BINARY", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_NOINHERIT")
_OPEN_FLAGS = sum(getattr(os, name, 0) for name in _FLAGS)  # those that this system has; each is a bit of its own
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


class NotReadableError(OSError, RequestError):
    """A path that Sightline does not open or read: a device, a pipe or a socket, a file that is too large, an impossible name.

    Args:
        path: The path.
        kind: A short word for the catalog's `problem` column, such as `not a file`.
        detail: What stands after it there, such as `it is a pipe`.
        what: The predicate of the message, such as `is not a regular file: it is a pipe`.
    """

    def __init__(self, path: object, kind: str, detail: str, what: str) -> None:
        OSError.__init__(self, errno.EINVAL, what, str(path))
        self.kind, self.detail, self.what = kind, detail, what
        self.message, self.hint = f"{str(path)!r} {what}" if "\0" in str(path) else f"{path} {what}", "name a regular file"

    def __str__(self) -> str:
        return RequestError.__str__(self)


def _not_regular(path: object, kind: str) -> NotReadableError:
    """The error for a path that is no regular file, but `kind`."""
    return NotReadableError(path, "not a file", f"it is {kind}", f"is not a regular file: it is {kind}")


def kind_of_file(mode: int) -> str | None:
    """Return what a file is by its `st_mode`, such as `a pipe`; None for a regular file or a folder.

    Example:
        >>> kind_of_file(stat.S_IFIFO), kind_of_file(stat.S_IFREG)
        ('a pipe', None)
    """
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return next((name for test, name in _KINDS if test(mode)), "no file")


def is_file(path: str | Path) -> bool:
    """Return whether a path is a regular file; False if nothing is there, or a folder.

    Raises:
        NotReadableError: It is a device, a pipe or a socket.
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
    """Open a regular file for reading, unbuffered. Every file that a user names is opened here.

    A device, a pipe or a socket is not opened: it could block, or have no end.

    Raises:
        NotReadableError: It is no regular file, or no file can have such a name.
        OSError: It does not exist, is a folder, or cannot be opened.
    """
    try:
        _check_regular(os.stat(path), path)
        descriptor = os.open(path, _OPEN_FLAGS)  # O_NONBLOCK: a pipe that takes the file's place now does not block
    except ValueError as error:  # a NUL character, or one that the file system's encoding lacks
        why = "it holds a character that no file's name can hold"
        raise NotReadableError(path, "name", why, f"is no file's name: {why}") from error
    try:
        _check_regular(os.fstat(descriptor), path)
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_regular(status: os.stat_result, path: object) -> None:
    """Raise if a file is not a regular one."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = kind_of_file(status.st_mode)
    if kind is not None:
        raise _not_regular(path, kind)


def chunks(path: str | Path, limit_bytes: int | None = None, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
    """Yield a regular file's bytes in pieces: as many as it had when it was opened, also where it grows meanwhile.

    Args:
        path: The file.
        limit_bytes: A larger file is refused; None takes any size.
        chunk_bytes: The size of a piece.

    Raises:
        NotReadableError: It is no regular file, is too large, or gives bytes although its size is 0, as files below /proc do.
        OSError: As of `open_regular`.
    """
    with open_regular(path) as file:
        left = os.fstat(file.fileno()).st_size
        if limit_bytes is not None and left > limit_bytes:
            size = f"the file has {left / 1e9:.1f} GB"
            raise NotReadableError(path, "too large", size, f"is too large: {size}")
        if left == 0 and file.read(1) != b"":  # None: it would have to be waited for
            raise _not_regular(path, "a file of the system without a size")
        while left > 0:
            data = file.read(min(left, chunk_bytes))
            if not data:
                return
            left -= len(data)
            yield data


def read_bytes(path: str | Path, limit_bytes: int = LARGEST_BYTES) -> bytes:
    """Return a regular file's bytes.

    Raises:
        OSError: As of `chunks`.
    """
    return b"".join(chunks(path, limit_bytes, chunk_bytes=limit_bytes))


def read_text(path: str | Path) -> str:
    """Return a regular file's text in UTF-8, without a byte order mark.

    Raises:
        OSError: As of `chunks`.
        UnicodeDecodeError: It is not UTF-8.
    """
    return read_bytes(path).decode("utf-8-sig")
