"""Cached features: one forward pass per image, ever. The key is the file's content × preprocess × network × precision."""

from __future__ import annotations

import json
import math
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline import pixels
from sightline.engine import Session
from sightline.errors import ImageError
from sightline.records import Backbone, Preprocess, Progress, silent
from sightline.store import Cache, bytes_digest, digest

SHARD_BYTES = 64 << 20
"""A shard is written when this much is waiting, so that a killed run keeps what it had."""
FILE_FEATURES = ("file size", "width", "height", "brightness", "JPEG quality")
"""What the `file` backbone sees of an image, in this order: the size as its logarithm; quality is -1 for what is no JPEG."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of a list of files.

    Attributes:
        values: float32 (n, d); rows of files that failed are zero.
        problems: Row → (kind, sentence) for the files that gave no pixels.
        computed: How many forward passes this took; the rest came from the cache.
        seconds: How long it took.
    """

    values: np.ndarray
    problems: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    computed: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> np.ndarray:
        """bool (n,): which rows hold features."""
        mask = np.ones(len(self.values), dtype=bool)
        mask[list(self.problems)] = False
        return mask


@dataclass(frozen=True, slots=True)
class Looks:
    """Several images made of each one before the network sees it: crops at test time, augmented views in training.

    Args:
        preprocess: What decodes the image that they are made of.
        names: What each look is, in JSON's types; part of the key under which its features are kept.
        make: (number of the look, images uint8 (n, h, w, 3), their contents) → uint8 (n, height, width, 3), what the network
            sees. A look of an image is a function of its number, pixels and content alone.
    """

    preprocess: Preprocess
    names: tuple[Any, ...]
    make: Callable[[int, np.ndarray, Sequence[str]], np.ndarray]


def crop_looks(preprocess: Preprocess, crops: int) -> Looks:
    """The looks of `crops` at test time, 5 or 10; the first five of ten are the five."""

    def make(number: int, images: np.ndarray, contents: Sequence[str]) -> np.ndarray:
        return pixels.cut(images, preprocess.size, number)

    return Looks(pixels.uncut(preprocess), tuple(f"crop {i}" for i in range(crops)), make)


def extract(
    files: Sequence[Path],
    contents: Sequence[str],
    backbone: Backbone,
    *,
    session: Callable[[int], Session],
    precision: str,
    cache: Cache,
    progress: Progress = silent,
) -> Features:
    """Features of files, from the cache where they are known, by one pass over the rest.

    Args:
        files: n files.
        contents: SHA-256 of each, as the catalog has it; a file that has other bytes now is a problem, "" is not checked
            and not cached.
        backbone: What to compute.
        session: Opens the network when it is needed, given how many images are to be run.
        precision: Part of the key: what the session computes in.
        cache: Where features are kept.
        progress: Told after each batch.

    Returns:
        One row per file, in order.
    """
    started = time.perf_counter()
    if backbone.source == "none":
        return Features(np.zeros((len(files), 0), dtype=np.float32))
    folder = f"features/{digest([backbone.id, backbone.preprocess.id, precision])}"
    known = _Known.load(cache, folder, set(contents))
    order: dict[str, int] = {}
    for row, content in enumerate(contents):
        if not content or content not in known:
            order.setdefault(content or f"?{row}", row)
    todo = list(order.values())
    writer = _Writer(cache, folder)
    fresh: dict[int, np.ndarray] = {}
    failed: dict[int, tuple[str, str]] = {}
    source = _file_rows(files, backbone) if backbone.source == "file" else _network_rows(files, contents, backbone, session)
    for row, result in source(todo, lambda done: progress("features", done, len(todo))):
        if isinstance(result, tuple):
            failed[row] = result
        else:
            fresh[row] = result
        # What happens to a file may pass (it was locked, or is being written): only what its bytes decide is kept.
        if contents[row] and not (isinstance(result, tuple) and result[0] in pixels.PASSING_PROBLEMS):
            writer.add(contents[row], result)
    writer.flush()
    values = np.zeros((len(files), backbone.features), dtype=np.float32)
    problems: dict[int, tuple[str, str]] = {}
    for row, content in enumerate(contents):
        first = order.get(content or f"?{row}")
        found = known.get(content) if first is None else failed.get(first, fresh.get(first))
        if isinstance(found, tuple):
            problems[row] = found
        elif found is not None:
            values[row] = found
    return Features(values, problems, len(todo), time.perf_counter() - started)


