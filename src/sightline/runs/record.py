"""Builder of run records: every block of `run.json` from the objects of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sightline import __version__, evaluation
from sightline import catalog as catalogs
from sightline.catalog import Duplicates
from sightline.records import Catalog, Predictions, RunRecord, Scores
from sightline.records.candidates import (
    Calibration,
    CandidateScore,
    CandidateSummary,
    Environment,
    InputSummary,
    NetworkSummary,
    PrecisionCheck,
    ThresholdChoice,
    ThresholdScore,
)
from sightline.records.data_summary import DatasetSummary, FileProblem
from sightline.records.error_analysis import Mistake, SliceScore, UncertaintySummary
from sightline.records.heatmaps import ClassMaps, ExplainedImage, HeatmapChecks, HeatmapProgress
from sightline.runs.test_set_log import Opening
from sightline.schema import from_json
from sightline.store import now, plain
from sightline.training.context import Candidate


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorAnalysis:
    """Blocks of run.json about wrong predictions; slices are None until they are computed."""

    mistakes: Sequence[Mistake]
    uncertainty: UncertaintySummary | None = None
    slices: Sequence[SliceScore] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class HeatmapBlocks:
    """Blocks of run.json about heatmaps; the checks and the maps of classes are None if none was computed."""

    explanations: Sequence[ExplainedImage]
    progress: HeatmapProgress
    checks: HeatmapChecks | None = None
    class_maps: ClassMaps | None = None


def begin(kind: str, name: str, identity: str | None = None) -> RunRecord:
    """Return the record of a run that starts now.

    Args:
        kind: `run`, `train`, `evaluate` or `crossvalidate`.
        name: Name of the run.
        identity: Hash of all that its result depends on.
    """
    return RunRecord(sightline=__version__, kind=kind, name=name, created=now(), id=identity, command="")


def with_classifier(record: RunRecord, candidate: Candidate, history: str | None) -> RunRecord:
    """Return the record with the facts about the chosen classifier; `history` is the file of its training history."""
    card = candidate.classifier.card
    return dataclasses.replace(
        record,
        classes=card.classes,
        positive=card.positive,
        method=card.method,
        backbone=card.backbone.name,
        head=card.head,
        network=network_summary(candidate),
        precision=precision_check(card.precision),
        calibration=Calibration(card.temperature, candidate.estimate),
        threshold=ThresholdChoice(card.threshold, card.threshold_by, card.positive, candidate.estimate),
        history=history,
        overfitting=candidate.overfitting,
        epochs=sum(row.get("epoch", 1) > 0 for row in candidate.history),
        best_epoch=candidate.detail.get("best_epoch"),
        training_note=candidate.course,
        steps=candidate.steps,
    )


def with_test_use(record: RunRecord, opening: Opening | None, quoted: Predictions) -> RunRecord:
    """Return the record with the uses of the test images; `quoted` are the predictions whose accuracy is reported."""
    if opening is None:
        return record
    accuracy = float((quoted.y_pred == quoted.y_true).mean())
    return dataclasses.replace(record, test_set_accesses=opening.looks, test_set_log=opening.entry(accuracy, len(quoted)))


def with_errors(record: RunRecord, found: ErrorAnalysis) -> RunRecord:
    """Return the record with mistakes, uncertainty and slices."""
    return dataclasses.replace(record, mistakes=found.mistakes, uncertainty=found.uncertainty, slices=found.slices)


def with_heatmaps(record: RunRecord, found: HeatmapBlocks) -> RunRecord:
    """Return the record with the heatmaps and their checks."""
    return dataclasses.replace(
        record,
        explanations=found.explanations,
        heatmaps=found.progress,
        heatmap_checks=found.checks,
        class_maps=found.class_maps,
    )


def with_environment(record: RunRecord, environment: Mapping[str, Any], seconds: float | None = None) -> RunRecord:
    """Return the record with the machine and package versions, and the seconds that the run took."""
    return dataclasses.replace(record, environment=from_json(Environment, plain(environment), "environment"), seconds=seconds)


def dataset_summary(catalog: Catalog, duplicates: Duplicates) -> DatasetSummary:
    """Return the block `data`."""
    return from_json(DatasetSummary, catalogs.summarise(catalog, duplicates), "data")


def scores(answers: Predictions | None, positive: str | None, groups: np.ndarray | None) -> Scores | None:
    """Return the scores of predictions as `evaluation.score` computes them; None without predictions."""
    if answers is None or not len(answers):
        return None
    return Scores.from_json(evaluation.score(answers, positive=positive, groups=groups))


def file_problems(errors: Mapping[str, str]) -> list[FileProblem]:
    """Return the files without a prediction and why."""
    return [FileProblem(path, why) for path, why in errors.items()]


def precision_check(precision: Mapping[str, Any]) -> PrecisionCheck:
    """Return the block `precision` of a card's facts."""
    return from_json(PrecisionCheck, plain(precision), "precision")


def network_summary(candidate: Candidate) -> NetworkSummary:
    """Return size, weights, licence and origin of a candidate's network."""
    b = candidate.classifier.card.backbone
    return NetworkSummary(
        name=b.name,
        parameters=b.parameters,
        features=b.features,
        weights=b.weights,
        weights_hash=b.weights_hash,
        licence=b.licence,
        origin=b.origin,
        pretrained_on=b.pretrained_on,
        preprocess=from_json(InputSummary, plain(b.preprocess), "preprocess"),
    )


def candidate_summary(
    candidate: Candidate, chosen: bool, groups: np.ndarray, decided: Candidate | None = None
) -> CandidateSummary:
    """Return the entry of a candidate.

    Args:
        candidate: The candidate.
        chosen: Whether it was chosen.
        groups: Clusters of its held-out images, from `folder.clusters_of`.
        decided: The chosen candidate with its threshold. The entry holds the accuracy used for the choice, and in
            `at_threshold` the accuracy at the threshold.
    """
    card, val = candidate.classifier.card, candidate.val
    at_threshold = None
    final = None if decided is None else decided.classifier.card
    if decided is not None and final is not None and final.threshold is not None:
        interval = _accuracy(decided.val, groups, final.positive)
        at_threshold = ThresholdScore(len(val), final.threshold, final.threshold_by, final.positive, *interval)
    return CandidateSummary(
        method=card.method,
        label=candidate.label,
        val=CandidateScore(
            len(val), *_accuracy(val, groups, card.positive), log_loss=candidate.val_log_loss, estimate=candidate.estimate
        ),
        backbone=card.backbone.name,
        head=card.head,
        at_threshold=at_threshold,
        seconds=candidate.seconds,
        chosen=chosen,
        note=candidate.note,
        parameters=card.backbone.parameters + int(sum(np.size(a) for a in candidate.classifier.head.arrays.values())),
        settings=dict(candidate.classifier.head.settings),
    )


def _accuracy(val: Predictions, groups: np.ndarray, positive: str | None) -> tuple[float, float, float]:
    """Return the accuracy and the ends of its 95 % interval."""
    right = int((val.y_pred == val.y_true).sum())
    low, high = evaluation.accuracy_interval(val, groups, positive=positive)
    return right / len(val), low, high
