"""Photographs named by a URI: scanned, catalogued and read like those in a folder."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

import sightline as sl
from sightline import catalog as catalogs
from sightline import containers, remote
from sightline.errors import DataError, RequestError
from sightline.records import Catalog
from tests.conftest import write_few_digits


@pytest.fixture(params=["file", "memory"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A folder of digits, and the URI of the same on another file system."""
    folder = write_few_digits(tmp_path / "digits", 2)
    (folder / "labels.csv").write_text("not an image\n", encoding="utf-8")
    if request.param == "file":
        return folder, f"file://{folder.as_posix()}"
    files = fsspec.filesystem("memory")
    for file in folder.rglob("*.*"):
        files.pipe_file(f"/photos/{file.relative_to(folder).as_posix()}", file.read_bytes())
    return folder, "memory://photos"


def test_a_scan_of_a_uri_equals_that_of_a_folder(places: tuple[Path, str]) -> None:
    folder, uri = places
    here, there = sl.scan(folder), sl.scan(uri)
    assert there.table.equals(here.table)
    assert [containers.read_bytes(f) for f in there.files()] == [f.read_bytes() for f in here.files()]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_catalog_of_uris_is_written_and_read(places: tuple[Path, str], tmp_path: Path, suffix: str) -> None:
    found = sl.scan(places[1])
    catalogs.save(found, tmp_path / f"catalog.{suffix}")
    loaded = catalogs.load(tmp_path / f"catalog.{suffix}")
    assert loaded.paths == found.paths and loaded.root == found.root
    assert [remote.uri_of(f) for f in loaded.files()] == [remote.uri_of(f) for f in found.files()]


def test_a_table_may_name_uris(places: tuple[Path, str], tmp_path: Path) -> None:
    found: Catalog = sl.scan(places[1])
    rows = [f"{remote.uri_of(f)},{label}" for f, label in zip(found.files(), found.column("label"), strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    assert sl.scan(tmp_path / "table.csv").column("content") == found.column("content")


def test_a_missing_uri_is_an_error_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"memory:///nothing-there does not exist"):
        sl.scan("memory://nothing-there")
    with pytest.raises((RequestError, DataError), match=r"foo:// cannot be opened \(Protocol not known: foo\)"):
        sl.scan("foo://bucket")
