"""One finished run for the tests of the page."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sightline.records import Run


@pytest.fixture(scope="session")
def drawn() -> ModuleType:
    """The generator of runs beside this file."""
    spec = importlib.util.spec_from_file_location("drawn_runs", Path(__file__).with_name("drawn.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run(drawn: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five classes, 120 test images, drawn pictures."""
    made = drawn.make(tmp_path_factory.mktemp("runs") / "shapes", n=120, most_pictures=5)
    assert isinstance(made, Run)
    return made
