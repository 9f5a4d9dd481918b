"""`compare`: runs and tables on the same images, refusals, the page, and the test-set log."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline import catalog as catalogs
from sightline import inputs
from sightline.cli.app import app
from sightline.commands import compare as compare_command
from sightline.commands import evaluate as evaluate_command
from sightline.commands import train as train_command
from sightline.errors import DataError, RequestError
from sightline.records import Recipe, Run
from sightline.runs import test_set_log
from sightline.store import Cache

HOSTILE = '<script>alert("1")</script>'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three trained runs with the same split, whose test split was not used."""
    from tests.conftest import write_few_digits

    folder = tmp_path_factory.mktemp("compare")
    cache = Cache(folder / "cache")
    found = catalogs.scan(str(write_few_digits(folder / "digits", 30)))
    divided = catalogs.split(found, seed=0, clusters=catalogs.find_duplicates(found, cache=cache))
    for name, head in (("one", "centroid"), ("two", "ridge"), ("three", "knn")):
        train_command.train(divided, Recipe(backbone="pixels", head=head), folder / name, cache=cache)
    catalogs.save(divided, folder / "digits.csv")
    return {"folder": folder, "cache": cache, "divided": divided}


def compare(place: dict[str, Any], *names: str, out: Path, **options: Any) -> Any:
    """A comparison of runs by name."""
    subjects = [str(place["folder"] / n) if "/" not in n else n for n in names]
    return compare_command.compare(subjects, out=str(out), cache=place["cache"], **options)


def test_cross_validated_predictions_are_compared_unless_all_runs_used_the_test_split(
    place: dict[str, Any], tmp_path: Path
) -> None:
    done = compare(place, "one", "two", "three", out=tmp_path / "val")
    assert done.data["split"] == done.data["images"] == "cross-validated" and len(done.data["pairs"]) == 3
    assert not (test_set_log.root() / "openings.jsonl").exists() and not done.data["test_openings"]
    first = done.data["scores"][0]
    assert first["accuracy"] == pytest.approx(Run.load(place["folder"] / "one").data["val"]["accuracy"])


@pytest.mark.slow
def test_a_comparison_on_the_test_split_is_one_access(place: dict[str, Any], tmp_path: Path) -> None:
    done = compare(place, "one", "two", out=tmp_path / "a", split="test")
    assert done.data["n"] == 60 and len(done.data["test_openings"]) == 1
    assert done.data["test_openings"][0]["classifiers"] == 2
    again = compare(place, "two", "one", out=tmp_path / "b", split="test")
    assert len(again.data["test_openings"]) == 1 and not again.data["ledger"]["new"]
    # evaluate opens what the comparison has seen, by the classifier itself: nothing new either
    same = evaluate_command.evaluate(str(place["folder"] / "one"), str(place["folder"] / "digits.csv"), out=str(tmp_path / "e"))
    assert len(same.data["test_openings"]) == 1
    third = compare(place, "one", "three", out=tmp_path / "c", split="test")
    assert [x["verb"] for x in third.data["test_openings"]] == ["compare", "compare"]
    assert third.data["ledger"]["classifiers"] == 3
    page = (tmp_path / "c" / "report.html").read_text(encoding="utf-8")
    assert "have been used 2 times" in page and "3 classifiers have been scored on these images" in page
    assert "have been used" not in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")


