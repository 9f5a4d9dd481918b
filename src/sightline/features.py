"""Feature extraction with a cache: each image passes through a network once.

The key of the cache is content × preprocess × network × what the session ran: runtime and its version, precision, ranges of
int8 and instruction class of the processor. If bf16 is requested, float32 features from the cache are used too, since bf16
approximates them; int8 features are never mixed with others.
"""

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

from sightline import activity, blocks, pixels
from sightline.catalog import looks
from sightline.engine import Precision, Session, identities
from sightline.errors import ImageError
from sightline.records import Backbone, Preprocess, Progress, silent
from sightline.store import Cache, bytes_digest, digest, file_digest

_VERSION = 3
"""Part of every key; raise it when decoding changes pixels."""
SHARD_BYTES = 64 << 20
"""Size at which a shard is written, so that an interrupted run loses little."""
FILE_FEATURES = ("file size", "width", "height", "brightness", "JPEG quality")
"""Features of the `file` backbone, in this order; file size is logarithmic, JPEG quality is -1 for other formats."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of a list of files.

    Attributes:
        values: float32 (n, d); rows of unreadable files are zero.
        problems: Row → (kind, message) for unreadable files; the message begins with the row's path.
        computed: Number of forward passes; the other features came from the cache.
        seconds: Duration in seconds.
        fast: bool (n,), which rows were computed in a precision below float32; None if none was.
        fast_precision: That precision.
    """

    values: np.ndarray
    problems: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    computed: int = 0
    seconds: float = 0.0
    fast: np.ndarray | None = None
    fast_precision: Precision = "bf16"

    @property
    def ok(self) -> np.ndarray:
        """Return which rows hold features, bool (n,)."""
        mask = np.ones(len(self.values), dtype=bool)
        mask[list(self.problems)] = False
        return mask

    @property
    def precision(self) -> Precision:
        """Return `fast_precision` if any row was computed in it, else `f32`."""
        return "f32" if self.fast is None or not self.fast.any() else self.fast_precision


@dataclass(frozen=True, slots=True)
class CropFeatures:
    """Several views of each image: crops at test time, or augmented views in training.

    Args:
        preprocess: Preprocessing that decodes the image from which the views are made.
        names: Identity of each view, of JSON types; part of the key of its cached features.
        make: Maps (number of the view, images uint8 (n, h, w, 3), their contents) to the network's input uint8 (n, height,
            width, 3). A view must depend on its number and on the image's pixels and content alone.
    """

    preprocess: Preprocess
    names: tuple[Any, ...]
    make: Callable[[int, np.ndarray, Sequence[str]], np.ndarray]


@dataclass(frozen=True, slots=True)
class FeatureRequest:
    """Features to compute: what identifies them in the cache, and the weights.

    Args:
        backbone: The network.
        precision: Requested precision.
        tensors: Weights of the network by name; None loads those that the record names.
        views: Several views of each image; None for the plain image.
        quantised: The network in int8, as `engine.quantised` returns it; needed for int8.
    """

    backbone: Backbone
    precision: Precision
    tensors: Mapping[str, np.ndarray] | None = None
    views: CropFeatures | None = None
    quantised: bytes = b""

    @property
    def preprocess(self) -> Preprocess:
        """Return the preprocessing that decodes an image."""
        return self.backbone.preprocess if self.views is None else self.views.preprocess

    def keys(self, identity: str) -> list[str]:
        """Return the keys of the features in the cache, one per view, for the identity of the session that computed them."""
        names: list[tuple[Any, ...]] = [()] if self.views is None else [(name,) for name in self.views.names]
        return [cache_key((self.backbone.id, self.preprocess.id), identity, *name) for name in names]


def cache_key(network: tuple[str, ...], identity: str, *name: Any) -> str:
    """Return the key of features in the cache.

    Args:
        network: Ids of network and preprocessing.
        identity: `Session.identity` of the session that computed them.
        name: Identity of the view; none for the plain image.
    """
    return digest([_VERSION, *network, identity, *name])


