"""Tables: a user's own CSV and Parquet, and that a catalog comes back as it was saved."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sightline import catalog
from sightline.errors import DataError, RequestError
from sightline.records import CATALOG_COLUMNS, Catalog

Photos = Callable[..., Path]


@pytest.mark.parametrize(
    ("header", "separator", "encoding"),
    [
        ("path,label", ",", "utf-8"),
        ("path;label", ";", "utf-8-sig"),
        ("Filename\tClass", "\t", "utf-16"),
        ("image|category", "|", "cp1252"),
        (" path , label ", ",", "utf-8"),
    ],
)
def test_separator_encoding_and_column_names_are_found_out(photos: Photos, header: str, separator: str, encoding: str) -> None:
    root = photos("a/1.jpg", "a/2.jpg")
    rows = [header, f"a/1.jpg{separator}Müller", f"a/2.jpg{separator}x"]
    (root / "t.csv").write_text("\r\n".join(rows) + "\r\n", encoding=encoding)
    found = catalog.scan(root / "t.csv")
    assert dict(zip(found.paths, found.column("label"), strict=True)) == {"a/1.jpg": "Müller", "a/2.jpg": "x"}
    assert found.column("problem") == [None, None]
    assert found.root == root


def test_an_encoding_that_is_guessed_is_said(photos: Photos) -> None:
    root = photos("a/1.jpg")
    (root / "t.csv").write_bytes("path,label\na/1.jpg,Müller\n".encode("cp1252"))
    assert any("Windows-1252" in note for note in catalog.scan(root / "t.csv").notes)


def test_other_columns_groups_and_splits_come_along(photos: Photos) -> None:
    root = photos("1.jpg", "2.jpg", "3.jpg")
    rows = "path,label,split,group,person,width\n1.jpg,a,train,g1,Ann,9\n2.jpg,b,validation,,Bob,9\n3.jpg,b,never,g2,,9\n"
    (root / "t.csv").write_text(rows, encoding="utf-8")
    found = catalog.scan(root / "t.csv")
    assert found.column("split") == ["train", "val", None]
    assert found.column("group") == ["g1", None, "g2"]
    assert found.column("person") == ["Ann", "Bob", None]
    assert found.column("width") == [96, 96, 96]
    assert any("'never'" in note for note in found.notes)


def test_parquet_with_numbers_for_labels(photos: Photos, tmp_path: Path) -> None:
    root = photos("1.jpg", "2.jpg")
    pq.write_table(pa.table({"file": ["1.jpg", "2.jpg"], "y": [0, 1], "weight": [0.5, 2.0]}), root / "t.parquet")
    found = catalog.scan(root / "t.parquet")
    assert found.column("label") == ["0", "1"]
    assert found.column("weight") == [0.5, 2.0]


def test_named_columns(photos: Photos) -> None:
    root = photos("1.jpg")
    (root / "t.csv").write_text("where,what,label\n1.jpg,cat,9\n", encoding="utf-8")
    assert catalog.scan(root / "t.csv", path_column="where", label_column="what").column("label") == ["cat"]
    with pytest.raises(DataError, match="no path column; its columns: 'where', 'what', 'label'"):
        catalog.scan(root / "t.csv")
    with pytest.raises(RequestError, match="no column 'wher'") as caught:
        catalog.scan(root / "t.csv", path_column="wher")
    assert caught.value.hint == "did you mean 'where'?"


def test_the_class_may_come_from_the_name(photos: Photos) -> None:
    root = photos("cat.1.jpg")
    (root / "t.csv").write_text("path,size\ncat.1.jpg,9\n", encoding="utf-8")
    assert catalog.scan(root / "t.csv", label_from=r"^(\w+)\.").column("label") == ["cat"]
    with pytest.raises(DataError, match="no label column"):
        catalog.scan(root / "t.csv")


def test_missing_files_odd_rows_and_contradictions_are_told(photos: Photos, tmp_path: Path) -> None:
    root = photos("1.jpg", "sub/2.jpg")
    lines = ["path,label", "1.jpg,a", "1.jpg,a", "sub\\2.jpg,b", "gone.jpg,a", ",b", "./1.jpg,c", "sub/2.jpg,b,too,many"]
    (root / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = catalog.scan(root / "t.csv")
    problems = dict(zip(found.paths, found.column("problem"), strict=True))
    assert problems["sub/2.jpg"] is None
    assert problems["gone.jpg"].startswith("missing")
    assert problems["1.jpg"] == "conflict: the table says 'a' and 'c'"
    told = " ".join(found.notes)
    assert "2 rows of t.csv name an image that an earlier row names" in told
    assert "1 rows of t.csv have no path" in told
    assert "1 lines of t.csv have not 2 cells" in told


def test_absolute_paths_and_images_outside_the_tables_folder(photos: Photos, tmp_path: Path) -> None:
    root = photos("cat/1.jpg", "dog/2.jpg")
    table = tmp_path / "elsewhere" / "t.csv"
    table.parent.mkdir()
    table.write_text(
        f"path,label\n{root / 'cat' / '1.jpg'},cat\n../photos/dog/2.jpg,dog\n../photos/no.jpg,dog\n", encoding="utf-8"
    )
    found = catalog.scan(table)
    assert found.root == root
    assert found.paths == ["cat/1.jpg", "dog/2.jpg", "no.jpg"]
    assert [p is None for p in found.column("problem")] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "not a table|no rows|column"), ("path,label\n", "no rows"), ("path,path\n1,2\n", "two columns named 'path'")],
)
def test_tables_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        catalog.scan(tmp_path / "t.csv")


def test_a_missing_table_and_a_broken_parquet(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no\.csv does not exist"):
        catalog.scan(tmp_path / "no.csv")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"t\.parquet is not a table"):
        catalog.scan(tmp_path / "t.parquet")


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda s: s not in (".", "..")
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(NAMES, NAMES, st.one_of(st.none(), NAMES)), min_size=1, max_size=5, unique_by=lambda r: r[0]),
    suffix=st.sampled_from([".csv", ".parquet"]),
    below=st.booleans(),
)
@example(rows=[("0", "'@", None)], suffix=".parquet", below=False)
def test_a_catalog_comes_back_as_it_was(
    tmp_path: Path, rows: list[tuple[str, str, str | None]], suffix: str, below: bool
) -> None:
    rows = sorted(rows)
    table: dict[str, pa.Array] = {name: pa.nulls(len(rows), kind) for name, kind in CATALOG_COLUMNS.items()}
    table |= {
        "path": pa.array([r[0] for r in rows]),
        "content": pa.array(["ab" * 32 if i else "" for i in range(len(rows))]),
        "label": pa.array([r[1] for r in rows]),
        "note": pa.array([r[2] for r in rows], pa.string()),
        "width": pa.array([i or None for i in range(len(rows))], pa.int32()),
        "own": pa.array([r[2] for r in rows], pa.string()),
    }
    typed = pa.table(table).cast(pa.schema([(n, CATALOG_COLUMNS.get(n, "string")) for n in table]))
    before = Catalog(typed, tmp_path)
    file = tmp_path / "catalogs" / f"c{suffix}" if below else tmp_path / f"c{suffix}"
    catalog.save(before, file)
    after = catalog.load(file, tmp_path)
    assert after.table.equals(before.table)
    assert after.root == tmp_path
    if suffix == ".csv":
        with open(file, encoding="utf-8", newline="") as text:
            cells = [cell for line in csv.reader(text) for cell in line]
        assert not any(cell[:1] in ("=", "@", "\t", "\r") for cell in cells)


def test_a_saved_catalog_finds_its_images_again(photos: Photos, tmp_path: Path) -> None:
    root = photos("cat/1.jpg", "dog/2.jpg")
    before = catalog.scan(root)
    for file in (root / "catalog.csv", tmp_path / "runs" / "r1" / "catalog.csv", tmp_path / "c.parquet"):
        catalog.save(before, file)
        after = catalog.load(file)
        assert all(f.is_file() for f in after.files())
        assert after.column("content") == before.column("content")
    assert catalog.load(tmp_path / "runs" / "r1" / "catalog.csv").paths == ["cat/1.jpg", "dog/2.jpg"]
    again = catalog.scan(root / "catalog.csv")  # a catalog is a table like any other
    assert again.paths == before.paths
    assert again.column("problem") == [None, None]


def test_numbers_of_the_users_stay_numbers_in_csv(photos: Photos, tmp_path: Path) -> None:
    root = photos("1.jpg")
    (root / "t.csv").write_text("path,label,west\n1.jpg,-cat,-3.2e1\n", encoding="utf-8")
    catalog.save(catalog.scan(root / "t.csv"), tmp_path / "c.csv")
    line = (tmp_path / "c.csv").read_text(encoding="utf-8").splitlines()[1]
    assert ",'-cat," in line
    assert line.endswith(",-3.2e1")


def test_a_table_of_the_users_is_no_catalog(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\n1.jpg,a\n", encoding="utf-8")
    with pytest.raises(DataError, match="no catalog: it has no column 'content'"):
        catalog.load(tmp_path / "t.csv")
    with pytest.raises(RequestError, match=r"cannot be written as 'c\.txt'"):
        catalog.save(Catalog(pa.table({"path": pa.array([], pa.string())}), tmp_path), tmp_path / "c.txt")
