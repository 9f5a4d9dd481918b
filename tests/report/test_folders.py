"""Reports on folders of runs and studies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import ModelFileError, RequestError
from sightline.records import read_study
from sightline.report import write_page, write_study
from tests.report.test_study import sweep


def study(folder: Path) -> Path:
    """A finished sweep."""
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text("{}", encoding="utf-8")
    (folder / "study.json").write_text(json.dumps(sweep()), encoding="utf-8")
    return folder


def test_a_study_gets_its_page(tmp_path: Path) -> None:
    out = write_page([study(tmp_path / "tuned")], tmp_path / "page.html")
    page = out.read_text(encoding="utf-8")
    assert page == write_study(read_study(sweep()), tmp_path / "other.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page and page.count("<script") == 1


def test_a_study_beside_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is a study and cannot be combined"):
        write_page([tmp_path / "run", study(tmp_path / "tuned")], tmp_path / "page.html")


def test_an_unfinished_or_damaged_study_is_named(tmp_path: Path) -> None:
    folder = study(tmp_path / "tuned")
    (folder / "study.json").unlink()
    with pytest.raises(RequestError, match="tuned is not finished"):
        write_page([folder], tmp_path / "page.html")
    for broken in ("{", "[]", '{"kind": "tune"}'):
        (folder / "study.json").write_text(broken, encoding="utf-8")
        with pytest.raises(ModelFileError, match=r"study\.json is damaged"):
            write_page([folder], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_report_takes_a_study(cli: Callable[..., Any], tmp_path: Path) -> None:
    study(tmp_path / "tuned")
    ended = cli("report", "tuned", "-o", "page.html")
    assert ended.code == 0, ended.err
    assert (tmp_path / "page.html").is_file()
    ended = cli("report", "nothing", "-o", "page.html")
    assert ended.code in (1, 2) and "nothing" in ended.err and "Traceback" not in ended.err
