"""Where a table of predictions and a labelled set do not fit together: counted, and said wherever the scores are."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline import catalog as catalogs
from sightline.cli.app import app
from sightline.records import Run
from tests.conftest import write_few_digits

COLUMNS = ("path", "label", "p:0", "p:1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of each of three digits."""
    folder = write_few_digits(tmp_path_factory.mktemp("scoring") / "digits", 12)
    for other in range(3, 10):
        for file in (folder / str(other)).iterdir():
            file.unlink()
        (folder / str(other)).rmdir()
    return folder


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LEDGER", str(tmp_path / "ledger"))
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


def rows_of(photos: Path, *classes: str) -> list[list[str]]:
    """A row for each image of some classes, most of them right."""
    found = catalogs.scan(photos)
    told = zip(found.paths, found.column("label"), strict=True)
    rows = [(path, label) for path, label in told if label in classes]
    return [
        [path, label, *(("0.9", "0.1") if (label == "0") != (i % 5 == 0) else ("0.2", "0.8"))]
        for i, (path, label) in enumerate(rows)
    ]


def write(file: Path, rows: list[list[str]], separator: str = ",", encoding: str = "utf-8", more: str = "") -> Path:
    text = io.StringIO()
    out = csv.writer(text, delimiter=separator, lineterminator="\n")
    out.writerows([[*COLUMNS, more] if more else COLUMNS, *rows])
    file.write_bytes(text.getvalue().encode(encoding))
    return file


def evaluate(table: Path, photos: Path, out: Path) -> tuple[dict[str, Any], str, Run, str]:
    """What `evaluate --json` prints, its notes, its run and the words of its report."""
    ended = CliRunner().invoke(app, ["evaluate", str(table), str(photos), "-o", str(out), "--json"])
    assert ended.exit_code == 0, ended.output
    page = (out / "report.html").read_text(encoding="utf-8")
    words = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).replace("\N{NO-BREAK SPACE}", " ").split())
    return json.loads(ended.stdout), " ".join(ended.stderr.split()), Run.load(out), words


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8"), ("\t", "utf-16"), (",", "cp1252")])
def test_every_command_takes_a_spreadsheet_s_table(photos: Path, tmp_path: Path, separator: str, encoding: str) -> None:
    rows = rows_of(photos, "0", "1", "2")
    plain = write(tmp_path / "plain.csv", rows)
    foreign = write(tmp_path / "foreign.csv", [*rows, ["été/1.png", "", "1", "0"]], separator, encoding)
    ours, _, _, _ = evaluate(plain, photos, tmp_path / "ours")
    # in whichever order they are named: the header says which of the two is the table
    theirs, _, _, _ = evaluate(photos, foreign, tmp_path / "theirs")
    assert theirs["accuracy"] == ours["accuracy"] and theirs["n"] == ours["n"] == 24
    for words in (("mistakes", foreign), ("mistakes", foreign, photos), ("compare", plain, foreign, "--catalog", photos)):
        extra = ["-o", str(tmp_path / "compared")] if words[0] == "compare" else []
        ended = CliRunner().invoke(app, [*map(str, words), *extra])
        assert ended.exit_code == 0, ended.output


def test_rows_of_no_image_are_counted_and_said(photos: Path, tmp_path: Path) -> None:
    rows = [*rows_of(photos, "0", "1"), ["more/1.png", "0", "1", "0"], ["more/2.png", "1", "1", "0"]]
    value, notes, run, page = evaluate(write(tmp_path / "t.csv", rows), photos, tmp_path / "e")
    assert value["table"] == run.data["table"] and value["table"]["not_in_catalog"] == 2
    assert value["table"]["examples"]["not_in_catalog"] == ["more/1.png", "more/2.png"]
    assert "note: 2 rows of " in notes and "such as more/1.png" in notes
    assert "Note 2 rows of the table left out more/1.png and more/2.png: no image of the labelled set" in page


def test_rows_for_another_split_are_no_misfits(photos: Path, tmp_path: Path) -> None:
    found = catalogs.scan(photos)
    split = ["test" if i % 2 else "train" for i in range(len(found))]
    catalogs.save(found.with_column("split", split), photos.parent / "split.csv")
    rows = [[f"digits/{path}", *rest] for path, *rest in rows_of(photos, "0", "1", "2")]
    value, notes, _, _ = evaluate(write(tmp_path / "t.csv", rows), photos.parent / "split.csv", tmp_path / "e")
    assert value["split"] == "test" and value["n"] == 12
    assert (value["table"]["not_in_catalog"], value["table"]["no_row"]) == (0, 0)
    assert "rows of" not in notes and "no row of" not in notes