def missing(contents: Sequence[str], request: FeatureRequest, cache: Cache, device: str = "cpu") -> list[int]:
    """Return one row of each content whose features are neither in the cache nor in a block, in order. Reads no features.

    Args:
        contents: Content hashes of n images; "" is always missing.
        request: The features.
        cache: Feature cache.
        device: Device of the session: `cpu`, `cuda` or `mps`.
    """
    first = dict(reversed([(content or f"?{row}", row) for row, content in enumerate(contents)]))
    ranges = bytes_digest(request.quantised)[:32] if request.quantised else ""
    served = identities(request.backbone.is_network, request.precision, device, ranges)
    lacking: set[str] = set()
    for keys in zip(*(request.keys(identity) for identity in served), strict=True):
        wanted = [content for content in first if not content.startswith("?") and content not in lacking]
        for key in keys:
            held = _CachedRows.contents(cache, f"features/{key}", set(wanted))
            wanted = [content for content in wanted if content not in held]
            there = blocks.index(cache, key).holds(wanted)
            wanted = [content for content, is_there in zip(wanted, there, strict=True) if not is_there]
        lacking |= set(wanted)
    return sorted(row for content, row in first.items() if content.startswith("?") or content in lacking)


def crop_views(preprocess: Preprocess, crops: int) -> CropFeatures:
    """Return the views of test-time cropping with 5 or 10 crops; the first five of ten are the same as the five."""

    def make(number: int, images: np.ndarray, contents: Sequence[str]) -> np.ndarray:
        return pixels.cut(images, preprocess.size, number)

    return CropFeatures(pixels.uncut(preprocess), tuple(f"crop {i}" for i in range(crops)), make)


def content(source: Path | np.ndarray) -> str:
    """Return the identity of an image for the cache: the SHA-256 of a file's bytes, or of an array's values, shape and type.

    It is "" for a file that cannot be read; decoding then reports why.
    """
    if isinstance(source, np.ndarray):
        return digest([source.dtype.str, source.shape, bytes_digest(np.ascontiguousarray(source).tobytes())])
    try:
        return file_digest(source)
    except OSError:
        return ""


def extract(
    files: Sequence[Path] | Sequence[np.ndarray] | Sequence[Path | np.ndarray],
    contents: Sequence[str],
    backbone: Backbone,
    *,
    session: Callable[[int], Session],
    precision: Precision,
    cache: Cache,
    device: str = "cpu",
    ranges: str = "",
    progress: Progress = silent,
) -> Features:
    """Return the features of files: from the cache where present, the others by one forward pass each.

    Args:
        files: n files, or arrays as for `pixels.decode_array`.
        contents: SHA-256 of each file from the catalog, or `content` of each array; a file whose bytes have changed is a
            problem; "" is neither checked nor cached.
        backbone: Backbone of the features.
        session: Opens the network if needed; its argument is the number of images to run.
        precision: Requested precision of the session. For bf16, cached float32 features are used too.
        cache: Feature cache, by what the session ran.
        device: Device of the session: `cpu`, `cuda` or `mps`.
        ranges: Identity of the quantised network, for int8.
        progress: Progress callback, called after each batch.

    Returns:
        One row per file, in order.
    """
    started = time.perf_counter()
    if backbone.source == "none":
        return Features(np.zeros((len(files), 0), dtype=np.float32))
    served = identities(backbone.is_network, precision, device, ranges)
    store = _FeatureStore(cache, (backbone.id, backbone.preprocess.id), served, contents)
    order: dict[str, int] = {}
    for row, content in enumerate(contents):
        if not content or content not in store:
            order.setdefault(content or f"?{row}", row)
    todo = list(order.values())
    fresh: dict[int, _Result] = {}
    of_files = backbone.source == "file"
    source = _file_rows(files, contents, cache) if of_files else _network_rows(files, contents, backbone, session)
    try:
        for row, result in source(todo, lambda done: progress("features", done, len(todo))):
            fresh[row] = result
            store.add(contents[row], result)
    finally:  # save what was computed before an interruption
        store.flush()
    values, fast = np.zeros((len(files), backbone.features), dtype=np.float32), np.zeros(len(files), dtype=bool)
    problems: dict[int, tuple[str, str]] = {}
    for row, content in enumerate(contents):
        first = order.get(content or f"?{row}")
        saved = store.get(content) if first is None else fresh.get(first)
        if saved is None:
            continue
        if isinstance(saved.value, tuple):
            problems[row] = _problem(saved.value, files, row, first)
        else:
            values[row], fast[row] = saved.value, saved.precision != "f32"
    return Features(values, problems, len(todo), time.perf_counter() - started, fast, precision)


