"""Choosing where commands run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sightline as sl
from sightline.cli import execution
from sightline.errors import RequestError
from sightline.runs import executor
from tests.conftest import write_few_digits


def test_without_the_extra_one_line_names_the_install_command(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_few_digits(tmp_path / "photos", 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = cli("scan", "photos", "--on", "ray")
    assert ended.code == 2 and 'pip install "sightline[ray]"' in ended.err and "Traceback" not in ended.err


def test_an_unknown_place_is_refused(cli: Callable[..., Any]) -> None:
    ended = cli("scan", "photos", "--on", "rays")
    assert ended.code == 2 and "did you mean" in ended.err and "ray" in ended.err


def test_partitions_need_ray(cli: Callable[..., Any]) -> None:
    ended = cli("scan", "table.parquet", "--partitions")
    assert ended.code == 2 and "--partitions needs --on ray" in ended.err


def test_python_functions_take_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sl.scan(..., on="ray")` runs inside the block that the command line uses."""
    import contextlib

    places: list[str] = []

    @contextlib.contextmanager
    def on(place: str) -> Iterator[None]:
        places.append(place)
        yield

    monkeypatch.setattr(execution, "on", on)
    photos = write_few_digits(tmp_path / "photos", 1)
    assert len(sl.scan(photos, on="ray")) == 10 and places == ["ray"]


def test_local_is_the_default() -> None:
    with execution.on("local"):
        assert type(executor.current()) is executor.Local
    with pytest.raises(RequestError, match="--on"), execution.on("moon"):
        pass
