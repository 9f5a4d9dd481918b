"""Record of a run: the typed content of `run.json`, in blocks that a kind of run fills or leaves empty."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sightline.errors import ModelFileError, RequestError
from sightline.files import read_text
from sightline.records.scores import Scores
from sightline.schema import fields_to_json, from_json, json_key

VERSION = 1
"""Version of the format of run.json."""
RESULTS_VERSION = "0.1.0"
"""Version of the numbers: part of every run's id. Raise it only if the same request gives other numbers than before."""


@dataclass(frozen=True, slots=True)
class FileProblem:
    """A file that could not be used, and why."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class SideLengths:
    """Range of image widths or heights, in pixels."""

    min: int
    max: int
    median: float | None = None


@dataclass(frozen=True, slots=True)
class SizeHistogram:
    """Histogram of shorter sides.

    Args:
        edges_px: n + 1 edges of the bins, in pixels.
        counts: n counts of images.
    """

    edges_px: Sequence[int]
    counts: Sequence[int]


@dataclass(frozen=True, slots=True)
class DuplicateSummary:
    """Duplicates and near-duplicates in a dataset.

    Args:
        exact: Sets of identical files.
        near: Sets of nearly identical images.
        largest: Paths of the largest set.
        conflicts: Sets whose images stand under more than one label.
    """

    exact: int = 0
    near: int = 0
    largest: Sequence[str] = ()
    conflicts: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class SampleImage:
    """An example image of the report: the picture and what the network sees of it, as files in the run's folder."""

    path: str | None = None
    label: str | None = None
    split: str | None = None
    file: str | None = None
    seen: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """Summary of a dataset.

    Args:
        images: All files.
        usable: Files that could be read and have a label.
        problems: Number of unusable files by kind of problem.
        problem_files: The first of them by path.
        notes: Notes and warnings about the dataset.
        per_class: Images by class and split.
        enlarged: Share of images that are enlarged for an input of this side, by side in pixels.
        formats: Images by file format.
        modes: Images by colour mode.
        samples: Example images.
    """

    images: int | None = None
    usable: int | None = None
    problems: Mapping[str, int] = field(default_factory=dict)
    problem_files: Sequence[FileProblem] = ()
    notes: Sequence[str] = ()
    per_class: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    width: SideLengths | None = None
    height: SideLengths | None = None
    size_histogram: SizeHistogram | None = None
    enlarged: Mapping[str, float | None] = field(default_factory=dict)
    formats: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    duplicates: DuplicateSummary | None = None
    samples: Sequence[SampleImage] = ()


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """How images were divided into train, val and test.

    Args:
        given: Whether the dataset came with a split.
        moves: Images by the split that they had and the split that they got; empty if none was given.
        val_share, test_share: Requested shares.
        seed: Random seed.
        group_by: Column whose equal values stay together.
        train, val, test: Images of each split.
        clusters: Sets of duplicates.
        straddling: Sets of duplicates on more than one side.
        leaks: Pairs of paths: a test image and its duplicate in train; the first of them.
        leaked: Test images with a duplicate in train.
    """

    given: bool | str = False
    moves: Mapping[str, Mapping[str, int]] | None = None
    val_share: float | None = field(default=None, metadata=json_key("val"))
    test_share: float | None = field(default=None, metadata=json_key("test"))
    seed: int = 0
    group_by: str | None = None
    train: int | None = None
    val: int | None = field(default=None, metadata=json_key("val_n"))
    test: int | None = field(default=None, metadata=json_key("test_n"))
    clusters: int = 0
    straddling: int = 0
    leaks: Sequence[Sequence[str]] = ()
    leaked: int | None = None


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
        used: `f32`, `bf16`, `f16`, …
        why: Reason for the choice.
        judged_on: Images of the check.
        predictions_changed: Predictions that differ from those in float32.
        limit: Differences that were accepted at most.
        mean_cosine, min_cosine: Cosine similarity of features with those in float32.
        torch_max_difference: Largest difference from torch.
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
class TestSetAccess:
    """One use of test images: when, by which command, for what, and how many of them."""

    __test__ = False

    when: str | None = None
    by: str | None = None
    verb: str | None = None
    images: int | None = None
    shared: int | None = None
    classifiers: int | None = None


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
    """

    path: str
    label: str | None = None
    predicted: str | None = None
    probability: float | None = None
    thumbnail: str | None = None
    nearest: Sequence[SimilarImage] = ()


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
class ExplainedImage:
    """An image with a heatmap.

    Args:
        overlay: File of the heatmap over the image, in the run's folder.
        peak: (row, column) of the highest attribution, in pixels; None for a flat heatmap.
        verdict: Verdict of the checks on this heatmap.
    """

    path: str
    label: str | None = None
    predicted: str | None = None
    probability: float | None = None
    target: str | None = None
    method: str | None = None
    layer: str | None = None
    correct: bool = False
    overlay: str | None = None
    peak: Sequence[float] | None = None
    verdict: str | None = None


@dataclass(frozen=True, slots=True)
class HeatmapFinding:
    """Result of one check of heatmaps; `numbers` depend on the check."""

    check: str
    verdict: str
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "finding") -> HeatmapFinding:
        """Read one finding; further keys are the numbers of the check.

        Raises:
            RequestError: If a key is missing or its value has another type.
        """
        words = {key: value[key] for key in ("check", "verdict", "text") if key in value}
        numbers = {key: v for key, v in value.items() if key not in words}
        return from_json(cls, {**words, "numbers": numbers}, where, "key")

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"check": self.check, "verdict": self.verdict, "text": self.text, **self.numbers}


@dataclass(frozen=True, slots=True)
class HeatmapChecks:
    """Checks of the run's heatmaps.

    Args:
        verdict, why: Of all checks together.
        images: Number of checked heatmaps.
        chance: Insertion and deletion scores of random orders of cells.
    """

    verdict: str | None = None
    why: str | None = None
    findings: Sequence[HeatmapFinding] = ()
    images: int | None = None
    chance: Sequence[float] = ()
    method: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class ChannelShare:
    """Share of a class's attribution on one channel of the feature map."""

    channel: int | None = None
    share: float | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Average heatmap of one class.

    Args:
        n: Images.
        map: (h, w) shares that sum to 1.
        outside: Share outside the central part.
        regions: Median share of each border and corner.
        channels: Channels with the largest shares.
    """

    name: str = field(metadata=json_key("class"))
    n: int | None = None
    map: Sequence[Sequence[float]] = ()
    outside: float | None = None
    regions: Mapping[str, float] = field(default_factory=dict)
    channels: Sequence[ChannelShare] = ()


@dataclass(frozen=True, slots=True)
class RegionShare:
    """Attribution of a class at one border or corner, and what blurring that region does.

    Args:
        share: Median share of attribution.
        area: Share of the image's area.
        p: p-value of the share.
        before, after: Mean probability of the class before and after blurring the region.
        drop, drop_p: Fall of the probability and its p-value.
        blurred: Images that were blurred.
        lowers: Whether blurring clearly lowers the probability.
    """

    class_name: str | None = field(default=None, metadata=json_key("class"))
    region: str | None = None
    n: int | None = None
    share: float | None = None
    area: float | None = None
    p: float | None = None
    before: float | None = None
    after: float | None = None
    drop: float | None = None
    drop_p: float | None = None
    blurred: int | None = None
    lowers: bool | None = None


@dataclass(frozen=True, slots=True)
class ClassMaps:
    """Average heatmaps by class, and alarms for borders and corners.

    Args:
        n: Images.
        classes: One for each class.
        alarms: Regions on which the prediction depends.
        harmless: Regions with much attribution on which it does not.
        highest: The region with the lowest p-value; None if nothing was tested.
    """

    n: int | None = None
    by: str | None = None
    centre: float | None = None
    classes: Sequence[ClassMap] = ()
    alarms: Sequence[RegionShare] = ()
    harmless: Sequence[RegionShare] = ()
    highest: RegionShare | None = None
    method: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class HeatmapProgress:
    """How many heatmaps were drawn.

    Args:
        requested: `none`, `few` or `all`.
        drawn: Of `total`.
        pending: Whether more will be drawn.
        budget_s: Their share of the time budget, in seconds; None for no limit.
    """

    requested: str | None = field(default=None, metadata=json_key("asked"))
    drawn: int | None = None
    total: int | None = field(default=None, metadata=json_key("of"))
    pending: bool | None = None
    seconds: float | None = None
    budget_s: float | None = None


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
        """Return what `from_json` reads."""
        return fields_to_json(self)


@dataclass(frozen=True, slots=True)
class FoldScore:
    """One fold of a cross-validation.

    Args:
        fold, repeat: Numbers from 1.
        n: Images that were predicted.
        trained_on: Images that were trained on.
        inner: Accuracy inside the fold by which the head was chosen.
    """

    fold: int
    repeat: int
    n: int | None = None
    trained_on: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    label: str | None = None
    head: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    inner: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class CrossValidationSummary:
    """Cross-validation of a recipe.

    Args:
        accuracy, accuracy_low, accuracy_high: Mean over repeats and its 95 % interval.
        by_repeat: Accuracy of each repeat.
        clusters: Images if those that belong together count once.
        test_images: Test images that were left out.
        heads: How often each head was chosen.
        parts: One for each fold and repeat.
    """

    folds: int
    repeats: int
    by_repeat: Sequence[float]
    images: int | None = None
    clusters: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    test_images: int = field(default=0, metadata=json_key("closed"))
    heads: Mapping[str, int] = field(default_factory=dict)
    parts: Sequence[FoldScore] = ()


@dataclass(frozen=True, slots=True)
class LabelMismatch:
    """An image whose label in a table of predictions differs from that in the catalog."""

    path: str
    table: str
    catalog: str


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


@dataclass(frozen=True, slots=True)
class ContinuedRun:
    """The run that a training continued, and its number of epochs."""

    run: str
    epochs: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Content of `run.json`. Blocks that a kind of run does not have are None or empty.

    Args:
        kind: `run`, `train`, `evaluate` or `crossvalidate`.
        command: The command line; "" from Python.
        photos, root: The dataset as it was named, and the folder that paths are relative to.
        candidates: Fitted classifiers, the most accurate last.
        missing_weights: Networks whose weights were not available.
        val_estimate: How held-out predictions were made, for people.
        undecodable: Files that could not be decoded, by split.
        predictions_in: Table of the held-out predictions: `val` or `cross_validated`.
        mistakes_in: Predictions that mistakes are of.
        rerun_commands: Commands that repeat the run.
        history: File of the training history.
        training_note: Which epoch's weights were kept, and why.
        crossvalidate_command: Command that says more than few test images do; None if there are enough.
        left_out: What the time budget left out.
        timings: Seconds by stage.
        subject: What an evaluation scored.
        scored_split: The split that an evaluation scored.
        in_training: Scored images that the classifier was made from.
        unknown_labels: Images of classes that the classifier does not know.
        table_mismatches: Of an evaluation of a table.
        crops: Crops per image.
    """

    version: int = VERSION
    sightline: str | None = None
    kind: str | None = None
    name: str | None = None
    created: str | None = None
    id: str | None = None
    command: str | None = None
    photos: str | None = None
    root: str | None = None
    seed: int | None = None
    seconds: float | None = None
    dataset: DatasetSummary | None = field(default=None, metadata=json_key("data"))
    split: SplitSummary | None = None
    plan: Sequence[str] = ()
    candidates: Sequence[CandidateSummary] = field(default=(), metadata=json_key("ladder"))
    skipped: Sequence[SkippedCandidate] = ()
    missing_weights: Sequence[str] = field(default=(), metadata=json_key("not_at_hand"))
    shortcut: ShortcutCheck | None = None
    val: Scores | None = None
    val_estimate: str | None = None
    test: Scores | None = None
    test_without_leaks: Scores | None = None
    undecodable: Mapping[str, Sequence[FileProblem]] = field(default_factory=dict)
    predictions_in: str | None = field(default=None, metadata=json_key("answers_in"))
    mistakes_in: str | None = None
    rerun_commands: Sequence[str] = field(default=(), metadata=json_key("rerun"))
    classes: Sequence[str] = ()
    positive: str | None = None
    method: str | None = None
    backbone: str | None = None
    head: str | None = None
    network: NetworkSummary | None = None
    precision: PrecisionCheck | None = None
    calibration: Calibration | None = None
    threshold: ThresholdChoice | None = None
    history: str | None = None
    overfitting: str | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    training_note: str | None = field(default=None, metadata=json_key("course"))
    steps: int | None = None
    continued: ContinuedRun | None = None
    learning_curve: LearningCurveRecord | None = field(default=None, metadata=json_key("learning"))
    crossvalidate_command: str | None = field(default=None, metadata=json_key("crossvalidate"))
    test_set_accesses: Sequence[TestSetAccess] = field(default=(), metadata=json_key("test_openings"))
    test_set_log: TestSetLogEntry | None = field(default=None, metadata=json_key("ledger"))
    environment: Environment | None = None
    mistakes: Sequence[Mistake] = ()
    slices: Sequence[SliceScore] = ()
    uncertainty: UncertaintySummary | None = field(default=None, metadata=json_key("limits"))
    explanations: Sequence[ExplainedImage] = ()
    heatmap_checks: HeatmapChecks | None = field(default=None, metadata=json_key("heat_checks"))
    class_maps: ClassMaps | None = field(default=None, metadata=json_key("heat_global"))
    heatmaps: HeatmapProgress | None = None
    left_out: Sequence[str] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    subject: str | None = None
    scored_split: str | None = field(default=None, metadata=json_key("scored"))
    in_training: int | None = None
    caution: str | None = None
    unknown_labels: int = field(default=0, metadata=json_key("not_among_classes"))
    table_mismatches: TableMismatches | None = field(default=None, metadata=json_key("table"))
    crops: int | None = None
    cross_validation: CrossValidationSummary | None = field(default=None, metadata=json_key("crossvalidation"))

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "run record") -> RunRecord:
        """Read the content of `run.json`.

        Raises:
            RequestError: If the version is another one, a key is unknown, or a value has another type.
        """
        check_version(value, where)
        return from_json(cls, value, where, "key")

    def to_json(self) -> dict[str, Any]:
        """Return the content of `run.json`; blocks that are None are left out."""
        return fields_to_json(self)