def extract_crops(
    files: Sequence[Path],
    contents: Sequence[str],
    backbone: Backbone,
    views: CropFeatures,
    *,
    session: Callable[[int], Session],
    precision: Precision,
    cache: Cache,
    device: str = "cpu",
    ranges: str = "",
    progress: Progress = silent,
) -> Features:
    """Return the features of several views of each file; an image is decoded once for all views that are not in the cache.

    Returns:
        As for `extract`, but `values` are float32 (n, views, d), and `computed` counts forward passes.
    """
    started = time.perf_counter()
    served = identities(backbone.is_network, precision, device, ranges)
    stores = [_FeatureStore(cache, (backbone.id, views.preprocess.id), served, contents, name) for name in views.names]
    order: dict[str, int] = {}
    for row, content in enumerate(contents):
        if not content or not all(content in store for store in stores):
            order.setdefault(content or f"?{row}", row)
    todo = list(order.values())
    fresh: list[dict[int, _Result]] = [{} for _ in stores]
    computed = 0
    try:
        for number, row, result in _view_rows(files, contents, views, stores, session=session, todo=todo, progress=progress):
            fresh[number][row] = result
            computed += not isinstance(result.value, tuple)
            stores[number].add(contents[row], result)
    finally:
        for store in stores:
            store.flush()
    values = np.zeros((len(files), len(stores), backbone.features), dtype=np.float32)
    fast, problems = np.zeros(len(files), dtype=bool), dict[int, tuple[str, str]]()
    for row, content in enumerate(contents):
        first = order.get(content or f"?{row}", row)
        for number, (store, made) in enumerate(zip(stores, fresh, strict=True)):
            saved = made[first] if first in made else store.get(content)
            if saved is None:
                continue
            if isinstance(saved.value, tuple):
                problems[row] = _problem(saved.value, files, row, first)
            else:
                values[row, number] = saved.value
                fast[row] |= saved.precision != "f32"
    values[list(problems)] = 0
    return Features(values, problems, computed, time.perf_counter() - started, fast, precision)


