"""Compare Sightline on Ray with Sightline on one machine and with plain Ray Data and torch; measure overhead and driver memory.

    python benchmarks/scale.py PHOTOS --images 3000 --rows 10000,100000,1000000

1. Features: images/s of the local pipeline, of the same features on a Ray cluster that has started, and of Ray Data with a
   torch model of the same network and image size, in turns; the ratio of medians.
2. Overhead per block: seconds of a pipeline whose blocks hold 16 images instead of 256, divided by the further blocks.
3. Catalog rows: seconds, and peak memory of the driver, of the split of a catalog in partitions with so many rows; hashes and
   contents are drawn at random, a hundredth of them copies, so that no photographs of that number are needed.

Without PHOTOS, the demo's digits are used. Cluster and driver share this machine's cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import sightline as sl
from sightline import features, networks
from sightline.demo import write_digits
from sightline.features import FeatureRequest
from sightline.records import Backbone
from sightline.store import Cache


def main() -> None:
    """Read the options and run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", help="a folder per class; without it the demo's digits")
    parser.add_argument("--network", default="mobilenetv3_large_100")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default="10000,100000,1000000", help="numbers of catalog rows; empty for none")
    parser.add_argument("--split", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.split is not None:
        return split(options.split)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.images:
            compare(options, options.photos or write_digits(folder), folder)
        for rows in filter(None, options.rows.split(",")):
            catalog = folder / f"rows-{rows}"
            write_catalog(catalog, int(rows))
            done = subprocess.run(
                [sys.executable, __file__, "--split", str(catalog)],
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
            )
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            said = json.loads(done.stdout.strip().splitlines()[-1])
            print(f"rows {int(rows):>9,}  split in {said['seconds']:7.1f} s, driver {said['mb']:6.0f} MB", flush=True)
    return None


# --------------------------------------------------------------------------------------------------------------- features


def compare(options: argparse.Namespace, photos: Path, folder: Path) -> None:
    """Print images/s of the three pipelines, and the overhead per block."""
    from sightline.scale import connected, pipeline

    files = [str(f) for f in sorted(photos.rglob("*.*")) if f.suffix.lower() in (".jpg", ".jpeg", ".png")][: options.images]
    images = sl.scan([(f, "any") for f in files], progress=lambda *_: None).usable()
    weights = Cache(folder / "networks")
    backbone = networks.describe(options.network, weights="random", cache=weights)
    warm(images, backbone, weights)
    times: dict[str, list[float]] = {"local": [], "ray": [], "ray data + torch": [], "ray, 16 per block": []}
    with connected():
        for number in range(options.rounds + 1):  # the first round starts the workers, and is not counted
            for kind in times:
                cache = fresh(weights, folder / f"{kind}-{number}".replace(" ", "-"))
                seconds = timed(runners(images, backbone, cache, pipeline)[kind])
                if number:
                    times[kind].append(seconds)
    middle = {kind: statistics.median(seconds) for kind, seconds in times.items()}
    for kind, seconds in middle.items():
        rates = [len(images) / s for s in times[kind]]
        span = f"{min(rates):.0f}–{max(rates):.0f}"
        print(
            f"{kind:<20}{len(images) / seconds:8.1f} images/s ({span})  {middle['local'] / seconds:5.2f} of local", flush=True
        )
    further = len(images) / 16 - len(images) / 256
    print(f"overhead per block  {1000 * (middle['ray, 16 per block'] - middle['ray']) / further:8.1f} ms")


def warm(images: sl.Catalog, backbone: Backbone, cache: Cache) -> None:
    """Convert the network, so that no pipeline has to."""
    first = images.rows(i < 64 for i in range(len(images)))
    local(first, backbone, cache)


def fresh(weights: Cache, folder: Path) -> Cache:
    """Return a cache with the converted network and without features."""
    cache = Cache(folder)
    for name in weights.names("networks"):
        cache.write(name, weights.read(name) or b"")
    return cache


def timed(run: Callable[[], Any]) -> float:
    """Return the duration in seconds."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def local(images: sl.Catalog, backbone: Backbone, cache: Cache) -> None:
    """Compute the features in this process."""
    from sightline import engine

    def session(count: int) -> engine.Session:
        return engine.open_session(backbone, cache=cache, expected=1000)

    contents = images.column("content")
    features.extract(images.files(), contents, backbone, session=session, precision="f32", cache=cache)


def runners(images: sl.Catalog, backbone: Backbone, cache: Cache, pipeline: Any) -> dict[str, Callable[[], Any]]:
    """Return the pipelines by name."""

    def on_ray(block: int) -> None:
        before, pipeline.BLOCK_IMAGES = pipeline.BLOCK_IMAGES, block
        try:
            failures = pipeline.compute(images.files(), images.column("content"), FeatureRequest(backbone, "f32"), cache, "cpu")
        finally:
            pipeline.BLOCK_IMAGES = before
        assert not failures and not features.missing(images.column("content"), FeatureRequest(backbone, "f32"), cache)

    return {
        "local": lambda: local(images, backbone, cache),
        "ray": lambda: on_ray(256),
        "ray data + torch": lambda: plain(images, backbone),
        "ray, 16 per block": lambda: on_ray(16),
    }


class TorchNetwork:
    """The network in torch, as one writes it for Ray Data."""

    def __init__(self, name: str) -> None:
        import timm

        self.network = timm.create_model(name, num_classes=0).eval()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the features of one batch."""
        import torch

        pixels = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            return {"features": self.network(pixels).numpy()}


def plain(images: sl.Catalog, backbone: Backbone) -> None:
    """Compute features of the same network with Ray Data and torch alone."""
    import ray

    height, width = backbone.preprocess.size

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        from PIL import Image

        return {"image": np.asarray(Image.open(row["item"]).convert("RGB").resize((width, height), Image.Resampling.BICUBIC))}

    paths = [str(f) for f in images.files()]
    blocks = max(1, len(paths) // 256)
    decoded = ray.data.from_items(paths, override_num_blocks=blocks).map(decode)
    pool = ray.data.ActorPoolStrategy(size=1)
    made = decoded.map_batches(TorchNetwork, fn_constructor_args=(backbone.name,), batch_size=32, compute=pool, num_cpus=1)
    assert sum(len(b["features"]) for b in made.iter_batches(batch_size=None)) == len(paths)


# ------------------------------------------------------------------------------------------------------------------- rows


def write_catalog(folder: Path, rows: int) -> None:
    """Write a catalog in partitions with random contents and hashes; one image in a hundred is a copy of the one before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sightline.scale.tables import HASH_COLUMN, PART_ROWS

    folder.mkdir()
    draw = np.random.default_rng(0)
    for number, start in enumerate(range(0, rows, PART_ROWS)):
        count = min(PART_ROWS, rows - start)
        names = [f"{value:016x}" * 4 for value in draw.integers(1, 2**62, count)]
        names = [names[i - 1] if i % 100 == 99 else name for i, name in enumerate(names)]
        table = {
            "path": [f"/photos/{start + i}.jpg" for i in range(count)],
            "content": names,
            "label": [f"class {k}" for k in draw.integers(0, 10, count)],
            "split": pa.nulls(count, pa.string()),
            "group": pa.nulls(count, pa.string()),
            "problem": pa.nulls(count, pa.string()),
            HASH_COLUMN: draw.integers(1, 2**62, count),
        }
        pq.write_table(pa.table(table), folder / f"part-{number:06d}.parquet")


def split(catalog: Path) -> None:
    """Split a catalog in partitions, and print seconds and the peak memory of this process, the driver."""
    from sightline.scale import connected, tables

    with connected():
        seconds = timed(lambda: tables.split(catalog, catalog.with_name(f"{catalog.name}-split")))
    print(json.dumps({"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
