"""Features with Ray Data: decode images in tasks, run the network in actors, write blocks to the shared store."""

from __future__ import annotations

import json
import os
import pickle
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline import blocks, containers, engine, features, pixels, remote
from sightline.engine.session import PATIENCE_IMAGES
from sightline.errors import ImageError, SightlineError
from sightline.features import FeatureRequest
from sightline.records import Progress, silent
from sightline.scale import cluster
from sightline.store import Cache

BLOCK_IMAGES = 256
"""Largest number of images per block: one task, one call of an actor, one Parquet file."""
_BLOCK_BYTES = 48 << 20
"""Largest size of a block's decoded images."""
_MOST_FAILED = 0.05
"""Share of blocks that may fail; of more, the fault is hardly that of single images."""


@dataclass(frozen=True, slots=True)
class Job:
    """Specification of a pipeline, the same for all workers.

    Args:
        request: The features; without weights, which go once to each machine, in Ray's object store.
        store: Folder or URI of the blocks.
        cache_root: Folder of the cache on every machine, for converted networks.
        device: `cpu` or `cuda`.
        images: Number of images in the pipeline.
    """

    request: FeatureRequest
    store: str
    cache_root: Path
    device: str
    images: int


@dataclass(frozen=True, slots=True)
class Part:
    """Decoded images of one block.

    Args:
        name: Name of the block, by the contents of all its images.
        contents: Content hashes of n images.
        values: uint8 (n, h, w, 3) for a network; float32 (n, d) for features that need no network.
        problems: Content hash → (kind, reason) of images that cannot be decoded.
        failures: Content hash → message for images that make the worker raise.
        host: Name of the machine that decoded.
    """

    name: str
    contents: list[str]
    values: np.ndarray
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    host: str = ""


def decode(job: Job, paths: Sequence[str], contents: Sequence[str]) -> Part:
    """Decode the images of one block. An image that raises something else than `ImageError` is a failure with its name."""
    request, good = job.request, list[str]()
    values: list[np.ndarray] = []
    problems, failures = dict[str, tuple[str, str]](), dict[str, str]()
    for path, content in zip(paths, contents, strict=True):
        try:
            if request.backbone.source == "file":
                values.append(features.of_file_bytes(*pixels.read(Path(path))))
            else:
                values.append(pixels.decode_same(Path(path), request.preprocess, content))
            good.append(content)
        except ImageError as error:
            problems[content] = features.reason_of(error, Path(path))
        except Exception as error:  # a fault of the decoder; the other images of the block are fine
            failures[content] = f"{path} makes the worker raise {type(error).__name__}: {error}"
    kind = np.float32 if request.backbone.source == "file" else np.uint8
    stacked = np.stack(values) if values else np.zeros((0, *request.preprocess.size, 3), kind)
    return Part(blocks.name_of(contents), good, stacked, problems, failures, platform.node())


class Network:
    """A network in a worker: computes features of decoded blocks, and writes them to the store.

    Args:
        job: Specification of the pipeline.
        tensors: Weights by name, None to load those that the record names.
        quantised: The network in int8, if that is requested.
    """

    def __init__(self, job: Job, tensors: Mapping[str, np.ndarray] | None = None, quantised: bytes = b"") -> None:
        self._job = job
        self._session: engine.Session | None = None
        if job.request.backbone.source != "file":
            self._session = engine.open_session(
                job.request.backbone,
                cache=Cache(job.cache_root),
                tensors=tensors,
                precision=job.request.precision,
                quantised=quantised,
                device=job.device,
                expected=job.images,
            )

    def write(self, part: Part) -> dict[str, Any]:
        """Write the features of one block, one file per view.

        Returns:
            The block's name, the number of its images, problems that are not stored, and failures.
        """
        request = self._job.request
        kept = {c: why for c, why in part.problems.items() if why[0] not in pixels.PASSING_PROBLEMS}
        if part.contents or kept:
            identity, views = self._compute(part)
            for key, values in zip(request.keys(identity), views, strict=True):
                finite = np.isfinite(values).all(axis=1) if len(values) else np.zeros(0, dtype=bool)
                good = [c for c, fine in zip(part.contents, finite, strict=True) if fine]
                bad = {c: features.NOT_FINITE for c, fine in zip(part.contents, finite, strict=True) if not fine}
                blocks.write(self._job.store, key, part.name, blocks.Block(good, values[finite], {**kept, **bad}))
        passing = {c: why for c, why in part.problems.items() if c not in kept}
        return {
            "block": part.name,
            "images": len(part.contents) + len(part.problems) + len(part.failures),
            "passing": passing,
            "failures": part.failures,
            "host": part.host,
        }

    def _compute(self, part: Part) -> tuple[str, list[np.ndarray]]:
        """Return the identity of the session, and the features float32 (n, d) of each view."""
        request, run = self._job.request, self._session
        count = 1 if request.views is None else len(request.views.names)
        if run is None:
            return "numpy", [part.values]
        if not len(part.values):
            return run.identity, [np.zeros((0, request.backbone.features), np.float32)] * count
        views = []
        for number in range(count):
            images = part.values if request.views is None else request.views.make(number, part.values, part.contents)
            size = run.batch_size
            views.append(np.concatenate([run.run(images[i : i + size])[0] for i in range(0, len(images), size)]))
        return run.identity, views


class _NetworkActor:
    """`Network` as Ray Data calls it: a row with a pickled `Part` → a row with a JSON report."""

    def __init__(self, job: bytes, weights: Any) -> None:
        import ray
        from ray import cloudpickle

        tensors, quantised = ray.get(weights[0])
        self._network = Network(cloudpickle.loads(job), tensors, quantised)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"report": json.dumps(self._network.write(pickle.loads(row["part"])))}


