"""The same results on a Ray cluster of several nodes as on one machine; lost nodes and poisoned files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sightline as sl
from sightline import blocks, engine, features, networks
from sightline import catalog as catalogs
from sightline.catalog import looks
from sightline.commands.train import train
from sightline.features import CropFeatures, FeatureRequest
from sightline.inputs import read_recipe
from sightline.records import Backbone, Catalog
from sightline.runs import executor
from sightline.scale import RayExecutor, connected, pipeline
from sightline.store import Cache
from tests.conftest import write_few_digits

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.slow]
TRAINING = """
method = "scratch"
backbone = "cnn(filters=[8, 16], kernel=3)"
image_size = 32
augment = "none"

[settings]
epochs = 2
batch_size = 32
"""
NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 150 << 20}


def started(cluster: Any, **options: Any) -> Any:
    """A further node; Ray waits 30 s for one to start, which a loaded machine may exceed."""
    for attempt in range(4):
        try:
            return cluster.add_node(**NODE, **options)
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == 3:
                raise
    raise AssertionError


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes with two CPUs each, which this process has joined."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_agent_register_timeout_ms", "180000")
        patch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it: the order of sums depends on the number of threads
        cluster = Cluster()
        try:
            started(cluster, include_dashboard=False)
            started(cluster)
            patch.setenv("RAY_ADDRESS", cluster.address)
            with connected():
                yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """200 digits with splits, two of them the same, and a file that is no image."""
    folder = write_few_digits(tmp_path_factory.mktemp("ray") / "digits", 20)
    (folder / "1" / "copy.png").write_bytes(next((folder / "1").iterdir()).read_bytes())
    (folder / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    found = catalogs.scan(folder)
    clusters = catalogs.find_duplicates(found, Cache(folder.parent / "cache"))
    return catalogs.split(found, clusters=clusters)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return networks.describe("resnet10t", weights="random", image_size=32, cache=Cache(tmp_path_factory.mktemp("describe")))


@pytest.fixture(scope="module")
def local(images: Catalog, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> features.Features:
    """Features of one machine."""
    cache = Cache(tmp_path_factory.mktemp("local"))

    def session(count: int) -> engine.Session:
        return engine.open_session(backbone, cache=cache, expected=count)

    contents = images.column("content")
    return features.extract(images.files(), contents, backbone, session=session, precision="f32", cache=cache)


def found(images: Catalog, backbone: Backbone, cache: Cache) -> features.Features:
    """The features in the store; no network may be opened."""

    def never(count: int) -> engine.Session:
        raise AssertionError(f"{count} features are not in the store")

    contents = images.column("content")
    return features.extract(images.files(), contents, backbone, session=never, precision="f32", cache=cache)


def stored(cache: Cache) -> list[str]:
    """Contents of all blocks, each as often as it occurs."""
    contents: list[str] = []
    for folder in (cache.root / blocks.FOLDER).iterdir():
        index = blocks.index(cache, folder.name)
        for name in (file.name for file in folder.iterdir()):
            contents += index._column(name)
    return contents


def compute(images: Catalog, request: FeatureRequest, cache: Cache, progress: Callable[..., None]) -> dict[str, str]:
    return pipeline.compute(images.files(), images.column("content"), request, cache, "cpu", progress)


def test_features_equal_those_of_one_machine(
    nodes: Any, images: Catalog, backbone: Backbone, local: features.Features, tmp_path: Path
) -> None:
    cache, steps = Cache(tmp_path), list[tuple[int, int]]()
    assert compute(images, FeatureRequest(backbone, "f32"), cache, lambda _, done, total: steps.append((done, total))) == {}
    distant = found(images, backbone, cache)
    assert np.array_equal(local.values, distant.values) and local.problems == distant.problems
    unique = set(images.column("content"))
    assert sorted(stored(cache)) == sorted(unique), "each image is stored once"
    assert steps[-1] == (len(unique), len(unique))
    assert compute(images, FeatureRequest(backbone, "f32"), cache, pytest.fail) == {}, "nothing is computed twice"


def test_a_node_that_dies_in_the_middle_changes_nothing(
    nodes: Any, images: Catalog, backbone: Backbone, local: features.Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three nodes; one is killed when the first block is written. The job ends, with each image once."""
    monkeypatch.setattr(pipeline, "BLOCK_IMAGES", 16)
    third = [started(nodes)]
    reported: list[int] = []

    def progress(_: str, done: int, total: int) -> None:
        reported.append(done)
        if third:
            nodes.remove_node(third.pop(), allow_graceful=False)

    cache = Cache(tmp_path)
    assert compute(images, FeatureRequest(backbone, "f32"), cache, progress) == {} and not third
    distant = found(images, backbone, cache)
    assert np.array_equal(local.values, distant.values) and local.problems == distant.problems
    assert sorted(stored(cache)) == sorted(set(images.column("content")))
    assert reported[-1] == len(set(images.column("content"))) and len(set(reported)) == len(reported)


