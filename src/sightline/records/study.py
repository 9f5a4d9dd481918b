"""Records of studies: the typed content of `study.json` of a sweep and of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sightline.errors import RequestError
from sightline.records.versions import VERSION, check_version
from sightline.schema import fields_to_json, from_json, json_key


@dataclass(frozen=True, slots=True)
class SweepSetting:
    """One setting of a sweep, fitted with each random seed.

    Args:
        setting: Values of the varied keys.
        accuracy, accuracy_low, accuracy_high: Mean, minimum and maximum over seeds; None if a fit failed.
        by_seed: Accuracy with each seed.
        failed: Why a fit failed; None if none did.
        mark: Mark in the report; "" for none.
        best, default: Whether it is the most accurate one, and the recipe as it is.
        feature_width: Number of features that the head takes; None without a network.
        feature_bytes: Size of the cached features of train and val in float32; None for a method that caches none.
    """

    label: str
    setting: Mapping[str, Any]
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    by_seed: Sequence[float] | None
    log_loss: float | None
    failed: str | None
    best: bool
    default: bool
    seconds: float | None = None
    parameters: int | None = None
    runs: Sequence[str] = ()
    mark: str | None = None
    feature_width: int | None = None
    feature_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SweepComparison:
    """Paired test of setting b against setting a, by index; `against` tells whether a is the best one or the default."""

    a: int
    b: int
    against: str
    difference: float
    low: float
    high: float
    by_seed: Sequence[float]
    p: float
    p_corrected: float
    significant: bool = field(metadata=json_key("told_apart"))


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """Content of `study.json` of a sweep.

    Args:
        words: Results in sentences.
        images: Held-out images; `estimate` tells which.
        best, default: Index of the most accurate setting and of the recipe as it is.
        keys: The varied keys.
    """

    kind: str
    words: Sequence[str]
    images: int
    estimate: str
    recipe: Mapping[str, Any]
    keys: Sequence[str]
    seeds: Sequence[int]
    settings: Sequence[SweepSetting]
    comparisons: Sequence[SweepComparison]
    best: int
    default: int | None
    name: str | None = None
    created: str | None = None
    seconds: float | None = None
    id: str | None = None
    photos: str | None = None
    version: int = VERSION
    sightline: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of `study.json`."""
        return fields_to_json(self)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a search.

    Args:
        state: `complete`, `pruned`, `failed`, …
        why: Reason if it is not complete.
        params: Sampled hyperparameters.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    accuracy: float | None
    log_loss: float | None
    why: str | None = None
    seconds: float | None = None
    parameters: int | None = None
    estimate: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchStep:
    """Accuracy of a trial, and the best one so far."""

    number: int
    accuracy: float
    best: float | None


@dataclass(frozen=True, slots=True)
class BestAgainstDefault:
    """Paired test of the best trial against the recipe as it is."""

    difference: float
    low: float
    high: float
    p: float
    significant: bool = field(metadata=json_key("told_apart"))


@dataclass(frozen=True, slots=True)
class SelectionOptimism:
    """Optimism of a score whose model was selected among many on the same images.

    Args:
        optimism: Expected loss of accuracy on other images, 0 to 1.
        gain: Gain in accuracy over the default on images not used for the selection.
        chosen_among: Number of trials.
        images: Number of images that the selection used.
    """

    optimism: float
    gain: float
    chosen_among: int
    images: int | None = None


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """Content of `study.json` of a hyperparameter search.

    Args:
        words: Results in sentences.
        images: Held-out images; `estimate` tells which.
        trials_requested: Number of trials that were requested.
        best: Number of the best trial.
        changed: Settings of the best trial that differ from the recipe.
        importance: Share of the variance of accuracy by hyperparameter.
        counts: Trials by state.
    """

    kind: str
    words: Sequence[str]
    images: int
    estimate: str
    recipe: Mapping[str, Any]
    trials: Sequence[Trial]
    path: Sequence[SearchStep]
    best: int
    changed: Mapping[str, Any]
    comparison: BestAgainstDefault
    optimism: SelectionOptimism | None
    importance: Mapping[str, float]
    counts: Mapping[str, int]
    trials_requested: int | None = field(default=None, metadata=json_key("asked"))
    name: str | None = None
    created: str | None = None
    seconds: float | None = None
    id: str | None = None
    photos: str | None = None
    version: int = VERSION
    sightline: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of `study.json`."""
        return fields_to_json(self)


StudyRecord = SweepRecord | SearchRecord
KINDS: Mapping[str, type[SweepRecord] | type[SearchRecord]] = {"sweep": SweepRecord, "tune": SearchRecord}


def read_study(value: Mapping[str, Any], where: str = "study record") -> StudyRecord:
    """Read the content of `study.json`.

    Raises:
        RequestError: If the kind is unknown, the version is another one, a key is unknown or missing, or a value has another
            type.
    """
    kind = KINDS.get(str(value.get("kind")))
    if kind is None:
        raise RequestError(f"{value.get('kind')!r} is no kind of study", f"known: {', '.join(KINDS)}")
    check_version(value, where)
    return from_json(kind, value, where, "key")
