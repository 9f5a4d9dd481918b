"""The whole command line on a small real data set: twice, with equal bytes; unchanged, without torch; with more photographs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sightline as sl
from sightline import catalog, classifier, report
from sightline.cli.app import app
from sightline.inputs import read_predictions
from sightline.pixels import decoding
from sightline.records import Run
from sightline.store import Cache
from tests.conftest import write_few_digits

METHODS = "baseline,shortcut,features"


def in_a_process(*arguments: str, cache: Path) -> Any:
    """Run the command line in a process of its own; return its JSON value."""
    environment = {**os.environ, "SIGHTLINE_CACHE": str(cache), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "sightline", *arguments], capture_output=True, text=True, encoding="utf-8", env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def sightline(*arguments: str, cache: Path, code: int = 0) -> Any:
    """Run the command line; return its JSON value if --json is among the arguments, else its standard error."""
    done = CliRunner().invoke(app, list(arguments), env={"SIGHTLINE_CACHE": str(cache)})
    assert done.exit_code == code, done.stderr[-3000:]
    return json.loads(done.stdout) if "--json" in arguments and done.stdout else done.stderr


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Digits, a cache, and a first run on them."""
    folder = tmp_path_factory.mktemp("journey")
    photos = write_few_digits(folder / "digits", 30)
    options = ["--backbone", "pixels", "--methods", METHODS, "--head", "logistic", "--json"]
    value = in_a_process("run", str(photos), "-o", str(folder / "runs"), *options, cache=folder / "cache")
    return {"folder": folder, "photos": photos, "options": options, "value": value}


def test_a_run_writes_all_files_and_consistent_scores(workplace: dict[str, Any]) -> None:
    value = workplace["value"]
    assert value["method"] == "features" and value["backbone"] == "pixels" and value["head"] == "logistic"
    assert value["test"]["n"] == 60 and value["test"]["accuracy"] > 0.75
    assert value["test"]["accuracy_low"] < value["test"]["accuracy"] < value["test"]["accuracy_high"]
    run = Run.load(Path(value["run"]))
    audit = run.record.audit  # suspects in test are listed too, since the test split was scored
    assert audit is not None and audit.test_included and audit.judged == 300
    assert {s.split for s in audit.label_suspects} == {"train", "val", "test"}
    answers = read_predictions(run.folder / "predictions" / "test.csv")
    assert (answers.y_pred == answers.y_true).mean() == pytest.approx(value["test"]["accuracy"], abs=1e-12)
    assert {s["method"] for s in run.data["ladder"]} == {"baseline", "shortcut", "features"}
    (chosen,) = [s["val"] for s in run.data["ladder"] if s["chosen"]]
    assert {k: run.data["val"][k] for k in ("accuracy", "accuracy_low", "accuracy_high")}.items() <= chosen.items()
    wrong = int((answers.y_pred != answers.y_true).sum())
    assert len(run.data["mistakes"]) == wrong
    assert sum(not e["correct"] for e in run.data["explanations"]) == wrong
    assert all((run.folder / e["overlay"]).is_file() for e in run.data["explanations"])
    assert len(run.data["test_openings"]) == 1
    page = Path(value["report"]).read_text(encoding="utf-8")
    assert page.startswith("<!") and not re.findall(r"(?:src|href|action)=[\"']?(?:https?:)?//|url\(|@import", page)


@pytest.mark.slow
def test_the_same_run_twice_writes_equal_bytes(workplace: dict[str, Any], tmp_path: Path) -> None:
    again = in_a_process(
        "run", str(workplace["photos"]), "-o", str(tmp_path / "runs"), *workplace["options"], cache=tmp_path / "c"
    )
    first, second = Path(workplace["value"]["run"]), Path(again["run"])
    assert first.name == second.name
    names = ["classifier.safetensors", "predictions/test.csv", "predictions/val.csv", "recipe.toml"]
    names += sorted(p.relative_to(first).as_posix() for p in first.rglob("*.png"))
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_an_unchanged_run_is_reused_without_importing_torch(workplace: dict[str, Any]) -> None:
    code = (
        "import sys\nfrom sightline.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules, 'torch was imported'\n"
    )
    folder = workplace["folder"]
    before = (Path(workplace["value"]["run"]) / "run.json").read_bytes()
    arguments = ["run", str(workplace["photos"]), "-o", str(folder / "runs"), *workplace["options"]]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "SIGHTLINE_CACHE": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["run"] == workplace["value"]["run"]
    assert (Path(workplace["value"]["run"]) / "run.json").read_bytes() == before


