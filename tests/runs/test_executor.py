"""Commands ask the current executor to do the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sightline as sl
from sightline.records import Catalog
from sightline.runs import executor
from sightline.runs.dataset import open_catalog
from tests.conftest import write_few_digits


class Recording(executor.Local):
    """Executor that records the operations."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def scan(self, photos: Any, **options: Any) -> Catalog:
        self.calls.append("scan")
        return super().scan(photos, **options)

    def fit(self, *arguments: Any) -> Any:
        self.calls.append("fit")
        return super().fit(*arguments)

    def predict(self, *arguments: Any, **options: Any) -> Any:
        self.calls.append("predict")
        return super().predict(*arguments, **options)


def test_training_and_prediction_run_on_the_chosen_executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos, recording = write_few_digits(tmp_path / "digits", 6), Recording()
    with executor.using(recording):
        run = sl.fit(photos, sl.Recipe(backbone="pixels", head="ridge"), out="fitted")
        sl.predict(run, photos)
    assert recording.calls == ["scan", "fit", "predict"]
    open_catalog(photos)
    assert recording.calls == ["scan", "fit", "predict"], "outside the block the work runs on this machine"


def test_no_command_bypasses_the_executor() -> None:
    source = Path(executor.__file__).parents[1]
    direct = ("catalogs.scan(", "methods.fit(", "tuning.search(", "folding.fit_part(", ".classifier.predict(")
    files = [f for part in ("commands", "runs", "cli") for f in (source / part).glob("*.py") if f.name != "executor.py"]
    assert [(f.name, call) for f in files for call in direct if call in f.read_text(encoding="utf-8")] == []
