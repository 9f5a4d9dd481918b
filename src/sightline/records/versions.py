"""Versions of the records on disk, and how a JSON record is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sightline.errors import ModelFileError, RequestError
from sightline.files import read_text

VERSION = 1
"""Version of the format of run.json, study.json and comparison.json."""
RESULTS_VERSION = "0.1.0"
"""Version of the numbers: part of every run's id. Raise it only if the same request gives other numbers than before."""


def check_version(value: Mapping[str, Any], where: str) -> None:
    """Refuse a record of another version.

    Raises:
        RequestError: If the version is not `VERSION`.
    """
    version = value.get("version", VERSION)
    if version != VERSION:
        raise RequestError(f"the {where} has version {version!r}; this Sightline reads version {VERSION}", "make the run again")


def read_record(file: Path) -> dict[str, Any]:
    """Return the content of a JSON record.

    Raises:
        ModelFileError: If the file is not a JSON object.
    """
    try:
        value = json.loads(read_text(file))
    except ValueError as error:
        raise ModelFileError(f"{file} is damaged ({error})", "make the run again") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{file} is damaged (it holds no JSON object)", "make the run again")
    return value
