"""Given splits are kept; test images that are also in train are named, and the score is printed with and without them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sightline.commands import run as run_command
from sightline.runs import plan
from sightline.store import Cache
from tests.conftest import write_few_digits


@pytest.mark.slow
def test_leaks_add_a_score_without_leaking_images(tmp_path: Path, cache: Cache) -> None:
    every = write_few_digits(tmp_path / "all", 20)
    for folder in sorted(every.iterdir()):
        for i, file in enumerate(sorted(folder.iterdir())):
            target = tmp_path / "photos" / ("train" if i < 8 else "test") / folder.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    for digit in range(10):
        file = min((tmp_path / "photos" / "train" / str(digit)).iterdir())
        shutil.copyfile(file, tmp_path / "photos" / "test" / str(digit) / f"copy_{file.name}")
    said: list[str] = []
    request = plan.Request(
        photos=str(tmp_path / "photos"),
        out=str(tmp_path / "runs"),
        backbones=("pixels",),
        methods=("features",),
        head="knn",
        heatmaps="none",
    )
    run = run_command.run(request, say=said.append, cache=cache)
    split = run.data["split"]
    assert split["given"] and split["leaked"] == 10 and split["test_n"] == 130
    assert {Path(t).name.startswith("copy_") for t, _ in split["leaks"]} == {True}
    assert run.data["test"]["n"] == 130 and run.data["test_without_leaks"]["n"] == 120
    assert run.data["test"]["accuracy"] > run.data["test_without_leaks"]["accuracy"]
    assert any("10 test images are also in train" in line for line in said)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    head = page[page.index("<body") :].split("<section")[0] if "<section" in page else page[page.index("<body") :][:6000]
    as_given, clean = (f"{100 * run.data[key]['accuracy']:.1f}" for key in ("test", "test_without_leaks"))
    assert as_given in head and clean in head
