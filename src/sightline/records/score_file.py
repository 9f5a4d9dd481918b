"""Record of `scores.json`: the scores of a run alone, for tables and scripts of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sightline.records.candidates import ThresholdChoice
from sightline.records.run import RunRecord
from sightline.records.scores import Scores
from sightline.records.versions import VERSION, check_version
from sightline.schema import fields_to_json, from_json


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """Content of `scores.json`.

    Args:
        version: Of the format.
        name, created, sightline: Of the run: its name, time (ISO 8601) and the version of Sightline.
        method, backbone, head: The classifier.
        classes, positive, threshold: Class names, positive class of two, and decision threshold.
        val_estimate: How the held-out predictions in `val` were made.
        val, test, test_without_leaks: Scores of held-out images, of test images, and of test images that are not in train;
            None if there are none. Metrics are fractions (0–1), each with its 95 % interval as NAME_low and NAME_high.
    """

    version: int = VERSION
    name: str | None = None
    created: str | None = None
    sightline: str | None = None
    method: str | None = None
    backbone: str | None = None
    head: str | None = None
    classes: Sequence[str] = ()
    positive: str | None = None
    threshold: ThresholdChoice | None = None
    val_estimate: str | None = None
    val: Scores | None = None
    test: Scores | None = None
    test_without_leaks: Scores | None = None

    @classmethod
    def of(cls, run: RunRecord) -> ScoreFile:
        """Return the scores of a run."""
        names = [name for name in cls.__slots__ if name != "version"]
        return cls(**{name: getattr(run, name) for name in names})

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "scores.json") -> ScoreFile:
        """Read the content of `scores.json`.

        Raises:
            RequestError: If the version is another one, a key is unknown, or a value has another type.
        """
        check_version(value, where)
        return from_json(cls, value, where, "key")

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return fields_to_json(self)
