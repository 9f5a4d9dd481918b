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
from PIL import Image
from typer.testing import CliRunner

from sightline import catalog as catalogs
from sightline.cli.app import app
from sightline.errors import DataError
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


@pytest.mark.slow
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
    assert "Note 2 rows of the table of predictions ignored more/1.png and more/2.png: no image of the labelled set" in page


def test_rows_for_another_split_are_no_misfits(photos: Path, tmp_path: Path) -> None:
    found = catalogs.scan(photos)
    split = ["test" if i % 2 else "train" for i in range(len(found))]
    catalogs.save(found.with_column("split", split), photos.parent / "split.csv")
    rows = [[f"digits/{path}", *rest] for path, *rest in rows_of(photos, "0", "1", "2")]
    value, notes, _, _ = evaluate(write(tmp_path / "t.csv", rows), photos.parent / "split.csv", tmp_path / "e")
    assert value["split"] == "test" and value["n"] == 12
    assert (value["table"]["not_in_catalog"], value["table"]["no_row"]) == (0, 0)
    assert "rows of" not in notes and "no row of" not in notes


@pytest.fixture
def recurring(tmp_path: Path) -> Path:
    """A catalog with splits whose file names recur in both classes; 001 is of test, 002 of val, the others of train."""
    for name, colour in (("0", (220, 40, 40)), ("1", (40, 60, 220))):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (8 + i, 8), colour).save(tmp_path / "pets" / name / f"{i:03d}.png")
    found = catalogs.scan(tmp_path / "pets")
    splits = {"001.png": "test", "002.png": "val"}
    split = [splits.get(Path(path).name, "train") for path in found.paths]
    catalogs.save(found.with_column("split", split), tmp_path / "pets.csv")
    return tmp_path / "pets.csv"


@pytest.mark.slow
def test_a_row_is_the_image_of_its_whole_path_whichever_split_is_scored(recurring: Path, tmp_path: Path) -> None:
    whole = catalogs.load(recurring)
    perfect = [[path, "", *(("1", "0") if "/0/" in path else ("0", "1"))] for path in whole.paths]
    table = write(tmp_path / "all.csv", perfect)
    for split, n in (("train", 8), ("val", 2), ("test", 2), ("all", 12)):
        options = ["--split", split, "-o", str(tmp_path / split), "--json"]
        ended = CliRunner().invoke(app, ["evaluate", str(table), str(recurring), *options])
        assert ended.exit_code == 0, ended.output
        value = json.loads(ended.stdout)
        assert (value["accuracy"], value["n"], value["table"]["not_in_catalog"]) == (1.0, n, 0)
        listed = CliRunner().invoke(app, ["mistakes", str(table), str(recurring), "--split", split, "--json"])
        assert json.loads(listed.stdout) == []


def test_a_table_of_other_splits_is_refused_with_the_split_to_name(recurring: Path, tmp_path: Path) -> None:
    whole = catalogs.load(recurring)
    rows = [
        [path, "", "1", "0"]
        for path, split in zip(whole.paths, whole.column("split"), strict=True)
        if split in ("train", "val")
    ]
    for some, words, hint in (
        (rows, "they are 8 of train and 2 of val", "add --split train or --split val or --split all"),
        ([r for r in rows if "002" in r[0]], "they are 2 of val", "add --split val"),
    ):
        table = write(tmp_path / "t.csv", some)
        ended = CliRunner().invoke(app, ["evaluate", str(table), str(recurring), "-o", str(tmp_path / "e")])
        said = " ".join(ended.output.split())
        assert ended.exit_code == DataError.exit_code and "no row of the predictions is in the test split" in said
        assert words in said and said.rstrip().endswith(hint)


def test_labels_that_contradict_the_set_are_counted_and_said(photos: Path, tmp_path: Path) -> None:
    rows = rows_of(photos, "0", "1")
    changed = [["", "1", "fish"][i] if i < 3 else row[1] for i, row in enumerate(rows)]  # the first has none: no contradiction
    table = write(tmp_path / "t.csv", [[row[0], label, *row[2:]] for row, label in zip(rows, changed, strict=True)])
    value, notes, run, page = evaluate(table, photos, tmp_path / "e")
    assert value["table"]["other_label"] == run.data["table"]["other_label"] == 2
    first = {"path": rows[1][0], "table": "1", "catalog": "0"}
    assert value["table"]["examples"]["other_label"][0] == first
    assert "note: 2 rows of " in notes and f"{rows[1][0]} is '1' there and '0' here" in notes
    assert "Note 2 rows have a label that differs from the labelled set The labels of the labelled set are used." in page
    assert f"{rows[1][0]} is “1” in the table and “0” in the labelled set" in page


def test_images_of_other_classes_are_said_on_the_console_too(photos: Path, tmp_path: Path) -> None:
    value, notes, run, page = evaluate(write(tmp_path / "t.csv", rows_of(photos, "0", "1", "2")), photos, tmp_path / "e")
    assert value["not_among_classes"] == run.data["not_among_classes"] == 12
    assert "note: 12 images of " in notes and "(2/" in notes and "is '2')" in notes
    assert "12 images of classes that the classifier does not know" in page


