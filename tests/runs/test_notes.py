"""Notes on a finished run."""

from __future__ import annotations

from sightline.records import RunRecord
from sightline.records.candidates import CandidateSummary, ShortcutCheck
from sightline.records.data_summary import FileProblem
from sightline.runs import notes


def test_notes_name_training_images_undecodable_files_and_shortcuts() -> None:
    record = RunRecord(
        candidates=[CandidateSummary("features", chosen=True, note="the head did not converge")],
        caution="3 of 10 images were used to fit this classifier",
        undecodable={"test": [FileProblem("a.jpg", "truncated")]},
        shortcut=ShortcutCheck(alarm=True, feature="width", class_name="cat", auc=0.99),
    )
    caution, undecodable, own, shortcut = notes.of_run(record)
    assert (
        caution.startswith("CAUTION: 3 of 10 images")
        and "1 image left out" in undecodable
        and "a.jpg: truncated" in undecodable
    )
    assert own == "the head did not converge" and shortcut.startswith("ALARM: width alone separates cat")
    assert notes.of_run(RunRecord()) == []
