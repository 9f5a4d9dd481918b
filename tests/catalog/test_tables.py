"""Tables: CSV and Parquet files of users, and catalogs that are saved and loaded without loss."""

from __future__ import annotations

import csv
import sys
import unicodedata
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
def test_separator_encoding_and_column_names_are_detected(photos: Photos, header: str, separator: str, encoding: str) -> None:
    root = photos("a/1.jpg", "a/2.jpg")
    rows = [header, f"a/1.jpg{separator}Müller", f"a/2.jpg{separator}x"]
    (root / "t.csv").write_text("\r\n".join(rows) + "\r\n", encoding=encoding)
    found = catalog.scan(root / "t.csv")
    assert dict(zip(found.paths, found.column("label"), strict=True)) == {"a/1.jpg": "Müller", "a/2.jpg": "x"}
    assert found.column("problem") == [None, None]
    assert found.root == root


def test_a_note_names_a_guessed_encoding(photos: Photos) -> None:
    root = photos("a/1.jpg")
    (root / "t.csv").write_bytes("path,label\na/1.jpg,Müller\n".encode("cp1252"))
    assert any("Windows-1252" in note for note in catalog.scan(root / "t.csv").notes)


def test_other_columns_groups_and_splits_are_kept(photos: Photos) -> None:
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
    (root / "t.csv").write_text("where,what,label\nnowhere,cat,9\n", encoding="utf-8")
    with pytest.raises(DataError, match="no path column; its columns: 'where', 'what', 'label'"):
        catalog.scan(root / "t.csv")
    with pytest.raises(RequestError, match="no column 'wher'") as caught:
        catalog.scan(root / "t.csv", path_column="wher")
    assert caught.value.hint == "did you mean 'where'?"


def test_the_class_can_be_read_from_the_file_name(photos: Photos) -> None:
    root = photos("cat.1.jpg")
    (root / "t.csv").write_text("path,size\ncat.1.jpg,9\n", encoding="utf-8")
    assert catalog.scan(root / "t.csv", label_from=r"^(\w+)\.").column("label") == ["cat"]
    with pytest.raises(DataError, match="no label column"):
        catalog.scan(root / "t.csv")


def test_missing_files_invalid_rows_and_contradictions_are_reported(photos: Photos, tmp_path: Path) -> None:
    root = photos("1.jpg", "sub/2.jpg")
    lines = ["path,label", "1.jpg,a", "1.jpg,a", "sub\\2.jpg,b", "gone.jpg,a", ",b", "./1.jpg,c", "sub/2.jpg,b,too,many"]
    (root / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = catalog.scan(root / "t.csv")
    problems = dict(zip(found.paths, found.column("problem"), strict=True))
    assert problems["sub/2.jpg"] is None
    assert problems["gone.jpg"].startswith("missing")
    assert problems["1.jpg"] == "conflict: the table says 'a' and 'c'"
    told = " ".join(found.notes)
    assert "2 rows of t.csv repeat an image of an earlier row" in told
    assert "1 rows of t.csv have no path" in told
    assert "1 lines of t.csv were left out: they do not have 2 cells" in told


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
    [
        ("", "cannot be read as a table|no rows|column"),
        ("path,label\n", "no rows"),
        ("path,path\n1,2\n", "two columns named 'path'"),
    ],
)
def test_files_that_are_not_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        catalog.scan(tmp_path / "t.csv")


