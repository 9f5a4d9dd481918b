"""From folders that the user names to the page about them: runs side by side, or one study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sightline.errors import ModelFileError, RequestError
from sightline.files import read_text
from sightline.records import Run
from sightline.report.page import write_report
from sightline.report.study import write_study


def write_page(folders: Sequence[Path], out: Path) -> Path:
    """Write the page about one or more runs, or about one sweep or search.

    Args:
        folders: As `run`, `train`, `evaluate`, `train --sweep` and `tune` make them.
        out: The file.

    Raises:
        RequestError: A folder is neither, a study is not finished, or is named beside others.
        ModelFileError: A file in it is damaged.
    """
    studies = [f for f in folders if (f / "study.json").is_file() or (f / "plan.json").is_file()]
    if not studies:
        return write_report([Run.load(folder) for folder in folders], out)
    study = studies[0]
    if len(folders) > 1:
        raise RequestError(f"{study} is a study, which has a page of its own", "name it alone")
    file = study / "study.json"
    if not file.is_file():
        hint = "repeat its command: what is fitted already is taken as it is"
        raise RequestError(f"the study in {study} is not finished", hint)
    try:
        return write_study(json.loads(read_text(file)), out)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{file} is damaged ({error!r})", "repeat the study's command in another folder") from error
