"""Record of a learning curve: block of run.json, and content of `learning-curve.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sightline.records.versions import VERSION
from sightline.schema import fields_to_json, from_json, json_key


@dataclass(frozen=True, slots=True)
class AccuracyBand:
    """Accuracy of a fitted learning curve and its 95 % band."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Point of a learning curve: the fitted accuracy and its 95 % band, and the measured accuracy if there is one."""

    images: int
    accuracy: float
    low: float
    high: float
    measured: float | None = None


@dataclass(frozen=True, slots=True)
class LearningCurveRecord:
    """Learning curve: the block `learning` of run.json, and the content of `learning-curve.json`.

    Args:
        points: Measured points.
        ahead: The fitted curve up to many times as many images.
        now, twice: With the present number of training images and twice as many.
        goal: Accuracy to reach; `goal_given` tells whether the user named it.
        needed, needed_low, needed_high: Training images to reach it, and the 95 % interval.
        orders: Random orders of the images that were measured.
        law: Parameters of the fitted curve.
        held_out: Images that the accuracies are measured on.
        of_chosen: Whether it is of the classifier that the run chose.
        test_images: Test images that were left out.
    """

    points: Sequence[CurvePoint]
    ahead: Sequence[CurvePoint]
    images: int
    goal: float
    goal_given: bool = field(default=False, metadata=json_key("asked"))
    now: AccuracyBand | None = None
    twice: AccuracyBand | None = None
    needed: int | None = None
    needed_low: int | None = None
    needed_high: int | None = None
    verdict: str | None = None
    words: Sequence[str] = ()
    orders: int = 1
    law: Mapping[str, float] = field(default_factory=dict)
    label: str | None = None
    head: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    held_out: int | None = None
    of_chosen: bool = False
    seconds: float | None = None
    version: int = VERSION
    sightline: str | None = None
    kind: str | None = None
    created: str | None = None
    photos: str | None = None
    test_images: int | None = field(default=None, metadata=json_key("closed"))

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "learning curve") -> LearningCurveRecord:
        """Read a learning curve.

        Raises:
            RequestError: If a key is unknown or missing, or a value has another type.
        """
        return from_json(cls, value, where, "key")

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads; what only `learning-curve.json` has is left out if it is None."""
        alone = ("sightline", "kind", "created", "photos", "closed", "seconds")
        return {key: value for key, value in fields_to_json(self).items() if key not in alone or value is not None}
