"""Blocks of features in Parquet on a folder or object store that several machines share.

The workers of a cluster write them, under the same keys as the features in the cache of one machine. The cache reads through
to them: what it lacks is looked up there. `SIGHTLINE_STORE` names the shared folder, such as `s3://bucket/sightline`; without
it the blocks lie in the cache.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sightline import remote
from sightline.store import Cache, digest, log

FOLDER = "blocks"
"""Part of the cache that holds the blocks without `SIGHTLINE_STORE`."""
SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class Block:
    """Features of some images.

    Args:
        contents: Content hashes of n images.
        values: float32 (n, d).
        problems: Content hash → (kind, reason) of images that cannot be decoded.
    """

    contents: Sequence[str]
    values: np.ndarray
    problems: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def location(cache: Cache) -> str:
    """Return the folder or URI that holds the blocks: `SIGHTLINE_STORE`, or a folder of the cache."""
    return os.environ.get("SIGHTLINE_STORE") or str(cache.root / FOLDER)


def is_shared(cache: Cache) -> bool:
    """Return whether the blocks lie outside the cache, so that the cache keeps copies of what it reads."""
    return bool(os.environ.get("SIGHTLINE_STORE")) and location(cache) != str(cache.root / FOLDER)


def name_of(contents: Sequence[str]) -> str:
    """Return the name of the block of these images: the same images give the same name, so that a retry replaces its file."""
    return digest(list(contents))


def write(where: str, key: str, name: str, block: Block) -> None:
    """Write a block as Parquet with checksums: the columns `content`, `values`, `kind` and `reason`.

    Args:
        where: Result of `location`.
        key: Digest of network, preprocessing, precision and view.
        name: Result of `name_of`.
        block: The block.

    Raises:
        OSError: If it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    width = block.values.shape[1] if block.values.ndim == 2 else 0
    flat = pa.array(np.ascontiguousarray(block.values, dtype=np.float32).ravel(), pa.float32())
    values = (
        pa.FixedSizeListArray.from_arrays(flat, width) if width else pa.nulls(len(block.contents), pa.list_(pa.float32(), 1))
    )
    failed, whys = list(block.problems), list(block.problems.values())
    columns = {
        "content": pa.array([*block.contents, *failed], pa.string()),
        "values": pa.concat_arrays([values, pa.nulls(len(failed), values.type)]),
        "kind": pa.array([*[None] * len(block.contents), *(kind for kind, _ in whys)], pa.string()),
        "reason": pa.array([*[None] * len(block.contents), *(reason for _, reason in whys)], pa.string()),
    }
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression="none", use_dictionary=False, write_page_checksum=True)
    remote.write_bytes(f"{where}/{key}/{name}{SUFFIX}", stream.getvalue())


@dataclass(slots=True)
class BlockIndex:
    """Contents of all blocks of one key; grows as blocks are added. 12 bytes of memory per image.

    Args:
        where: Result of `location`.
        key: As in `write`.
    """

    where: str
    key: str
    _files: dict[str, int] = field(default_factory=dict)
    _hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    _file: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))

    def refresh(self) -> None:
        """Read the contents of blocks that were added since; start anew if blocks were removed."""
        if not remote.is_uri(self.where) and not os.path.isdir(os.path.join(self.where, self.key)):
            names: list[str] = []
        else:
            listed = remote.list_files(f"{self.where}/{self.key}", recursive=False)
            names = [name for name in listed if name.endswith(SUFFIX) and not name.startswith(".")]
        if not self._files.keys() <= set(names):
            self._files, self._hashes, self._file = {}, np.zeros(0, np.uint64), np.zeros(0, np.int32)
        hashes, files = [self._hashes], [self._file]
        for name in names:
            if name in self._files:
                continue
            contents = self._column(name)
            number = self._files[name] = len(self._files)
            hashes.append(_first_bits(contents))
            files.append(np.full(len(contents), number, np.int32))
        if len(hashes) > 1:
            joined, numbers = np.concatenate(hashes), np.concatenate(files)
            order = np.argsort(joined, kind="stable")
            self._hashes, self._file = joined[order], numbers[order]

    def holds(self, contents: Sequence[str]) -> np.ndarray:
        """Return which images the blocks hold, bool (n,)."""
        return self._place(contents)[1]

    def _place(self, contents: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the place of each image in the sorted hashes, int64 (n,), and whether it is there, bool (n,)."""
        wanted = _first_bits(contents)
        if not len(self._hashes):
            return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), dtype=bool)
        place = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        return place, self._hashes[place] == wanted

    def read(self, contents: Sequence[str]) -> Iterator[Block]:
        """Yield the blocks that hold any of these images, whole; a damaged block is removed and counts as absent."""
        place, there = self._place(contents)
        names = list(self._files)
        for number in np.unique(self._file[place[there]]).tolist():
            block = self._load(names[number])
            if block is not None:
                yield block

    def _open(self, name: str, columns: Sequence[str]) -> object:
        """Return columns of a block as a table, None if it is damaged or was removed."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = f"{self.where}/{self.key}/{name}"
        try:
            data = pa.BufferReader(remote.read_bytes(file))
            return pq.ParquetFile(data, page_checksum_verification=True).read(columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            log.warning("the block %s cannot be read (%s); recomputing it", file, str(error).splitlines()[0])
            return None

    def _column(self, name: str) -> list[str]:
        """Return the content hashes of a block; none if it is damaged."""
        table = self._open(name, ["content"])
        return [] if table is None else list(table.column("content").to_pylist())  # type: ignore[attr-defined]

    def _load(self, name: str) -> Block | None:
        """Return a block, None if it is damaged."""
        table = self._open(name, ["content", "values", "kind", "reason"])
        if table is None:
            return None
        columns = {n: table.column(n).combine_chunks() for n in table.column_names}  # type: ignore[attr-defined]
        contents, kinds, reasons = (columns[n].to_pylist() for n in ("content", "kind", "reason"))
        good = [i for i, kind in enumerate(kinds) if kind is None]
        problems = {contents[i]: (kinds[i], reasons[i]) for i in range(len(kinds)) if kinds[i] is not None}
        width = columns["values"].type.list_size if good else 0
        flat = columns["values"].drop_null().flatten().to_numpy(zero_copy_only=False)
        return Block([contents[i] for i in good], flat.astype(np.float32, copy=False).reshape(len(good), width), problems)


_indices: dict[tuple[str, str], BlockIndex] = {}


def index(cache: Cache, key: str) -> BlockIndex:
    """Return the index of the blocks of a key, up to date; it is kept for the next call."""
    where = location(cache)
    found = _indices.setdefault((where, key), BlockIndex(where, key))
    found.refresh()
    return found


def _first_bits(contents: Sequence[str]) -> np.ndarray:
    """Return the first 64 bits of hashes, uint64 (n,)."""
    return np.array([int(c[:16] or "0", 16) for c in contents], dtype=np.uint64)