def test_images_without_a_row_are_not_called_broken(photos: Path, tmp_path: Path) -> None:
    rows = rows_of(photos, "0", "1", "2")
    value, notes, run, page = evaluate(write(tmp_path / "t.csv", rows[3:]), photos, tmp_path / "e")
    assert value["table"]["no_row"] == 3 and value["table"]["examples"]["no_row"] == [row[0] for row in rows[:3]]
    assert "note: 3 images of " in notes and f"is of that image (such as {rows[0][0]})" in notes
    assert "Caution 3 labelled images without a row in the table of predictions" in page
    assert "could not be decoded" not in page and "Files that could not be decoded" not in page
    assert run.data["undecodable"] == {"test": []} and run.data["test"]["undecodable"] == 0


def test_a_path_that_stands_twice_is_refused_by_every_command(photos: Path, tmp_path: Path) -> None:
    rows = rows_of(photos, "0", "1")
    table = write(tmp_path / "t.csv", [*rows, rows[0]])
    for words in (("evaluate", table, photos), ("mistakes", table), ("mistakes", table, photos)):
        ended = CliRunner().invoke(app, [str(word) for word in words])
        assert ended.exit_code == 2 and f"{rows[0][0]} has more than one row" in " ".join(ended.output.split())


def test_a_bar_is_said_to_come_with_the_table(photos: Path, tmp_path: Path) -> None:
    rows = rows_of(photos, "0", "1")
    barred = write(tmp_path / "bar.csv", [[*row, "0.3"] for row in rows], more="bar:1")
    _, _, run, page = evaluate(barred, photos, tmp_path / "e")
    assert run.data["threshold"]["by"] == "given with the table"
    assert "at probability ≥ 0.3 (criterion: given with the table)" in page
    _, _, _, plain = evaluate(write(tmp_path / "t.csv", rows), photos, tmp_path / "plain")
    assert "at probability ≥ 0.5 (the default)" in plain


def test_an_evaluation_is_not_written_over_anything_else(photos: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", rows_of(photos, "0", "1"))
    out = tmp_path / "out"
    evaluate(table, photos, out)
    evaluate(table, photos, out)  # an earlier evaluation is replaced
    (out / "classifier.safetensors").write_bytes(b"")
    before = (out / "run.json").read_bytes()
    ended = CliRunner().invoke(app, ["evaluate", str(table), str(photos), "-o", str(out)])
    assert ended.exit_code == 2 and "already holds other results than an evaluation" in ended.output
    assert (out / "run.json").read_bytes() == before


def test_labels_do_where_the_pictures_are_not_here(photos: Path, tmp_path: Path) -> None:
    rows = rows_of(photos, "0", "1")
    table = write(tmp_path / "t.csv", rows)
    known, _, _, _ = evaluate(table, photos, tmp_path / "known")
    labels = tmp_path / "labels.csv"
    cells = [[f"gone/{row[0]}", row[1], "ab"[i % 2]] for i, row in enumerate(rows)]
    labels.write_text("\n".join(",".join(row) for row in [["path", "label", "camera"], *cells]) + "\n", encoding="utf-8")
    value, notes, run, page = evaluate(table, labels, tmp_path / "e")
    assert {k: value[k] for k in ("n", "accuracy", "roc_auc", "log_loss")} == {
        k: known[k] for k in ("n", "accuracy", "roc_auc", "log_loss")
    }
    said = "none of the 24 images exists (such as gone/0/"
    assert said in notes and said in page and "only the labels are used" in page
    assert run.data["ledger"]["counted"] is False and run.data["data"]["width"] is None
    assert {row["column"] for row in run.data["slices"]} == {"camera"}
    listed = CliRunner().invoke(app, ["mistakes", str(table), str(labels), "--json"])
    assert listed.exit_code == 0 and len(json.loads(listed.stdout)) == len(run.data["mistakes"])


@pytest.mark.slow
def test_what_is_wrong_with_all_files_is_said(photos: Path, tmp_path: Path) -> None:
    """A classifier has to see them, and so has a run."""
    lost = "path,label,split\ngone/1.png,0,test\ngone/2.png,1,test\n"
    (tmp_path / "lost.csv").write_text(lost, encoding="utf-8")
    first = next((photos / "0").iterdir()).as_posix()
    (tmp_path / "half.csv").write_text(f"{lost}{first},0,train\n", encoding="utf-8")
    ended = CliRunner().invoke(app, ["run", str(tmp_path / "lost.csv")])
    words = " ".join(ended.output.split())
    assert ended.exit_code == 2 and "none of the 2 labelled images of" in words
    assert "2 missing, the first " in words and "gone/1.png (missing: there is no such file)" in words
    assert "folder per class" not in words
    (photos.parent / "recipe.toml").write_text('backbone = "pixels"\nhead = "centroid"\n', encoding="utf-8")
    train = ["train", str(photos), str(photos.parent / "recipe.toml"), "-o", str(tmp_path / "run")]
    assert CliRunner().invoke(app, train).exit_code == 0
    for name in ("lost", "half"):
        ended = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), str(tmp_path / f"{name}.csv")])
        words = " ".join(ended.output.split())
        assert ended.exit_code == 2 and "none of the 2 labelled test images of" in words and "2 missing" in words, words


