"""Public functions show progress and log notes by default."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import sightline as sl
from sightline.cli import interactive
from sightline.records import silent


def work(*, progress: Callable[[str, int, int], None] = silent, say: Callable[[str], None] = lambda line: None) -> Any:
    say("note: 3 files could not be used")
    say("fitting")
    progress("images", 1, 10)
    return progress


def test_progress_is_shown_in_a_notebook_and_not_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interactive.with_defaults(work)() is silent
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    interactive.with_defaults(work)()
    assert "images (10)" in capsys.readouterr().err
    assert interactive.with_defaults(work)(progress=silent) is silent


def test_notes_are_logged_as_warnings_and_other_lines_are_not(caplog: pytest.LogCaptureFixture) -> None:
    interactive.with_defaults(work)()
    assert [record.getMessage() for record in caplog.records] == ["3 files could not be used"]


@pytest.mark.parametrize(
    "name", ["run", "fit", "evaluate", "compare", "mistakes", "predict", "cross_validate", "learning_curve", "augment", "scan"]
)
def test_every_function_with_progress_has_the_defaults(name: str) -> None:
    assert hasattr(getattr(sl, name), "__wrapped__")
