"""Block of run.json about a stress test: accuracy on altered versions of the scored images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STRENGTHS = ("weak", "medium", "strong")


@dataclass(frozen=True, slots=True)
class StressScore:
    """Accuracy on the images altered in one way.

    Args:
        kind: Key of the alteration, such as `blur`.
        title: What it does, such as `blurred`.
        strength: 1 to 3; `STRENGTHS` names them.
        setting: Its parameter for people, such as `JPEG quality 20`.
        accuracy, accuracy_low, accuracy_high: Accuracy and its 95 % interval.
        below: Whether the accuracy is below the bound.
        thumbnail: An altered image, a file in the run's folder.
    """

    kind: str
    title: str
    strength: int
    setting: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    below: bool
    thumbnail: str | None = None


@dataclass(frozen=True, slots=True)
class StressTest:
    """Accuracy of a classifier on altered versions of the scored images.

    Args:
        bound: Accuracy below which an alteration is named.
        bound_given: Whether the user set the bound; otherwise it is a share of the accuracy on the unaltered images.
        n: Images.
        total: Scored images that they were drawn from; more than `n` if there were too many.
        accuracy, accuracy_low, accuracy_high: Accuracy on the unaltered images and its 95 % interval.
        scores: One for each alteration and strength.
        sentence: The result in plain words.
        example: Path of the image in the thumbnails.
    """

    bound: float
    bound_given: bool
    n: int
    total: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    scores: Sequence[StressScore] = ()
    sentence: str = ""
    example: str | None = None