_ALWAYS = (
    *("version", "sightline", "kind", "name", "created", "id", "command", "photos", "root", "seed", "seconds", "data"),
    *("classes", "positive", "threshold", "test", "undecodable", "mistakes", "mistakes_in", "environment"),
)
_HELD_OUT = ("val", "val_estimate", "answers_in", "test_openings", "method", "backbone", "head")
_FITTED = (
    *("ladder", "network", "precision", "calibration", "history", "overfitting", "epochs", "best_epoch", "course", "steps"),
)
REQUIRED: Mapping[str, Sequence[str]] = {
    "run": (
        *(*_ALWAYS, *_HELD_OUT, *_FITTED, "split", "plan", "skipped", "not_at_hand", "shortcut", "test_without_leaks"),
        *("rerun", "crossvalidate", "explanations", "heatmaps", "timings"),
    ),
    "train": (*_ALWAYS, *_HELD_OUT, *_FITTED, "continued", "slices"),
    "evaluate": (
        *(*_ALWAYS, "subject", "scored", "in_training", "caution", "not_among_classes", "table", "test_without_leaks"),
        "slices",
    ),
    "crossvalidate": (*_ALWAYS, *_HELD_OUT, "crossvalidation"),
}
"""Keys that a finished run.json has, by kind of run."""


