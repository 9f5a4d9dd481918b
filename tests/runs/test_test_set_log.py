"""Accesses to test images are counted by image content, independently of runs, caches and processes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sightline.runs import test_set_log
from sightline.runs.test_set_log import LoggedClassifier


def contents(numbers: Sequence[int]) -> list[str]:
    """Hashes of so many images."""
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in numbers]


def look(numbers: Sequence[int], *names: str, verb: str = "evaluate") -> test_set_log.Opening:
    """Record an access to these images by classifiers of these names."""
    subjects = [LoggedClassifier(name, (f"classifier:{name}",)) for name in names]
    return test_set_log.opened(contents(numbers), subjects, verb=verb, by=" and ".join(names), when="2026-01-02T03:04:05+00:00")


def test_accesses_are_counted_and_reported() -> None:
    first = look(range(100), "a")
    assert (len(first.looks), first.classifiers, first.new, first.counted, first.note) == (1, 1, True, True, "")
    second = look(range(100), "b")
    assert [x.by for x in second.looks] == ["a", "b"] and second.classifiers == 2
    assert second.entry(0.9, 100).optimism == pytest.approx(test_set_log.optimism(2, 0.9, 100))


def test_images_are_recognised_in_other_sets_and_orders() -> None:
    look(range(100), "a")
    some = look(range(199, 79, -1), "b")
    assert [(x.images, x.shared) for x in some.looks] == [(100, 20), (120, 120)]
    assert len(look(range(500, 600), "c").looks) == 1


def test_scoring_the_same_classifier_again_is_no_new_access() -> None:
    look(range(100), "a")
    again = look(range(100), "a")
    assert (again.new, again.counted, len(again.looks)) == (False, True, 1) and "same predictions" in again.note
    assert not look(range(50), "a").new  # a part of them
    assert look(range(101), "a").new  # one more image
    lines = (test_set_log.root() / "openings.jsonl").read_text().splitlines()
    assert len(lines) == 2


def test_a_comparison_is_one_access_by_several_classifiers() -> None:
    look(range(100), "a")
    both = look(range(100), "a", "b", "c", verb="compare")
    assert len(both.looks) == 2 and both.looks[-1].classifiers == 3
    assert both.classifiers == 3  # a is one of them
    assert not look(range(100), "c").new


def test_equal_predictions_of_another_file_are_no_new_access() -> None:
    when = "2026-01-02"
    shared = LoggedClassifier("run", ("answers:1", "classifier:a"))
    test_set_log.opened(contents(range(9)), [shared], verb="run", by="run", when=when)
    table = LoggedClassifier("table", ("answers:1",))
    assert not test_set_log.opened(contents(range(9)), [table], verb="evaluate", by="table", when=when).new


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SIGHTLINE_LEDGER", str(tmp_path / "file" / "ledger"))
    found = look(range(9), "a")
    assert found.new and not found.counted and "cannot be written" in found.note and len(found.looks) == 1


def test_a_damaged_line_is_skipped_and_the_others_are_read(caplog: pytest.LogCaptureFixture) -> None:
    look(range(100), "a")
    file = test_set_log.root() / "openings.jsonl"
    file.write_bytes(file.read_bytes() + b'{"version": 1, "ima')  # a process was killed as it wrote
    second = look(range(100), "b")
    assert [x.by for x in second.looks] == ["a", "b"] and "cannot be read" in caplog.text
    assert [x.by for x in look(range(100), "c").looks] == ["a", "b", "c"]
    (kept,) = (test_set_log.root() / "images").iterdir()
    kept.write_bytes(b"\0" + kept.read_bytes()[1:])
    assert [x.by for x in look(range(100), "d").looks] == ["d"] and "damaged" in caplog.text


def test_100_000_images_are_kept_compactly() -> None:
    for name in "abc":
        look(range(100_000), name)
    files = [f for f in test_set_log.root().rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 810_000  # one set of 8 bytes an image, for three looks


def _in_a_process(number: int) -> None:
    for i in range(5):
        look(range(50), f"{number}-{i}")


@pytest.mark.skipif(os.name == "nt", reason="there is no fork")
def test_concurrent_processes_lose_no_access() -> None:
    pool = [multiprocessing.get_context("fork").Process(target=_in_a_process, args=(n,)) for n in range(3)]
    for process in pool:
        process.start()
    for process in pool:
        process.join()
    lines = [json.loads(line) for line in (test_set_log.root() / "openings.jsonl").read_text().splitlines()]
    assert len({line["by"] for line in lines}) == 15
    assert len(look(range(50), "last").looks) == 16


def test_optimism_is_the_expected_maximum_of_equal_classifiers() -> None:
    draws = np.random.default_rng(0).binomial(200, 0.8, size=(20_000, 5)).max(axis=1) / 200
    assert test_set_log.optimism(5, 0.8, 200) == pytest.approx(draws.mean() - 0.8, abs=0.001)
    assert test_set_log.optimism(5, 1.0, 200) > 0  # nobody is perfect for certain


def test_the_log_lies_outside_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.store import cache_root

    for name in ("SIGHTLINE_LEDGER", "SIGHTLINE_CACHE"):
        monkeypatch.delenv(name)
    assert not test_set_log.root().is_relative_to(cache_root()) and test_set_log.root().name == "ledger"
