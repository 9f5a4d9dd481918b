"""Records of a labelling session: its request, the fitted heads, the next photograph, and the accuracy so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sightline.records.decisions import Drawn
from sightline.records.versions import VERSION


@dataclass(frozen=True, slots=True)
class LabellingRequest:
    """Content of `label.json`: what is labelled, and the random seed on which every draw depends.

    Args:
        photos: Folder or table of the photographs.
        classes: Class names, in the order of the keys.
        network: Name of the network whose features are used.
        seed: Random seed.
        created: Local time in ISO 8601.
    """

    photos: str
    classes: Sequence[str]
    network: str
    seed: int = 0
    created: str = ""
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head that was fitted during labelling, by its predictions on the photographs that are drawn at random.

    Args:
        labels: Number of labels that it was fitted on.
        decisions: Version of the decisions file that it was fitted on.
        classes: k class names.
        predicted: For each photograph of the random sample, in the order of the draw, the index of the predicted class.
    """

    labels: int
    decisions: int
    classes: Sequence[str]
    predicted: Sequence[int]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Accuracy of one fitted head on the labelled photographs of the random sample, with its 95 % confidence interval.

    Args:
        labels: Number of labels that the head was fitted on.
        correct: Number of correct predictions.
        images: Number of labelled photographs of the random sample.
        accuracy, low, high: Accuracy and its interval, 0 to 1.
    """

    labels: int
    correct: int
    images: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Gain:
    """Change of the accuracy by the last doubling of the labels, with its 95 % confidence interval.

    Args:
        before, after: Numbers of labels of the two heads that are compared on the same photographs.
        change, low, high: Change of the accuracy and its interval.
        verdict: `rising`, `flat`, or `unclear` if there are too few photographs to tell.
    """

    before: int
    after: int
    change: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Question:
    """The next photograph to label.

    Args:
        path: Path of the photograph.
        row: Row of the catalog.
        drawn: `random` if it serves the estimate of the accuracy alone, `ranked` if it is chosen for training.
        reason: Why it is asked.
        predicted: Class that the current head predicts; None without a head, and for `random`, where it could sway the answer.
        probability: Its probability, 0 to 1.
    """

    path: str
    row: int
    drawn: Drawn
    reason: str
    predicted: str | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class LabellingState:
    """State of a labelling session.

    Args:
        version: Version of the decisions file.
        classes: Class names, in the order of the keys.
        question: The next photograph; None if all are labelled.
        counts: Class → number of labels.
        trained, sampled: Photographs with a label: chosen ones, which train the classifier, and random ones, which measure it.
        no_class, skipped: Photographs that are in no class, and such without an answer.
        images: Usable photographs of the folder.
        curve: Accuracy by number of labels.
        gain: Change by the last doubling of the labels; None with too few labels.
        last: Path and answer of the decision that an undo takes back; None if there is none.
        fitting: Whether a head is being fitted.
    """

    version: int
    classes: Sequence[str]
    question: Question | None
    counts: Mapping[str, int]
    trained: int
    sampled: int
    no_class: int
    skipped: int
    images: int
    curve: Sequence[CurvePoint] = ()
    gain: Gain | None = None
    last: tuple[str, str] | None = None
    fitting: bool = False
