"""Prediction: classes of new images with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline import classifier
from sightline.evaluation import conformal
from sightline.records import Predictions, Progress, Uncertainty, silent
from sightline.runs import executor
from sightline.store import Cache


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predictions of a set of images with their uncertainty.

    Args:
        predictions: The predicted probabilities.
        uncertainty: Prediction sets and uncertain predictions; None if the classifier holds no calibration for them.
        calibration: The settings of uncertainty stored with the classifier.
    """

    predictions: Predictions
    uncertainty: conformal.UncertaintyFit | None
    calibration: Uncertainty


def predict(
    model: str | Path,
    paths: Sequence[str | Path],
    *,
    sets: float | None = None,
    crops: int | None = None,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Prediction:
    """Predict the class of images.

    Args:
        model: Run folder, or classifier file.
        paths: Image files, or folders of images.
        sets: Probability with which a prediction set contains the true class, in (0, 1); None for the default.
        crops: Crops per image, 1, 5 or 10. Default: as trained.
        code: `file.py:function` that builds a user-defined network.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Progress callback.
        cache: Cache. Default: the user's cache.

    Raises:
        RequestError: If the classifier or the images do not exist, or too few calibration images support `sets`.
    """
    loaded = classifier.load(model, code=code)
    cache = Cache() if cache is None else cache
    predictions = executor.current().predict(loaded, list(paths), crops=crops, device=device, progress=progress, cache=cache)
    return Prediction(predictions, loaded.uncertainty(predictions, sets), loaded.card.uncertainty)
