"""Fast commands stay fast: torch is imported only if a network runs."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sightline as shop

HEAVY = {"torch", "torchvision", "timm"}
SLOW = HEAVY | {"openvino", "sklearn", "scipy", "matplotlib", "pyarrow"}


def test_importing_sightline_imports_no_heavy_package(python: Callable[..., Any]) -> None:
    ended = python("import sightline\nassert 'scan' in dir(sightline)")
    assert ended.code == 0, ended.err
    assert not ended.modules & (SLOW | {"numpy", "PIL"})


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["cache", "show"], ["rn"]])
def test_help_and_version_import_nothing_slow(sightline: Callable[..., Any], arguments: list[str]) -> None:
    ended = sightline(*arguments)
    assert ended.code == (2 if arguments == ["rn"] else 0), ended.err
    assert not ended.modules & SLOW


@pytest.mark.slow
def test_scan_and_split_do_not_import_torch(sightline: Callable[..., Any], digits: Path, tmp_path: Path) -> None:
    ended = sightline("scan", "digits", "-o", "catalog.csv")
    assert ended.code == 0, ended.err
    assert "pyarrow" in ended.modules  # the listing works
    assert not ended.modules & HEAVY
    ended = sightline("split", "catalog.csv")
    assert ended.code == 0, ended.err
    assert not ended.modules & HEAVY


def test_report_does_not_import_torch(sightline: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    data = {"version": 1, "kind": "run", "name": "pets", "classes": ["cat", "dog"], "created": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(data), encoding="utf-8")
    ended = sightline("report", "run", "-o", "page.html")
    assert ended.code == 0, ended.err
    assert (tmp_path / "page.html").is_file()
    assert not ended.modules & HEAVY


def test_every_public_name_can_be_imported() -> None:
    assert set(shop.__all__) == {*shop._HOMES, "__version__"}
    for name in shop.__all__:
        assert getattr(shop, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'scann'"):
        _ = shop.scann  # type: ignore[attr-defined]
    assert importlib.import_module("sightline.catalog") is not None


@pytest.mark.parametrize("name", [name for name in shop._HOMES if importlib.util.find_spec(f"sightline.{name}")])
def test_a_public_function_is_not_replaced_by_a_subpackage_of_its_name(name: str) -> None:
    module = importlib.import_module(f"sightline.{name}")
    assert callable(getattr(shop, name)) and getattr(shop, name) is not module
