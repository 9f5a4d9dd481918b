"""Record of a decision that a person takes about an image: a line of a decisions file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sightline.records.versions import VERSION

Action = Literal["label", "duplicate", "exclude", "no class", "keep", "skip", "undo"]
"""`label`: the image has this class. `duplicate`: leave it out as a copy of another image. `exclude`: leave it out. `no class`:
it belongs to none of the classes. `keep`: it is right as it is. `skip`: not decided. `undo`: take back an earlier decision."""
Drawn = Literal["random", "ranked"]


@dataclass(frozen=True, slots=True)
class DecisionsHeader:
    """First line of a decisions file.

    Args:
        catalog: Catalog that the paths are of, relative to the folder of runs.
        version: Version of the format.
    """

    catalog: str
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision about one image.

    Args:
        action: What was decided.
        path: Path of the image in the catalog; "" for `undo`.
        content: SHA-256 of the image's bytes as the catalog states it, so that a replaced photograph is noticed.
        label: Class, for `label`.
        copy_of: Path of the image that is kept, for `duplicate`.
        drawn: How the image was chosen for labelling: at random, for the estimate of the accuracy, or by rank.
        undoes: Number of the decision that an `undo` takes back.
        reason: Reason, such as the finding of the audit; "" for none.
        number: Position in the file, from 1; given when the decision is appended.
        time: Local time in ISO 8601; given when the decision is appended.
    """

    action: Action
    path: str = ""
    content: str = ""
    label: str | None = None
    copy_of: str | None = None
    drawn: Drawn | None = None
    undoes: int | None = None
    reason: str = ""
    number: int = 0
    time: str = ""