def test_a_missing_table_and_a_damaged_parquet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no\.csv does not exist"):
        catalog.scan(tmp_path / "no.csv")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as a table"):
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
def test_a_catalog_is_saved_and_loaded_without_loss(
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


def test_number_columns_stay_numbers_in_csv(photos: Photos, tmp_path: Path) -> None:
    root = photos("1.jpg")
    (root / "t.csv").write_text("path,label,west\n1.jpg,-cat,-3.2e1\n", encoding="utf-8")
    catalog.save(catalog.scan(root / "t.csv"), tmp_path / "c.csv")
    line = (tmp_path / "c.csv").read_text(encoding="utf-8").splitlines()[1]
    assert ",'-cat," in line
    assert line.endswith(",-3.2e1")


def test_a_table_of_the_user_is_not_read_as_a_catalog(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\n1.jpg,a\n", encoding="utf-8")
    with pytest.raises(DataError, match="is not a catalog: it has no column 'content'"):
        catalog.load(tmp_path / "t.csv")
    with pytest.raises(RequestError, match=r"cannot write a catalog as 'c\.txt'"):
        catalog.save(Catalog(pa.table({"path": pa.array([], pa.string())}), tmp_path), tmp_path / "c.txt")


# ------------------------------------------------------------------------------------------- names that differ, odd cells


def write(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(("inside", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_path_in_another_unicode_form_finds_its_file(photos: Photos, inside: str, written: str) -> None:
    names = ["Käfer/Größe é.jpg", "Mücke/2.jpg"]
    root = photos(*(unicodedata.normalize(inside, n) for n in names))
    table = write(root / "t.csv", "path,label", *(f"{unicodedata.normalize(written, n)},{i}" for i, n in enumerate(names)))
    found = catalog.scan(table)
    assert found.column("problem") == [None, None]
    assert all(file.is_file() for file in found.files())


@pytest.mark.skipif(sys.platform == "darwin", reason="both forms are one name there")
def test_of_two_files_in_two_unicode_forms_the_named_one_is_used(photos: Photos) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    root = photos(composed, decomposed)
    found = catalog.scan(write(root / "t.csv", "path,label", f"{composed},a", f"{decomposed},b"))
    assert dict(zip(found.paths, found.column("label"), strict=True)) == {composed: "a", decomposed: "b"}


def test_names_without_extension_find_the_only_image_of_that_name(photos: Photos) -> None:
    root = photos("images/a.b.png", "images/2.JPG", "images/3.png", "images/3.jpg")
    (root / "images" / "2.txt").write_text("of 2", encoding="utf-8")
    found = catalog.scan(
        write(root / "t.csv", "id_code,label", "images/a.b,x", "images/2,y", "images/3,y"), path_column="id_code"
    )
    problems = dict(zip(found.paths, found.column("problem"), strict=True))
    assert problems == {"images/2.JPG": None, "images/a.b.png": None, "images/3": "missing: there is no such file"}
    assert any("2 files without extension; used the only image of that name, such as a.b.png" in n for n in found.notes)
    assert any("several images have that name: add the extension, such as 3.jpg and 3.png" in n for n in found.notes)


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (("Cat", "cat"), "'Cat' and 'cat'"),
        (("1", "1.0"), "'1' and '1.0'"),
        (("01", "1"), "'01' and '1'"),
        (("polar bear", "polar_bear"), "'polar bear' and 'polar_bear'"),
        (("\uff21", "A"), "'A' and '\uff21'"),
    ],
)
def test_class_names_that_are_probably_the_same_are_reported(photos: Photos, labels: tuple[str, str], named: str) -> None:
    root = photos("1.jpg", "2.jpg", "3.jpg")
    found = catalog.scan(write(root / "t.csv", "path,label", f"1.jpg,{labels[0]}", f"2.jpg,{labels[1]}", "3.jpg,other"))
    assert found.classes == tuple(sorted((*labels, "other")))
    assert any(f"possibly the same class: {named} differ" in note for note in found.notes)


@pytest.mark.parametrize(
    "cells",
    [("1", "3", "1|3"), ("cat", "dog", '"cat,dog"'), ("a;b", "a;c", "b;c"), ("x", "y", "['x' 'y']"), ("7", "16", "16 7")],
)
def test_several_labels_in_a_cell_are_refused_with_a_hint_that_works(photos: Photos, cells: tuple[str, ...]) -> None:
    root = photos("1.jpg", "2.jpg", "3.jpg", "4.jpg")
    table = write(root / "t.csv", "path,label", *(f"{i}.jpg,{c}" for i, c in enumerate((*cells, "other"), 1)))
    with pytest.raises(DataError, match=r"more than one label in .*one class per image") as error:
        catalog.scan(table)
    assert error.value.hint is not None and "keep one label" in error.value.hint
    names = error.value.hint.partition("--classes ")[2].split(",")
    assert "other" in names and set(catalog.scan(table, classes=names).classes) == set(names)


@pytest.mark.parametrize(
    "cells", [("red", "green", "red/green"), ("salt, fine", "salt, coarse", "pepper, fine", "pepper, coarse")]
)
def test_compound_class_names_are_reported_and_used(photos: Photos, cells: tuple[str, ...]) -> None:
    root = photos(*(f"{i}.jpg" for i in range(4)))
    found = catalog.scan(write(root / "t.csv", "path,label", *(f'{i}.jpg,"{c}"' for i, c in enumerate(cells))))
    assert found.classes == tuple(sorted(cells))
    assert any("like several labels in one" in note for note in found.notes)


@pytest.mark.parametrize(
    "cells", [("-1", "1", "0"), ("Paris, France", "Lyon, France", "Rome, Italy"), ("T-shirt", "shirt", "coat")]
)
def test_valid_class_names_are_not_reported(photos: Photos, cells: tuple[str, ...]) -> None:
    root = photos("1.jpg", "2.jpg", "3.jpg")
    found = catalog.scan(write(root / "t.csv", "path,label", *(f'{i}.jpg,"{c}"' for i, c in enumerate(cells, 1))))
    assert not any("possibly the same class" in note or "several labels" in note for note in found.notes)


def test_a_column_of_0_and_1_for_each_class_gives_the_class(photos: Photos) -> None:
    root = photos("1.jpg", "2.jpg", "3.jpg")
    found = catalog.scan(write(root / "t.csv", "image,MEL,NV", "1.jpg,1.0,0.0", "2.jpg,0.0,1.0", "3.jpg,1.0,0.0"))
    assert found.column("label") == ["MEL", "NV", "MEL"]
    assert any("column of 0 and 1 for each class" in note for note in found.notes)


def test_several_ones_in_a_row_are_refused_with_a_hint_that_works(photos: Photos) -> None:
    root = photos("1.jpg", "2.jpg")
    table = write(root / "t.csv", "image,cat,dog", "1.jpg,1,1", "2.jpg,0,1")
    with pytest.raises(DataError, match=r"1 row has several ones, the first 1.jpg \(cat and dog\)") as error:
        catalog.scan(table)
    assert error.value.hint is not None and "--label-column 'cat'" in error.value.hint
    assert catalog.scan(table, label_column="cat").column("label") == ["1", "0"]


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        (("1.jpg,a", '2.jpg,"b', "3.jpg,a", "4.jpg,b"), "2 lines were lost in t.csv: a quotation mark in line 3"),
        (("1.jpg,a", '2.jpg,"b', "3.jpg,a", '4.jpg,"b', "5.jpg,a"), "2 lines were lost in t.csv: a quotation mark in line 3"),
        (("1.jpg,a", '"2.jpg,b', "3.jpg,a"), "1 line was lost in t.csv: a quotation mark in line 3"),
    ],
)
def test_an_unclosed_quotation_mark_is_reported(photos: Photos, lines: tuple[str, ...], lost: str) -> None:
    root = photos("1.jpg", "2.jpg", "3.jpg")
    assert any(lost in note for note in catalog.scan(write(root / "t.csv", "path,label", *lines)).notes)


def test_a_table_that_is_one_cell_names_the_quotation_mark(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no rows: 2 lines were lost in t\.csv: a quotation mark in line 2"):
        catalog.scan(write(tmp_path / "t.csv", "path,label", '"1.jpg,a', "2.jpg,b", "3.jpg,a"))


def test_a_cell_of_several_lines_is_one_row(photos: Photos) -> None:
    root = photos("1.jpg", "2.jpg")
    table = write(root / "t.csv", "path,label,text", '1.jpg,a,"one, two', 'three, four, five"', "2.jpg,b,six")
    assert not any("lost" in note for note in catalog.scan(table).notes)


FORMS = {
    "index column": ("", ",filename,label", "{i},images/{i}.jpg,{c}"),
    "pandas index": ("", "Unnamed: 0;filename;label", "{i};images/{i}.jpg;{c}"),
    "two nameless columns": ("", ",filename,label,", "{i},images/{i}.jpg,{c},"),
    "no column names": ("", "", "images/{i}.jpg,{c}"),
    "list of files": ("", "", "images/{i}.jpg {c}"),
    "Excel": ("", "sep=;\nfile;label", "images/{i}.jpg;{c}"),
    "ids in another folder": ("", "id_code,diagnosis", "{i},{c}"),
    "unusual names": ("", "Picture No;Finding", "images/{i}.jpg;{c}"),
    "one-hot with index": ("", ",image,a,b,fold", "{i},{i},{a},{b},{b}"),
    "semicolons and BOM": ("\ufeff", "Image;Class", "images\\{i}.jpg;{c}"),
}


@pytest.mark.parametrize("form", FORMS)
def test_common_forms_of_tables_are_read(photos: Photos, form: str) -> None:
    root = photos(*(f"images/{i}.jpg" for i in range(4)))
    start, header, row = FORMS[form]
    rows = [row.format(i=i, c="ab"[i % 2], a=1 - i % 2, b=i % 2) for i in range(4)]
    name = "t.txt" if form == "list of files" else "t.csv"
    (root / name).write_text(start + "\n".join([*([header] if header else []), *rows]) + "\n", encoding="utf-8")
    found = catalog.scan(root / name)
    assert found.paths == [f"images/{i}.jpg" for i in range(4)] and found.column("problem") == [None] * 4
    assert found.column("label") == ["a", "b", "a", "b"]


def test_a_column_of_lists_is_refused(photos: Photos) -> None:
    root = photos("1.jpg", "2.jpg")
    pq.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "label": [["a", "b"], ["a"]]}), root / "t.parquet")
    with pytest.raises(DataError, match="holds lists of labels"):
        catalog.scan(root / "t.parquet")


def test_joined_labels_are_reported(photos: Photos) -> None:
    root = photos("1.jpg", "2.jpg", "3.jpg", "4.jpg")
    rows = ("1.jpg,u\u0308", "2.jpg,\u00fc", "3.jpg,b", "4.jpg,b ")
    found = catalog.scan(write(root / "t.csv", "path,label", *rows))
    assert found.classes == ("b", "\u00fc")
    assert any("read as one class: 'b', '\u00fc'" in note for note in found.notes)
