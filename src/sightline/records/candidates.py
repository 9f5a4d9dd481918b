"""Blocks of run.json about candidates, the chosen classifier and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sightline.schema import json_key


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """Accuracy of a candidate on held-out images, with its 95 % interval."""

    n: int
    accuracy: float
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    log_loss: float | None = None
    estimate: str | None = None


@dataclass(frozen=True, slots=True)
class SharedScore:
    """Accuracy on the images that all candidates were held out on."""

    n: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class ThresholdScore:
    """Accuracy of the chosen candidate at its decision threshold.

    Args:
        threshold: Probability of the positive class from which it is predicted.
        criterion: Criterion that the threshold was chosen by.
    """

    n: int
    threshold: float
    criterion: str = field(metadata=json_key("by"))
    positive: str | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None


@dataclass(frozen=True, slots=True)
class CandidateSummary:
    """A fitted classifier that the run could choose.

    Args:
        label: Its name for people.
        val: Its score on held-out images.
        at_threshold: Its score at the chosen decision threshold; None if it has none.
        seconds: Time to fit it.
        chosen: Whether the run chose it.
        parameters: Number of parameters.
        settings: Settings of its head.
        shared: Its score on the images that all candidates were held out on; None if those are all.
    """

    method: str
    label: str | None = None
    val: CandidateScore | None = None
    backbone: str | None = None
    head: str | None = None
    at_threshold: ThresholdScore | None = field(default=None, metadata=json_key("at_bar"))
    seconds: float | None = None
    chosen: bool = False
    note: str | None = None
    parameters: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    shared: SharedScore | None = None


@dataclass(frozen=True, slots=True)
class SkippedCandidate:
    """A planned candidate that was not fitted, and why."""

    method: str
    backbone: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class ClassArea:
    """ROC AUC of one class against the rest, with the lower end of its 95 % interval."""

    auc: float
    auc_low: float


@dataclass(frozen=True, slots=True)
class ShortcutRule:
    """A file property that gives a class away: a value that nearly only this class has, or an edge statistic that differs.

    Args:
        feature: Name of the property.
        class_name: The class.
        value: The value, as text; None for an edge statistic.
        images: Images with the value.
        purity: Share of these that belong to the class.
        coverage: Share of the class's images with the value.
        p: p-value of the purity, corrected for the number of values tried.
        auc: ROC AUC of an edge statistic.
    """

    feature: str
    class_name: str = field(metadata=json_key("class"))
    value: str | None = None
    images: int | None = None
    purity: float | None = None
    coverage: float | None = None
    p: float | None = None
    auc: float | None = None

    @property
    def sentence(self) -> str:
        """Return what was found in one sentence, without the final full stop."""
        if self.value is None:
            area = f"{self.auc or 0.5:.2f}"
            return f"{self.feature}: separates {self.class_name} with a ROC AUC of {area} (a caption, logo or border?)"
        purity, coverage = f"{self.purity or 0:.0%}", f"{self.coverage or 0:.0%}"
        return (
            f"{self.feature} {self.value}: {purity} of the {self.images or 0:,} images with it are {self.class_name} "
            f"({coverage} of that class)"
        )


@dataclass(frozen=True, slots=True)
class ShortcutCheck:
    """Result of a classifier that sees file properties only.

    Args:
        score: Its accuracy.
        chance: Accuracy of the most frequent class.
        alarm: Whether file properties give a class away.
        notable: Whether its accuracy is clearly above chance.
        class_name: The class that is easiest to tell by file properties.
        auc, auc_low: Its ROC AUC and the lower end of the 95 % interval.
        feature, feature_auc: The most telling file property and its ROC AUC.
        rules: File properties that give a part of a class away, the most telling first.
    """

    alarm: bool = False
    notable: bool = False
    score: float | None = None
    chance: float | None = None
    class_name: str | None = field(default=None, metadata=json_key("class"))
    auc: float | None = None
    auc_low: float | None = None
    feature: str | None = None
    feature_auc: float | None = None
    per_class: Mapping[str, ClassArea] = field(default_factory=dict)
    rules: Sequence[ShortcutRule] = ()


@dataclass(frozen=True, slots=True)
class InputSummary:
    """Preprocessing from a file to the input of the network; as `Preprocess`, whose fields may all be absent."""

    size: Sequence[int] = ()
    fit: str | None = None
    interpolation: str | None = None
    crop_fraction: float | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    value_range: Sequence[float] | None = None
    background: int | Sequence[int] | None = None
    decoder: str | None = None
    max_pixels: int | None = None
    allow_truncated: bool = False


@dataclass(frozen=True, slots=True)
class NetworkSummary:
    """Backbone of the chosen classifier: size, weights, licence, origin."""

    name: str
    parameters: int | None = None
    features: int | None = None
    weights: str | None = None
    weights_hash: str | None = None
    licence: str | None = None
    origin: str | None = None
    pretrained_on: str | None = None
    preprocess: InputSummary | None = None


@dataclass(frozen=True, slots=True)
class PrecisionCheck:
    """Arithmetic that features were computed in, and how it was checked against float32.

    Args:
        used: `f32`, `bf16` or `int8`.
        why: Reason for the choice.
        judged_on: Images of the check.
        predictions_changed: Predictions that differ from those in float32.
        limit: Differences that were accepted at most.
        mean_cosine, min_cosine: Cosine similarity of features with those in float32.
        torch_max_difference: Largest difference from torch.
        accuracy_f32, accuracy_fast: Out-of-fold accuracy of a linear head on the images of the check, in float32 and in the
            other precision.
        p_value: McNemar's test of these accuracies.
        ranges: Identity of the quantised network, for int8.
        instructions: Instruction class of the processor on which int8 was checked.
        map_correlation: Mean rank correlation of heatmaps from int8 maps with those from float32 maps.
        int8_maps: Whether heatmaps are drawn from int8 maps.
    """

    used: str | None = None
    why: str | None = None
    runtime: str | None = None
    judged_on: int | None = None
    predictions_changed: int | None = field(default=None, metadata=json_key("answers_changed"))
    limit: int | None = None
    mean_cosine: float | None = None
    min_cosine: float | None = None
    torch_max_difference: float | None = None
    accuracy_f32: float | None = None
    accuracy_fast: float | None = None
    p_value: float | None = None
    ranges: str | None = None
    instructions: str | None = None
    map_correlation: float | None = None
    int8_maps: bool | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Temperature that logits are divided by, and the images that it was fitted on."""

    temperature: float | None = None
    fitted_on: str | None = None


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """Decision threshold of the positive class.

    Args:
        value: Probability from which the positive class is predicted; None for 0.5.
        criterion: Criterion that it was chosen by.
        positive: The positive class.
        fitted_on: Images that it was chosen on.
        by_fold: Threshold of each fold of a cross-validation.
    """

    value: float | None = None
    criterion: str | None = field(default=None, metadata=json_key("by"))
    positive: str | None = None
    fitted_on: str | None = None
    by_fold: Sequence[float | None] = field(default=(), metadata=json_key("bars"))


@dataclass(frozen=True, slots=True)
class ContinuedRun:
    """The run that a training continued, and its number of epochs."""

    run: str
    epochs: int


@dataclass(frozen=True, slots=True)
class Environment:
    """Machine and package versions."""

    python: str | None = None
    platform: str | None = None
    processor: str | None = None
    cores: int | None = None
    device: str | None = None
    threads: int | None = None
    instruction_set: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
