"""Blocks of features: workers write them, and the cache of another machine reads through to them. Without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline import blocks, engine, features, networks
from sightline import catalog as catalogs
from sightline.features import FeatureRequest
from sightline.records import Backbone, Catalog
from sightline.scale import pipeline
from sightline.store import Cache
from tests.conftest import write_few_digits


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Thirty digits, and a file that is no image."""
    folder = write_few_digits(tmp_path_factory.mktemp("blocks") / "digits", 3)
    (folder / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return catalogs.scan(folder)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return networks.describe("resnet10t", weights="random", image_size=32, cache=Cache(tmp_path_factory.mktemp("describe")))


def written(images: Catalog, request: FeatureRequest, cache: Cache) -> dict[str, Any]:
    """Decode and compute all images as one block of a worker."""
    job = pipeline.Job(request, blocks.location(cache), cache.root, "cpu", len(images))
    part = pipeline.decode(job, [str(f) for f in images.files()], images.column("content"))
    return pipeline.Network(job, None).write(part)


def never(count: int) -> engine.Session:
    raise AssertionError("the network was opened for features that are in a block")


def extracted(images: Catalog, request: FeatureRequest, cache: Cache, session: Any) -> features.Features:
    options: dict[str, Any] = {"session": session, "precision": request.precision, "cache": cache}
    rows = images.files(), images.column("content"), request.backbone
    if request.views is None:
        return features.extract(*rows, **options)
    return features.extract_crops(*rows, request.views, **options)


@pytest.mark.parametrize("crops", [1, 5])
def test_blocks_of_workers_hold_the_features_of_one_machine(
    images: Catalog, backbone: Backbone, tmp_path: Path, crops: int
) -> None:
    views = features.crop_views(backbone.preprocess, crops) if crops > 1 else None
    request, here, there = FeatureRequest(backbone, "f32", None, views), Cache(tmp_path / "here"), Cache(tmp_path / "there")
    local = extracted(images, request, here, lambda n: engine.open_session(backbone, cache=here, expected=1000))
    report = written(images, request, there)
    assert report["images"] == len(images) and not report["passing"] and not report["failures"]
    assert features.missing(images.column("content"), request, there) == []
    distant = extracted(images, request, there, never)
    assert np.array_equal(local.values, distant.values) and local.problems == distant.problems and distant.computed == 0
    assert len(local.problems) == 1


def test_a_cache_copies_what_it_reads_from_a_shared_store(
    images: Catalog, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = FeatureRequest(backbone, "f32")
    monkeypatch.setenv("SIGHTLINE_STORE", f"file://{tmp_path}/store")
    written(images, request, Cache(tmp_path / "worker"))
    cache = Cache(tmp_path / "driver")
    first = extracted(images, request, cache, never)
    monkeypatch.setenv("SIGHTLINE_STORE", f"file://{tmp_path}/another")
    assert np.array_equal(first.values, extracted(images, request, cache, never).values)


def test_a_damaged_block_is_computed_again(images: Catalog, backbone: Backbone, tmp_path: Path) -> None:
    request, cache = FeatureRequest(backbone, "f32"), Cache(tmp_path)
    written(images, request, cache)
    (file,) = (tmp_path / "blocks").rglob("*.parquet")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert cache.verify() == [file.relative_to(tmp_path).as_posix()]
    assert len(features.missing(images.column("content"), request, cache)) == len(images)


def test_a_repeated_block_replaces_its_file(images: Catalog, backbone: Backbone, tmp_path: Path) -> None:
    request, cache = FeatureRequest(backbone, "f32"), Cache(tmp_path)
    assert written(images, request, cache)["block"] == written(images, request, cache)["block"]
    assert len(list((tmp_path / "blocks").rglob("*.parquet"))) == 1


def test_a_file_that_makes_the_decoder_raise_is_named_and_the_others_are_computed(
    images: Catalog, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned, decode = images.files()[7], pipeline.pixels.decode_same

    def raising(source: Path, *more: Any) -> np.ndarray:
        if source == poisoned:
            raise ZeroDivisionError("division by zero")
        return decode(source, *more)

    monkeypatch.setattr(pipeline.pixels, "decode_same", raising)
    report = written(images, FeatureRequest(backbone, "f32"), Cache(tmp_path))
    message = f"{poisoned} makes the worker raise ZeroDivisionError: division by zero"
    assert report["failures"] == {images.column("content")[7]: message} and report["images"] == len(images)
    missing = features.missing(images.column("content"), FeatureRequest(backbone, "f32"), Cache(tmp_path))
    assert missing == [7]


def test_missing_names_each_content_once(backbone: Backbone, tmp_path: Path) -> None:
    contents: Sequence[str] = ("a1" * 32, "", "a1" * 32, "b2" * 32, "")
    assert features.missing(contents, FeatureRequest(backbone, "f32"), Cache(tmp_path)) == [0, 1, 3, 4]
