"""Files on object stores and other remote file systems, named by URI: `s3://bucket/key`, `gs://bucket/key`, `file:///folder`.

Amazon S3, Google Cloud Storage, Azure and HDFS are opened by `pyarrow.fs`, every other protocol by fsspec. Credentials are
those that these libraries find, such as `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` or `GOOGLE_APPLICATION_CREDENTIALS`.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from typing import Any

from sightline.errors import RequestError
from sightline.files import LARGEST_BYTES, NotReadableError

_URI = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)", re.DOTALL)  # two letters at least: `C:/` is a drive
_ARROW = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")


def parts_of(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return (scheme, path in the file system) of a URI, also in the form that `Path` gives it; None for any other path.

    Example:
        >>> from pathlib import Path
        >>> parts_of("s3://bucket/cat/1.jpg"), parts_of(Path("file:///photos")), parts_of("photos/1.jpg")
        (('s3', 'bucket/cat/1.jpg'), ('file', '/photos'), None)
    """
    match = _URI.fullmatch(os.fspath(path).replace(os.sep, "/"))
    if match is None:
        return None
    scheme, rest = match[1], match[2].rstrip("/")
    return scheme, rest if scheme in _ARROW else f"/{rest}"


def uri_of(path: str | os.PathLike[str]) -> str:
    """Return a URI in its usual form; any other path as it is.

    Example:
        >>> from pathlib import Path
        >>> uri_of(Path("s3://bucket") / "cat" / "1.jpg"), uri_of("file:/photos")
        ('s3://bucket/cat/1.jpg', 'file:///photos')
    """
    parts = parts_of(path)
    return os.fspath(path) if parts is None else f"{parts[0]}://{parts[1]}"


def is_uri(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a URI."""
    return parts_of(path) is not None


def open_filesystem(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return the `pyarrow.fs.FileSystem` of a URI or local path, and the path in it.

    Raises:
        RequestError: If the protocol is not known, or its library is not installed.
    """
    from pyarrow import fs

    parts = parts_of(path)
    if parts is None:
        return fs.LocalFileSystem(), os.path.abspath(path)
    scheme, inside = parts
    return _filesystem(scheme, inside.partition("/")[0] if scheme in _ARROW else ""), inside


@functools.lru_cache(maxsize=16)
def _filesystem(scheme: str, bucket: str) -> Any:
    """Return the file system of a protocol; of a bucket, with its region."""
    import pyarrow as pa
    from pyarrow import fs

    if scheme == "file":
        return fs.LocalFileSystem()
    try:
        if scheme in _ARROW:
            return fs.FileSystem.from_uri(f"{'gs' if scheme == 'gcs' else scheme}://{bucket}")[0]
        import fsspec

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme)))
    except ImportError as error:
        raise RequestError(
            f"{scheme}:// needs a package that is not installed ({error})", "pip install fsspec and it"
        ) from error
    except (pa.ArrowException, ValueError, OSError) as error:
        what = f"{scheme}://{bucket} cannot be opened ({str(error).splitlines()[0]})"
        raise RequestError(what, "check its name, the credentials, and AWS_ENDPOINT_URL for another server") from error


def read_bytes(path: str | os.PathLike[str], limit_bytes: int = LARGEST_BYTES) -> bytes:
    """Return the bytes of a file that a URI names.

    Raises:
        FileNotFoundError: If it does not exist.
        OSError: If it cannot be read, or is too large.
    """
    filesystem, inside = open_filesystem(path)
    with filesystem.open_input_file(inside) as stream:
        size = stream.size()
        if size > limit_bytes:
            text = f"the file has {size / 1e9:.1f} GB"
            raise NotReadableError(path, "too large", text, f"is too large: {text}")
        return bytes(stream.read(size))


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a URI names a file."""
    return _type_of(path) == "File"


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a URI names a folder, or a prefix of keys."""
    return _type_of(path) == "Directory"


def _type_of(path: str | os.PathLike[str]) -> str:
    """Return `File`, `Directory` or `NotFound`."""
    filesystem, inside = open_filesystem(path)
    return str(filesystem.get_file_info(inside).type.name)


def list_files(path: str | os.PathLike[str], *, recursive: bool = True) -> list[str]:
    """Return the sorted paths of all files in a folder, relative to it; none if it does not exist.

    Args:
        path: URI or local path.
        recursive: Whether to list folders inside it, too.
    """
    from pyarrow import fs

    filesystem, inside = open_filesystem(path)
    found = filesystem.get_file_info(fs.FileSelector(inside, allow_not_found=True, recursive=recursive))
    prefix = inside.rstrip("/") + "/"
    return sorted(info.path.removeprefix(prefix) for info in found if info.type == fs.FileType.File)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write the file of a URI. On an object store a reader sees the whole file or none; elsewhere it is renamed when complete.

    Raises:
        OSError: If it cannot be written.
    """
    filesystem, inside = open_filesystem(path)
    parent = inside.rpartition("/")[0]
    temporary = inside
    if (parts_of(path) or ("file", ""))[0] not in _ARROW:
        filesystem.create_dir(parent, recursive=True)
        temporary = f"{parent}/.{os.getpid()}-{inside.rpartition('/')[2]}.tmp"
    with filesystem.open_output_stream(temporary) as stream:
        stream.write(data)
    if temporary != inside:
        filesystem.move(temporary, inside)


def not_found(path: str | os.PathLike[str]) -> FileNotFoundError:
    """Return the error for a URI that names no file."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
