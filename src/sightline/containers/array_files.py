"""Array files: read the images of .npz and HDF5 files in place, one at a time, without pickle, links or plugins."""

from __future__ import annotations

import io
import math
import os
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sightline.errors import DataError, RequestError
from sightline.files import LARGEST_BYTES, open_regular

SUFFIXES = (".npz", ".h5", ".hdf5", ".hdf", ".he5")
"""Names of files with arrays, in lower case."""
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_OPEN_FILES = 4
_BLOCKS, _BLOCK_BYTES = 4, 64 << 20
_HIGHEST_RATIO = 1100  # deflate reaches 1032
_FREE_BYTES = 8 << 20
_MOST_ROWS = 20_000_000
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""Filters that HDF5 and h5py contain; any other would load a plugin from the disk."""


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """Array of a file.

    Args:
        name: Name; groups are separated by slashes.
        shape: Shape.
        dtype: Type of the values; object for texts of variable length in HDF5.
        text: Whether the values are texts or bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    text: bool


class ArrayFile(Protocol):
    """Open file of arrays."""

    arrays: dict[str, ArrayInfo]
    known: dict[str, Any]  # facts about the file that were computed before

    def rows(self, name: str, start: int, end: int) -> np.ndarray:
        """Return rows of an array."""
        ...

    def all(self, name: str) -> np.ndarray:
        """Return a whole array."""
        ...


def is_array_file(path: str | Path) -> bool:
    """Return whether a name ends like that of a file with arrays.

    Example:
        >>> is_array_file("train.H5"), is_array_file("train.npz"), is_array_file("labels.npy")
        (True, True, False)
    """
    return os.fspath(path).lower().endswith(SUFFIXES)


_open_files: OrderedDict[tuple[str, int, int], ArrayFile] = OrderedDict()
_opening = threading.Lock()


def open_arrays(path: Path) -> ArrayFile:
    """Open a file of arrays; a file that is already open in this process and did not change is reused.

    Raises:
        FileNotFoundError: If it does not exist.
        DataError: If it is damaged, or contains pickled objects, external links, external storage, virtual data sets, or data
            compressed with a plugin.
        RequestError: If it is an HDF5 file, and h5py is not installed.
    """
    status = os.stat(path)
    key = (os.path.abspath(path), status.st_size, status.st_mtime_ns)
    with _opening:
        if key not in _open_files:
            with open_regular(path) as file:
                magic = file.read(len(_HDF5_MAGIC)) or b""
            if magic != _HDF5_MAGIC and magic[:2] == b"PK":
                opened: ArrayFile = _Npz(path)
            elif magic == _HDF5_MAGIC or not os.fspath(path).lower().endswith(".npz"):
                opened = _Hdf5(path)
            else:
                raise DataError(f"{path} is not an .npz file (it begins with {magic.hex(' ')})", "save it with numpy.savez")
            _open_files[key] = opened
            while len(_open_files) > _OPEN_FILES:
                _open_files.popitem(last=False)
        _open_files.move_to_end(key)
        return _open_files[key]


def _check_size(path: Path, name: str, shape: tuple[int, ...], itemsize: int, stored_bytes: int) -> None:
    """Check that an array is not much larger than what is stored of it.

    Raises:
        DataError: If it is, or has too many rows.
    """
    size_bytes = itemsize * math.prod(shape)
    if (shape and shape[0] > _MOST_ROWS) or size_bytes > _FREE_BYTES + _HIGHEST_RATIO * stored_bytes:
        what = f"{path} is refused: {name} claims the shape {shape}, {size_bytes:,} bytes, and stores {stored_bytes:,}"
        raise DataError(what, "save only the images that exist")


# ------------------------------------------------------------------------------------------------------------------- .npz


