"""`audit` and `label-next` on digits, whose pixels are the features."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sightline import catalog as catalogs
from sightline.cli.app import app
from sightline.records.audit import AuditRecord
from sightline.runs import test_set_log
from tests.conftest import write_few_digits


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images of each of two digits; one 0 stands under 1, and one file is broken."""
    folder = write_few_digits(tmp_path_factory.mktemp("audited") / "digits", 20)
    for digit in range(2, 10):
        for file in (folder / str(digit)).iterdir():
            file.unlink()
        (folder / str(digit)).rmdir()
    first = min((folder / "0").iterdir())
    first.rename(folder / "1" / "wrong.png")
    (folder / "0" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_LEDGER", str(tmp_path / "ledger"))
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


def sightline(*arguments: str | Path) -> str:
    ended = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


@pytest.mark.slow
def test_audit_finds_a_wrong_label_and_fixes_it_in_a_new_catalog(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    value = json.loads(sightline("audit", photos, "-o", out, "--backbone", "pixels", "--fix", "quarantine"))
    first = value["label_suspects"][0]
    assert (first["path"], first["label"], first["suggested"], first["likely"]) == ("1/wrong.png", "1", "0", True)
    assert len(value["label_suspects"]) == 40 and value["problems"][0]["path"] == "0/broken.png"
    fixed = catalogs.load(out / "catalog-fixed.csv", root=photos)
    problems = dict(zip(fixed.paths, fixed.column("problem"), strict=True))
    assert "likely wrong" in (problems["1/wrong.png"] or "") and value["changes"] >= 1
    assert (photos / "1" / "wrong.png").is_file()
    record = AuditRecord.from_json(json.loads((out / "audit.json").read_text(encoding="utf-8")))
    assert record.likely[0].thumbnail is not None and "1/wrong.png" in (out / "audit.html").read_text(encoding="utf-8")


def test_dedupe_and_relabel_write_a_new_catalog_and_the_list_of_changes(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    first = min(p for p in (folder / "0").iterdir() if p.name != "broken.png")
    shutil.copyfile(first, folder / "0" / "zz_copy.png")
    before = {p: p.read_bytes() for p in folder.rglob("*.png")}
    (tmp_path / "labels.csv").write_text("path,label,reason\n1/wrong.png,0,it is a 0\n", encoding="utf-8")
    fixes = ["--fix", "dedupe", "--fix", f"relabel={tmp_path / 'labels.csv'}"]
    value = json.loads(sightline("audit", folder, "-o", tmp_path / "out", "--backbone", "pixels", *fixes))
    fixed = catalogs.load(tmp_path / "out" / "catalog-fixed.csv", root=folder)
    problems = dict(zip(fixed.paths, fixed.column("problem"), strict=True))
    labels = dict(zip(fixed.paths, fixed.column("label"), strict=True))
    assert labels["1/wrong.png"] == "0" and problems["1/wrong.png"] is None
    copies = {path: problems[path] for path in (f"0/{first.name}", "0/zz_copy.png")}
    assert sum(problem is None for problem in copies.values()) == 1, "one of the two files is kept"
    rows = list(csv.DictReader((tmp_path / "out" / "changes.csv").open(encoding="utf-8", newline="")))
    assert value["changes"] == len(rows) and {"dedupe", "relabel"} <= {row["action"] for row in rows}
    relabelled = next(row for row in rows if row["path"] == "1/wrong.png")
    assert (relabelled["before"], relabelled["after"], relabelled["reason"]) == ("1", "0", "it is a 0")
    assert {p: p.read_bytes() for p in folder.rglob("*.png")} == before, "no photograph is changed"


@pytest.mark.slow
def test_test_labels_are_judged_only_on_request_which_is_logged(photos: Path, tmp_path: Path) -> None:
    catalog = catalogs.scan(photos)
    splits = ["test" if i % 2 else "train" for i in range(len(catalog))]
    catalogs.save(catalog.with_column("split", splits), tmp_path / "catalog.csv")
    closed = json.loads(sightline("audit", tmp_path / "catalog.csv", "-o", tmp_path / "a", "--backbone", "pixels"))
    assert {s["split"] for s in closed["label_suspects"]} == {"train"} and not closed["test_included"]
    assert not (test_set_log.root() / "openings.jsonl").is_file()
    command = ["audit", tmp_path / "catalog.csv", "-o", tmp_path / "b", "--backbone", "pixels", "--include-test"]
    opened = json.loads(sightline(*command))
    assert {s["split"] for s in opened["label_suspects"]} == {"train", "test"}
    assert '"verb":"audit"' in (test_set_log.root() / "openings.jsonl").read_text(encoding="utf-8")


@pytest.mark.slow
def test_images_that_another_set_shares_are_listed(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "copy.png").write_bytes((photos / "1" / "wrong.png").read_bytes())
    value = json.loads(sightline("audit", photos, "-o", tmp_path / "a", "--backbone", "none", "--against", other))
    assert [(s["path"], s["other"], s["kind"]) for s in value["shared"]] == [("1/wrong.png", "copy.png", "exact")]
    assert value["label_suspects"] == [] and any("need a network" in note for note in value["notes"])


def test_wrong_arguments_are_refused(photos: Path, tmp_path: Path) -> None:
    for arguments, word in (
        (["audit", photos, "--fix", "polish"], "quarantine"),
        (["audit", photos, "--fix", "relabel=none.csv"], "none.csv"),
        (["audit", tmp_path / "missing"], "missing"),
        (["label-next", tmp_path / "missing"], "missing"),
    ):
        ended = CliRunner().invoke(app, [*map(str, arguments), "-o", str(tmp_path / "x")])
        assert ended.exit_code == 2 and word in ended.output and "Traceback" not in ended.output


def test_label_next_takes_a_model_and_a_folder_in_either_order(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        'method = "features"\nbackbone = "pixels"\nhead = "centroid"\n[settings]\nfolds = 2\n'
    )
    sightline("train", photos, tmp_path / "recipe.toml", "-o", tmp_path / "run")
    others = write_few_digits(tmp_path / "others", 30)
    command = ["label-next", others, tmp_path / "run", "-n", "5", "-o", tmp_path / "next"]
    rows = json.loads(sightline(*command))
    assert len(rows) == 5 and rows == json.loads(sightline("label-next", tmp_path / "run", others, *command[3:]))
    assert all(row["predicted"] in ("0", "1") and row["reason"].startswith("uncertain") for row in rows)
    known = {file.read_bytes() for file in photos.rglob("*.png")}
    assert not any((others / row["path"]).read_bytes() in known for row in rows), "labelled images are left out"
    too_many = CliRunner().invoke(app, ["label-next", "a", "b", "c"])
    assert too_many.exit_code == 2 and "not 3 arguments" in too_many.output


def test_label_next_proposes_by_coverage_without_any_label(photos: Path, tmp_path: Path) -> None:
    rows = json.loads(sightline("label-next", photos, "-n", "6", "--backbone", "pixels", "-o", tmp_path / "next"))
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6] and len({row["path"] for row in rows}) == 6
    assert rows[0]["reason"].startswith("coverage") and rows[0]["predicted"] is None
    assert (tmp_path / "next" / "label_next.png").is_file()