def compute(
    sources: Sequence[Any], preprocess: Preprocess, run: Session, *, maps: bool = False, progress: Progress = silent
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, dict[int, ImageError]]:
    """Return features of files or arrays, without the cache.

    Returns:
        The rows without errors, int64 (m,); with `maps` their images uint8 (m, h, w, 3) and last maps (m, …), else their
        features float32 (m, d) and None; and the errors by row.
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


def compute_crops(
    arrays: Sequence[np.ndarray], views: CropFeatures, run: Session, *, progress: Progress = silent
) -> tuple[np.ndarray, np.ndarray, dict[int, ImageError]]:
    """Return features of several views of arrays, without the cache.

    Returns:
        The rows without errors, int64 (m,); their features float32 (m, views, d); and the errors by row.
    """
    rows: list[np.ndarray] = [np.zeros(0, np.int64)]
    values: list[np.ndarray] = [np.zeros((0, len(views.names), run.backbone.features), np.float32)]
    errors: dict[int, ImageError] = {}
    for batch in pixels.batches(arrays, views.preprocess, batch_size=run.batch_size):
        errors.update(batch.errors)
        if len(batch.index):
            rows.append(batch.index)
            values.append(of_views(batch.images, views, run))
        progress("images", sum(map(len, rows)) + len(errors), len(arrays))
    return np.concatenate(rows), np.concatenate(values), errors


def of_views(images: np.ndarray, views: CropFeatures, run: Session) -> np.ndarray:
    """Return features float32 (n, views, d) of images uint8 (n, h, w, 3), decoded with the preprocessing of `views`."""
    nameless = [""] * len(images)
    return np.stack([run.run(views.make(i, images, nameless))[0] for i in range(len(views.names))], axis=1)


# ------------------------------------------------------------------------------------------------------------- problems

NOT_FINITE = ("not finite", "gives features that are not finite numbers")


def reason_of(error: ImageError, source: Path | np.ndarray) -> tuple[str, str]:
    """Return (kind, message without the file name) of an error; files of the same content share the cached message."""
    return error.kind, error.message.removeprefix(f"{'the array' if isinstance(source, np.ndarray) else source} ")


def _problem(reason: tuple[str, str], files: Sequence[Path | np.ndarray], row: int, first: int | None) -> tuple[str, str]:
    """Return (kind, message) for the file of this row; `first` is the row of the same content whose file was opened, if any."""
    kind, why = reason
    opened = row if first is None or kind not in pixels.PASSING_PROBLEMS else first
    copy = "" if opened == row else f"{files[row]} was not opened, as its copy "
    name = f"array {opened}" if isinstance(files[opened], np.ndarray) else files[opened]
    return kind, f"{copy}{name} {why}"


# ------------------------------------------------------------------------------------------------------------ producers


@dataclass(frozen=True, slots=True)
class _Result:
    """Features float32 (d,) of one image, or (kind, reason) if there are none, with their precision and `Session.identity`."""

    value: np.ndarray | tuple[str, str]
    precision: Precision = "f32"
    identity: str = "numpy"


_Rows = Callable[[list[int], Callable[[int], None]], Iterator[tuple[int, _Result]]]


def _result(value: np.ndarray | tuple[str, str], run: Session) -> _Result:
    """Return a result of a session; a problem if the features are not finite."""
    finite = isinstance(value, tuple) or np.isfinite(value).all()
    return _Result(value if finite else NOT_FINITE, run.precision, run.identity)


def _network_rows(
    files: Sequence[Path | np.ndarray], contents: Sequence[str], backbone: Backbone, session: Callable[[int], Session]
) -> _Rows:
    """Return a generator function of features by forward passes."""

    def rows(todo: list[int], report: Callable[[int], None]) -> Iterator[tuple[int, _Result]]:
        if not todo:
            return
        run = session(len(todo))
        done = 0
        expected = [contents[i] for i in todo]
        batches = pixels.batches([files[i] for i in todo], backbone.preprocess, batch_size=run.batch_size, contents=expected)
        for batch in batches:
            for index, error in batch.errors.items():
                yield todo[index], _result(reason_of(error, files[todo[index]]), run)
            if len(batch.index):
                features, _ = run.run(batch.images)
                for index, row in zip(batch.index, features, strict=True):
                    yield todo[int(index)], _result(row, run)
            done += len(batch.index) + len(batch.errors)
            report(done)

    return rows


def _view_rows(
    files: Sequence[Path],
    contents: Sequence[str],
    views: CropFeatures,
    stores: Sequence[_FeatureStore],
    *,
    session: Callable[[int], Session],
    todo: list[int],
    progress: Progress,
) -> Iterator[tuple[int, int, _Result]]:
    """Yield (number of the view, row, result) of what is not in the cache."""
    if not todo:
        return
    run = session(len(todo) * len(views.names))
    done = 0
    sources = [files[i] for i in todo]
    expected = [contents[i] for i in todo]
    for batch in pixels.batches(sources, views.preprocess, batch_size=run.batch_size, contents=expected):
        missing = {number: [i for i in batch.index if expected[i] not in cached] for number, cached in enumerate(stores)}
        place = {int(i): k for k, i in enumerate(batch.index)}
        for number, items in missing.items():
            for i, error in batch.errors.items():
                if expected[i] not in stores[number]:
                    yield number, todo[i], _result(reason_of(error, files[todo[i]]), run)
            if items:
                images = batch.images[[place[int(i)] for i in items]]
                features, _ = run.run(views.make(number, images, [expected[i] for i in items]))
                for i, row in zip(items, features, strict=True):
                    yield number, todo[int(i)], _result(row, run)
        done += len(batch.index) + len(batch.errors)
        progress("features", done, len(todo))


def of_file_bytes(data: bytes, name: str) -> np.ndarray:
    """Return FILE_FEATURES of a file's bytes, float32 (5,).

    Raises:
        ImageError: If it is not an image, or cannot be decoded.
    """
    header = pixels.safe_header(data, name)
    image, quality = pixels.preview(data, looks.PREVIEW_PX, name)
    return _file_features(len(data), header, looks.of_image(image, quality))


def _file_features(size_bytes: int, header: pixels.Header, statistics: np.ndarray) -> np.ndarray:
    """Return FILE_FEATURES, float32 (5,), from the `STATISTICS` of an image."""
    brightness, quality = (float(statistics[looks.STATISTICS.index(name)]) for name in ("brightness", "jpeg_quality"))
    quality = -1.0 if math.isnan(quality) else quality
    return np.array((math.log(size_bytes), header.width, header.height, brightness, quality), dtype=np.float32)


def _file_rows(files: Sequence[Path | np.ndarray], contents: Sequence[str], cache: Cache) -> _Rows:
    """Return a generator function of FILE_FEATURES, from the statistics that the search for duplicates computed."""

    def one(file: Path, statistics: np.ndarray) -> np.ndarray | tuple[str, str]:
        try:
            data, name = pixels.read(file)
            if np.isnan(statistics[0]):  # it could not be decoded: the error says why
                return of_file_bytes(data, name)
            return _file_features(len(data), pixels.safe_header(data, name), statistics)
        except ImageError as error:
            return reason_of(error, file)

    def rows(todo: list[int], report: Callable[[int], None]) -> Iterator[tuple[int, _Result]]:
        keys = [contents[i] or f"{looks.UNKNOWN}{i}" for i in todo]
        chosen: list[Path] = [files[i] for i in todo]  # type: ignore[misc]
        statistics = looks.looks(chosen, keys, cache).statistics
        with activity.workers(min(16, os.cpu_count() or 1), "sightline-decode") as pool:
            for done, (row, result) in enumerate(zip(todo, pool.map(one, chosen, statistics), strict=True), 1):
                yield row, _Result(result)
                if done % 64 == 0:
                    report(done)

    return rows


# --------------------------------------------------------------------------------------------------------------- shards


@dataclass(frozen=True, slots=True)
class _CachedRows:
    """Content of the cache: content hash → (shard, row), or a problem."""

    shards: list[np.ndarray]
    where: dict[str, tuple[int, int]]
    problems: dict[str, tuple[str, str]]

    @classmethod
    def load(cls, cache: Cache, key: str, wanted: set[str]) -> _CachedRows:
        """Read what the cache holds of these contents, and what blocks of a cluster hold of the others."""
        rows = cls([], {}, {})
        for block in cls._shards(cache, f"features/{key}", wanted):
            rows._add(block)
        lacking = [content for content in wanted if content not in rows]
        writer = _Writer(cache, f"features/{key}") if blocks.is_shared(cache) else None
        for block in blocks.index(cache, key).read(lacking) if lacking else ():
            rows._add(block)
            if writer is not None:
                for content, result in (*zip(block.contents, block.values, strict=True), *block.problems.items()):
                    writer.add(content, result)
        if writer is not None:
            writer.flush()
        return rows

    @classmethod
    def contents(cls, cache: Cache, folder: str, wanted: set[str]) -> set[str]:
        """Return which of these contents the cache holds, without keeping their features."""
        held: set[str] = set()
        for block in cls._shards(cache, folder, wanted):
            held |= wanted.intersection(block.contents) | wanted.intersection(block.problems)
        return held

    @staticmethod
    def _shards(cache: Cache, folder: str, wanted: set[str]) -> Iterator[blocks.Block]:
        """Yield the shards of the cache that hold any of these contents."""
        for name in cache.names(folder):
            payload = cache.read(name)
            if payload is None:
                continue
            (length,) = struct.unpack_from("<Q", payload)
            head = json.loads(payload[8 : 8 + length])
            if wanted.isdisjoint(head["contents"]) and wanted.isdisjoint(head["problems"]):
                continue
            values = np.frombuffer(payload, np.float32, offset=8 + length).reshape(len(head["contents"]), head["width"])
            yield blocks.Block(head["contents"], values, {c: (kind, why) for c, (kind, why) in head["problems"].items()})

    def _add(self, block: blocks.Block) -> None:
        """Add the features and problems of a block."""
        self.where.update((content, (len(self.shards), i)) for i, content in enumerate(block.contents))
        self.problems.update(block.problems)
        self.shards.append(block.values)

    def __contains__(self, content: str) -> bool:
        return content in self.where or content in self.problems

    def get(self, content: str) -> np.ndarray | tuple[str, str] | None:
        if content in self.where:
            shard, row = self.where[content]
            return np.asarray(self.shards[shard][row])
        return self.problems.get(content)


class _FeatureStore:
    """Cached features of one view of each image: read under any identity that serves the request, written under that used.

    Args:
        cache: Feature cache.
        network: Ids of network and preprocessing.
        served: Identity → precision of features that serve the request, the preferred first.
        contents: Content hashes of the images.
        name: Identity of the view; none for the plain image.
    """

    def __init__(
        self, cache: Cache, network: tuple[str, ...], served: Mapping[str, Precision], contents: Sequence[str], *name: Any
    ) -> None:
        self._cache, self._network, self._name, self._served = cache, network, name, served
        self._writers: dict[str, _Writer] = {}
        self._rows: dict[str, _CachedRows] = {}
        wanted = set(contents) - {""}
        for identity in served:
            if wanted:
                self._rows[identity] = _CachedRows.load(cache, cache_key(self._network, identity, *self._name), wanted)
                wanted = {content for content in wanted if content not in self._rows[identity]}

    def __contains__(self, content: str) -> bool:
        return any(content in rows for rows in self._rows.values())

    def get(self, content: str) -> _Result | None:
        for identity, rows in self._rows.items():
            value = rows.get(content)
            if value is not None:
                return _Result(value, self._served[identity], identity)
        return None

    def add(self, content: str, result: _Result) -> None:
        """Save a result under what was used."""
        # Passing problems (a locked file, or one being written) are not saved: only what follows from a file's bytes.
        if content and not (isinstance(result.value, tuple) and result.value[0] in pixels.PASSING_PROBLEMS):
            folder = f"features/{cache_key(self._network, result.identity, *self._name)}"
            self._writers.setdefault(result.identity, _Writer(self._cache, folder)).add(content, result.value)

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()


class _Writer:
    """Collect rows and write them as shards: a header, then float32 rows; the cache adds the checksum."""

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
