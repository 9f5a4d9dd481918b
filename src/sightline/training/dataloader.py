"""Data loader: shuffle and augment labelled images in memory, and prepare one batch ahead of the training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sightline import store
from sightline.training import augment
from sightline.training.hardware import fits
from sightline.training.progressive_resizing import resized

Batch = tuple[Tensor, Tensor]
SCORED_AT_ONCE = 64
"""Batch size of evaluation."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Labelled images in memory, or in a memory-mapped file.

    Args:
        images: uint8 (n, h, w, 3).
        y: int64 (n,), class indices.
    """

    images: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Split an order of images into batches of nearly equal size, none of a single image, since BatchNorm needs two.

    Example:
        >>> [len(b) for b in batches(np.arange(9), 4)], [len(b) for b in batches(np.arange(3), 2)]
        ([3, 3, 3], [3])
    """
    return np.array_split(order, max(1, min(math.ceil(len(order) / batch_size), len(order) // 2)))


def balanced_rows(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the images of an epoch with balanced sampling, int64 (n,): the numbers of images per class differ by at most one.

    Images of a class are drawn without replacement until all were shown, and then again.

    Args:
        y: int64 (n,), class indices.
        rng: Random numbers for the order of images and for the classes with one image more.
    """
    present = rng.permutation(np.unique(y))
    rows = []
    for place, label in enumerate(present):
        members = np.flatnonzero(y == label)
        wanted = len(y) // len(present) + (place < len(y) % len(present))
        turns = [rng.permutation(members) for _ in range(math.ceil(wanted / len(members)))]
        rows.append(np.concatenate([members[:0], *turns])[:wanted])
    return np.concatenate(rows)


@dataclass(frozen=True, slots=True)
class DataLoader:
    """Loader of augmented training images.

    Args:
        data: Images and labels.
        policy: Augmentation.
        mean, std: Normalisation of the network, for pixels in 0 to 1.
        device: Device of the network; all images are copied there at once if they take less than `hardware.SHARE` of its free
            memory, else batch by batch.
        seed: Random seed of order and augmentation.
        sampling: `plain` shows every image once per epoch, `balanced` every class equally often.
    """

    data: Pixels
    policy: augment.Policy
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device
    seed: int
    sampling: Literal["plain", "balanced"] = "plain"
    images: Tensor = field(init=False)
    mean_rgb: np.ndarray = field(init=False)
    principal: np.ndarray | None = field(init=False)

    def __post_init__(self) -> None:
        images = torch.from_numpy(np.ascontiguousarray(self.data.images))
        object.__setattr__(self, "images", images.to(self.device) if fits(images.nbytes, self.device) else images)
        colours = [image.mean(axis=(0, 1), dtype=np.float64) for image in self.data.images]
        object.__setattr__(self, "mean_rgb", np.array(colours).reshape(-1, 3))
        principal = augment.principal_colours(self.data.images) if self.policy.pca else None
        object.__setattr__(self, "principal", principal)

    def epoch(
        self,
        epoch: int,
        batch_size: int,
        *,
        skip: int = 0,
        side: int | None = None,
        share: Callable[[int], slice] | None = None,
    ) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch, float32 (n, 3, h, w) and int64 (n,), each prepared while the one before is used.

        Order and augmentation are functions of seed, epoch and position in the epoch's list of images, so that skipping batches
        does not change the others.

        Args:
            epoch: Number of the epoch, from 1.
            batch_size: Approximate batch size.
            skip: Number of batches to skip at the beginning.
            side: Side of smaller square images, in pixels; None uses the full size.
            share: Batch size → slice of the images to prepare; all labels are returned. None prepares all images.
        """
        n = len(self.data)
        shown = np.arange(n)
        if self.sampling == "balanced":
            shown = balanced_rows(self.data.y, store.stream(self.seed, "sampling", epoch))
        full = self.data.images.shape[1]
        side = full if side is None else side
        changes = self._changes(shown, epoch).at(side / full)
        plan = batches(store.stream(self.seed, "order", epoch).permutation(n), batch_size)[skip:]

        def make(places: np.ndarray) -> Batch:
            shared_places = places if share is None else places[share(len(places))]
            pixels = self.images[torch.from_numpy(shown[shared_places]).to(self.images.device)].to(self.device)
            x = augment.apply(resized(pixels, side), changes.rows(shared_places).to(self.device))
            return x, torch.from_numpy(self.data.y[shown[places]]).to(self.device)

        if plan:
            yield from _ahead(plan, make)

    def _changes(self, shown: np.ndarray, epoch: int) -> augment.Changes:
        """Return the augmentation of the images of an epoch."""
        drawn = augment.draw(self.policy, len(shown), seed=self.seed, epoch=epoch)
        height, width = self.data.images.shape[1:3]
        return augment.prepare(
            drawn,
            (height, width),
            self.mean_rgb[shown],
            self.mean,
            self.std,
            padding=self.policy.padding,
            principal=self.principal,
        )


def _ahead(plan: Sequence[np.ndarray], make: Callable[[np.ndarray], Batch]) -> Generator[Batch, None, None]:
    """Yield the batches of a plan, each prepared in the background while the one before it is used."""
    # The worker uses one thread: a second pool of threads would compete with that of the training step.
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1, "augment", initializer=torch.set_num_threads, initargs=(1,)) as worker:
            ahead = worker.submit(make, plan[0])
            for following in plan[1:]:
                ready, ahead = ahead, worker.submit(make, following)
                yield ready.result()
            yield ahead.result()
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def evaluate(network: nn.Module, data: Pixels, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Tensor:
    """Return logits on unchanged images, float32 (n, k) on the CPU, computed in float32 and eval mode.

    The mode of the network is restored.
    """
    mode = network.training
    network.eval()
    try:
        out = []
        for start in range(0, len(data), SCORED_AT_ONCE):
            images = torch.from_numpy(np.ascontiguousarray(data.images[start : start + SCORED_AT_ONCE])).to(device)
            same = augment.unchanged(len(images), mean, std).to(device)
            out.append(network(augment.apply(images, same)).float().cpu())
        return torch.cat(out)
    finally:
        network.train(mode)
