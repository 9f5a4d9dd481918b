"""Audit of the images of a run, and thumbnails of its findings."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sightline import pixels
from sightline.audit import findings
from sightline.errors import ImageError
from sightline.records import Backbone, Catalog, RunRecord
from sightline.records.audit import AuditRecord, DuplicatePicture
from sightline.records.candidates import ShortcutCheck
from sightline.runs.dataset import Dataset
from sightline.runs.folder import MOST_LISTED
from sightline.runs.plan import Plan
from sightline.store import digest, write_bytes
from sightline.training.context import Context, extract

MOST_PICTURES = 60
_PICTURED_SETS, _PICTURED_IN_SET = 8, 6
THUMBNAIL_PX = 220


def network_of(record: RunRecord, plan: Plan) -> Backbone | None:
    """Return the network of the most accurate candidate whose features the run has extracted; None if there is none."""
    fitted = sorted(record.candidates, key=lambda c: -(c.val.accuracy if c.val is not None else 0.0))
    found = (plan.backbones.get(c.backbone or "") for c in fitted)
    return next((backbone for backbone in found if backbone is not None), None)


def describe(
    folder: Path,
    found: Dataset,
    context: Context,
    backbone: Backbone | None,
    shortcut: ShortcutCheck | None,
    *,
    test_scored: bool = False,
) -> AuditRecord:
    """Return the block `audit` of run.json on train and val, and write thumbnails.

    Label suspects among test images are added only after the test split was scored; they do not affect those of train and val.

    Args:
        folder: The run folder.
        found: All images and their duplicates.
        context: Usable images.
        backbone: Network of the features; None judges no labels.
        shortcut: The shortcut check of the run; None if it was not carried out.
        test_scored: Whether the test split was scored.
    """
    judged = _judged(context, backbone, context.split("train", "val"))
    record = findings.record(found.catalog, found.twins, judged, shortcut)
    if test_scored and judged.features is not None and len(context.split("test")):
        every = findings.suspects(_judged(context, backbone, context.split("train", "val", "test")))
        suspects = sorted([*record.label_suspects, *(s for s in every if s.split == "test")], key=lambda s: -s.score)
        judged_n = record.judged + len(context.split("test"))
        record = dataclasses.replace(record, label_suspects=suspects, test_included=True, judged=judged_n)
    short = [*record.likely, *(s for s in record.label_suspects if not s.likely)][:MOST_LISTED]
    record = dataclasses.replace(
        record, label_suspects=short, problems=record.problems[:MOST_LISTED], shortcut=None, created=None, sightline=None
    )
    return with_pictures(folder, found.catalog, record)


def _judged(context: Context, backbone: Backbone | None, rows: np.ndarray) -> findings.Judged:
    """Return images whose labels are judged, with their features if there is a network."""
    if backbone is None or not len(rows):
        return findings.Judged(context, rows, None, backbone)
    extracted = extract(context, backbone, "f32", rows)
    values = extracted.values.copy()
    values[~extracted.ok] = np.nan
    return findings.Judged(context, rows, values, backbone)


def with_pictures(folder: Path, catalog: Catalog, found: AuditRecord) -> AuditRecord:
    """Write thumbnails of the first findings and return the record with their names."""
    likely = found.likely[:MOST_PICTURES]
    shown = {s.path for s in likely}
    suspects = [
        dataclasses.replace(s, thumbnail=thumbnail(folder, catalog, s.path)) if s.path in shown else s
        for s in found.label_suspects
    ]
    outliers = [
        dataclasses.replace(o, thumbnail=thumbnail(folder, catalog, o.path)) if i < MOST_PICTURES else o
        for i, o in enumerate(found.outliers)
    ]
    kinds: tuple[tuple[str, Sequence[Sequence[str]]], ...] = (
        ("conflicting labels", found.conflicts),
        ("in more than one split", found.leaks),
        ("same picture", found.near_duplicates),
        ("identical files", found.exact_duplicates),
        ("same scene", found.same_scene),
    )
    sets = [
        DuplicatePicture(kind, list(paths), [thumbnail(folder, catalog, p) for p in paths[:_PICTURED_IN_SET]])
        for kind, each in kinds
        for paths in each[:_PICTURED_SETS]
    ]
    return dataclasses.replace(found, label_suspects=suspects, outliers=outliers, pictures=sets)


def thumbnail(folder: Path, catalog: Catalog, path: str) -> str | None:
    """Write a small picture of an image into the folder, and return its name; None if it cannot be decoded."""
    from PIL import Image

    name = f"pictures/{digest(path)[:16]}.jpg"
    if (folder / name).is_file():
        return name
    try:
        small = pixels.upright(catalog.file(path), THUMBNAIL_PX)
    except (ImageError, OSError):
        return None
    data = io.BytesIO()
    Image.fromarray(small).save(data, "JPEG", quality=85)
    write_bytes(folder / name, data.getvalue())
    return name
