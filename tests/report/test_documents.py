"""Markdown report, model card and scores.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from sightline import report
from sightline.errors import RequestError
from sightline.records import Run
from sightline.records.score_file import ScoreFile


def test_the_markdown_report_names_figures_that_exist_and_are_whole(run: Run, tmp_path: Path) -> None:
    text = report.write_documents(run, tmp_path)[0].read_text(encoding="utf-8")
    figures = re.findall(r"!\[[^\]]*\]\((figures/[^)]+\.svg)\)", text)
    assert len(figures) >= 4 and "## What could make this number wrong" in text and "**mobilenetv2\\_100 + logistic**" in text
    for name in figures:
        drawing = (tmp_path / name).read_text(encoding="utf-8")
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg" and "var(" not in drawing


def test_the_scores_file_comes_back_with_the_scores_of_the_run(run: Run, tmp_path: Path) -> None:
    report.write_card(run, tmp_path)
    value = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    found = ScoreFile.from_json(value)
    assert run.record.test is not None and found.test == run.record.test and found.version == value["version"] == 1
    with pytest.raises(RequestError, match="version"):
        ScoreFile.from_json({**value, "version": 99})


def test_the_card_has_scores_limits_and_licence(run: Run, tmp_path: Path) -> None:
    card = report.write_card(run, tmp_path)[0].read_text(encoding="utf-8")
    for part in ("## Intended use", "Apache-2.0", "| Accuracy |", "## Limitations"):
        assert part in card


def test_names_have_no_meaning_in_markdown(drawn: ModuleType, tmp_path: Path) -> None:
    made = drawn.make(tmp_path / "run", ("<b>x</b>|[a](http://b)", "dog"), n=60, skill=1.0, most_pictures=1)
    text = report.write_documents(made, tmp_path / "out")[0].read_text(encoding="utf-8")
    assert "<b>" not in text.replace("\\<b", "") and "](http" not in text.replace("\\](", "")
