"""Stress test of an evaluation: the block of run.json, with thumbnails of an altered image."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np

from sightline.audit import stress as stressing
from sightline.classifier import Classifier
from sightline.records import Catalog, Predictions, Progress
from sightline.records.stress import StressTest
from sightline.store import Cache, write_bytes

THUMBNAIL_PX = 132


def describe(
    folder: Path,
    model: Classifier,
    catalog: Catalog,
    answers: Predictions,
    groups: np.ndarray,
    *,
    bound: float | None = None,
    positive: str | None = None,
    crops: int | None = None,
    cache: Cache,
    device: str,
    progress: Progress,
) -> StressTest:
    """Return the block `stress` of run.json, and write thumbnails of one image.

    Args:
        folder: The run folder.
        model: The classifier.
        catalog: Holds the images of the predictions.
        answers: Predictions of n labelled images.
        groups: int64 (n,), clusters of images that belong together.
        bound, positive, crops, cache, device, progress: As in `audit.stress.stress_test`.

    Raises:
        RequestError, DataError: As in `audit.stress.stress_test`.
    """
    from PIL import Image

    images = stressing.Stressed([catalog.file(path) for path in answers.paths], answers, groups)
    settings: dict[str, Any] = {"bound": bound, "positive": positive, "crops": crops}
    found, examples = stressing.stress_test(model, images, **settings, cache=cache, device=device, progress=progress)
    scores = []
    for score in found.scores:
        data, name = io.BytesIO(), f"stress/{score.kind}-{score.strength}.jpg"
        picture = Image.fromarray(examples[score.kind, score.strength])
        picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        picture.save(data, "JPEG", quality=90)
        write_bytes(folder / name, data.getvalue())
        scores.append(dataclasses.replace(score, thumbnail=name))
    return dataclasses.replace(found, scores=scores)