def test_labels_that_contradict_the_set_are_counted_and_said(photos: Path, tmp_path: Path) -> None:
    rows = rows_of(photos, "0", "1")
    changed = [["", "1", "fish"][i] if i < 3 else row[1] for i, row in enumerate(rows)]  # the first has none: no contradiction
    table = write(tmp_path / "t.csv", [[row[0], label, *row[2:]] for row, label in zip(rows, changed, strict=True)])
    value, notes, run, page = evaluate(table, photos, tmp_path / "e")
    assert value["table"]["other_label"] == run.data["table"]["other_label"] == 2
    first = {"path": rows[1][0], "table": "1", "catalog": "0"}
    assert value["table"]["examples"]["other_label"][0] == first
    assert "note: 2 rows of " in notes and f"{rows[1][0]} is '1' there and '0' here" in notes
    assert "Note 2 rows have another label in the table than in the labelled set The labelled set's labels count." in page
    assert f"{rows[1][0]} is “1” in the table and “0” in the set" in page


def test_images_of_other_classes_are_said_on_the_console_too(photos: Path, tmp_path: Path) -> None:
    value, notes, run, page = evaluate(write(tmp_path / "t.csv", rows_of(photos, "0", "1", "2")), photos, tmp_path / "e")
    assert value["not_among_classes"] == run.data["not_among_classes"] == 12
    assert "note: 12 images of " in notes and "(2/" in notes and "is '2')" in notes
    assert "12 images of classes that it does not know" in page


def test_images_without_a_row_are_not_called_broken(photos: Path, tmp_path: Path) -> None:
    rows = rows_of(photos, "0", "1", "2")
    value, notes, run, page = evaluate(write(tmp_path / "t.csv", rows[3:]), photos, tmp_path / "e")
    assert value["table"]["no_row"] == 3 and value["table"]["examples"]["no_row"] == [row[0] for row in rows[:3]]
    assert "note: 3 images of " in notes and f"is of that image (such as {rows[0][0]})" in notes
    assert "Caution The table has no row for 3 labelled images" in page
    assert "could not be decoded" not in page and "Found to be broken" not in page
    assert run.data["undecodable"] == {"test": []} and run.data["test"]["undecodable"] == 0


def test_a_path_that_stands_twice_is_refused_by_every_command(photos: Path, tmp_path: Path) -> None:
    rows = rows_of(photos, "0", "1")
    table = write(tmp_path / "t.csv", [*rows, rows[0]])
    for words in (("evaluate", table, photos), ("mistakes", table), ("mistakes", table, photos)):
        ended = CliRunner().invoke(app, [str(word) for word in words])
        assert ended.exit_code == 1 and f"{rows[0][0]} has more than one row" in " ".join(ended.output.split())


def test_a_bar_is_said_to_come_with_the_table(photos: Path, tmp_path: Path) -> None:
    rows = rows_of(photos, "0", "1")
    barred = write(tmp_path / "bar.csv", [[*row, "0.3"] for row in rows], more="bar:1")
    _, _, run, page = evaluate(barred, photos, tmp_path / "e")
    assert run.data["threshold"] == {"by": "given with the table"}
    assert "from a probability of 0.3 on (criterion: given with the table)" in page
    _, _, _, plain = evaluate(write(tmp_path / "t.csv", rows), photos, tmp_path / "plain")
    assert "from a probability of 0.5 on (criterion: half)" in plain


def test_an_evaluation_is_not_written_over_anything_else(photos: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", rows_of(photos, "0", "1"))
    out = tmp_path / "out"
    evaluate(table, photos, out)
    evaluate(table, photos, out)  # an earlier evaluation is replaced
    (out / "classifier.safetensors").write_bytes(b"")
    before = (out / "run.json").read_bytes()
    ended = CliRunner().invoke(app, ["evaluate", str(table), str(photos), "-o", str(out)])
    assert ended.exit_code == 2 and "something else than an evaluation" in ended.output
    assert (out / "run.json").read_bytes() == before