def test_predictions_of_a_table_are_matched_to_images(place: dict[str, Any], tmp_path: Path) -> None:
    table = tmp_path / "theirs.csv"
    text = (place["folder"] / "two" / "predictions" / "val.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))
    with open(table, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", *rows[0][4:]])
        out.writerows([[f"elsewhere/{row[0]}", *row[4:]] for row in reversed(rows[1:])])
    done = compare(place, "one", str(table), out=tmp_path / "table")
    own = compare(place, "one", "two", split="val", out=tmp_path / "own")
    assert done.data["pairs"][0]["difference"] == own.data["pairs"][0]["difference"]
    assert done.data["patterns"] == own.data["patterns"]


def test_a_run_and_a_table_of_all_images_are_compared_on_the_val_split(place: dict[str, Any], tmp_path: Path) -> None:
    folder = place["folder"]
    val, crossed = (inputs.read_predictions(folder / "two" / "predictions" / f"{n}.csv") for n in ("val", "cross_validated"))
    assert set(val.paths) == set(place["divided"].where(split="val").paths) < set(crossed.paths)
    table = tmp_path / "all.csv"
    table.write_bytes((folder / "two" / "predictions" / "cross_validated.csv").read_bytes())
    done = compare(place, "one", str(table), out=tmp_path / "table")
    assert done.data["split"] == "val" and done.data["n"] == len(val)
    assert done.data["scores"][1]["accuracy"] == float((val.y_pred == val.y_true).mean())


def test_other_images_are_refused_with_counts(place: dict[str, Any], tmp_path: Path) -> None:
    table = tmp_path / "part.csv"
    lines = (place["folder"] / "two" / "predictions" / "val.csv").read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(lines[:-7]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"45 images\) and part \(38\) .* 38 in both, 7 only in one"):
        compare(place, "one", str(table), out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_all_classifiers_predict_a_given_catalog(place: dict[str, Any], tmp_path: Path) -> None:
    folder = place["folder"]
    subjects = [str(folder / "one" / "classifier.safetensors"), str(folder / "two")]
    done = compare_command.compare(subjects, catalog=str(folder / "digits"), out=str(tmp_path / "c"), cache=place["cache"])
    assert done.data["n"] == 60 and done.data["split"] == "all"
    assert "240 images used to train one of the classifiers are left out" in done.data["notes"][0]
    with pytest.raises(DataError, match="all of these images were used for training"):
        own: dict[str, Any] = {"cache": place["cache"], "split": "train", "out": str(tmp_path / "t")}
        compare_command.compare(subjects, catalog=str(folder / "digits.csv"), **own)


def test_the_folder_of_a_comparison_lists_its_disagreements(place: dict[str, Any], tmp_path: Path) -> None:
    done = compare(place, "one", "two", out=tmp_path / "a")
    rows = list(csv.DictReader((tmp_path / "a" / "disagreements.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(done.data["disagreements"]) > 3
    one, two = (inputs.read_predictions(Run.load(place["folder"] / n).held_out_file) for n in ("one", "two"))
    said = [dict(zip(p.paths, p.labels, strict=True)) for p in (one, two)]
    for row in rows:
        assert [row["predicted:one"], row["predicted:two"]] == [s[row["path"]] for s in said]
        assert row["right:one"] == str(int(row["predicted:one"] == row["label"]))
    assert (tmp_path / "a" / "thumbnails" / "001.jpg").is_file()
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == min(60, len(rows)) and page.count("<script") == 1
    assert re.search(r"default-src 'none'; img-src data:; style-src 'sha256-[^']+'", page)


def test_names_are_escaped_in_the_page(place: dict[str, Any], tmp_path: Path) -> None:
    from sightline import report
    from sightline.records import ComparisonRecord

    done = compare(place, "one", "two", out=tmp_path / "a")
    text = json.dumps(done.data).replace('"one"', json.dumps(HOSTILE)).replace("digit_", HOSTILE.replace('"', "'"))
    report.write_comparison(ComparisonRecord.from_json(json.loads(text)), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1 and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["one"], "at least two"),
        (["one", "one"], "named twice"),
        (["one", "nothing"], "nothing"),
        (["one", "two", "--split", "tset"], "did you mean 'test'"),
        (["one", "nothing.csv"], "nothing.csv does not exist"),
    ],
)
def test_invalid_requests_are_refused_with_the_reason(
    arguments: list[str], said: str, place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place["folder"])
    ended = CliRunner().invoke(app, ["compare", *arguments])
    assert ended.exit_code == 2 and said in ended.stderr, ended.stderr


def test_json_has_the_documented_fields(place: dict[str, Any], tmp_path: Path, cli: Callable[..., Any]) -> None:
    names = [str(place["folder"] / n) for n in ("one", "two")]
    ended = cli("compare", *names, "-o", str(tmp_path / "a"), "--json")
    assert ended.code == 0, ended.err
    value = json.loads(ended.out)
    assert value["runs"] == names and value["n"] == 240
    (pair,) = value["pairs"]
    assert [pair["a"], pair["b"]] == names
    assert {"difference", "low", "high", "p", "p_corrected", "verdict", "images_needed"} <= set(pair)
    assert value["disagreements"]


def test_the_folder_of_a_run_is_not_overwritten(place: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="holds a run"):
        compare(place, "one", "two", out=place["folder"] / "three")


def test_duplicates_count_together(place: dict[str, Any], tmp_path: Path) -> None:
    """Six pictures, each four times with other bytes: six clusters, as `evaluate` counts them."""
    from PIL import Image

    from sightline import catalog as catalogs

    taken: dict[str, list[Path]] = {"0": [], "1": []}
    found = place["divided"]
    for path, label in zip(found.files(), found.column("label"), strict=True):
        if label in taken and len(taken[label]) < 3:
            taken[label].append(path)
    rows = []
    for label, files in taken.items():
        (tmp_path / "near" / label).mkdir(parents=True)
        for number, file in enumerate(files):
            for copy, kind in enumerate(("png", "bmp", "tiff", "gif")):
                Image.open(file).save(tmp_path / "near" / label / f"{number}{copy}.{kind}")
                rows.append((f"{label}/{number}{copy}.{kind}", label, number))
    for name, wrong in (("a", 0), ("b", 2)):
        with open(tmp_path / f"{name}.csv", "w", encoding="utf-8", newline="") as file_:
            out = csv.writer(file_)
            out.writerow(("path", "label", "p:0", "p:1"))
            out.writerows((p, y, *((0.9, 0.1) if (y == "0") != (n < wrong) else (0.1, 0.9))) for p, y, n in rows)
    tables = [str(tmp_path / f"{name}.csv") for name in ("a", "b")]
    done = compare_command.compare(tables, catalog=str(tmp_path / "near"), out=str(tmp_path / "c"), cache=place["cache"])
    clusters = catalogs.find_duplicates(catalogs.scan(tmp_path / "near"), cache=place["cache"])
    assert done.data["clusters"] == 24 - sum(len(c) - 1 for c in (*clusters.exact, *clusters.near)) == 6
    (pair,) = done.data["pairs"]
    assert pair["p"] == pytest.approx(0.125)  # two of three in either class, so four of the six clusters: 2 · 2⁻⁴
    low, high = (done.data["scores"][1][k] for k in ("accuracy_low", "accuracy_high"))
    assert high - low > 0.5
    assert "clusters: duplicates and images of one group count as one cluster" in (tmp_path / "c" / "report.html").read_text(
        "utf-8"
    )


def test_labels_that_are_not_classes_are_refused(place: dict[str, Any], tmp_path: Path) -> None:
    for name, first in (("a", "cat"), ("b", "Cat")):
        text = f"path,label,p:{first},p:dog\n1.jpg,cat,0.9,0.1\n2.jpg,dog,0.2,0.8\n"
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="not a class of b: 'Cat', 'dog'"):
        compare(place, str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), out=tmp_path / "c")


def bare(folder: Path) -> list[str]:
    """Two tables of predictions of images that do not exist."""
    for name, wrong in (("a", 2), ("b", 5)):
        rows = [
            (f"{i}.jpg", "cat" if i % 2 else "dog", *((0.9, 0.1) if (i < wrong) != (i % 2) else (0.2, 0.8))) for i in range(40)
        ]
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as text:
            csv.writer(text).writerows([("path", "label", "p:cat", "p:dog"), *rows])
    return [str(folder / "a.csv"), str(folder / "b.csv")]


def test_tables_without_pictures_are_listed_as_a_table(place: dict[str, Any], tmp_path: Path) -> None:
    done = compare(place, *bare(tmp_path), out=tmp_path / "c")
    page = (tmp_path / "c" / "report.html").read_text(encoding="utf-8")
    assert "no picture" not in page and "more, by name" not in page and 'class="list scroll"' not in page
    assert len(done.data["disagreements"]) == 3 and all(row["path"] in page for row in done.data["disagreements"])


def test_tables_without_run_have_no_splits(place: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--split needs runs, not tables") as caught:
        compare(place, *bare(tmp_path), out=tmp_path / "c", split="val")
    assert "--catalog" in str(caught.value.hint)


def test_a_catalog_without_usable_images_is_named(place: dict[str, Any], tmp_path: Path) -> None:
    lost = tmp_path / "lost.csv"
    lost.write_text("path,label,split\ngone/1.png,0,test\ngone/2.png,1,test\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test images of .*lost\.csv can be used: 2 missing"):
        compare(place, "one", "two", out=tmp_path / "c", catalog=str(lost))


def test_code_is_passed_to_classifiers_with_user_defined_networks(place: dict[str, Any], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes((place["folder"] / "two" / "predictions" / "val.csv").read_bytes())
    own: dict[str, Any] = {"catalog": str(place["folder"] / "digits.csv"), "split": "val", "code": "net.py:build"}
    with pytest.raises((DataError, RequestError)) as caught:
        compare(place, str(table), "one", out=tmp_path / "c", **own)
    assert "table of predictions" not in caught.value.message