@pytest.mark.slow
def test_added_photographs_leave_the_splits_of_others_unchanged(workplace: dict[str, Any], tmp_path: Path) -> None:
    photos, runs = tmp_path / "digits", tmp_path / "runs"
    shutil.copytree(workplace["photos"], photos)
    options = ["-o", str(runs), "--methods", "baseline", "--json"]
    first = sightline("run", str(photos), *options, "--heatmaps", "none", cache=tmp_path / "cache")
    write_few_digits(photos, 34)
    second = sightline("run", str(photos), *options, "--heatmaps", "none", cache=tmp_path / "cache")
    assert first["run"] != second["run"]
    tables = [catalog.load(Path(v["run"]) / "catalog.csv") for v in (first, second)]
    before, after = (dict(zip(t.column("content"), t.column("split"), strict=True)) for t in tables)
    assert len(after) > len(before)
    assert all(after[content] == split for content, split in before.items())


def test_the_classifier_predicts_files_folders_and_arrays(workplace: dict[str, Any]) -> None:
    import numpy as np
    from PIL import Image

    folder = workplace["folder"]
    model = workplace["value"]["classifier"]
    broken = folder / "broken.png"
    broken.write_bytes(b"not an image")
    one = min((workplace["photos"] / "3").iterdir())
    rows = sightline("predict", model, str(workplace["photos"] / "3"), str(broken), "--json", cache=folder / "cache", code=1)
    assert len(rows) == 31 and "error" in rows[-1] and rows[-1]["path"] == str(broken)
    assert sum(r.get("label") == "3" for r in rows) > 20
    loaded = classifier.load(model)
    pixels = np.asarray(Image.open(one).convert("RGB"))
    from_array = loaded.predict([pixels]).probs[0]
    from_file = loaded.predict([one]).probs[0]
    np.testing.assert_allclose(from_array, from_file, atol=1e-12)


@pytest.mark.slow
def test_evaluate_says_which_images_were_in_training(workplace: dict[str, Any]) -> None:
    folder, value = workplace["folder"], workplace["value"]
    arguments = ["evaluate", value["run"], str(workplace["photos"]), "-o", str(folder / "scored"), "--json"]
    scores = sightline(*arguments, cache=folder / "cache")
    run = Run.load(Path(scores["run"]))
    assert scores["n"] == 300 and run.data["in_training"] == 240
    assert run.data["test_without_leaks"]["n"] == 60
    answers = Path(value["run"]) / "predictions" / "test.csv"
    foreign = ["evaluate", str(answers), str(workplace["photos"]), "-o", str(folder / "foreign"), "--json"]
    same = sightline(*foreign, cache=folder / "cache")
    assert same["n"] == 60 and same["accuracy"] == pytest.approx(value["test"]["accuracy"])
    assert same["roc_auc"] == pytest.approx(Run.load(Path(value["run"])).data["test"]["roc_auc"])


def test_explain_writes_overlays_and_raw_heatmaps(workplace: dict[str, Any], tmp_path: Path) -> None:
    import numpy as np

    one = min((workplace["photos"] / "7").iterdir())
    arguments = ["explain", workplace["value"]["run"], str(one), "-o", str(tmp_path / "e"), "--target", "7", "--json"]
    (row,) = sightline(*arguments, cache=workplace["folder"] / "cache")
    assert row["target"] == "7" and Path(row["overlay"]).is_file()
    with np.load(row["heat"], allow_pickle=False) as file:
        assert file["heat"].ndim == 2 and np.isfinite(file["heat"]).all() and file["heat"].any()
        assert str(file["target"]) == "7" and len(file["classes"]) == 10 and file["box"].shape == (4,)
    assert row["check"]["verdict"] in ("passes", "weak", "don't rely on this") and row["check"]["why"]
    assert {"deletion", "insertion"} <= set(row["check"]["heat"]) and len(row["top"]) == 5


