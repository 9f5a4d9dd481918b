"""The labs: their pages agree with the recorded results, and their code runs on a few photographs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LABS = ROOT / "docs" / "labs"
PAGES = sorted(page for page in LABS.glob("*.md") if page.name != "README.md")


def runner() -> ModuleType:
    """Return the module scripts/labs.py."""
    spec = importlib.util.spec_from_file_location("labs", ROOT / "scripts" / "labs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["labs"] = module
    spec.loader.exec_module(module)
    return module


labs = runner()


def write_page(folder: Path, text: str) -> Any:
    (folder / "small.md").write_text(text, encoding="utf-8")
    return labs.Lab(folder / "small.md", (), ())


def test_there_are_five_labs_and_the_index_names_them() -> None:
    assert [lab.name for lab in labs.labs()] == [page.stem for page in PAGES]
    assert len(PAGES) == 5
    index = (LABS / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert f"({page.name})" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_its_recorded_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    results = labs.load_results().get(page.stem)
    steps = [step for step, *_ in labs.rows_of(text)]
    assert steps and (results is None or set(steps) == set(results["rows"]))
    assert text == labs.with_table(text, results), "run python scripts/labs.py --tables"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_code_block_of_a_lab_runs_and_every_step_has_both_forms(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for mark, kind in re.findall(r"(?:(<!-- [^\n]*-->)\n)?^```(\w+)$", text, flags=re.MULTILINE):
        if kind != "text":
            assert mark == "<!-- runs -->" or mark.startswith("<!-- file: "), f"{page.name}: {mark} {kind}"
    kinds = {block["kind"] for block in labs.BLOCK.finditer(text)}
    assert {"console", "python"} <= kinds


def test_no_figure_in_the_repository_contains_a_photograph() -> None:
    files = [file for file in LABS.rglob("*") if file.is_file() and file.suffix not in (".md", ".json")]
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert file.suffix == ".svg" and "<image" not in text and "data:image" not in text, file


@pytest.mark.parametrize(
    ("code", "short"),
    [
        ("sightline scan data/cats -o cats.csv", "sightline scan data/cats -o cats.csv --limit 20"),
        ("sightline scan data/cats --limit 150 -o cats.csv", "sightline scan data/cats --limit 20 -o cats.csv"),
        ("train --sweep augment.rotation=0,15,45 --seeds 3", "train --sweep augment.rotation=0,15 --seeds 1"),
        ("evaluate --folds 5 --repeats 3", "evaluate --folds 2 --repeats 1"),
        ('sl.sweep(c, r, {"augment.rotation": [0, 15, 45]})', 'sl.sweep(c, r, {"augment.rotation": [0, 15]})'),
        ("epochs = 20", "epochs = 1"),
        ('{"epochs": 20}', '{"epochs": 1}'),
    ],
)
def test_the_short_form_has_few_images_epochs_and_values(code: str, short: str) -> None:
    assert labs.shorten(code) == short


def test_a_lab_can_be_limited_to_some_images_per_class() -> None:
    assert labs.limited("sightline scan data/a -o a.csv\nx", 40) == "sightline scan data/a -o a.csv --limit 40\nx"
    assert labs.limited("sightline scan data/a --limit 150", 40) == "sightline scan data/a --limit 40"
    assert labs.limited("sightline scan data/a --limit 15", 40) == "sightline scan data/a --limit 15"


def test_a_failing_command_names_page_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labs, "BUILT", tmp_path / "built")
    page = write_page(tmp_path, "<!-- runs -->\n```console\nsightline scan data/nothing\n```\n")
    with pytest.raises(RuntimeError, match=r"small\.md: sightline scan data/nothing\n.*data/nothing"):
        labs.run(page, tmp_path)


def test_outputs_results_and_figures_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labs, "BUILT", tmp_path / "built")
    monkeypatch.setattr(labs, "PAGES", tmp_path)
    monkeypatch.setattr(labs, "RESULTS", tmp_path / "results.json")
    page = write_page(
        tmp_path,
        "# Small\n\n<!-- file: a.svg -->\n```xml\n<svg/>\n```\n\n<!-- runs -->\n```python\nprint(6 * 7)\n```\n\n"
        "<!-- output -->\n\n<!-- figure: *.svg as a.svg: Curves -->\n\n"
        "<!-- photographs: none.png -->\n*Nothing.*\n\n<!-- results\nStep | 0.9 | – | None.\n-->\n<!-- end of results -->\n",
    )
    outcome = labs.run(page, tmp_path)
    labs.record(page, outcome)
    assert "```text\n42\n```" in page.text and "\n![Curves](figures/a.svg)\n" in page.text
    assert "| Step | 0.9 | – | – | None. |" in page.text
    assert (tmp_path / "figures" / "a.svg").read_text(encoding="utf-8") == "<svg/>\n"
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["small"]["rows"] == {"Step": None}
    built = labs.build(page, outcome).read_text(encoding="utf-8")
    assert "<title>Small</title>" in built and "none.png was not written: Nothing." in built


def test_a_lab_without_its_photographs_is_skipped_with_the_reason(tmp_path: Path) -> None:
    for lab in labs.labs():
        assert "says where to get the photographs" in labs.missing(lab, tmp_path)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("lab", labs.labs(), ids=lambda lab: lab.name)
def test_a_lab_runs_in_its_short_form(lab: Any, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labs, "BUILT", tmp_path)
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", os.environ.get("SIGHTLINE_WEIGHTS") or str(shared / "weights"))
    reason = labs.missing(lab, shared / "data")
    if reason is not None:
        pytest.skip(reason)
    outcome = labs.run(lab, shared / "data", short=True)
    for step, _, at, _ in labs.rows_of(lab.text):
        assert at == "–" or labs.measured(outcome.folder, at)["n"] > 0, step
    for source, *_ in labs.FIGURE.findall(lab.text):
        assert labs.only_file(outcome.folder, source).is_file()
    assert labs.build(lab, outcome).is_file()