@pytest.mark.slow
def test_another_split_is_scored_where_it_is_named(photos: Path, tmp_path: Path) -> None:
    found = catalogs.scan(photos)
    split = ["test" if i % 3 else "val" for i in range(len(found))]
    catalogs.save(found.with_column("split", split), photos.parent / "parts.csv")
    table = write(tmp_path / "t.csv", [[f"digits/{path}", *rest] for path, *rest in rows_of(photos, "0", "1")])
    counts = {}
    for name in ("val", "test", "all"):
        words = ["evaluate", str(table), str(photos.parent / "parts.csv"), "--split", name]
        ended = CliRunner().invoke(app, [*words, "-o", str(tmp_path / name), "--json"])
        assert ended.exit_code == 0, ended.output
        counts[name] = json.loads(ended.stdout)["n"]
        assert ("test_openings" in Run.load(tmp_path / name).data) == (name != "val")
    assert counts == {"val": 8, "test": 16, "all": 24}
    listed = CliRunner().invoke(app, ["mistakes", str(table), str(photos.parent / "parts.csv"), "--split", "val", "--json"])
    wrong = Run.load(tmp_path / "val").data["mistakes"]
    assert [row["path"] for row in json.loads(listed.stdout)] == [row["path"] for row in wrong]
    ended = CliRunner().invoke(app, ["evaluate", str(table), str(photos), "--split", "tset"])
    assert ended.exit_code == 2 and "did you mean 'test'" in " ".join(ended.output.split())
    ended = CliRunner().invoke(app, ["mistakes", str(table), "--split", "val"])
    assert ended.exit_code == 2 and "--split needs a CATALOG" in " ".join(ended.output.split())


@pytest.mark.slow
def test_classes_may_stand_in_names_or_in_another_column(photos: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = []
    for path, label, *probs in rows_of(photos, "0", "1"):
        (flat / f"{label}_{Path(path).name}").write_bytes((photos / path).read_bytes())
        rows.append([f"{label}_{Path(path).name}", "", *probs])
    table = write(tmp_path / "t.csv", rows)
    other = tmp_path / "other.csv"
    lines = "".join(f"flat/{row[0]},{row[0][0]},{i % 2}\n" for i, row in enumerate(rows))
    other.write_text("path,digit,person\n" + lines, encoding="utf-8")  # two columns could be the class
    for words in ([str(flat), "--label-from", "^[0-9]"], [str(other), "--label-column", "digit"]):
        ended = CliRunner().invoke(app, ["evaluate", str(table), *words, "-o", str(tmp_path / "e"), "--json"])
        assert ended.exit_code == 0 and json.loads(ended.stdout)["n"] == 24, ended.output
        assert CliRunner().invoke(app, ["mistakes", str(table), *words]).exit_code == 0
        ended = CliRunner().invoke(app, ["evaluate", str(table), words[0]])
        assert ended.exit_code in (1, 2) and words[1] in ended.output  # what the hint names, the command has


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--crops", "10", "write crops = 10 under [settings] in"),
        ("--code", "net.py:build", 'write backbone = "net.py:build" in'),
        ("--positive", "0", 'write positive = "0" in'),
        ("--split", "val", "test is not used"),
        ("--label-from", "^.", "sightline scan"),
    ],
)
def test_a_recipe_takes_no_options_of_a_classifier(photos: Path, tmp_path: Path, option: str, value: str, hint: str) -> None:
    (tmp_path / "r.toml").write_text('backbone = "pixels"\nhead = "centroid"\n', encoding="utf-8")
    for more in ([], ["--learning-curve"]):
        ended = CliRunner().invoke(app, ["evaluate", str(photos), str(tmp_path / "r.toml"), option, value, *more])
        words = " ".join(ended.output.split())
        assert ended.exit_code == 2 and f"{option} has no effect on a recipe" in words and hint in words


@pytest.mark.parametrize(("option", "value"), [("--crops", "10"), ("--code", "net.py:build")])
def test_a_table_takes_no_options_of_a_network(photos: Path, tmp_path: Path, option: str, value: str) -> None:
    table = write(tmp_path / "t.csv", rows_of(photos, "0", "1"))
    for verb in ("evaluate", "mistakes"):
        ended = CliRunner().invoke(app, [verb, str(table), str(photos), option, value])
        words = " ".join(ended.output.split())
        assert ended.exit_code == 2 and "needs a classifier" in words and f"leave out {option}" in words
