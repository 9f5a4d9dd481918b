"""Pointing game: boxes and masks in tables, columns with another meaning, and the score."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.catalog import scan
from sightline.commands import explain
from sightline.commands import run as main
from sightline.errors import DataError
from sightline.explanation.pointing_game import Place, parse_box, play, read_places
from sightline.records import Catalog, Explanation, Run
from sightline.runs.plan import Request
from sightline.store import Cache
from tests.conftest import write_few_digits


@pytest.mark.parametrize(
    "cell", ["10.5,20,30,40", "[10.5, 20, 30, 40]", " (10.5 20\t30 40) ", "10.5;20;30;40", "[[10.5, 20.0, 3e1, 40]]"]
)
def test_common_notations_of_boxes_are_parsed(cell: str) -> None:
    assert parse_box(cell) == (10.5, 20, 30, 40)


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("yes", "not x"),
        ("7", "not x"),
        ("1,2,3,4,5", "not x"),
        ("1,2,0,4", "area"),
        ("1,2,nan,4", "area"),
        ("0,.1,.5,1", "shares"),
    ],
)
def test_invalid_boxes_are_refused_with_the_reason(cell: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        parse_box(cell)


def pictures(folder: Path, n: int) -> list[str]:
    """Noise of 40×30 px, and beside each a mask that is light on the left half; their names."""
    from PIL import Image

    for i in range(n):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[:, :20] = 255
        Image.fromarray(mask).save(folder / f"mask{i}.gif")
    return [f"{i}.png" for i in range(n)]


def tabled(folder: Path, names: list[str], **columns: list[str]) -> Catalog:
    """The catalog of a table with these columns."""
    with (folder / "table.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", *columns])
        out.writerows(
            [name, "ab"[i % 2], *cells] for i, (name, *cells) in enumerate(zip(names, *columns.values(), strict=True))
        )
    return scan(folder / "table.csv")


def heat_on(names: list[str], left: bool) -> list[Explanation]:
    """Heat whose peak lies in the middle of the left or the right half of each."""
    heat = np.array([[1, 0]] if left else [[0, 1]], dtype=np.float32)
    return [Explanation(name, "a", "m", "l", heat, (0.0, 0.0, 30.0, 40.0)) for name in names]


def test_a_box_takes_precedence_over_a_mask(tmp_path: Path) -> None:
    names = pictures(tmp_path, 4)
    boxes, masks = ["0,0,10,30", "", " ", "[20, 0, 20, 30]"], ["mask0.gif", "mask1.gif", "", "mask3.gif"]
    catalog = tabled(tmp_path, names, box=boxes, mask=masks)
    places, notes = read_places(catalog)
    assert {path: place.column for path, place in places.items()} == {"0.png": "box", "1.png": "mask", "3.png": "box"}
    assert not notes
    files = {name: catalog.file(name) for name in names}
    for left, hits in ((True, 1 / 3), (False, 1 / 3)):
        finding = play(heat_on(names, left), places, files)
        assert finding is not None and finding.numbers["n"] == 3 and finding.numbers["unread"] == 0
        assert finding.numbers["hits"] == pytest.approx(hits) and finding.numbers["chance"] == pytest.approx(
            (0.25 + 0.5 + 0.5) / 3
        )


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"mask": ["yes", "no", "yes"]}, "the column `mask` names no mask file beside its image (the first is 'yes' of 0.png)"),
        ({"mask": ["absent.png", "table.csv", "."]}, "`mask`"),
        ({"mask": ["1 2 " * 400, "3 4 " * 400, ""]}, "…' of 0.png"),
        ({"box": ["17", "18", "19"]}, "the column `box` contains no x,y,width,height in pixels (the first is '17' of 0.png)"),
        ({"box": [".1,.1,.5,.5", "0,0,1,1", ""]}, "`box`"),
        ({"box": ["red", "", ""], "mask": ["", "no", ""]}, "the column `mask`"),
    ],
)
def test_a_box_column_without_boxes_gives_one_note_and_no_score(
    columns: dict[str, list[str]], said: str, tmp_path: Path
) -> None:
    places, notes = read_places(tabled(tmp_path, pictures(tmp_path, 3), **columns))
    assert not places and len(notes) == 1 and said in notes[0] and "not used for the pointing game" in notes[0]


def test_empty_box_columns_give_no_note(tmp_path: Path) -> None:
    assert read_places(tabled(tmp_path, pictures(tmp_path, 2), box=["", ""], boxes=["7", "8"])) == ({}, [])


def test_rows_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path) -> None:
    from PIL import Image

    names = pictures(tmp_path, 8)
    Image.fromarray(np.zeros((30, 40), dtype=np.uint8)).save(tmp_path / "dark.png")
    Image.fromarray(np.full((3, 4), 255, dtype=np.uint8)).save(tmp_path / "small.png")
    odd = [Place("box", "40,0,5,5"), Place("box", "oops"), *(Place("mask", m) for m in ("dark.png", "small.png", "no", "a\0b"))]
    places = dict(zip(names, [Place("box", "-5,0,25,30"), *odd, Place("mask", "mask7.gif")], strict=True))
    files = {name: tmp_path / name for name in names}
    finding = play(heat_on(names, left=True), places, files)
    assert finding is not None and finding.numbers["n"] == 2 and finding.numbers["hits"] == 1 and finding.numbers["unread"] == 6
    assert finding.numbers["chance"] == pytest.approx(0.5)
    first = "the first: '40,0,5,5' of 1.png (it lies beyond the image of 40×30 px)"
    assert finding.text.endswith(f"; 6 of 8 boxes and masks cannot be read, {first}")
    assert play(heat_on(names[1:7], left=True), places, files) is None
    assert play(heat_on(names, left=True), {}, files) is None


Ran = Callable[..., tuple[Run, list[str]]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run on a table of digits with another column, and what it says."""
    folder = tmp_path_factory.mktemp("pointing")
    files = sorted(write_few_digits(folder / "digits", 12).rglob("*.png"))
    cache = Cache(folder / "cache")

    def run(name: str, column: str, cell: Callable[[int], str]) -> tuple[Run, list[str]]:
        table, said = folder / f"{name}.csv", []
        with table.open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["path", "label", column])
            out.writerows((f.relative_to(folder).as_posix(), f.parent.name, cell(i)) for i, f in enumerate(files))
        asked = Request(str(table), out=str(folder / name), backbones=("pixels",), methods=("features",), head="logistic")
        return main.run(asked, say=said.append, cache=cache), said

    return run


