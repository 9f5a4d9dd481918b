"""`predict`: sources, order, output files, resume, events, copies, and drift."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import sightline as sl
from sightline import files
from sightline.catalog import requested_images
from sightline.commands import drift, prediction_groups, prediction_parts
from sightline.commands import predict as command
from sightline.errors import RequestError
from sightline.inputs import read_predictions
from sightline.pixels.capture_time import capture_time
from sightline.runs import executor
from sightline.store import Cache
from tests.conftest import write_few_digits

EXIF_TIME, DATE_TIME = 0x9003, 0x0132


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    catalog = sl.split(sl.scan(write_few_digits(folder / "digits", 8)))
    recipe = sl.Recipe(backbone="pixels", head="logistic", settings={"folds": 2})
    sl.fit(catalog, recipe, out=folder / "run", cache=Cache(folder / "cache"))
    return folder / "run"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_few_digits(Path("photos"), 2)


def predicted(
    run: Path, paths: list[Any], cache: Cache, lines: Any = (), **options: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    found: list[dict[str, Any]] = []
    notes: list[str] = []

    def keep(result: command.PredictResult) -> None:
        found.extend(result.entries())
        notes.extend(result.notes)

    command.predict(run, paths, command.PredictOptions(**options), keep, lines=lines, cache=cache)
    return found, notes


def timed(file: Path, time_text: str, seed: int = 0) -> Path:
    """A photograph with a capture time."""
    exif = Image.Exif()
    if file.suffix == ".tiff":
        exif[DATE_TIME] = time_text
    else:
        exif[0x8769] = {EXIF_TIME: time_text}
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(file, exif=exif)
    return file


def test_sources_keep_their_order_and_unreadable_files_their_place(run: Path, photos: Path, cache: Cache) -> None:
    Path("broken.jpg").write_text("not an image", encoding="utf-8")
    Path("list.csv").write_text("file,site\nphotos/1/digit_0001.png,A\nmissing.png,B\n", encoding="utf-8")
    paths = ["photos/2", "broken.jpg", "list.csv", "photos/3/*.png", "-"]
    lines = ["photos/5/digit_0005.png\n", "gone.png\n"]
    entries, _ = predicted(run, paths, cache, lines=lines)
    names = [entry["path"] for entry in entries]
    of_2, of_3 = sorted(map(str, Path("photos/2").iterdir())), sorted(map(str, Path("photos/3").iterdir()))
    five = str(Path("photos/5/digit_0005.png"))
    one = str(Path("photos/1/digit_0001.png"))
    assert names == [*of_2, "broken.jpg", one, "missing.png", *of_3, five.replace(os.sep, "/"), "gone.png"]
    assert [n for n, entry in zip(names, entries, strict=True) if "error" in entry] == ["broken.jpg", "missing.png", "gone.png"]
    assert entries[names.index("missing.png")]["columns"] == {"site": "B"}
    everything = sl.load(run).predict([Path(n) for n in names if Path(n).is_file()], cache=cache)
    for path, probs in zip(everything.paths, everything.probs, strict=True):
        assert list(entries[names.index(path)]["probabilities"].values()) == probs.tolist()


def test_a_pattern_or_path_that_matches_nothing_is_refused(run: Path, photos: Path, cache: Cache) -> None:
    for path in ("photos/*.tiff", "nowhere", "nowhere/*.jpg"):
        with pytest.raises(RequestError, match=r"no file matches|does not exist"):
            predicted(run, [path], cache)


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet"])
def test_every_format_holds_every_image_and_the_tables_own_columns(run: Path, photos: Path, cache: Cache, name: str) -> None:
    rows = [f"photos/{i}/digit_000{i}.png,{i},=1+1,{i}" for i in range(4)] + ["gone.png,x,y,z"]
    Path("t.csv").write_text("\n".join(["path,label,site,probability", *rows]) + "\n", encoding="utf-8")
    entries, _ = predicted(run, ["t.csv"], cache, out=Path(name), top=2, sets=0.5)
    assert not list(Path().glob(".out*"))
    if name.endswith(".jsonl"):
        assert [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()] == entries
        return
    if name.endswith(".csv"):
        with open(name, encoding="utf-8", newline="") as stream:
            table = list(csv.DictReader(stream))
        assert table[0]["site"] == "'=1+1"
    else:
        table = pyarrow.parquet.read_table(name).to_pylist()
        assert table[0]["site"] == "=1+1"
    assert len(table) == 5 and table[4]["problem"].endswith("does not exist")
    for row, entry in zip(table, entries[:4], strict=False):
        assert row["label"] == entry["columns"]["label"] and row["predicted"] == row["top 1"] == entry["label"]
        assert float(row["probability"]) == entry["probability"]
        assert row["probability (input)"] == row["label"] and row["set"] == "; ".join(entry["set"])
    if name.endswith(".csv"):
        assert [float(p) for p in read_predictions(Path(name)).probs[0]] == list(entries[0]["probabilities"].values())


def test_a_killed_job_resumes_with_each_image_once(
    run: Path, photos: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor.Local, "part_images", 3)
    whole, _ = predicted(run, ["photos"], cache)
    add, calls = prediction_parts.Parts.add, [0]

    def killed(self: prediction_parts.Parts, entries: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        add(self, entries)

    with monkeypatch.context() as patch:
        patch.setattr(prediction_parts.Parts, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            predicted(run, ["photos"], cache, out=Path("out.jsonl"))
    assert not Path("out.jsonl").exists()
    with pytest.raises(RequestError, match="the interrupted job had paths"):
        predicted(run, ["photos/1"], cache, out=Path("out.jsonl"), resume=True)
    computed: list[int] = []
    predict = sl.Classifier.predict

    def counted(self: sl.Classifier, sources: Any, **more: Any) -> sl.Predictions:
        computed.append(len(sources))
        return predict(self, sources, **more)

    monkeypatch.setattr(sl.Classifier, "predict", counted)
    entries, _ = predicted(run, ["photos"], cache, out=Path("out.jsonl"), resume=True)
    assert entries == whole and sum(computed) == len(whole) - 6
    assert [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()] == whole


def test_a_job_is_not_resumed_on_other_images(run: Path, photos: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor.Local, "part_images", 3)
    with monkeypatch.context() as patch:
        patch.setattr(prediction_parts.Parts, "finish", lambda self: None)
        predicted(run, ["photos"], cache, out=Path("out.csv"))
    next(Path("photos/0").iterdir()).rename("photos/0/aaa.png")
    with pytest.raises(RequestError, match=r"image 1 was .*and is .*aaa\.png"):
        predicted(run, ["photos"], cache, out=Path("out.csv"), resume=True)


@pytest.mark.slow
def test_a_process_killed_with_sigkill_resumes(run: Path, photos: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SIGHTLINE_CACHE": str(tmp_path / "cache")}
    code = "from sightline.runs import executor as e\ne.Local.part_images = 1\nfrom sightline.cli import main\nmain()"
    arguments = [sys.executable, "-c", code, "predict", str(run), "photos", "-o", "out.csv", "--resume"]
    first = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = Path(".out.csv.parts")
    until = time.monotonic() + 120
    while len(list(parts.glob("part-*"))) < 3 and time.monotonic() < until:
        time.sleep(0.005)
    first.kill()
    first.wait()
    done = subprocess.run(arguments, env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    with open("out.csv", encoding="utf-8", newline="") as stream:
        names = [row["path"] for row in csv.DictReader(stream)]
    assert names == [str(image.file) for image in requested_images(["photos"])] and not parts.exists()


def test_events_have_the_mean_of_their_images(run: Path, photos: Path, cache: Cache) -> None:
    rows = ["photos/1/digit_0001.png,a,x", "photos/2/digit_0002.png,b,x", "photos/3/digit_0003.png,a,x", "gone.png,a,y"]
    Path("t.csv").write_text("\n".join(["path,event,site", *rows]) + "\n", encoding="utf-8")
    images, _ = predicted(run, ["t.csv"], cache)
    events, notes = predicted(run, ["t.csv"], cache, group_by="event", sets=0.5, out=Path("e.csv"))
    assert [(e["event"], e["images"], e["unreadable"]) for e in events] == [("a", 2, 1), ("b", 1, 0)]
    for name, value in events[0]["probabilities"].items():
        assert value == pytest.approx((images[0]["probabilities"][name] + images[2]["probabilities"][name]) / 2, abs=1e-15)
    assert events[1]["columns"] == {"site": "x"} and "site" not in events[0].get("columns", {})
    assert any("single images" in note for note in notes) and any("gone.png" in note for note in notes)
    assert len(Path("e.csv").read_text(encoding="utf-8").splitlines()) == 3
    with pytest.raises(RequestError, match="has no column 'place'"):
        predicted(run, ["t.csv"], cache, group_by="place")


def test_a_burst_is_a_chain_of_photographs_of_one_folder(run: Path, tmp_path: Path, cache: Cache) -> None:
    times = {"a/3.jpg": "2024:05:01 12:00:18", "a/1.jpg": "2024:05:01 12:00:00", "a/2.jpg": "2024:05:01 12:00:09"}
    times |= {"a/4.jpg": "2024:05:01 12:00:29", "b/1.jpg": "2024:05:01 12:00:05"}
    for number, (name, when) in enumerate(times.items()):
        timed(tmp_path / "trap" / name, when, number)
    Image.new("L", (8, 8)).save(tmp_path / "trap" / "a" / "5.jpg")
    events, _ = predicted(run, [tmp_path / "trap"], cache, group_by=prediction_groups.BURST)
    assert [(Path(e["path"]).relative_to(tmp_path / "trap").as_posix(), e["images"]) for e in events] == [
        ("a/1.jpg", 3),
        ("a/4.jpg", 1),
        ("a/5.jpg", 1),
        ("b/1.jpg", 1),
    ]
    assert (events[0]["time"], events[0]["last_time"]) == ("2024-05-01T12:00:00", "2024-05-01T12:00:18")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_the_capture_time_is_read_from_every_format(tmp_path: Path, suffix: str) -> None:
    data = files.read_bytes(timed(tmp_path / f"x{suffix}", "2023:12:31 23:59:58"))
    assert capture_time(data) == "2023-12-31T23:59:58"
    assert capture_time(data[:40]) is None and capture_time(b"") is None


def test_copies_are_sorted_by_class_and_never_overwrite(run: Path, tmp_path: Path, cache: Cache) -> None:
    same = write_few_digits(tmp_path / "one", 1) / "4"
    for number, source in enumerate([next(same.iterdir()), *sorted((run.parent / "digits" / "4").iterdir())[4:6]]):
        target = tmp_path / "in" / str(number) / "x.png"
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
    for _ in range(2):  # repeating the work makes no further copies
        entries, _ = predicted(run, [tmp_path / "in"], cache, copy_to=tmp_path / "sorted")
        copies = [Path(entry["copy"]) for entry in entries]
        assert [c.read_bytes() for c in copies] == [Path(e["path"]).read_bytes() for e in entries]
        assert len(set(copies)) == 3 and all(c.parent.name == e["label"] for c, e in zip(copies, entries, strict=True))
    assert len(list((tmp_path / "sorted").rglob("*.png"))) == 3


def test_heatmaps_are_written_for_each_image(run: Path, photos: Path, cache: Cache) -> None:
    entries, _ = predicted(run, ["photos/1"], cache, heatmaps=Path("maps"))
    assert [Image.open(entry["heatmap"]).size[0] > 50 for entry in entries] == [True, True]


@pytest.mark.slow
def test_drift_is_reported_where_there_is_some_and_only_there(tmp_path: Path, cache: Cache) -> None:
    digits = write_few_digits(tmp_path / "new", 60)
    for file in sorted(digits.rglob("*.png"))[::3]:
        target = tmp_path / "known" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    recipe = sl.Recipe(backbone="pixels", head="logistic")
    run = sl.fit(sl.split(sl.scan(tmp_path / "known")), recipe, out=tmp_path / "run", cache=cache).folder
    model = sl.load(run)

    def summary(paths: list[Path]) -> drift.Drift:
        results: list[drift.Drift] = []
        options = command.PredictOptions()
        command.predict(run, paths, options, lambda r: results.append(drift.compare(model, r.image_entries)), cache=cache)
        return results[0]

    same = summary([digits])
    assert same.drifted == [] and all(c.low <= c.now - c.training <= c.high for c in same.comparisons)
    sevens = summary([digits / "7"])
    assert "share of 7" in sevens.drifted
    seven = sevens.counts[7]
    assert seven.adjusted_low is not None and seven.adjusted_low <= (seven.adjusted or 0) <= (seven.adjusted_high or 0)
    assert sum(one.adjusted or 0 for one in sevens.counts) == pytest.approx(len(list((digits / "7").iterdir())))


def test_torch_is_not_imported_without_need(run: Path, photos: Path, sightline: Callable[..., Any]) -> None:
    ended = sightline("predict", str(run), "photos/1", "--json", cwd=photos.resolve().parent)
    assert ended.code == 0 and len(json.loads(ended.out)) == 2
    assert not ended.modules & {"torch", "timm", "fastapi"}