def _decode_row(row: dict[str, Any], job: bytes) -> dict[str, Any]:
    """`decode` as Ray Data calls it."""
    from ray import cloudpickle

    part = decode(cloudpickle.loads(job), list(row["paths"]), list(row["contents"]))
    return {"part": pickle.dumps(part, protocol=5)}


# ------------------------------------------------------------------------------------------------------------- the driver


def compute(
    files: Sequence[Path],
    contents: Sequence[str],
    request: FeatureRequest,
    cache: Cache,
    device: str,
    progress: Progress = silent,
) -> dict[str, str]:
    """Compute features that neither the cache nor the store holds, on the cluster, and write them to the store in blocks.

    A block that is in the store is never computed again, so an interrupted job continues where it ended. Ray restarts tasks and
    actors of lost machines. Images of a block that fails are run again one by one, so that the image at fault is known.

    Args:
        files: n files, on a file system that all machines share, or URIs.
        contents: Content hash of each; files with "" are left to the caller.
        request: The features.
        cache: Cache of this machine.
        device: Device of the networks: that of the driver, since features depend on it.
        progress: Progress callback.

    Returns:
        Content hash → message that names the file, for files that make their worker raise or end.

    Raises:
        SightlineError: If the machines do not share the photographs or the store, or many blocks fail.
    """
    import ray

    rows = [row for row in features.missing(contents, request, cache, device) if contents[row]]
    if len(rows) <= PATIENCE_IMAGES or request.backbone.source == "none":
        return {}  # starting workers would take longer, and so few images may run in torch, as on one machine
    bare = FeatureRequest(request.backbone, request.precision, None, request.views)
    tensors = None if request.tensors is None else {name: np.asarray(array) for name, array in request.tensors.items()}
    weights = ray.put((tensors, request.quantised))
    job = Job(bare, absolute(blocks.location(cache)), cache.root.absolute(), device, len(rows))
    failures: dict[str, str] = {}
    passing: set[str] = set()
    for size in (_images_per_block(request), 1):
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        named = [([absolute(str(files[r])) for r in part], [contents[r] for r in part]) for part in parts]
        done = 0
        for report in _run(job, weights, named):
            _check_shared(report, files, contents)
            failures |= report["failures"]
            passing |= report["passing"].keys()
            done += report["images"]
            progress("features", job.images - len(rows) + done, job.images)
        missing = features.missing([contents[r] for r in rows], request, cache, device)
        rows = [rows[place] for place in missing if contents[rows[place]] not in failures.keys() | passing]
        if not rows:
            return failures
        if size > 1 and len(rows) > max(3 * size, _MOST_FAILED * job.images):
            raise _lost(len(rows), job)
    return failures | {contents[r]: f"{files[r]} makes its worker fail, also alone" for r in rows}


def absolute(path: str) -> str:
    """Return a path as every process sees it: a URI as it is, any other path in absolute form."""
    return path if remote.is_uri(path) else os.path.abspath(path)


def _images_per_block(request: FeatureRequest) -> int:
    """Return the number of images per block, so that a block's decoded images stay small."""
    height, width = request.preprocess.size
    return max(16, min(BLOCK_IMAGES, _BLOCK_BYTES // (3 * height * width)))


def _run(job: Job, weights: Any, parts: Sequence[tuple[list[str], list[str]]]) -> Iterator[dict[str, Any]]:
    """Run the pipeline over blocks of (paths, contents), and yield the report of each block that was written."""
    import ray
    from ray import cloudpickle

    packed = cloudpickle.dumps(job)
    table = [{"paths": paths, "contents": contents} for paths, contents in parts]
    accelerated = job.device == "cuda"
    most = max(1, min(cluster.gpus() if accelerated else cluster.machines(), len(parts)))
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most)
    # OpenVINO uses all cores of a machine, as the decoding threads of one machine do; with one CPU, they would wait for ever.
    resources = {"num_gpus": 1, "num_cpus": 0} if accelerated else {"num_cpus": cluster.smallest_machine_cpus() // 2}
    decoded = ray.data.from_items(table, override_num_blocks=len(table)).map(_decode_row, fn_kwargs={"job": packed}, num_cpus=1)
    written = decoded.map(_NetworkActor, fn_constructor_args=(packed, [weights]), compute=pool, **resources)
    done: set[str] = set()
    for row in written.iter_rows():
        report = json.loads(row["report"])
        if report["block"] not in done:  # a block that ran twice, as its machine was lost, counts once
            done.add(report["block"])
            yield report


def _check_shared(report: Mapping[str, Any], files: Sequence[Path], contents: Sequence[str]) -> None:
    """Check that a file that a worker finds missing is missing here, too.

    Raises:
        SightlineError: If it is here.
    """
    for content, (kind, _) in report["passing"].items():
        file = files[contents.index(content)]
        if kind == "missing" and containers.is_file(file):
            hint = (
                "put the photographs on a file system that all machines share, or name them by a URI such as s3://bucket/folder"
            )
            raise SightlineError(f"the machine {report['host']} has no {file}", hint)


def _lost(images: int, job: Job) -> SightlineError:
    """Return the error for a job whose blocks are not in the store."""
    hint = (
        "set SIGHTLINE_STORE to a folder that all machines share, or to a URI such as s3://bucket/sightline; use machines with "
        "one type of processor and the same package versions"
    )
    what = f"the features of {images:,} of {job.images:,} images are not in {job.store} after the workers have ended"
    return SightlineError(f"{what}; Ray's logs name the reason", hint)