def told_of(checks: dict[str, Any]) -> list[dict[str, Any]]:
    """What is said of pointing among the findings."""
    return [f for f in checks["findings"] if f["check"] == "pointing"]


@pytest.mark.slow
def test_no_cell_of_a_table_costs_a_run_and_explain_plays_by_its_rule(ran: Ran, tmp_path: Path, cache: Cache) -> None:
    done, said = ran("boxes", "box", lambda i: "oops" if i % 3 == 1 else "[2.5, 2, 20, 24.5]")
    (finding,) = told_of(done.data["heat_checks"])
    n, unread = finding["n"], finding["unread"]
    assert (
        n > 5
        and unread > 0
        and f"; {unread} of {n + unread} boxes cannot be read, the first: 'oops' of digit" in finding["text"]
    )
    assert not any("pointing game" in line for line in said)
    plain, said = ran("faces", "mask", lambda i: "no" if i % 3 else "yes")
    assert not told_of(plain.data["heat_checks"]) and sum("not used for the pointing game" in line for line in said) == 1
    assert sum("not used for the pointing game" in note for note in plain.data["data"]["notes"]) == 1

    shutil.copy(done.classifier_file, tmp_path / "alone.safetensors")
    rows = list(csv.reader((done.folder.parents[1] / "boxes.csv").open(newline="")))
    table = done.folder.parents[1] / "few.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows[:1] + rows[1::8])
    own: dict[str, Any] = {"out": str(tmp_path / "out"), "cache": cache}
    for subject in (tmp_path / "alone.safetensors", plain.folder):  # a run that has played none takes the table's
        entries = explain.explain(str(subject), [str(table)], **own)
        (finding,) = told_of(entries[0]["check"]["method"])
        assert (finding["n"], finding["unread"]) == (10, 5) and "5 of 15 boxes cannot be read" in finding["text"]
    (same,) = told_of(explain.explain(str(done.folder), [str(table)], **own)[0]["check"]["method"])
    assert (same["n"], same["unread"]) == (n, unread)
    aimed = explain.explain(str(tmp_path / "alone.safetensors"), [str(table)], target="3", **own)
    answered = sum(e["predicted"] == "3" for e in aimed)
    assert sum(f["n"] + f["unread"] for f in told_of(aimed[0]["check"]["method"])) in (0, answered) and answered < 15
