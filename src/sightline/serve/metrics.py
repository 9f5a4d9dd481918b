"""Counters of the HTTP service in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

KNOWN_PATHS = frozenset(
    ("/", "/predict", "/model", "/healthz", "/metrics", "/openapi.json", "/app.js", "/style.css", "/try.css")
)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class _Histogram:
    """Counts of values up to each limit, their sum and number."""

    def __init__(self, limits: Sequence[float]) -> None:
        self.limits = limits
        self.counts = [0] * len(limits)
        self.total, self.number = 0.0, 0

    def add(self, value: float) -> None:
        for i, limit in enumerate(self.limits):
            self.counts[i] += value <= limit
        self.total += value
        self.number += 1

    def lines(self, name: str) -> list[str]:
        buckets = [f'{name}_bucket{{le="{limit:g}"}} {count}' for limit, count in zip(self.limits, self.counts, strict=True)]
        return [
            *buckets,
            f'{name}_bucket{{le="+Inf"}} {self.number}',
            f"{name}_sum {self.total:g}",
            f"{name}_count {self.number}",
        ]


class Metrics:
    """Counters of requests, images and batches; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._images: Counter[str] = Counter()
        self._seconds, self._batches = _Histogram(_SECONDS), _Histogram(_IMAGES)
        self.waiting: Callable[[], int] = lambda: 0

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one finished request. Unknown paths and methods share one label, so that clients cannot fill the memory."""
        known = path if path in KNOWN_PATHS else "other"
        verb = method if method in ("GET", "POST", "HEAD") else "other"
        with self._lock:
            self._requests[verb, known, status] += 1
            if known == "/predict":
                self._seconds.add(seconds)

    def images(self, outcome: str, number: int = 1) -> None:
        """Count images by outcome: `predicted`, or the kind of the error."""
        with self._lock:
            self._images[outcome] += number

    def batch(self, number: int) -> None:
        """Count one forward pass of this number of images."""
        with self._lock:
            self._batches.add(number)

    def text(self) -> str:
        """Return all counters in the text format of Prometheus, version 0.0.4."""
        with self._lock:
            lines = ["# HELP sightline_requests_total HTTP requests.", "# TYPE sightline_requests_total counter"]
            for (method, path, status), count in sorted(self._requests.items()):
                lines.append(f'sightline_requests_total{{method="{method}",path="{path}",status="{status}"}} {count}')
            lines += ["# HELP sightline_images_total Images by outcome.", "# TYPE sightline_images_total counter"]
            lines += [f'sightline_images_total{{outcome="{name}"}} {count}' for name, count in sorted(self._images.items())]
            lines += ["# HELP sightline_predict_seconds Duration of /predict.", "# TYPE sightline_predict_seconds histogram"]
            lines += self._seconds.lines("sightline_predict_seconds")
            lines += ["# HELP sightline_batch_images Images per batch.", "# TYPE sightline_batch_images histogram"]
            lines += self._batches.lines("sightline_batch_images")
            lines += ["# HELP sightline_waiting_images Images in the queue.", "# TYPE sightline_waiting_images gauge"]
            lines.append(f"sightline_waiting_images {self.waiting()}")
        return "\n".join(lines) + "\n"
