"""Catalogs in partitions: the splits of one machine, from tasks that each see one partition or arrays. Without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sightline import catalog as catalogs
from sightline.errors import RequestError
from sightline.records import Catalog
from sightline.scale import tables
from sightline.store import Cache


class _Here:
    """A task that runs at once, in this process."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    def each(results: Sequence[Any], *_: Any) -> Iterator[Any]:
        yield from results

    monkeypatch.setattr(tables, "_remote", _Here)
    monkeypatch.setattr(tables, "_each", each)
    monkeypatch.setattr(tables, "PART_ROWS", 16)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A Parquet table of 100 pictures of three classes and 10 sites, copies of both kinds, a broken and a missing file."""
    draw = np.random.default_rng(0)
    rows: list[tuple[str, str | None, str]] = []
    (tmp_path / "photos").mkdir()
    for i in range(100):
        blobs = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((120, 120), Image.Resampling.BICUBIC)
        name = f"photos/{i:03d}.png"
        blobs.save(tmp_path / name)
        rows.append((name, "abc"[i % 3 if i % 10 else 0], f"site {i // 10}"))
        if i % 9 == 0:
            blobs.save(tmp_path / f"photos/{i:03d}.jpg", quality=90)
            rows.append((f"photos/{i:03d}.jpg", "abc"[i % 3 if i % 10 else 0], f"site {i // 10}"))
        if i % 14 == 0:
            (tmp_path / f"photos/{i:03d}-copy.png").write_bytes((tmp_path / name).read_bytes())
            rows.append((f"photos/{i:03d}-copy.png", "c", f"site {i // 10}"))  # a copy with another class
    (tmp_path / "photos/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    rows += [("photos/broken.png", "a", "site 1"), ("photos/missing.png", "a", "site 1")]
    columns = zip(*rows, strict=True)
    pq.write_table(pa.table(dict(zip(("path", "label", "site"), columns, strict=True))), tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


def loaded(folder: Path) -> Catalog:
    """All partitions as one catalog."""
    whole = pa.concat_tables([pq.read_table(f) for f in sorted(folder.glob("*.parquet"))])
    pq.write_table(whole, folder.with_suffix(".whole.parquet"))
    return catalogs.load(folder.with_suffix(".whole.parquet"))


@pytest.mark.parametrize("group_by", [None, "site"])
def test_the_split_equals_that_of_one_machine(here: None, table: Path, tmp_path: Path, group_by: str | None) -> None:
    scanned = catalogs.scan(table)
    clusters = catalogs.find_duplicates(scanned, Cache(tmp_path / "cache"))
    assert len(clusters.near) == 12 and len(clusters.conflicts) > 2
    local = catalogs.split(scanned, clusters=clusters, seed=3, group_by=group_by)
    assert tables.scan(table, tmp_path / "catalog") == {"images": len(scanned), "problems": 2}
    counts = tables.split(tmp_path / "catalog", tmp_path / "split", seed=3, group_by=group_by)
    distant = loaded(tmp_path / "split")
    names = ("content", "label", "split", "problem", "width", "format")
    assert len(list((tmp_path / "split").glob("*.parquet"))) == 8
    assert {n: distant.column(n) for n in names} == {n: local.column(n) for n in names}
    assert counts == {s: local.column("split").count(s) for s in ("train", "val", "test")}
    assert counts["val"] > 5 and counts["test"] > 10


def test_a_partition_that_is_written_is_not_read_again(
    here: None, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tables.scan(table, tmp_path / "catalog")
    (tmp_path / "catalog" / "part-000002.parquet").unlink()
    calls: list[int] = []
    read = tables.read
    monkeypatch.setattr(tables, "read", lambda paths, *more: calls.append(len(paths)) or read(paths, *more))
    assert tables.scan(table, tmp_path / "catalog") == whole and calls == [16]


@pytest.mark.parametrize("distance", [0, 3, 4])
def test_bands_find_every_pair_up_to_the_radius_once(distance: int) -> None:
    draw = np.random.default_rng(distance)
    base = draw.integers(1, 2**63, 200, dtype=np.uint64)
    masks = [sum(1 << int(b) for b in draw.choice(64, distance, replace=False)) for _ in base]
    pictures = np.concatenate([base, base ^ np.array(masks, np.uint64)])
    rows = np.arange(400, dtype=np.int64)
    part = (rows, rows.astype(np.uint64) + np.uint64(1), pictures, np.zeros(400, np.uint64))
    pairs = np.concatenate([tables.band_pairs(band, [0], part) for band in range(4)])
    expected = np.stack([np.arange(200), np.arange(200, 400)], axis=1) if distance <= tables.RADIUS else np.zeros((0, 2))
    assert np.array_equal(np.unique(pairs, axis=0), expected) and len(pairs) == len(expected)


def test_what_is_no_catalog_in_partitions_is_refused(here: None, table: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is no catalog in partitions: it has no column 'content'"):
        tables.split(table, tmp_path / "split")
    with pytest.raises(RequestError, match="has no column 'name'"):
        tables.scan(table, tmp_path / "catalog", path_column="name")
    with pytest.raises(RequestError, match="no Parquet file"):
        tables.scan(tmp_path / "nothing.parquet", tmp_path / "catalog")
