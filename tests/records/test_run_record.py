"""Typed records of run.json: every key and type checked, and JSON keys that only grow."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import ModelFileError, RequestError
from sightline.records import (
    ComparisonRecord,
    LearningCurveRecord,
    Run,
    RunRecord,
    Scores,
    SearchRecord,
    SweepRecord,
    read_study,
)
from sightline.records.run import KEYS
from sightline.schema import json_keys
from sightline.store import write_json
from tests.report.drawn import make

GOLDEN = Path(__file__).with_name("record_keys.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make(tmp_path_factory.mktemp("records") / "run", ("cat", "dog"), n=40, most_pictures=2)


def blocks(kind: Any, found: dict[str, list[str]]) -> dict[str, list[str]]:
    """JSON keys of a record and of the records in its fields, by name of the record."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kind.__name__ not in found:
            found[kind.__name__] = sorted(json_keys(kind))
            for hint in typing.get_type_hints(kind).values():
                blocks(hint, found)
        return found
    for part in typing.get_args(kind):
        blocks(part, found)
    return found


def test_json_keys_of_records_only_grow() -> None:
    found: dict[str, list[str]] = {}
    for kind in (RunRecord, LearningCurveRecord, SweepRecord, SearchRecord, ComparisonRecord):
        blocks(kind, found)
    for name, keys in json.loads(GOLDEN.read_text(encoding="utf-8")).items():
        assert set(keys) <= set(found[name]), name


def test_record_is_written_as_it_was_read(run: Run) -> None:
    data = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    again = run.record.to_json()
    assert all(key in again for key, value in data.items() if value)
    assert RunRecord.from_json(again).to_json() == again
    assert Scores.from_json(data["test"]).to_json() == data["test"]


def test_attributes_have_plain_names(run: Run) -> None:
    record = run.record
    assert [c.label for c in record.candidates] == [row["label"] for row in run.data["ladder"]]
    assert record.test is not None and record.test.accuracy.value == run.data["test"]["accuracy"]
    assert record.test.of_class("cat").recall.low == run.data["test"]["per_class"]["cat"]["recall_low"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"laddr": []}, "there is no key in the run record 'laddr'"),
        ({"seed": "zero"}, "'seed' in the run record cannot be 'zero'"),
        ({"data": {"imges": 3}}, "there is no key in the 'data' in the run record 'imges'"),
        ({"data": {"images": True}}, "'images' in the 'data' in the run record cannot be True"),
        ({"ladder": [{"method": "features", "val": {"n": 3}}]}, "has no 'accuracy'"),
        ({"test": {"acuracy_low": 0.5}}, "'acuracy_low'"),
        ({"test": {"accuracy": "high"}}, "'accuracy' in the 'test' in the run record cannot be 'high'"),
        ({"version": 7}, "version 7"),
    ],
)
def test_unknown_key_or_wrong_type_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        RunRecord.from_json(change)
    assert message in caught.value.message


def test_loading_a_run_with_an_unknown_key_names_file_and_key(run: Run, tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {**run.data, "laddr": []})
    with pytest.raises(ModelFileError, match=r"run\.json cannot be read: .*laddr"):
        Run.load(tmp_path)


@pytest.mark.parametrize("kind", list(KEYS))
def test_a_record_has_the_keys_of_its_kind_and_no_empty_blocks_of_others(kind: str) -> None:
    written = RunRecord(kind=kind).to_json()
    assert set(written) == set(KEYS[kind]), "null or empty, but there"
    assert RunRecord.from_json(written).to_json() == written


def test_study_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(RequestError, match="'run' is no kind of study"):
        read_study({"kind": "run"})
