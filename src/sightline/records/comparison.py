"""Record of a comparison of classifiers: the typed content of `comparison.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sightline.records import display
from sightline.records.test_set import TestSetAccess, TestSetLogEntry
from sightline.records.versions import VERSION, check_version
from sightline.schema import fields_to_json, from_json, json_key


@dataclass(frozen=True, slots=True)
class ComparedScore:
    """Accuracy of one compared classifier with its 95 % interval."""

    name: str = field(metadata=json_key("run"))
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    wrong: int


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """Paired test of two classifiers.

    Args:
        a, b: The runs, as they were named.
        difference, low, high: Accuracy of a minus that of b, and its 95 % interval.
        only_a, only_b: Images that only one of them predicts correctly.
        p, p_corrected: McNemar's p-value, and the same after Holm's correction.
        significant: Whether one is better.
        images_needed: Labelled images that would show a difference of this size; None if it is significant or zero.
        verdict: A sentence.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    only_a: int
    only_b: int
    images_needed: int | None
    significant: bool = field(metadata=json_key("told_apart"))
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class ComparedPrediction:
    """Prediction of one classifier for one image."""

    name: str = field(metadata=json_key("run"))
    predicted: str
    probability: float
    right: bool


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An image that the classifiers predict differently; `file` is its thumbnail."""

    path: str
    label: str
    predictions: Sequence[ComparedPrediction] = field(metadata=json_key("answers"))
    file: str | None = None


@dataclass(frozen=True, slots=True)
class AgreementCounts:
    """Images that all, some and none of the classifiers predict correctly."""

    all: int
    some: int
    none: int


@dataclass(frozen=True, slots=True)
class ComparisonRecord:
    """Content of `comparison.json`.

    Args:
        n: Images.
        images: What they are: test, validation or labelled.
        runs, names: The classifiers as they were named, and their short names.
        clusters: Images if those that belong together count once; None if each counts.
    """

    created: str
    runs: Sequence[str]
    names: Sequence[str]
    split: str
    n: int
    images: str
    scores: Sequence[ComparedScore]
    pairs: Sequence[ComparedPair]
    patterns: AgreementCounts
    disagreements: Sequence[Disagreement]
    notes: Sequence[str] = ()
    clusters: int | None = None
    test_set_accesses: Sequence[TestSetAccess] = field(default=(), metadata=json_key("test_openings"))
    test_set_log: TestSetLogEntry | None = field(default=None, metadata=json_key("ledger"))
    version: int = VERSION
    sightline: str | None = None
    kind: str = "compare"

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "comparison record") -> ComparisonRecord:
        """Read the content of `comparison.json`.

        Raises:
            RequestError: If the version is another one, a key is unknown or missing, or a value has another type.
        """
        check_version(value, where)
        return from_json(cls, value, where, "key")

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        facts = {
            s.name: f"{s.accuracy:.3f} [{s.accuracy_low:.3f}, {s.accuracy_high:.3f}], {s.wrong:,} wrong" for s in self.scores
        }
        verdicts = {f"{pair.a} against {pair.b}": pair.verdict for pair in self.pairs}
        return display.table(f"Comparison on {self.n:,} {self.images} images", {**facts, **verdicts})

    def to_json(self) -> dict[str, Any]:
        """Return the content of `comparison.json`."""
        return fields_to_json(self)