class _Npz:
    """File written by `numpy.savez` or `numpy.savez_compressed`; pickled objects are refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrays: dict[str, ArrayInfo] = {}
        self.known: dict[str, Any] = {}
        self._place: dict[str, int | None] = {}  # offset of the values in the file; None if they are compressed
        self._whole: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()
        self._file = open_regular(path)
        self._size_bytes = os.fstat(self._file.fileno()).st_size
        try:
            with zipfile.ZipFile(self._file) as archive:
                for info in archive.infolist():
                    if info.filename.endswith(".npy"):
                        self._add(archive, info)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{path} is damaged, or no .npz file ({_first_line(error)})", "save it with numpy.savez") from error
        if not self.arrays:
            raise DataError(f"{path} contains no arrays", "save images and labels with numpy.savez")

    def _add(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        """Read the header of an array."""
        name = info.filename.removesuffix(".npy")
        if name in self.arrays:
            raise DataError(f"{self.path} is refused: it contains {name!r} twice", "save it again with numpy.savez")
        with archive.open(info) as stream:
            shape, fortran, dtype = read_npy_header(stream)
            head = stream.tell()
        if dtype.hasobject:
            self.arrays[name] = ArrayInfo(name, shape, dtype, False)
            return
        if info.file_size != head + dtype.itemsize * math.prod(shape):
            raise DataError(f"{self.path} is damaged: {name} does not have the size of its shape {shape}", "save it again")
        _check_size(self.path, name, shape, dtype.itemsize, info.compress_size)
        place = None
        if info.compress_type == zipfile.ZIP_STORED and not fortran:
            self._file.seek(info.header_offset)
            local = self._file.read(30) or b""
            place = (
                info.header_offset + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little") + head
            )
            if place + dtype.itemsize * math.prod(shape) > self._size_bytes:
                raise DataError(f"{self.path} is truncated within {name}", "get the file again")
        self.arrays[name] = ArrayInfo(name, shape, dtype, dtype.kind in "SU")
        self._place[name] = place

    def rows(self, name: str, start: int, end: int) -> np.ndarray:
        """Return rows of an array; a compressed array is decompressed as a whole at the first use."""
        info, place = self.arrays[name], self._place.get(name)
        if place is None:
            return self.all(name)[start:end]
        row_bytes = info.dtype.itemsize * math.prod(info.shape[1:])
        with self._lock:
            self._file.seek(place + start * row_bytes)
            data = self._read((end - start) * row_bytes)
        return np.frombuffer(data, info.dtype).reshape(end - start, *info.shape[1:])

    def _read(self, count: int) -> bytes:
        """Return the next bytes of the file.

        Raises:
            DataError: If it ends before.
        """
        parts = []
        while count:
            data = self._file.read(count)
            if not data:
                raise DataError(f"{self.path} became shorter while it was read", "scan it again")
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def all(self, name: str) -> np.ndarray:
        """Return a whole array."""
        info = self.arrays[name]
        if info.dtype.hasobject:
            what = f"{self.path} is refused: {name} contains Python objects (pickle), which could execute code"
            raise DataError(
                what, "save arrays of numbers or texts: np.savez(file, images=..., labels=np.array(labels, dtype=str))"
            )
        with self._lock:
            if name not in self._whole:
                self._whole[name] = self._load(info)
            return self._whole[name]

    def _load(self, info: ArrayInfo) -> np.ndarray:
        """Return an array read with numpy."""
        if info.dtype.itemsize * math.prod(info.shape) > LARGEST_BYTES:
            hint = "save it with numpy.savez, or as HDF5, where single images can be read"
            raise DataError(f"{info.name} of {self.path} has more than 2 GB and is compressed", hint)
        try:
            with zipfile.ZipFile(self._file) as archive, archive.open(f"{info.name}.npy") as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise DataError(f"{info.name} of {self.path} is damaged ({_first_line(error)})", "save it again") from error


def read_npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, the order (True for Fortran's) and the dtype of an array in numpy's format.

    Raises:
        ValueError: If the header is damaged.
    """
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} of numpy's format")


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# ------------------------------------------------------------------------------------------------------------------- HDF5


