"""Audit: all findings on the images of a catalog, as one record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import __version__, networks
from sightline import catalog as catalogs
from sightline.audit.label_errors import label_suspects
from sightline.audit.outliers import outlier_scores
from sightline.audit.pretraining import pretraining_overlap
from sightline.catalog import Duplicates
from sightline.errors import DataError, RequestError, WeightsError
from sightline.records import Backbone, Catalog
from sightline.records.audit import AuditRecord, LabelSuspect, Outlier, PretrainingOverlap, Suggestion
from sightline.records.candidates import ShortcutCheck
from sightline.records.data_summary import FileProblem
from sightline.schema import from_json
from sightline.store import log, stream
from sightline.training.context import Context
from sightline.training.methods import shortcut

MOST_OUTLIERS = 200
_MOST_MAPPED = 4_000
"""Images on which the pretraining overlap is measured."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Images whose labels are judged, with their features.

    Args:
        context: Usable images, labels, splits and clusters.
        rows: int64 (m,), rows of `context.catalog`.
        features: float32 (m, d), NaN for images without any; None without a network.
        backbone: The network; None without one.
    """

    context: Context
    rows: np.ndarray
    features: np.ndarray | None = None
    backbone: Backbone | None = None

    @property
    def labels(self) -> np.ndarray:
        """Class indices of the judged images, int64 (m,)."""
        return np.asarray(self.context.labels[self.rows])


def record(catalog: Catalog, duplicates: Duplicates, judged: Judged, shortcuts: ShortcutCheck | None = None) -> AuditRecord:
    """Return the findings on a catalog.

    Args:
        catalog: All rows, unusable ones included.
        duplicates: Result of `find_duplicates`.
        judged: Images whose labels are judged.
        shortcuts: The result of the shortcut check; None computes it.
    """
    context = judged.context
    overlap, notes = _overlap(judged), [catalogs.NOT_LOOKED_FOR]
    if judged.backbone is None:
        notes.append("Label errors, outliers and pretraining overlap need a network, and none was available or asked for.")
    groups = catalogs.suggest_groups(catalog, context.cache, context.progress)
    return AuditRecord(
        images=len(catalog),
        exact_duplicates=duplicates.exact,
        near_duplicates=duplicates.near,
        same_scene=[*duplicates.same_scene, *duplicates.crowded_scenes],
        leaks=catalogs.leak_sets(catalog, duplicates),
        conflicts=duplicates.conflicts,
        label_suspects=suspects(judged),
        outliers=_outliers(judged),
        problems=_problems(catalog, context),
        shortcut=find_shortcuts(context, judged.rows) if shortcuts is None else shortcuts,
        pretraining=overlap,
        groups=[Suggestion(each.sentence, each.pattern, each.images) for each in groups],
        network=None if judged.backbone is None else judged.backbone.name,
        judged=len(judged.rows),
        notes=notes,
        sightline=__version__,
    )


def _problems(catalog: Catalog, context: Context) -> list[FileProblem]:
    """Return the unusable images, then the odd ones: blurred, dark, bright, of odd size, …"""
    wrong = zip(catalog.paths, catalog.column("problem"), strict=True)
    unusable = [FileProblem(path, problem) for path, problem in wrong if problem is not None]
    odd = catalogs.quality_findings(catalog, catalogs.measure(catalog, context.cache, context.progress))
    return [*unusable, *(FileProblem(each.path, f"{each.kind.replace('_', ' ')}: {each.detail}") for each in odd)]


def find_shortcuts(context: Context, rows: np.ndarray) -> ShortcutCheck | None:
    """Return the classes that file properties give away; None if too few images allow to tell.

    Args:
        context: Usable images.
        rows: int64 (m,), rows of the catalog that may be used.
    """
    if len(np.unique(context.labels[rows])) < 2:
        return None
    allowed = set(rows.tolist())
    splits = ["train" if i in allowed else None for i in range(len(context.catalog))]
    inner = dataclasses.replace(context, catalog=context.catalog.with_column("split", splits))
    try:
        detail = shortcut.detail(inner)
    except DataError:  # every class has one image only
        detail = shortcut.with_rules({}, shortcut.find_rules(inner, rows))
    return from_json(ShortcutCheck, detail, "shortcut check", "key")


def suspects(judged: Judged) -> list[LabelSuspect]:
    """Return the judged images by how suspect their label is, the most suspect first; none without features."""
    if judged.features is None:
        return []
    context, rows, labels = judged.context, judged.rows, judged.labels
    paths, splits = context.catalog.paths, context.catalog.column("split")
    found = label_suspects(judged.features, labels, len(context.classes), context.cluster[rows])
    return [
        LabelSuspect(
            path=paths[rows[i]],
            label=context.classes[labels[i]],
            suggested=context.classes[found.suggested[i]],
            score=round(float(found.score[i]), 4),
            likely=bool(found.likely[i]),
            split=splits[rows[i]],
        )
        for i in found.order
    ]


def _outliers(judged: Judged) -> list[Outlier]:
    """Return the images unlike all other judged images, the farthest first; none without features."""
    if judged.features is None:
        return []
    context, rows, paths = judged.context, judged.rows, judged.context.catalog.paths
    score, far = outlier_scores(judged.features, context.cluster[rows])
    order = [int(i) for i in np.argsort(-np.nan_to_num(score), kind="stable") if far[i]][:MOST_OUTLIERS]
    named = [context.classes[label] if label >= 0 else None for label in judged.labels]
    return [Outlier(paths[rows[i]], round(float(score[i]), 4), named[i]) for i in order]


def _overlap(judged: Judged) -> PretrainingOverlap | None:
    """Return the overlap with the network's own classes; None if its weights have no classifier or there are too few images."""
    if judged.features is None or judged.backbone is None or not judged.backbone.is_network:
        return None
    rows = np.flatnonzero((judged.labels >= 0) & np.isfinite(judged.features).all(axis=1))
    rows = np.sort(stream(0, "pretraining overlap").permutation(rows)[:_MOST_MAPPED])
    splits = [judged.context.catalog.column("split")[judged.rows[i]] for i in rows]
    held = np.array([split == "val" for split in splits], dtype=bool)
    if held.sum() < 10:  # no validation split: every second image
        held = np.arange(len(rows)) % 2 == 1
    if len(np.unique(judged.labels[rows])) < 2 or held.sum() < 2:
        return None
    try:
        own = networks.own_classifier(judged.backbone, judged.context.cache)
    except (WeightsError, RequestError) as error:
        log.info("no pretraining overlap: %s", error)
        return None
    if own.backbone.id != judged.backbone.id:  # its logits are no linear function of the features
        return None
    logits = judged.features[rows] @ own.weights.T + own.bias
    known: dict[str, Any] = {"fitted": np.flatnonzero(~held), "measured": np.flatnonzero(held), "network": judged.backbone.name}
    return pretraining_overlap(logits, own.classes, judged.labels[rows], judged.context.classes, **known)
