"""Blocks of run.json about mistakes, slices, uncertainty, and mismatches of a table of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sightline.schema import json_key


@dataclass(frozen=True, slots=True)
class SimilarImage:
    """A training image that is similar to a wrongly predicted one; `distance` is the cosine distance of features."""

    path: str
    label: str | None = None
    distance: float | None = None
    thumbnail: str | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrongly predicted image.

    Args:
        probability: Of the predicted class.
        thumbnail: A small picture in the run's folder.
        nearest: The most similar training images.
        slices: Indices of the slices of the record that the image is in.
    """

    path: str
    label: str | None = None
    predicted: str | None = None
    probability: float | None = None
    thumbnail: str | None = None
    nearest: Sequence[SimilarImage] = ()
    slices: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class HeldOutImage:
    """A held-out image with a thumbnail.

    Args:
        row: Of the table of held-out predictions, counted from 0.
        thumbnail: A small picture in the run's folder.
    """

    path: str
    row: int
    thumbnail: str


@dataclass(frozen=True, slots=True)
class SliceScore:
    """Accuracy on the images with one value, or a range of values, of a column.

    Args:
        name: The slice for people.
        column: A column of the catalog or an image statistic.
        value: The value; None for a range.
        low, high: Ends of the range; None for a value.
        p, p_corrected: p-value of a lower accuracy than on the rest, and the same after Holm's correction.
        worse: Whether the accuracy is significantly lower.
    """

    column: str
    n: int
    name: str = field(default="", metadata=json_key("slice"))
    value: str | None = None
    low: float | None = None
    high: float | None = None
    wrong: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    rest_n: int | None = None
    rest_accuracy: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    worse: bool = False


@dataclass(frozen=True, slots=True)
class PredictionSetScore:
    """Conformal prediction sets on labelled images.

    Args:
        covered, covered_low, covered_high: Share of sets with the right class and its 95 % interval.
        mean_size: Mean number of classes.
        single, empty: Shares of sets with one class and with none.
        per_class: Share of sets with the right class, by class.
    """

    n: int | None = None
    covered: float | None = None
    covered_low: float | None = None
    covered_high: float | None = None
    mean_size: float | None = None
    single: float | None = None
    empty: float | None = None
    per_class: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnsureScore:
    """Predictions that are marked unsure, and the accuracy of them and of the others."""

    n: int | None = None
    accuracy: float | None = None
    others: int = 0
    others_accuracy: float | None = None
    others_low: float | None = None
    others_high: float | None = None


@dataclass(frozen=True, slots=True)
class OutOfDistributionScore:
    """Images that are marked as out-of-distribution.

    Args:
        n: Marked images of `total`.
        threshold: OOD score from which an image is marked.
        rate: Share of held-out images that the threshold marks.
        held_out: Held-out images that the threshold was fitted on.
        pretrained: Whether features were learnt from other images too.
    """

    n: int
    total: int = field(metadata=json_key("of"))
    threshold: float = field(metadata=json_key("bar"))
    held_out: int | None = field(default=None, metadata=json_key("images"))
    rate: float | None = None
    pretrained: bool | None = None


@dataclass(frozen=True, slots=True)
class UncertaintySummary:
    """How prediction sets, unsure marks and OOD marks do on labelled images.

    Args:
        coverage: Promised share of sets with the right class.
        images: Images that the sets were calibrated on.
        sets: None if there are too few images to promise anything; `why` gives the reason.
    """

    coverage: float | None = None
    calibrated_on: str | None = None
    images: int | None = None
    by_class: bool = False
    sets: PredictionSetScore | None = None
    unsure: UnsureScore | None = None
    out_of_distribution: OutOfDistributionScore | None = field(default=None, metadata=json_key("unlike"))
    why: str | None = None


@dataclass(frozen=True, slots=True)
class LabelMismatch:
    """An image whose label in a table of predictions differs from that in the catalog."""

    path: str
    table: str
    catalog: str


@dataclass(frozen=True, slots=True)
class RelabelledImage:
    """An image whose label was changed."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class LabelChanges:
    """Scored images whose labels differ from those that the classifier's run knew: the score under both.

    Args:
        n: Images with another label.
        compared: Scored images that the run knew.
        old, old_low, old_high: Accuracy on these images under the old labels, and its 95 % interval.
        new, new_low, new_high: The same under the new labels.
        images: The first changed ones.
    """

    n: int
    compared: int
    old: float
    old_low: float
    old_high: float
    new: float
    new_low: float
    new_high: float
    images: Sequence[RelabelledImage] = ()


@dataclass(frozen=True, slots=True)
class MismatchExamples:
    """The first mismatches of each kind."""

    not_in_catalog: Sequence[str] = ()
    other_label: Sequence[LabelMismatch] = ()
    no_row: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TableMismatches:
    """Mismatches between a table of predictions and a labelled set.

    Args:
        not_in_catalog: Rows of no image of the set.
        other_label: Rows with another label.
        no_row: Images without a row.
    """

    not_in_catalog: int = 0
    other_label: int = 0
    no_row: int = 0
    examples: MismatchExamples = MismatchExamples()
