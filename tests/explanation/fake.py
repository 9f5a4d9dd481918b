"""Session without a network: the image is the feature map, and the test sets the tail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sightline.records import Backbone, Preprocess


def mean_tail(maps: np.ndarray) -> np.ndarray:
    """(n, c, h, w) → (n, c)."""
    return np.asarray(maps.mean(axis=(2, 3)))


@dataclass
class FakeSession:
    """Maps float32 (n, c, h, w) for images of the same index; counts what it is asked."""

    maps: np.ndarray
    tail_is_mean: bool = True
    tail_of: Callable[[np.ndarray], np.ndarray] = mean_tail
    pool: str = "avg"
    runs: int = 0
    tails: int = 0
    preprocess: Preprocess = field(default_factory=Preprocess)
    net: Any = None

    @property
    def backbone(self) -> Backbone:
        channels, height, width = self.maps.shape[1:]
        features = channels if self.pool == "avg" else channels * height * width
        return Backbone("fake", "timm", self.preprocess, features, pool=self.pool, map_shape=(channels, height, width))  # type: ignore[arg-type]

    def run(self, images: np.ndarray, maps: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        self.runs += 1
        last = self.maps[images[:, 0, 0, 0]]
        return self.tail_of(last), last if maps else None

    def network(self) -> Any:
        return self.net

    def tail(self, maps: np.ndarray) -> np.ndarray:
        self.tails += 1
        return self.tail_of(maps)

    def tail_gradient(self, last: np.ndarray, weights: np.ndarray) -> np.ndarray:
        step = 1e-3
        gradient = np.zeros_like(last)
        for place in np.ndindex(*last.shape):
            up, down = last.astype(np.float64), last.astype(np.float64)
            up[place] += step
            down[place] -= step
            gradient[place] = float(((self.tail_of(up) - self.tail_of(down)) @ weights)[0] / (2 * step))
        return gradient


def numbered(n: int) -> np.ndarray:
    """Images uint8 (n, 1, 1, 3) whose first value is their index."""
    return np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1).repeat(3, axis=3)