def test_an_image_that_ends_its_worker_is_named_and_the_others_are_computed(
    nodes: Any, images: Catalog, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = 23
    poisoned = images.column("content")[row]

    def make(number: int, pixels: np.ndarray, contents: Sequence[str]) -> np.ndarray:
        if poisoned in contents:
            raise RuntimeError("poison")
        return pixels

    request = FeatureRequest(backbone, "f32", None, CropFeatures(backbone.preprocess, ("view",), make))
    monkeypatch.setattr(pipeline, "BLOCK_IMAGES", 64)
    cache = Cache(tmp_path)
    failures = compute(images, request, cache, lambda *_: None)
    assert list(failures) == [poisoned] and str(images.files()[row]) in failures[poisoned]
    assert sorted(stored(cache)) == sorted(set(images.column("content")) - {poisoned})


def test_a_scan_equals_that_of_one_machine_and_leaves_thumbnails(
    nodes: Any, images: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    here = catalogs.scan(images.root)
    there = RayExecutor().scan(images.root)
    assert there.table.equals(here.table) and there.notes == here.notes
    monkeypatch.setattr(looks, "look_at", pytest.fail)
    usable = there.usable()
    assert catalogs.find_duplicates(usable, Cache(tmp_path)).exact


def test_concurrent_trials_are_those_of_one_machine(nodes: Any, images: Catalog, tmp_path: Path) -> None:
    from sightline.commands.tune import tune

    recipe = sl.Recipe(backbone="pixels", head="ridge", image_size=16)
    options: dict[str, Any] = {"trials": 5, "concurrent": 2, "cache": Cache(tmp_path / "cache")}
    local = tune(images, recipe, tmp_path / "local", **options)
    with executor.using(RayExecutor()):
        distant = tune(images, recipe, tmp_path / "distant", **options)
    names = ("number", "state", "params", "accuracy", "log_loss", "why")
    rows = [[[t[n] for n in names] for t in study.data["trials"]] for study in (local, distant)]
    assert rows[0] == rows[1] and len(rows[0]) >= 5


def test_two_workers_train_the_weights_of_torchrun(nodes: Any, images: Catalog, tmp_path: Path) -> None:
    catalogs.save(images, tmp_path / "catalog.csv")
    (tmp_path / "recipe.toml").write_text(TRAINING, encoding="utf-8")
    environment = {**os.environ, "SIGHTLINE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "sightline", "train"]
    done = subprocess.run(
        [*command, "catalog.csv", "recipe.toml", "-o", "both"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    with executor.using(RayExecutor(workers=2)):
        run = train(catalogs.load(tmp_path / "catalog.csv"), read_recipe(tmp_path / "recipe.toml"), tmp_path / "ray")
    one, other = (sl.load(folder) for folder in (tmp_path / "both", run.folder))
    assert one.tensors.keys() == other.tensors.keys()
    difference = {n: float(np.abs(one.tensors[n] - other.tensors[n]).max()) for n in one.tensors}
    assert max(difference.values()) <= 1e-5, difference


def test_predictions_equal_those_of_one_machine(nodes: Any, images: Catalog, tmp_path: Path) -> None:
    recipe = sl.Recipe(backbone="resnet10t", weights="random", head="ridge", image_size=32)
    here, there = Cache(tmp_path / "here"), Cache(tmp_path / "there")
    model = sl.load(_trained(images, recipe, tmp_path, here))
    local = model.predict(images, cache=here)
    with executor.using(RayExecutor()):
        distant = executor.current().predict(model, images, cache=there)
        again = _trained(images, recipe, tmp_path / "again", there)
    assert np.array_equal(local.probs, distant.probs) and local.paths == distant.paths and local.errors == distant.errors
    assert sl.load(again).save(tmp_path / "a").read_bytes() == model.save(tmp_path / "b").read_bytes()


def _trained(images: Catalog, recipe: sl.Recipe, folder: Path, cache: Cache) -> Path:
    return train(images, recipe, folder / "run", cache=cache).folder
