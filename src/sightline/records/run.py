"""Record of a run: the typed content of `run.json`, in blocks that a kind of run fills or leaves empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sightline.records import display
from sightline.records.audit import AuditRecord
from sightline.records.candidates import (
    Calibration,
    CandidateSummary,
    ContinuedRun,
    Environment,
    NetworkSummary,
    PrecisionCheck,
    ShortcutCheck,
    SkippedCandidate,
    ThresholdChoice,
)
from sightline.records.cross_validation import CrossValidationSummary
from sightline.records.data_summary import DatasetSummary, FileProblem, SplitSummary
from sightline.records.error_analysis import (
    HeldOutImage,
    LabelChanges,
    Mistake,
    SliceScore,
    TableMismatches,
    UncertaintySummary,
)
from sightline.records.heatmaps import ClassMaps, ExplainedImage, HeatmapChecks, HeatmapProgress
from sightline.records.learning_curve import LearningCurveRecord
from sightline.records.network_layers import NetworkLayers
from sightline.records.scores import Scores
from sightline.records.stress import StressTest
from sightline.records.test_set import TestSetAccess, TestSetLogEntry
from sightline.records.versions import VERSION, check_version
from sightline.schema import fields_to_json, from_json, json_key

_ALWAYS = (
    *("version", "sightline", "kind", "name", "created", "id", "command", "photos", "root", "seed", "seconds", "data"),
    *("classes", "positive", "threshold", "test", "undecodable", "mistakes", "mistakes_in", "environment"),
    *("method", "backbone", "head"),
)
_HELD_OUT = ("val", "val_estimate", "answers_in", "test_openings")
_FITTED = (
    *("ladder", "network", "precision", "calibration", "history", "overfitting", "epochs", "best_epoch", "course", "steps"),
    "slices",
)
KEYS: Mapping[str, Sequence[str]] = {
    "run": (
        *(*_ALWAYS, *_HELD_OUT, *_FITTED, "split", "plan", "skipped", "not_at_hand", "shortcut", "test_without_leaks"),
        *("rerun", "crossvalidate", "explanations", "heatmaps", "timings"),
    ),
    "train": (*_ALWAYS, *_HELD_OUT, *_FITTED, "continued"),
    "evaluate": (
        *(*_ALWAYS, "subject", "scored", "in_training", "caution", "not_among_classes", "table", "test_without_leaks"),
        *("slices", "explanations", "heatmaps", "precision", "crops", "crossvalidate"),
    ),
    "crossvalidate": (*_ALWAYS, *_HELD_OUT, "crossvalidation"),
}
"""Keys that run.json always has, null or empty if there is nothing to say, by kind of run."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Content of `run.json`. Blocks that a kind of run does not have are None or empty.

    Args:
        kind: `run`, `train`, `evaluate` or `crossvalidate`.
        command: The command line; "" from Python.
        photos, root: The dataset as it was named, and the folder that paths are relative to.
        candidates: Fitted classifiers, the most accurate last.
        missing_weights: Networks whose weights were not available.
        pretrained_networks: Networks with pretrained weights that the plan compares.
        audit: Findings of the audit on train and val.
        val_estimate: How held-out predictions were made, for people.
        undecodable: Files that could not be decoded, by split.
        predictions_in: Table of the held-out predictions: `val` or `cross_validated`.
        mistakes_in: Predictions that mistakes are of.
        held_out_images: Some images of the held-out predictions, at all degrees of confidence.
        rerun_commands: Commands that repeat the run.
        network_layers: Layers and drawing of the network.
        history: File of the training history.
        training_note: Which epoch's weights were kept, and why.
        crossvalidate_command: Command that says more than few test images do; None if there are enough.
        left_out: What the time budget left out.
        timings: Seconds by stage.
        subject: What an evaluation scored.
        scored_split: The split that an evaluation scored.
        in_training: Scored images that the classifier was made from.
        unknown_labels: Images of classes that the classifier does not know.
        label_changes: Scored images whose labels were changed since the classifier was made, with the score under both.
        stress: Accuracy on altered versions of the scored images.
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
    pretrained_networks: Sequence[str] = ()
    shortcut: ShortcutCheck | None = None
    audit: AuditRecord | None = None
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
    network_layers: NetworkLayers | None = None
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
    held_out_images: Sequence[HeldOutImage] = ()
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
    label_changes: LabelChanges | None = None
    stress: StressTest | None = None
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

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        facts: dict[str, object] = {
            name: getattr(self, name) or None for name in ("kind", "name", "method", "backbone", "head")
        }
        for name, scores in (("validation accuracy", self.val), ("test accuracy", self.test)):
            accuracy = None if scores is None else scores.metrics.get("accuracy")
            if scores is not None and accuracy is not None and accuracy.value is not None:
                facts[name] = f"{accuracy.value:.3f} on {scores.n:,} images"
        return display.table("RunRecord", facts)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `run.json`: the keys of its kind of run, and further blocks that are not empty."""
        always = KEYS.get(self.kind or "", ())
        return {key: value for key, value in fields_to_json(self).items() if key in always or value not in (None, [], {}, 0)}