def extract_looks(
    files: Sequence[Path],
    contents: Sequence[str],
    backbone: Backbone,
    looks: Looks,
    *,
    session: Callable[[int], Session],
    precision: str,
    cache: Cache,
    progress: Progress = silent,
) -> Features:
    """Features of several looks at each file; every image is decoded once for all of its looks that the cache does not have.

    Returns:
        As `extract`, but `values` are float32 (n, looks, d), and `computed` counts forward passes.
    """
    started = time.perf_counter()
    folders = [f"features/{digest([backbone.id, looks.preprocess.id, precision, name])}" for name in looks.names]
    known = [_Known.load(cache, folder, set(contents)) for folder in folders]
    writers = [_Writer(cache, folder) for folder in folders]
    order: dict[str, int] = {}
    for row, content in enumerate(contents):
        if not content or not all(content in k for k in known):
            order.setdefault(content or f"?{row}", row)
    todo = list(order.values())
    fresh: list[dict[int, np.ndarray | tuple[str, str]]] = [{} for _ in folders]
    computed = 0
    for number, row, result in _look_rows(files, contents, backbone, looks, known, session, todo, progress):
        fresh[number][row] = result
        computed += not isinstance(result, tuple)
        if contents[row] and not (isinstance(result, tuple) and result[0] in pixels.PASSING_PROBLEMS):
            writers[number].add(contents[row], result)
    for writer in writers:
        writer.flush()
    values = np.zeros((len(files), len(folders), backbone.features), dtype=np.float32)
    problems: dict[int, tuple[str, str]] = {}
    for row, content in enumerate(contents):
        first = order.get(content or f"?{row}", row)
        for number, (have, made) in enumerate(zip(known, fresh, strict=True)):
            found = made[first] if first in made else have.get(content)
            if isinstance(found, tuple):
                problems[row] = found
            elif found is not None:
                values[row, number] = found
    values[list(problems)] = 0
    return Features(values, problems, computed, time.perf_counter() - started)


def compute(
    sources: Sequence[Any], preprocess: Preprocess, run: Session, *, maps: bool = False, progress: Progress = silent
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, dict[int, ImageError]]:
    """Features of files or arrays, uncached.

    Returns:
        The rows that worked, int64 (m,); their images uint8 (m, h, w, 3) and last maps (m, …) where maps are wanted, else
        their features float32 (m, d) and None; and the errors by row.
    """
    rows: list[np.ndarray] = []
    values: list[np.ndarray] = []
    grids: list[np.ndarray] = []
    errors: dict[int, ImageError] = {}
    for batch in pixels.batches(sources, preprocess, batch_size=run.batch_size):
        errors.update(batch.errors)
        if len(batch.index):
            features, last = run.run(batch.images, maps=maps)
            rows.append(batch.index)
            values.append(batch.images if maps else features)
            if last is not None:
                grids.append(last)
        progress("images", sum(map(len, rows)) + len(errors), len(sources))
    if not rows:
        return np.zeros(0, np.int64), np.zeros((0, run.backbone.features), np.float32), None, errors
    return np.concatenate(rows), np.concatenate(values), np.concatenate(grids) if grids else None, errors


def compute_looks(
    arrays: Sequence[np.ndarray], looks: Looks, run: Session, *, progress: Progress = silent
) -> tuple[np.ndarray, np.ndarray, dict[int, ImageError]]:
    """Features of several looks at arrays, uncached.

    Returns:
        The rows that worked, int64 (m,); their features float32 (m, looks, d); and the errors by row.
    """
    rows: list[np.ndarray] = [np.zeros(0, np.int64)]
    values: list[np.ndarray] = [np.zeros((0, len(looks.names), run.backbone.features), np.float32)]
    errors: dict[int, ImageError] = {}
    for batch in pixels.batches(arrays, looks.preprocess, batch_size=run.batch_size):
        errors.update(batch.errors)
        if len(batch.index):
            nameless = [""] * len(batch.index)
            made = [run.run(looks.make(i, batch.images, nameless))[0] for i in range(len(looks.names))]
            rows.append(batch.index)
            values.append(np.stack(made, axis=1))
        progress("images", sum(map(len, rows)) + len(errors), len(arrays))
    return np.concatenate(rows), np.concatenate(values), errors


# ------------------------------------------------------------------------------------------------------------ producers

_Rows = Callable[[list[int], Callable[[int], None]], Any]


def _network_rows(
    files: Sequence[Path], contents: Sequence[str], backbone: Backbone, session: Callable[[int], Session]
) -> _Rows:
    """Rows of features by a forward pass."""

    def rows(todo: list[int], tell: Callable[[int], None]) -> Any:
        if not todo:
            return
        run = session(len(todo))
        done = 0
        expected = [contents[i] for i in todo]
        batches = pixels.batches([files[i] for i in todo], backbone.preprocess, batch_size=run.batch_size, contents=expected)
        for batch in batches:
            for index, error in batch.errors.items():
                yield todo[index], (error.kind, error.message)
            if len(batch.index):
                features, _ = run.run(batch.images)
                for index, row in zip(batch.index, features, strict=True):
                    good = np.isfinite(row).all()
                    yield todo[int(index)], row if good else ("not finite", "the network's answer is not a number")
            done += len(batch.index) + len(batch.errors)
            tell(done)

    return rows


