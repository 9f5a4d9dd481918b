"""Executor on a Ray cluster: images are read, decoded and run through networks there; what remains runs on the driver."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import classifier, containers
from sightline.errors import SightlineError
from sightline.records import Catalog, Predictions, Progress, silent
from sightline.runs import executor
from sightline.scale import pipeline, scanning, training, tuning
from sightline.store import Cache

if TYPE_CHECKING:
    from sightline.classifier import Classifier, Sessions
    from sightline.engine import Precision
    from sightline.features import FeatureRequest, Features
    from sightline.records import Backbone, Recipe
    from sightline.studies import cross_validation, tune
    from sightline.training.context import Candidate, Context

_MOST_NAMED = 5


class RayExecutor(executor.Local):
    """Ray cluster that `cluster.connected` has joined.

    Features are computed on the cluster and written to the shared store; then the same functions as on one machine find them
    there, so that results are equal. Heads are fitted, and probabilities computed, on the driver.

    Args:
        workers: Number of processes that train one network together; None for one per GPU, or one per machine without GPUs.
    """

    part_images = 16_384
    cached_images = math.inf

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    def scan(self, photos: Any, *, progress: Progress = silent, **options: Any) -> Catalog:
        """List the images of a folder or table: the files are listed on the driver and read on the cluster."""
        read = functools.partial(scanning.read_files, cache=Cache())
        return super().scan(photos, progress=progress, read=read, **options)

    def features(self, context: Context, backbone: Backbone, precision: Precision, rows: np.ndarray) -> Features:
        """Return the features of rows of the context's catalog."""
        return super().features(self._distributing(context), backbone, precision, rows)

    def predict(
        self,
        model: Classifier,
        images: Any,
        *,
        crops: int | None = None,
        cache: Cache | None = None,
        device: str = "auto",
        progress: Progress = silent,
        contents: Sequence[str] | None = None,
        sessions: Sessions | None = None,
    ) -> Predictions:
        """Return the predictions of images. A file that makes its worker raise or end has an error that names it."""
        cache = Cache() if cache is None else cache
        named: dict[str, Any] = {"crops": crops, "cache": cache, "device": device, "progress": progress, "sessions": sessions}
        unread: dict[str, str] = {}
        if isinstance(images, Catalog):
            files, contents = images.files(), [c or "" for c in images.column("content")]
        elif len(images) and isinstance(images[0], np.ndarray):
            return model.predict(images, **named)
        else:
            if contents is None:
                given = [images] if isinstance(images, str | Path) else images
                images, unread = classifier.find_images(given)
                if not images:
                    raise classifier.no_image(given, unread)
                contents = [_digest_or_none(file) for file in images]
            files = [Path(file) for file in images]
        failures: dict[str, str] = {}
        for request in model.feature_requests(crops):
            failures |= pipeline.compute(files, contents, request, cache, _device(device), progress)
        good = [content not in failures for content in contents]
        if isinstance(images, Catalog):
            answers = model.predict(images.rows(good), **named)
            names = images.paths
        else:
            chosen = [i for i, fine in enumerate(good) if fine]
            answers = model.predict([files[i] for i in chosen], contents=[contents[i] for i in chosen], **named)
            names = [str(file) for file in files]
        failed = {name: failures[c] for name, c, fine in zip(names, contents, good, strict=True) if not fine}
        return dataclasses.replace(answers, errors={**answers.errors, **failed, **unread})

    def fit(self, context: Context, recipe: Recipe) -> list[Candidate]:
        """Fit a recipe: features on the cluster and heads on the driver; training by epochs in several processes.

        A fit that is watched or has a time limit trains in the driver's process.
        """
        from sightline.training.methods import method_of

        alone = context.watch is not None or context.deadline.limited or not method_of(recipe).distributed
        count = 1 if alone else training.processes(self.workers)
        if count > 1:
            return training.fit(context, recipe, count)
        return super().fit(self._distributing(context), recipe)

    def fit_fold(self, context: Context, recipe: Recipe, part: cross_validation.Part) -> cross_validation.Fitted:
        """Fit one fold of a cross-validation and predict its images."""
        return super().fit_fold(self._distributing(context), recipe, part)

    def search(
        self,
        context: Context,
        recipe: Recipe,
        limits: tune.SearchLimits,
        storage: Path,
        *,
        save: Callable[[int, Predictions], None],
        on_trial: Callable[[tune.Trial], None],
    ) -> list[tune.Trial]:
        """Run the trials of a search: those of a round at the same time, as tasks; the study's database stays on the driver."""
        from sightline.studies import tune

        distributing = self._distributing(context)
        run = tuning.fit_all if limits.concurrent > 1 else None
        return tune.search(distributing, recipe, limits, storage, save=save, on_trial=on_trial, run=run)

    @staticmethod
    def _distributing(context: Context) -> Context:
        """Return the context whose features are computed on the cluster."""

        def compute(files: Sequence[Path], contents: Sequence[str], request: FeatureRequest) -> None:
            failures = pipeline.compute(files, contents, request, context.cache, context.device, context.progress)
            if failures:
                messages = list(failures.values())
                more = f", and {len(messages) - _MOST_NAMED} more" if len(messages) > _MOST_NAMED else ""
                raise SightlineError("; ".join(messages[:_MOST_NAMED]) + more, "leave these files out, and start again")

        return dataclasses.replace(context, compute_features=compute)


def _digest_or_none(file: Path) -> str:
    """Return the hash of a file's bytes, or "" if it cannot be read; decoding then reports why."""
    try:
        return containers.digest(file)
    except (OSError, SightlineError):
        return ""


def _device(device: str) -> str:
    """Return the device with `auto` resolved on the driver."""
    from sightline import engine

    return engine.choose_device(device)
