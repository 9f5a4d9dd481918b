"""Report on folders: one or more runs, or one study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sightline.errors import ModelFileError, RequestError
from sightline.records import Run, read_study
from sightline.records.versions import read_record
from sightline.report.page import write_report
from sightline.report.study import write_study


def write_page(folders: Sequence[Path], out: Path) -> Path:
    """Write the report on one or more runs, or on one sweep or hyperparameter search.

    Args:
        folders: Output folders of `run`, `train`, `evaluate`, `train --sweep` or `tune`.
        out: The HTML file.

    Raises:
        RequestError: If a folder is neither a run nor a study, or a study is not finished or not the only folder.
        ModelFileError: If a file of the study is damaged.
    """
    studies = [f for f in folders if (f / "study.json").is_file() or (f / "plan.json").is_file()]
    if not studies:
        return write_report([Run.load(folder) for folder in folders], out)
    study = studies[0]
    if len(folders) > 1:
        raise RequestError(
            f"{study} is a study and cannot be combined with other folders", "run `sightline report` on it alone"
        )
    file = study / "study.json"
    if not file.is_file():
        hint = "repeat the command of the study; classifiers that are already fitted are reused"
        raise RequestError(f"the study in {study} is not finished", hint)
    try:
        record = read_study(read_record(file))
    except RequestError as error:
        raise ModelFileError(f"{file} is damaged: {error.message}", "repeat the study's command in another folder") from error
    return write_study(record, out)
