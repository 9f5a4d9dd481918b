"""Cached features: saved by the precision in use, read back without opening the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline import engine, features, networks, pixels
from sightline.catalog import looks
from sightline.engine import session as sessions
from sightline.records import Backbone, Catalog, Preprocess
from sightline.store import Cache
from tests.conftest import write_few_digits


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Ten digits."""
    return catalogs.scan(write_few_digits(tmp_path_factory.mktemp("features") / "digits", 1))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    cache = Cache(tmp_path_factory.mktemp("describe"))
    return networks.describe("resnet10t", weights="random", image_size=32, cache=cache)


def never(count: int) -> engine.Session:
    raise AssertionError("the network was opened for features that are cached")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reason", "expected", "crops"),
    [
        ("few images", 10, 1),
        ("OpenVINO disagrees", 1000, 1),
        ("OpenVINO disagrees", 1000, 5),
        ("OpenVINO fails", 1000, 1),
        ("no bf16", 1000, 1),
        ("none", 1000, 1),
        ("none", 1000, 5),
    ],
)
def test_features_are_cached_by_the_precision_in_use(
    reason: str,
    expected: int,
    crops: int,
    images: Catalog,
    backbone: Backbone,
    cache: Cache,
    emulated_bf16: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If bf16 was requested and float32 used, the features are cached as float32."""
    if reason == "OpenVINO disagrees":
        monkeypatch.setattr(sessions, "WORST_COSINE", 1.1)
    if reason == "OpenVINO fails":
        monkeypatch.setattr(sessions, "convert", lambda *_: 1 / 0)
    if reason == "no bf16":
        monkeypatch.setenv("SIGHTLINE_PRECISION", "f32")
    opened = []

    def opens(count: int) -> engine.Session:
        opened.append(engine.open_session(backbone, cache=cache, precision="bf16", expected=expected))
        return opened[-1]

    def extract(precision: engine.Precision, session: object) -> features.Features:
        files, contents = images.files(), images.column("content")
        own = {"session": session, "precision": precision, "cache": cache}
        if crops == 1:
            return features.extract(files, contents, backbone, **own)  # type: ignore[arg-type]
        looks = features.crop_views(backbone.preprocess, crops)
        return features.extract_crops(files, contents, backbone, looks, **own)  # type: ignore[arg-type]

    first = extract("bf16", opens)
    used = "bf16" if reason == "none" else "f32"
    assert first.precision == opened[0].precision == used and first.computed == 10 * crops
    for asked in ("bf16", used):
        again = extract(asked, never)  # type: ignore[arg-type]
        assert again.computed == 0 and again.precision == used
        np.testing.assert_array_equal(again.values, first.values)
    if used == "bf16":
        with pytest.raises(AssertionError, match="was opened"):
            extract("f32", never)


def test_rows_in_float32_are_distinguished_from_those_in_bf16(
    images: Catalog, backbone: Backbone, cache: Cache, emulated_bf16: None
) -> None:
    files, contents = images.files(), images.column("content")

    def extract(rows: slice, expected: int) -> features.Features:
        return features.extract(
            files[rows],
            contents[rows],
            backbone,
            session=lambda count: engine.open_session(backbone, cache=cache, precision="bf16", expected=expected),
            precision="bf16",
            cache=cache,
        )

    few = extract(slice(3), 3)
    found = extract(slice(10), 1000)
    assert found.computed == 7 and found.precision == "bf16"
    assert found.fast is not None and found.fast.tolist() == [False] * 3 + [True] * 7
    np.testing.assert_array_equal(found.values[:3], few.values)


def test_an_unreadable_file_is_a_problem_in_every_precision(
    backbone: Backbone, cache: Cache, tmp_path: Path, emulated_bf16: None
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    import hashlib

    content = hashlib.sha256(file.read_bytes()).hexdigest()
    opens = lambda count: engine.open_session(backbone, cache=cache, precision="bf16", expected=count)  # noqa: E731
    for session, computed in ((opens, 1), (never, 0)):
        found = features.extract([file], [content], backbone, session=session, precision="bf16", cache=cache)
        assert list(found.problems) == [0] and found.computed == computed and found.precision == "f32"


def test_file_properties_need_no_second_decode(images: Catalog, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for duplicates has decoded each file; a file in memory gives the same numbers, to the last bit."""
    files, contents = images.files(), images.column("content")
    looks.looks(files, contents, cache)
    backbone = Backbone("file", "file", Preprocess(), len(features.FILE_FEATURES))
    expected = np.stack([features.of_file_bytes(file.read_bytes(), str(file)) for file in files])
    monkeypatch.setattr(pixels, "preview", lambda *_: 1 / 0)
    found = features.extract(files, contents, backbone, session=never, precision="f32", cache=cache)
    np.testing.assert_array_equal(found.values, expected)
    assert found.ok.all() and len(np.unique(found.values[:, 3])) > 1
