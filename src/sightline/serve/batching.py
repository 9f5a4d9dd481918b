"""Micro-batching: predict the images of concurrent requests together, from a bounded queue."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from sightline.classifier import Decoded, Resident
from sightline.records import Predictions

MOST_BATCHED = 16
"""Maximum number of images that are predicted together, unless one request has more."""
MOST_WAITING = 512
"""Maximum number of images of all requests that are being decoded or wait; more are refused."""


class QueueFullError(Exception):
    """The queue has no room for the images of a request."""


@dataclass(slots=True)
class _Job:
    """Decoded images of one request.

    Args:
        images: n images.
        crops: Crops per image; None for the classifier's own number.
        future: Receives their predictions, with the names "0" to "n - 1".
    """

    images: Sequence[Decoded]
    crops: int | None
    future: Future[Predictions] = field(default_factory=Future)


class Batcher:
    """Thread that predicts what waits, without waiting for more: one request alone is not delayed.

    Args:
        model: The classifier.
        on_batch: Called with the number of images of each batch.
    """

    def __init__(self, model: Resident, on_batch: Callable[[int], None]) -> None:
        self._model, self._on_batch = model, on_batch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._reserved = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="sightline-batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return the number of images that are being decoded, wait, or are being predicted."""
        return self._reserved

    def reserve(self, images: int) -> None:
        """Reserve room in the queue before images are decoded; `release` frees it.

        Raises:
            QueueFullError: If there is not enough room.
        """
        with self._changed:
            if self._reserved + images > MOST_WAITING:
                raise QueueFullError
            self._reserved += images

    def release(self, images: int) -> None:
        """Free reserved room."""
        with self._changed:
            self._reserved -= images

    def submit(self, images: Sequence[Decoded], crops: int | None) -> Future[Predictions]:
        """Queue decoded images; the future has their predictions, named "0" to "n - 1"."""
        job = _Job(images, crops)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Predict what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=60)

    def _next(self) -> list[_Job]:
        """Wait for jobs, and return those that are predicted together; none once the batcher is closed."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            jobs: list[_Job] = []
            total = 0
            while self._jobs and (not jobs or (total < MOST_BATCHED and self._jobs[0].crops == jobs[0].crops)):
                jobs.append(self._jobs.popleft())
                total += len(jobs[-1].images)
            return jobs

    def _work(self) -> None:
        """Predict batches until the batcher is closed."""
        while jobs := self._next():
            images = [image for job in jobs for image in job.images]
            self._on_batch(len(images))
            try:
                predictions = self._model.predict(images, [str(i) for i in range(len(images))], crops=jobs[0].crops)
            except BaseException as error:  # each request reports it; the thread goes on
                for job in jobs:
                    job.future.set_exception(error)
                continue
            start = 0
            for job in jobs:
                job.future.set_result(_part(predictions, start, len(job.images)))
                start += len(job.images)


def _part(predictions: Predictions, start: int, count: int) -> Predictions:
    """Return the predictions of the images named `start` to `start + count - 1`, named "0" to `count - 1`."""
    names = {str(start + i): str(i) for i in range(count)}
    if not predictions.errors:
        part = predictions.select(slice(start, start + count))  # type: ignore[arg-type]
    else:
        part = predictions.select([i for i, path in enumerate(predictions.paths) if path in names])  # type: ignore[arg-type]
    errors = {names[path]: why for path, why in predictions.errors.items() if path in names}
    return dataclasses.replace(part, paths=tuple(names[path] for path in part.paths), errors=errors)
