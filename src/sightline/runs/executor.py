"""Executors run the work of a command: the operations that commands need, and their implementation on this machine."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sightline import catalog as catalogs
from sightline.records import Catalog, Predictions, Progress, Recipe, silent

if TYPE_CHECKING:  # imported by the methods that need them: `scan` and `predict` start without training
    import numpy as np

    from sightline.classifier import Classifier, Sessions
    from sightline.engine import Precision
    from sightline.features import Features
    from sightline.records import Backbone
    from sightline.store import Cache
    from sightline.studies import cross_validation, tune
    from sightline.training.context import Candidate, Context


class Executor(Protocol):
    """Operations on all images of a dataset, or on all fits of a study, that may run on other machines.

    Every implementation returns what `Local` returns for the same arguments: the same rows in the same order, and features
    under the same keys of the cache.

    Attributes:
        part_images: Number of images that commands pass to `predict` at a time.
        cached_images: Number of images of a job whose features are cached.
    """

    part_images: int
    cached_images: float

    def scan(self, photos: Any, *, progress: Progress = silent, **options: Any) -> Catalog:
        """List the images of a folder or table; see `catalog.scan`."""

    def features(self, context: Context, backbone: Backbone, precision: Precision, rows: np.ndarray) -> Features:
        """Return the features of rows of the context's catalog; see `training.context.extract`."""

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
        """Return the predictions of images; see `Classifier.predict`."""

    def fit(self, context: Context, recipe: Recipe) -> list[Candidate]:
        """Fit a recipe; see `training.methods.fit`."""

    def fit_fold(self, context: Context, recipe: Recipe, part: cross_validation.Part) -> cross_validation.Fitted:
        """Fit one fold of a cross-validation and predict its images; see `studies.cross_validation.fit_part`."""

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
        """Run the trials of a search; see `studies.tune.search`."""


class Local:
    """This machine and this process."""

    part_images: int = 1024  # at most so many are lost when the process is killed
    cached_images: float = 10_000  # of a larger job, caching all would cost more than it saves

    def scan(self, photos: Any, *, progress: Progress = silent, **options: Any) -> Catalog:
        """List the images of a folder or table."""
        return catalogs.scan(photos, progress=progress, **options)

    def features(self, context: Context, backbone: Backbone, precision: Precision, rows: np.ndarray) -> Features:
        """Return the features of rows of the context's catalog."""
        from sightline.training.context import extract

        return extract(context, backbone, precision, rows)

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
        """Return the predictions of images."""
        return model.predict(
            images, crops=crops, cache=cache, device=device, progress=progress, contents=contents, sessions=sessions
        )

    def fit(self, context: Context, recipe: Recipe) -> list[Candidate]:
        """Fit a recipe."""
        from sightline.training import methods

        return methods.fit(context, recipe)

    def fit_fold(self, context: Context, recipe: Recipe, part: cross_validation.Part) -> cross_validation.Fitted:
        """Fit one fold of a cross-validation and predict its images."""
        from sightline.studies import cross_validation

        return cross_validation.fit_part(context, recipe, part)

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
        """Run the trials of a search one after the other."""
        from sightline.studies import tune

        return tune.search(context, recipe, limits, storage, save=save, on_trial=on_trial)


_current: ContextVar[Executor] = ContextVar("_current", default=Local())  # noqa: B039 - it has no state


def current() -> Executor:
    """Return the executor of the running command."""
    return _current.get()


@contextlib.contextmanager
def using(executor: Executor) -> Iterator[None]:
    """Run the commands inside the block on another executor. Only `cli` and the Python interface call this."""
    token = _current.set(executor)
    try:
        yield
    finally:
        _current.reset(token)


@functools.wraps(catalogs.scan)
def scan(photos: Any, **options: Any) -> Catalog:
    """List the images of a folder or table on the current executor."""
    return current().scan(photos, **options)