def check_complete(value: Mapping[str, Any]) -> None:
    """Refuse the content of a finished run.json that lacks a key of its kind of run, or has one that is unknown.

    Raises:
        RequestError: If the kind or a key is unknown, a key is missing, or a value has another type.
    """
    RunRecord.from_json(value)
    kind = str(value.get("kind"))
    if kind not in REQUIRED:
        raise RequestError(f"{kind!r} is no kind of run", f"known: {', '.join(REQUIRED)}")
    missing = [key for key in REQUIRED[kind] if key not in value]
    if missing:
        raise RequestError(f"the run record lacks {', '.join(missing)}", f"a run of kind {kind} has these keys")


def check_version(value: Mapping[str, Any], where: str) -> None:
    """Refuse a record of another version.

    Raises:
        RequestError: If the version is not `VERSION`.
    """
    version = value.get("version", VERSION)
    if version != VERSION:
        raise RequestError(f"the {where} has version {version!r}; this Sightline reads version {VERSION}", "make the run again")


def read_record(file: Path) -> dict[str, Any]:
    """Return the content of a JSON record.

    Raises:
        ModelFileError: If the file is not a JSON object.
    """
    try:
        value = json.loads(read_text(file))
    except ValueError as error:
        raise ModelFileError(f"{file} is damaged ({error})", "make the run again") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{file} is damaged (it holds no JSON object)", "make the run again")
    return value