def _look_rows(
    files: Sequence[Path],
    contents: Sequence[str],
    backbone: Backbone,
    looks: Looks,
    known: Sequence[_Known],
    session: Callable[[int], Session],
    todo: list[int],
    progress: Progress,
) -> Iterator[tuple[int, int, np.ndarray | tuple[str, str]]]:
    """(number of the look, row, its features or why there are none) of what the cache does not have."""
    if not todo:
        return
    run = session(len(todo) * len(looks.names))
    done = 0
    sources = [files[i] for i in todo]
    expected = [contents[i] for i in todo]
    for batch in pixels.batches(sources, looks.preprocess, batch_size=run.batch_size, contents=expected):
        missing = {number: [i for i in batch.index if expected[i] not in have] for number, have in enumerate(known)}
        place = {int(i): k for k, i in enumerate(batch.index)}
        for number, items in missing.items():
            for i, error in batch.errors.items():
                if expected[i] not in known[number]:
                    yield number, todo[i], (error.kind, error.message)
            if items:
                images = batch.images[[place[int(i)] for i in items]]
                features, _ = run.run(looks.make(number, images, [expected[i] for i in items]))
                for i, row in zip(items, features, strict=True):
                    good = np.isfinite(row).all()
                    yield number, todo[int(i)], row if good else ("not finite", "the network's answer is not a number")
        done += len(batch.index) + len(batch.errors)
        progress("features", done, len(todo))


def _file_rows(files: Sequence[Path], backbone: Backbone) -> _Rows:
    """Rows of FILE_FEATURES."""

    def one(file: Path) -> np.ndarray | tuple[str, str]:
        try:
            data = file.read_bytes()
            header, look = pixels.read_header(data, file.name), pixels.look(data)
        except ImageError as error:
            return error.kind, error.message
        except OSError as error:
            return "unreadable", f"{file} cannot be read ({error.strerror})"
        quality = -1.0 if math.isnan(look.jpeg_quality) else look.jpeg_quality
        values = (math.log(len(data)), header.width, header.height, look.brightness, quality)
        return np.array(values, dtype=np.float32)

    def rows(todo: list[int], tell: Callable[[int], None]) -> Any:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            for done, (row, result) in enumerate(zip(todo, pool.map(one, [files[i] for i in todo]), strict=True), 1):
                yield row, result
                if done % 64 == 0:
                    tell(done)

    return rows


# --------------------------------------------------------------------------------------------------------------- shards


@dataclass(frozen=True, slots=True)
class _Known:
    """What the cache holds: content → (shard, row) or a problem."""

    shards: list[np.ndarray]
    where: dict[str, tuple[int, int]]
    problems: dict[str, tuple[str, str]]

    @classmethod
    def load(cls, cache: Cache, folder: str, wanted: set[str]) -> _Known:
        shards: list[np.ndarray] = []
        where: dict[str, tuple[int, int]] = {}
        problems: dict[str, tuple[str, str]] = {}
        for name in cache.names(folder):
            payload = cache.read(name)
            if payload is None:
                continue
            (length,) = struct.unpack_from("<Q", payload)
            head = json.loads(payload[8 : 8 + length])
            values = np.frombuffer(payload, np.float32, offset=8 + length).reshape(len(head["contents"]), head["width"])
            if wanted.isdisjoint(head["contents"]) and wanted.isdisjoint(head["problems"]):
                continue
            where.update((content, (len(shards), i)) for i, content in enumerate(head["contents"]))
            problems.update((content, (kind, why)) for content, (kind, why) in head["problems"].items())
            shards.append(values)
        return cls(shards, where, problems)

    def __contains__(self, content: str) -> bool:
        return content in self.where or content in self.problems

    def get(self, content: str) -> np.ndarray | tuple[str, str] | None:
        if content in self.where:
            shard, row = self.where[content]
            return np.asarray(self.shards[shard][row])
        return self.problems.get(content)


class _Writer:
    """Collects rows and writes them as shards: a header, then float32 rows; the cache adds the checksum."""

    def __init__(self, cache: Cache, folder: str) -> None:
        self.cache, self.folder = cache, folder
        self.contents: list[str] = []
        self.rows: list[np.ndarray] = []
        self.problems: dict[str, tuple[str, str]] = {}
        self.bytes = 0

    def add(self, content: str, result: np.ndarray | tuple[str, str]) -> None:
        if isinstance(result, tuple):
            self.problems[content] = result
            return
        self.contents.append(content)
        self.rows.append(np.asarray(result, dtype=np.float32))
        self.bytes += result.nbytes
        if self.bytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self.contents and not self.problems:
            return
        width = len(self.rows[0]) if self.rows else 0
        head = json.dumps({"width": width, "contents": self.contents, "problems": self.problems}).encode("ascii")
        head += b" " * (-len(head) % 8)  # the rows stay aligned
        payload = struct.pack("<Q", len(head)) + head + b"".join(r.tobytes() for r in self.rows)
        self.cache.write(f"{self.folder}/{bytes_digest(payload)[:32]}", payload)
        self.contents, self.rows, self.problems, self.bytes = [], [], {}, 0
