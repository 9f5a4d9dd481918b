"""Scores of one set of predictions: metrics with 95 % intervals, per-class metrics and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sightline.errors import RequestError, unknown
from sightline.schema import arguments, fields_to_json, json_key, json_keys


@dataclass(frozen=True, slots=True)
class Metric:
    """Value of a metric and the ends of its 95 % interval; None where it is undefined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


UNDEFINED = Metric()


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of one class.

    Args:
        n: Labelled images of the class.
        predicted: Images predicted as the class.
        metrics: By name, such as `recall`.
    """

    n: int = 0
    predicted: int = field(default=0, metadata=json_key("answered"))
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "scores of a class") -> ClassScores:
        """Read one entry of `per_class`.

        Raises:
            RequestError: If a key is unknown or a value has another type.
        """
        return cls(**_read(cls, value, where))

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `per_class`."""
        return _write(self)

    def metric(self, name: str) -> Metric:
        """Return a metric by name; `UNDEFINED` if it was not computed."""
        return self.metrics.get(name, UNDEFINED)

    @property
    def recall(self) -> Metric:
        """Share of the class's images that are predicted as the class."""
        return self.metric("recall")


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one set of labelled predictions.

    Args:
        n: Labelled images.
        classes: k class names.
        positive: For two classes, the one that curves rank by.
        metrics: By name, such as `accuracy`.
        per_class: By class name.
        intervals: How each interval was computed, by metric.
        clusters: Number of images if those that belong together count once.
        inverted: Warning if the ROC AUC lies below 0.5; None otherwise.
        confusion: k × k counts, rows the label, columns the prediction.
        unlabelled: Predictions without a label.
        undecodable: Files without a prediction.
        reasons: Why a metric is undefined, by key.
    """

    n: int = 0
    classes: Sequence[str] = ()
    positive: str | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    per_class: Mapping[str, ClassScores] = field(default_factory=dict)
    intervals: Mapping[str, str] = field(default_factory=dict)
    clusters: int | None = None
    inverted: str | None = None
    confusion: Sequence[Sequence[int]] = ()
    unlabelled: int = 0
    undecodable: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "scores") -> Scores:
        """Read what `sightline.evaluation.score` returns.

        Raises:
            RequestError: If a key is unknown or a value has another type.
        """
        return cls(**_read(cls, value, where))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return _write(self)

    def metric(self, name: str) -> Metric:
        """Return a metric by name; `UNDEFINED` if it was not computed."""
        return self.metrics.get(name, UNDEFINED)

    def of_class(self, name: str) -> ClassScores:
        """Return the scores of a class; empty ones if it has none."""
        return self.per_class.get(name, ClassScores())

    @property
    def accuracy(self) -> Metric:
        """Share of correct predictions."""
        return self.metric("accuracy")

    @property
    def roc_auc(self) -> Metric:
        """Area under the ROC curve."""
        return self.metric("roc_auc")

    @property
    def pr_auc(self) -> Metric:
        """Average precision."""
        return self.metric("pr_auc")

    @property
    def eer(self) -> Metric:
        """Equal error rate."""
        return self.metric("eer")


def _read(kind: type, value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a record whose metrics stand flat beside its fields as NAME, NAME_low and NAME_high."""
    known = [key for key in json_keys(kind) if key != "metrics"]
    flat = {key: v for key, v in value.items() if key not in known}
    metrics: dict[str, Metric] = {}
    for key, v in flat.items():
        stem = key.removesuffix("_low").removesuffix("_high")
        if stem not in flat:
            raise unknown(f"key in the {where}", key, [*known, *flat])
        if v is not None and (isinstance(v, bool) or not isinstance(v, int | float)):
            raise RequestError(f"{key!r} in the {where} cannot be {v!r}", "it is a number")
        if stem == key:
            metrics[key] = Metric(v, flat.get(f"{key}_low"), flat.get(f"{key}_high"))
    rest = {key: v for key, v in value.items() if key in known}
    return {**arguments(kind, rest, where, "key"), "metrics": metrics}


def _write(record: Any) -> dict[str, Any]:
    """Return the record with its metrics flat beside its fields."""
    flat: dict[str, float | None] = {}
    for name, metric in record.metrics.items():
        flat |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}
    fields = fields_to_json(record)
    del fields["metrics"]
    return {**fields, **flat}