class _Hdf5:
    """HDF5 file. Everything that leads to other files, or loads plugins, is refused."""

    def __init__(self, path: Path) -> None:
        try:
            import h5py
        except ImportError as error:
            raise RequestError(f"{path} is an HDF5 file, and h5py is not installed", 'pip install "sightline[hdf5]"') from error
        self.path = path
        self.arrays: dict[str, ArrayInfo] = {}
        self.known: dict[str, Any] = {}
        self._blocks: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        try:
            self._file = h5py.File(io.BufferedReader(open_regular(path)), "r")
            for name, dataset in _datasets(self._file, path, h5py):
                text = h5py.check_string_dtype(dataset.dtype) is not None or dataset.dtype.kind in "SU"
                self.arrays[name] = ArrayInfo(name, tuple(dataset.shape), dataset.dtype, text)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} is damaged, or no HDF5 file ({_first_line(error)})", "get the file again") from error
        if not self.arrays:
            raise DataError(f"{path} contains no arrays", "save images and labels in it")

    def rows(self, name: str, start: int, end: int) -> np.ndarray:
        """Return rows of an array; of a compressed array, the last blocks stay in memory."""
        info = self.arrays[name]
        with self._lock:
            dataset = self._file[name]
            step = dataset.chunks[0] if dataset.chunks and dataset.compression else 1
            row_bytes = info.dtype.itemsize * max(1, math.prod(info.shape[1:]))
            if step == 1 or end - start != 1 or step * row_bytes > _BLOCK_BYTES:
                return self._read(dataset, start, end)
            block = start // step
            if (name, block) not in self._blocks:
                self._blocks[name, block] = self._read(dataset, block * step, min((block + 1) * step, info.shape[0]))
                while len(self._blocks) > _BLOCKS:
                    self._blocks.popitem(last=False)
            first = start - block * step
            return self._blocks[name, block][first : first + 1]

    def all(self, name: str) -> np.ndarray:
        """Return a whole array; texts as objects of type str."""
        with self._lock:
            dataset = self._file[name]
            if dataset.dtype.itemsize * max(1, math.prod(dataset.shape)) > LARGEST_BYTES:
                raise DataError(f"{name} of {self.path} has more than 2 GB", "save the labels as one number per image")
            return np.asarray(dataset[()]) if dataset.shape == () else self._read(dataset, 0, dataset.shape[0])

    def _read(self, dataset: Any, start: int, end: int) -> np.ndarray:
        """Return rows of a data set.

        Raises:
            DataError: If it is damaged.
        """
        try:
            return np.asarray(dataset[start:end])
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise DataError(
                f"{dataset.name} of {self.path} cannot be read ({_first_line(error)})", "get the file again"
            ) from error


def _datasets(file: Any, path: Path, h5py: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, data set) of all data sets of an HDF5 file.

    Raises:
        DataError: If anything leads out of the file, or needs a plugin.
    """
    todo, visited = [("", file)], set[int]()
    while todo:
        prefix, group = todo.pop(0)
        for key in group:
            name = f"{prefix}{key}"
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise _refused(path, f"{name} is a link to another file ({link.filename})")
            if not isinstance(link, h5py.HardLink):
                continue  # a soft link repeats another entry of this file
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in visited:
                continue
            visited.add(address)
            if isinstance(item, h5py.Group):
                todo.append((f"{name}/", item))
            elif isinstance(item, h5py.Dataset) and item.shape is not None:
                _check_dataset(path, name, item)
                yield name, item


def _check_dataset(path: Path, name: str, dataset: Any) -> None:
    """Check that a data set's values are stored in the file itself, in a way that HDF5 reads without plugins.

    Raises:
        DataError: If they are not.
    """
    if dataset.is_virtual:
        raise _refused(path, f"{name} is a virtual data set, whose values are in other files")
    if dataset.external:
        raise _refused(path, f"the values of {name} are in another file ({dataset.external[0][0]})")
    pipeline = dataset.id.get_create_plist()
    for number in range(pipeline.get_nfilters()):
        code = pipeline.get_filter(number)[0]
        if code not in _FILTERS:
            raise _refused(path, f"{name} is compressed with filter {code}, which needs a plugin")
    if dataset.dtype.kind != "O":
        _check_size(path, name, tuple(dataset.shape), dataset.dtype.itemsize, dataset.id.get_storage_size())


def _refused(path: Path, why: str) -> DataError:
    """Return the error for an HDF5 file that is not read."""
    return DataError(f"{path} is refused: {why}", "copy the values into one file with h5py, without links and plugins")
