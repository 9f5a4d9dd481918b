"""Decisions files: appended, versioned, undone, and readable after an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest

from sightline.errors import RequestError
from sightline.records.decisions import Decision
from sightline.runs import decisions


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "decisions" / "pets.jsonl"


def add(file: Path, seen: int, *wanted: Decision) -> decisions.Decisions:
    return decisions.append(file, wanted, seen=seen, catalog="pets/catalog.csv")


def test_decisions_are_numbered_and_the_newest_of_an_image_is_in_force(file: Path) -> None:
    assert decisions.read(file) == decisions.Decisions()
    add(file, 0, Decision("label", "a.jpg", label="cat"), Decision("exclude", "b.jpg"))
    after = add(file, 2, Decision("label", "a.jpg", label="dog"))
    assert after.version == 3 and [d.number for d in after.decisions] == [1, 2, 3] and all(d.time for d in after.decisions)
    assert {path: d.label for path, d in after.in_force().items()} == {"b.jpg": None, "a.jpg": "dog"}


def test_undo_brings_the_earlier_decision_back_and_can_be_undone(file: Path) -> None:
    add(file, 0, Decision("label", "a.jpg", label="cat"), Decision("label", "a.jpg", label="dog"))
    assert add(file, 2, Decision("undo", undoes=2)).in_force()["a.jpg"].label == "cat"
    assert add(file, 3, Decision("undo", undoes=3)).in_force()["a.jpg"].label == "dog"
    with pytest.raises(RequestError, match="no decision 9"):
        add(file, 4, Decision("undo", undoes=9))


def test_a_stale_version_changes_nothing(file: Path) -> None:
    add(file, 0, Decision("exclude", "a.jpg"))
    before = file.read_bytes()
    with pytest.raises(decisions.StaleError, match="version 1, the page has 0") as caught:
        add(file, 0, Decision("exclude", "b.jpg"))
    assert caught.value.version == 1 and file.read_bytes() == before


def test_an_interrupted_line_loses_no_other_decision(file: Path) -> None:
    add(file, 0, Decision("exclude", "a.jpg"))
    with open(file, "ab") as stream:
        stream.write(b'{"action":"excl')
    assert decisions.read(file).version == 1, "an incomplete line was not decided"
    after = add(file, 1, Decision("exclude", 'b\n"<script>.jpg'))
    assert [d.path for d in after.decisions] == ["a.jpg", 'b\n"<script>.jpg'] and after.version == 3


def test_a_file_of_another_version_is_refused(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"version": 9, "catalog": "x"}\n', encoding="utf-8")
    with pytest.raises(RequestError, match="version 9"):
        decisions.read(file)