def test_covering_a_region_reports_whether_the_prediction_changes(workplace: dict[str, Any], tmp_path: Path) -> None:
    one = min((workplace["photos"] / "7").iterdir())
    arguments = ["explain", workplace["value"]["run"], str(one), "-o", str(tmp_path / "e"), "--hide", "8,0,16,16", "--json"]
    (row,) = sightline(*arguments, cache=workplace["folder"] / "cache")
    hidden = row["hidden"]
    assert hidden["regions"] == [[8, 0, 16, 16]] and hidden["share"] == 0.25 and hidden["before"] != hidden["after"]
    assert Path(hidden["picture"]).is_file()


def test_a_run_stores_the_checks_of_its_heatmaps(workplace: dict[str, Any]) -> None:
    data = json.loads((Path(workplace["value"]["run"]) / "run.json").read_text(encoding="utf-8"))
    kept = data["heat_checks"]
    assert kept["verdict"] in ("passes", "weak", "don't rely on this") and kept["images"] == 24
    assert {f["check"] for f in kept["findings"]} >= {"classifier", "against random", "against edges", "noise"}
    assert all(e["verdict"] for e in data["explanations"]) and len(kept["chance"]) >= 20
    held_out = {c["class"]: c["n"] for c in data["heat_global"]["classes"]}
    highest = data["heat_global"]["highest"]
    assert highest["n"] > held_out[highest["class"]]  # filled up with training images
    assert data["heat_global"]["classes"] and all(0 <= c["outside"] <= 1 for c in data["heat_global"]["classes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere"], "nowhere"),
        (["run", "{photos}", "--methods", "featurs"], "did you mean 'features'"),
        (["run", "{photos}", "--head", "logistc"], "did you mean 'logistic'"),
        (["run", "{photos}", "--test", "1.5"], "1.5"),
        (["run", "{photos}", "--positive", "eleven", "--backbone", "pixels", "--methods", "baseline"], "eleven"),
        (["predict", "nowhere.safetensors", "x.png"], "nowhere.safetensors"),
        (["explain", "{run}", "{photos}/3", "--target", "eleven"], "eleven"),
        (["explain", "{run}", "{photos}/3", "--hide", "1,2,3"], "1,2,3"),
        (["explain", "{run}", "{photos}/3", "--hide", "900,2,3,3"], "beyond"),
        (["explain", "{run}", "{photos}/3", "--method", "gradcan"], "did you mean 'gradcam'"),
        (["explain", "resnet5o", "{photos}/3"], "did you mean 'resnet50'"),
        (["report", "{photos}"], "run.json"),
    ],
)
def test_invalid_requests_exit_with_code_2(workplace: dict[str, Any], arguments: list[str], message: str) -> None:
    filled = [a.format(photos=workplace["photos"], run=workplace["value"]["run"]) for a in arguments]
    said = sightline(*filled, cache=workplace["folder"] / "cache", code=2)
    assert message in said and "Traceback" not in said


def test_a_report_is_written_from_the_run_alone(workplace: dict[str, Any], tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(workplace["value"]["run"], moved)
    page = report.write_report([Run.load(moved)], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "pixels" in page


def test_a_run_decodes_each_photograph_once_for_statistics_and_once_for_its_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further decodes are those of the pictures in the run folder."""
    counts: Counter[bytes] = Counter()
    resized = decoding._resized

    def counted(data: bytes, *arguments: Any) -> Any:
        counts[data] += 1
        return resized(data, *arguments)

    monkeypatch.setattr(decoding, "_resized", counted)
    photos = write_few_digits(tmp_path / "digits", 12)
    own = {"backbones": ("pixels",), "methods": tuple(METHODS.split(",")), "head": "ridge", "heatmaps": "none"}
    run = sl.run(str(photos), out=str(tmp_path / "runs"), cache=Cache(tmp_path / "cache"), **own)  # type: ignore[arg-type]
    pictures = [file for file in run.folder.rglob("*") if file.suffix in (".png", ".jpg", ".jpeg")]
    assert len(counts) == 120 and min(counts.values()) == 2
    assert counts.total() <= 2 * 120 + len(pictures), (counts.total(), len(pictures))
