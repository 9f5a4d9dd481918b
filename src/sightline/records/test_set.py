"""Blocks of run.json and comparison.json about the use of test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sightline.schema import json_key


@dataclass(frozen=True, slots=True)
class TestSetAccess:
    """One use of test images.

    Args:
        when: Time in ISO 8601.
        verb: The command.
        by: Description of the classifier or comparison.
        images: Number of images used.
        shared: Number of these among the current images.
        classifiers: Number of classifiers scored; a comparison of several counts as one use.
    """

    __test__ = False

    when: str = ""
    verb: str = ""
    by: str = ""
    images: int = 0
    shared: int = 0
    classifiers: int = 1


@dataclass(frozen=True, slots=True)
class TestSetLogEntry:
    """Entry of the test-set log on the use of the test images by a run.

    Args:
        new: Whether the images were scored with new predictions.
        counted: Whether the use is in the log.
        note: Why it is not new or not counted.
        classifiers: Different classifiers that were scored on these images.
        optimism: Upper estimate of how much too high the best one's accuracy is due to choosing by it.
        ids: Identities of what was scored.
    """

    __test__ = False

    new: bool = True
    counted: bool = True
    note: str = ""
    classifiers: int = 0
    optimism: float | None = field(default=None, metadata=json_key("flattery"))
    ids: Sequence[str] = ()
